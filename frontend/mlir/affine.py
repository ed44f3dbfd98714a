"""Affine expressions of MLIR as index expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Index, ceildiv, index


def affine(expression: Any, dims: Sequence[Index], symbols: Sequence[Index] = ()) -> Index:
    """The value of an expression whose dims and symbols are these."""
    kind = type(expression).__name__
    if kind == "AffineDimExpr":
        return dims[int(expression.position)]
    if kind == "AffineSymbolExpr":
        return symbols[int(expression.position)]
    if kind == "AffineConstantExpr":
        return index(int(expression.value))
    x, y = (affine(side, dims, symbols) for side in (expression.lhs, expression.rhs))
    if kind == "AffineAddExpr":
        return x + y
    if kind == "AffineMulExpr":
        return x * y
    if kind == "AffineModExpr":
        return x % y
    if kind == "AffineFloorDivExpr":
        return x // y
    if kind == "AffineCeilDivExpr":
        return ceildiv(x, y)
    raise UnsupportedError(f"the affine expression {expression} of torch-mlir", hint="leave --frontend torch-mlir out")


def applied(map: Any, operands: Sequence[Index]) -> Index:
    """The only result of a map (`affine.apply`) on its dims, then its symbols."""
    (expression,) = map.results
    return affine(expression, operands[: map.n_dims], operands[map.n_dims :])
