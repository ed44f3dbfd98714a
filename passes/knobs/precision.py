"""Precision of f32 products: IEEE arithmetic, or operands rounded for a faster unit."""

from __future__ import annotations

from codesign.passes.knobs.room import Unpriced, register


@register
class Precision(Unpriced):
    """How products of f32 operands are computed: `ieee`, or `tf32`, which no cost model prices yet."""

    name = "precision"
    default = "ieee"
