"""Verification: right inputs, a comparison, and how much of a difference rounding explains. Shared by all backends and whole models."""

from codesign.backends.verification.allowance import Allowance, allowance_of
from codesign.backends.verification.compare import Verification, compare, meaning
from codesign.backends.verification.inputs import random_inputs
from codesign.backends.verification.kernel import verify_on
from codesign.backends.verification.shrink import Shrunk, shrink
from codesign.backends.verification.tolerance import difference

__all__ = [
    "Allowance",
    "Shrunk",
    "Verification",
    "allowance_of",
    "compare",
    "difference",
    "meaning",
    "random_inputs",
    "shrink",
    "verify_on",
]
