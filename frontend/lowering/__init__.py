"""Lowering rules from ATen to the tensor IR, in tables by family; importing this package fills the table."""

from codesign.frontend.lowering import (
    activations,
    attention,
    bags,
    convolution,
    creation,
    distances,
    elementwise,
    grouped,
    indexing,
    masks,
    matmul,
    normalization,
    pooling,
    powers,
    random,
    reductions,
    resampling,
    scaled,
    scans,
    strided,
    triangular,
    views,
)
from codesign.frontend.lowering.registry import claimed_operators, lower, rule_for

FAMILIES = (
    elementwise,
    powers,
    activations,
    reductions,
    views,
    strided,
    indexing,
    masks,
    matmul,
    grouped,
    attention,
    convolution,
    pooling,
    normalization,
    scaled,
    scans,
    triangular,
    resampling,
    distances,
    bags,
    random,
    creation,
)

__all__ = ["FAMILIES", "claimed_operators", "lower", "rule_for"]
