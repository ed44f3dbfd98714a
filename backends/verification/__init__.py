"""Verification: right inputs, a comparison, and how much of a difference rounding explains. Shared by all backends and whole models."""

from codesign.backends.verification.compare import Verification, compare
from codesign.backends.verification.inputs import random_inputs
from codesign.backends.verification.shrink import Shrunk, shrink
from codesign.backends.verification.tolerance import difference, tolerance_of

__all__ = ["Shrunk", "Verification", "compare", "difference", "random_inputs", "shrink", "tolerance_of"]
