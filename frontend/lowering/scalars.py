"""Arithmetic on numbers that are only known at run time, as torch's graphs write it with Python's operators."""

from __future__ import annotations

from typing import Any

from codesign.frontend.lowering.builder import Builder
from codesign.ir.dtypes import BOOL, F64, I64
from codesign.ir.functions import FUNCTIONS
from codesign.ir.scalar import Scalar, apply, cast, select

_BINARY = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "truediv": "div",
    "floordiv": "floordiv",
    "mod": "mod",
    "pow": "pow",
    "float_truediv": "div",
    "int_truediv": "div",
    "lt": "lt",
    "le": "le",
    "gt": "gt",
    "ge": "ge",
    "eq": "eq",
    "ne": "ne",
    "sym_max": "max",
    "sym_min": "min",
}
_LOGICAL = {"and_": "and", "or_": "or", "sym_not": "not"}
"""Of truth values; of integers they are bitwise."""
_UNARY = {"neg": "neg", "abs": "abs"}
_WHOLE = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "sym_int": "trunc", "round": "round"}
"""Python's functions that make a float an integer; `round` takes the even one of two that are equally near."""
_REAL = "_sym_"
"""What the names of torch's functions of floats begin with; what follows is the name that the IR has for them."""


def number_expression(b: Builder, name: str, args: list[Any]) -> Scalar:
    """The scalar expression of a call on run-time numbers; floats are computed in f64, as Python does."""
    kind = F64 if any(_is_float(arg) for arg in args) or "truediv" in name else I64
    if name in _LOGICAL:
        truth = BOOL if all(_is_truth(arg) for arg in args) else I64
        return apply(_LOGICAL[name], *(b.number(arg, truth) for arg in args))
    if name == "sym_ite":
        condition, yes, no = (b.number(arg, kind if k else BOOL) for k, arg in enumerate(args))
        return select(condition, yes, no)
    numbers = [b.number(arg, kind) for arg in args if arg is not None]
    if name in ("sym_float", "_sym_float"):
        return b.number(args[0], F64)
    if len(numbers) == 1:
        if name in _WHOLE:
            return cast(apply(_WHOLE[name], numbers[0]), I64) if kind is F64 else numbers[0]
        if name in _UNARY:
            return apply(_UNARY[name], numbers[0])
        if name.startswith(_REAL) and name.removeprefix(_REAL) in FUNCTIONS:
            return apply(name.removeprefix(_REAL), b.number(args[0], F64))
    if name in _BINARY and len(numbers) == 2:
        return apply(_BINARY[name], *numbers)
    hint = "compute with tensors instead, before .item()"
    if name == "round":
        hint = "round the tensor, before .item(): torch.round(x, decimals=n)"
    raise b.unsupported("arithmetic on a number that is only known at run time", hint)


def _is_float(arg: Any) -> bool:
    if isinstance(arg, Scalar):
        return arg.dtype.is_float
    return isinstance(arg, float)


def _is_truth(arg: Any) -> bool:
    if isinstance(arg, Scalar):
        return arg.dtype is BOOL
    return isinstance(arg, bool)
