"""Lowering rules from ATen to the tensor IR, in tables by family; importing this package fills the table."""

from codesign.frontend.lowering import (
    activations,
    creation,
    elementwise,
    matmul,
    normalization,
    reductions,
    views,
)
from codesign.frontend.lowering.registry import claimed_operators, lower, rule_for

FAMILIES = (elementwise, activations, reductions, views, matmul, normalization, creation)

__all__ = ["FAMILIES", "claimed_operators", "lower", "rule_for"]
