"""Powers: of tensors by tensors, and by known numbers."""

from __future__ import annotations

from codesign.frontend.lowering.builder import Builder, Operand, literal, where
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL
from codesign.ir.scalar import Scalar, apply, cast


@lower("aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def power(b: Builder, x: Operand, y: Operand) -> Value:
    return b.pointwise(_power, x, y, compute=opmath(b.dtype), rounded=2)


def _power(a: Scalar, c: Scalar) -> Scalar:
    """a ** c; integers to negative powers are 0 but for 1 and -1, and `True ** c` is a comparison."""
    kind = a.dtype
    if kind.is_float or kind.kind == "uint":
        return apply("pow", a, c)
    if kind is BOOL:
        return apply("or", a, apply("not", c))
    zero, one = literal(0, kind), literal(1, kind)
    negative = apply("lt", c, zero)
    whole = apply("pow", a, where(negative, zero, c))
    odd = apply("ne", apply("mod", c, literal(2, kind)), zero)
    minus = where(apply("eq", a, literal(-1, kind)), where(odd, literal(-1, kind), one), zero)
    return where(negative, where(apply("eq", a, one), one, minus), whole)


@lower("aten.pow.Tensor_Scalar")
def power_scalar(b: Builder, x: Value, exponent: Operand) -> Value:
    """Powers by a known number: squares, cubes and roots become the cheap operation that torch uses for them."""
    compute = opmath(b.dtype)

    def body(a: Scalar) -> Scalar:
        if isinstance(exponent, (int, float)) and not isinstance(exponent, bool):
            if exponent == 1:
                return a
            if exponent == 2:
                return apply("mul", a, a)
            if exponent == 3:
                return apply("mul", apply("mul", a, a), a)
            if compute.is_float:
                one = literal(1, compute)
                if exponent == 0:
                    return one
                if exponent == 0.5:
                    return apply("sqrt", a)
                if exponent == -0.5:
                    return apply("div", one, apply("sqrt", a))
                if exponent == -1:
                    return apply("div", one, a)
                if exponent == -2:
                    return apply("div", one, apply("mul", a, a))
        return _power(a, cast(b.number(exponent, b.dtype), compute))

    return b.pointwise(body, x, compute=compute)
