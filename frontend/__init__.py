"""PyTorch in, tensor IR out: load a model file, capture it, lower its operators."""

from codesign.frontend.capture import Captured, Frontend, capture
from codesign.frontend.load import ModelSource, load_model
from codesign.frontend.lowering.registry import claimed_operators, lower

__all__ = ["Captured", "Frontend", "ModelSource", "capture", "claimed_operators", "load_model", "lower"]
