"""PyTorch in through torch-mlir: its `linalg` on tensors, read into the same tensor IR as the direct way makes."""

from codesign.frontend.mlir.lowering import by_torch_mlir, decompositions, installed

__all__ = ["by_torch_mlir", "decompositions", "installed"]
