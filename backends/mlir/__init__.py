"""Tensor IR as text of MLIR: `linalg` on tensors, for tools that read it."""

from codesign.backends.mlir.module import mlir_text

__all__ = ["mlir_text"]
