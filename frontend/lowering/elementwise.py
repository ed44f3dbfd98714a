"""Element-wise operators: one scalar function per point, arguments promoted and broadcast as torch does.

Arithmetic of float16 and bfloat16 runs in float32 and is rounded once, at the end, as torch's kernels do (`opmath`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from codesign.frontend.lowering.builder import Builder, Operand, Point, literal, where
from codesign.frontend.lowering.promotion import common_dtype, opmath
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, F32, F64, DType
from codesign.ir.scalar import Scalar, apply, cast

# -- one argument, float result (integers are converted to float) --------------------------------------------------------
_FLOAT_UNARY = (
    "acos acosh asin asinh atan atanh cos cosh digamma erf erfc erfinv exp exp2 expm1 lgamma log log10 log1p log2"
    " reciprocal rsqrt sin sinh sqrt tan tanh"
)


def _float_unary(function: str) -> Callable[[Builder, Operand], Value]:
    def rule(b: Builder, x: Operand) -> Value:
        return b.pointwise(lambda a: apply(function, a), x, compute=opmath(b.dtype))

    return rule


for _name in _FLOAT_UNARY.split():
    lower(f"aten.{_name}.default")(_float_unary(_name))


# -- one argument, same dtype ----------------------------------------------------------------------------------------------
def _rounding(function: str) -> Callable[[Builder, Value], Value]:
    def rule(b: Builder, x: Value) -> Value:
        if not b.dtype.is_float:
            return x  # integers are whole already
        return b.pointwise(lambda a: apply(function, a), x, compute=opmath(b.dtype))

    return rule


for _name in ("floor", "ceil", "trunc", "round"):
    lower(f"aten.{_name}.default")(_rounding(_name))


@lower("aten.round.decimals")
def round_decimals(b: Builder, x: Value, *, decimals: int = 0) -> Value:
    if not b.dtype.is_float:
        if decimals >= 0:
            return x
        raise b.unsupported("rounding integers to negative decimals")
    ten, compute = float(10 ** abs(decimals)), opmath(b.dtype)
    up, down = ("mul", "div") if decimals >= 0 else ("div", "mul")

    def body(a: Scalar) -> Scalar:
        scale = literal(ten, compute)
        return apply(down, apply("round", apply(up, a, scale)), scale)

    return b.pointwise(body, x, compute=compute)


@lower("aten.neg.default", "aten._neg_view.default")
def neg(b: Builder, x: Value) -> Value:
    return b.pointwise(lambda a: apply("neg", a), x, compute=opmath(b.dtype))


@lower("aten.abs.default")
def absolute(b: Builder, x: Value) -> Value:
    if b.dtype is BOOL or b.dtype.kind == "uint":
        return x
    return b.pointwise(lambda a: apply("abs", a), x, compute=opmath(b.dtype))


@lower("aten.sign.default", "aten.sgn.default")
def sign(b: Builder, x: Value) -> Value:
    """-1, 0 or 1; NaN gives 0, as torch's kernel has it (it counts comparisons)."""
    if b.dtype is BOOL:
        return x
    compute = opmath(b.dtype)

    def body(a: Scalar) -> Scalar:
        zero, one = literal(0, compute), literal(1, compute)
        if b.dtype.kind == "uint":
            return where(apply("gt", a, zero), one, zero)
        return where(apply("gt", a, zero), one, where(apply("lt", a, zero), literal(-1, compute), zero))

    return b.pointwise(body, x, compute=compute)


@lower("aten.signbit.default")
def signbit(b: Builder, x: Value) -> Value:
    kind = tensor_type(x).dtype
    if kind is BOOL or kind.kind == "uint":
        return b.compute(b.shape, lambda i: literal(False, BOOL))
    compute = opmath(kind)

    def body(a: Scalar) -> Scalar:
        signed = apply("copysign", literal(1, compute), a) if compute.is_float else a
        return apply("lt", signed, literal(0, compute))

    return b.pointwise(body, x, compute=compute)


@lower("aten.frac.default")
def frac(b: Builder, x: Value) -> Value:
    return b.pointwise(lambda a: apply("sub", a, apply("trunc", a)), x, compute=opmath(b.dtype))


@lower("aten.isnan.default", "aten.isinf.default")
def is_special(b: Builder, x: Value) -> Value:
    kind = tensor_type(x).dtype
    if not kind.is_float:
        return b.compute(b.shape, lambda i: literal(False, BOOL))
    function = "isnan" if "isnan" in b.target else "isinf"
    return b.pointwise(lambda a: apply(function, a), x, compute=opmath(kind))


@lower("aten.nan_to_num.default")
def nan_to_num(
    b: Builder, x: Value, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Value:
    if not b.dtype.is_float:
        return x
    largest = _LARGEST[b.dtype.name]
    high, low = largest if posinf is None else posinf, -largest if neginf is None else neginf
    compute = opmath(b.dtype)

    def body(a: Scalar) -> Scalar:
        infinite = where(apply("gt", a, literal(0, compute)), literal(high, compute), literal(low, compute))
        finite = where(apply("isinf", a), infinite, a)
        return where(apply("isnan", a), literal(nan or 0.0, compute), finite)

    return b.pointwise(body, x, compute=compute)


_LARGEST = {
    "f16": 65504.0,
    "bf16": (2 - 2.0**-7) * 2.0**127,
    "f32": (2 - 2.0**-23) * 2.0**127,
    "f64": (2 - 2.0**-52) * 2.0**1023,
    "f8e4m3": 448.0,
    "f8e5m2": 57344.0,
    "f8e4m3fnuz": 240.0,
    "f8e5m2fnuz": 57344.0,
}


# -- two arguments ----------------------------------------------------------------------------------------------------------
@lower(
    "aten.add.Tensor", "aten.add.Scalar", "aten.sub.Tensor", "aten.sub.Scalar", "aten.rsub.Tensor", "aten.rsub.Scalar"
)
def add(b: Builder, x: Operand, y: Operand, alpha: int | float = 1) -> Value:
    """x + alpha * y, x - alpha * y, or (rsub) y - alpha * x."""
    if b.target.startswith("aten.rsub"):
        x, y = y, x
    function = "add" if b.target.startswith("aten.add") else "sub"
    compute = opmath(b.dtype)

    def body(a: Scalar, c: Scalar) -> Scalar:
        scaled = c if alpha == 1 else apply("mul", b.number(alpha, compute), c)
        return apply(function, a, scaled)

    return b.pointwise(body, x, y, compute=compute)


@lower("aten.mul.Tensor", "aten.mul.Scalar")
def mul(b: Builder, x: Operand, y: Operand) -> Value:
    return b.pointwise(lambda a, c: apply("mul", a, c), x, y, compute=opmath(b.dtype))


@lower("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor")
def div(b: Builder, x: Operand, y: Operand) -> Value:
    return b.pointwise(lambda a, c: apply("div", a, c), x, y, compute=opmath(b.dtype))


@lower("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def div_mode(b: Builder, x: Operand, y: Operand, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode is None:
        return div(b, x, y)
    if rounding_mode == "floor":
        return floor_divide(b, x, y)
    compute, whole = opmath(b.dtype), isinstance(y, Value) and bool(tensor_type(y).shape)

    def body(a: Scalar, c: Scalar) -> Scalar:
        if whole and b.dtype is not compute:  # torch rounds the quotient of two narrow floats, and then cuts it
            return apply("trunc", cast(cast(apply("div", a, c), b.dtype), compute))
        return truncated_division(a, c)

    return b.pointwise(body, x, y, compute=compute, rounded=1)


@lower("aten.floor_divide.default", "aten.floor_divide.Scalar")
def floor_divide(b: Builder, x: Operand, y: Operand) -> Value:
    """Of narrow floats the dividend is rounded first, and a number that divides is not, as torch's kernels have it."""
    return b.pointwise(floor_division, x, y, compute=opmath(b.dtype), rounded=1)


def floor_division(a: Scalar, c: Scalar) -> Scalar:
    return apply("floordiv", a, c)


def truncated_division(a: Scalar, c: Scalar) -> Scalar:
    return apply("trunc", apply("div", a, c)) if a.dtype.is_float else apply("truncdiv", a, c)


@lower("aten.remainder.Tensor", "aten.remainder.Scalar", "aten.remainder.Scalar_Tensor")
def remainder(b: Builder, x: Operand, y: Operand) -> Value:
    return b.pointwise(lambda a, c: apply("mod", a, c), x, y, compute=opmath(b.dtype), rounded=2)


@lower("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(b: Builder, x: Operand, y: Operand) -> Value:
    return b.pointwise(lambda a, c: apply("fmod", a, c), x, y, compute=opmath(b.dtype), rounded=2)


def _float_binary(function: str) -> Callable[[Builder, Operand, Operand], Value]:
    def rule(b: Builder, x: Operand, y: Operand) -> Value:
        return b.pointwise(lambda a, c: apply(function, a, c), x, y, compute=opmath(b.dtype))

    return rule


lower("aten.atan2.default")(_float_binary("atan2"))
lower("aten.hypot.default")(_float_binary("hypot"))
lower("aten.copysign.Tensor", "aten.copysign.Scalar")(_float_binary("copysign"))
lower("aten.maximum.default")(_float_binary("max"))
lower("aten.minimum.default")(_float_binary("min"))
lower("aten.fmax.default")(_float_binary("fmax"))
lower("aten.fmin.default")(_float_binary("fmin"))


@lower("aten.nextafter.default")
def nextafter(b: Builder, x: Operand, y: Operand) -> Value:
    if b.dtype not in (F32, F64):
        raise b.unsupported(f"no successor function for {b.dtype}", "convert to float32 first")
    return b.pointwise(lambda a, c: apply("nextafter", a, c), x, y, compute=b.dtype)


# -- comparison and logic ---------------------------------------------------------------------------------------------------
def _comparison(function: str) -> Callable[[Builder, Operand, Operand], Value]:
    """Operands are rounded to their promoted dtype first: `x == 0.1` of a bfloat16 x asks for the bfloat16 next to 0.1."""

    def rule(b: Builder, x: Operand, y: Operand) -> Value:
        common = common_dtype(x, y)
        compute = opmath(common)

        def side(operand: Operand, i: Point) -> Scalar:
            return cast(b.element(operand, i, common), compute)

        return b.compute(b.shape, lambda i: apply(function, side(x, i), side(y, i)))

    return rule


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    lower(f"aten.{_name}.Tensor", f"aten.{_name}.Scalar")(_comparison(_name))


@lower("aten.logical_and.default", "aten.logical_or.default", "aten.logical_xor.default")
def logical(b: Builder, x: Value, y: Value) -> Value:
    function = b.target.removeprefix("aten.logical_").removesuffix(".default")

    def truth(operand: Value, i: tuple) -> Scalar:  # type: ignore[type-arg]
        kind = tensor_type(operand).dtype
        return truthy(b.element(operand, i, opmath(kind)))

    return b.compute(b.shape, lambda i: apply(function, truth(x, i), truth(y, i)))


@lower("aten.logical_not.default")
def logical_not(b: Builder, x: Value) -> Value:
    kind = opmath(tensor_type(x).dtype)
    return b.pointwise(lambda a: apply("not", truthy(a)), x, compute=kind)


def truthy(a: Scalar) -> Scalar:
    """The value as a bool: different from zero (NaN is true)."""
    return a if a.dtype is BOOL else apply("ne", a, literal(0, a.dtype))


def _bitwise(function: str) -> Callable[[Builder, Operand, Operand], Value]:
    def rule(b: Builder, x: Operand, y: Operand) -> Value:
        return b.pointwise(lambda a, c: apply(function, a, c), x, y, compute=b.dtype)

    return rule


for _name in ("and", "or", "xor"):
    lower(f"aten.bitwise_{_name}.Tensor", f"aten.bitwise_{_name}.Scalar", f"aten.bitwise_{_name}.Scalar_Tensor")(
        _bitwise(_name)
    )


@lower("aten.bitwise_not.default")
def bitwise_not(b: Builder, x: Value) -> Value:
    return b.pointwise(lambda a: apply("not", a), x, compute=b.dtype)


@lower(
    "aten.bitwise_left_shift.Tensor",
    "aten.bitwise_left_shift.Tensor_Scalar",
    "aten.bitwise_right_shift.Tensor",
    "aten.bitwise_right_shift.Tensor_Scalar",
    "aten.__lshift__.Scalar",
    "aten.__lshift__.Tensor",
    "aten.__rshift__.Scalar",
    "aten.__rshift__.Tensor",
)
def shift(b: Builder, x: Operand, y: Operand) -> Value:
    """Shifts by a negative or too large count give 0 (left) or the sign (right), as torch's kernels define."""
    left, kind = "left" in b.target or "lshift" in b.target, b.dtype
    if kind.is_float:
        raise b.unsupported("shifts of floats")
    top = kind.bits - 1

    def body(a: Scalar, count: Scalar) -> Scalar:
        outside = apply("ge", count, literal(kind.bits, kind))
        if kind.kind == "int":
            outside = apply("or", outside, apply("lt", count, literal(0, kind)))
        safe = where(outside, literal(top, kind), count)
        if left:
            return where(outside, literal(0, kind), apply("shl", a, safe))
        if kind.kind == "uint":
            return where(outside, literal(0, kind), apply("shr", a, safe))
        return apply("shr", a, safe)

    return b.pointwise(body, x, y, compute=kind)


# -- choice, limits, conversion -----------------------------------------------------------------------------------------------
@lower("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where_self(b: Builder, condition: Value, x: Operand, y: Operand) -> Value:
    return b.compute(
        b.shape,
        lambda i: where(
            truthy(b.element(condition, i, tensor_type(condition).dtype)),
            b.element(x, i, b.dtype),
            b.element(y, i, b.dtype),
        ),
    )


@lower("aten.clamp.default", "aten.clamp.Tensor", "aten.clamp_min.default", "aten.clamp_min.Tensor")
def clamp(
    b: Builder, x: Value, low: Operand | None = None, high: Operand | None = None, **named: Operand | None
) -> Value:
    """min(max(x, low), high); NaN stays NaN, and a NaN limit gives NaN."""
    low, high = named.get("min", low), named.get("max", high)
    compute = opmath(b.dtype)

    def body(i: tuple) -> Scalar:  # type: ignore[type-arg]
        value = b.element(x, i, compute)
        if low is not None:
            value = apply("max", value, b.element(low, i, compute))
        if high is not None:
            value = apply("min", value, b.element(high, i, compute))
        return cast(value, b.dtype)

    return b.compute(b.shape, body)


@lower("aten.clamp_max.default", "aten.clamp_max.Tensor")
def clamp_max(b: Builder, x: Value, high: Operand) -> Value:
    return clamp(b, x, None, high)


@lower("aten._to_copy.default", "aten.to.dtype", "prims.convert_element_type.default")
def convert(b: Builder, x: Value, *_: object, **__: object) -> Value:
    return converted(b, x, b.dtype)


def converted(b: Builder, x: Value, dtype: DType) -> Value:
    """The tensor in another dtype (itself when it has it)."""
    kind = tensor_type(x)
    if kind.dtype is dtype:
        return x
    if dtype is BOOL:
        return b.compute(kind.shape, lambda i: truthy(b.element(x, i, kind.dtype)))
    return b.compute(kind.shape, lambda i: b.element(x, i, dtype))


@lower("aten.addcmul.default", "aten.addcdiv.default")
def addc(b: Builder, x: Value, y: Value, z: Value, *, value: int | float = 1) -> Value:
    """x + value * (y * z), or x + value * (y / z)."""
    function, compute = ("mul" if "addcmul" in b.target else "div"), opmath(b.dtype)

    def body(a: Scalar, c: Scalar, d: Scalar) -> Scalar:
        term = apply("mul", literal(value, compute), c) if value != 1 else c
        return apply("add", a, apply(function, term, d))

    return b.pointwise(body, x, y, z, compute=compute)


@lower("prims.fma.default")
def fma(b: Builder, x: Operand, y: Operand, z: Operand) -> Value:
    """x * y + z, which Dynamo writes for `addcmul_` and `lerp_`; the product may be rounded, as a kernel's compiler chooses."""
    return b.pointwise(lambda x, y, z: apply("add", apply("mul", x, y), z), x, y, z, compute=opmath(b.dtype))


@lower("aten.lerp.Tensor", "aten.lerp.Scalar")
def lerp(b: Builder, x: Value, end: Value, weight: Operand) -> Value:
    """Both forms of torch: from the start for |weight| < 0.5, from the end otherwise."""
    compute = opmath(b.dtype)

    def body(a: Scalar, e: Scalar, w: Scalar) -> Scalar:
        span, one = apply("sub", e, a), literal(1, compute)
        near = apply("add", a, apply("mul", w, span))
        far = apply("sub", e, apply("mul", span, apply("sub", one, w)))
        return where(apply("lt", apply("abs", w), literal(0.5, compute)), near, far)

    return b.pointwise(body, x, end, weight, compute=compute)


@lower("aten.logaddexp.default", "aten.logaddexp2.default")
def logaddexp(b: Builder, x: Value, y: Value) -> Value:
    """m + log(exp(lo - m) + 1) with m the greater one; equal infinities stay themselves."""
    two, compute = "logaddexp2" in b.target, opmath(b.dtype)

    def body(a: Scalar, c: Scalar) -> Scalar:
        high, low = apply("max", a, c), apply("min", a, c)
        scaled = apply("exp2" if two else "exp", apply("sub", low, high))
        tail = apply("log1p", scaled)
        if two:
            tail = apply("mul", tail, literal(1 / math.log(2), compute))
        same = apply("and", apply("isinf", a), apply("eq", a, c))
        return where(same, a, apply("add", high, tail))

    return b.pointwise(body, x, y, compute=compute)


@lower("aten.ldexp.Tensor")
def ldexp(b: Builder, x: Value, y: Value) -> Value:
    compute = opmath(b.dtype)
    return b.pointwise(lambda a, c: apply("mul", a, apply("exp2", c)), x, y, compute=compute)


@lower("aten.xlogy.Tensor", "aten.xlogy.Scalar_Other", "aten.xlogy.Scalar_Self")
def xlogy(b: Builder, x: Operand, y: Operand) -> Value:
    """x * log(y), 0 where x is 0 unless y is NaN."""
    compute = opmath(b.dtype)

    def body(a: Scalar, c: Scalar) -> Scalar:
        zero = apply("eq", a, literal(0, compute))
        product = where(zero, literal(0, compute), apply("mul", a, apply("log", c)))
        return where(apply("isnan", c), literal(math.nan, compute), product)

    return b.pointwise(body, x, y, compute=compute)
