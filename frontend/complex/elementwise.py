"""Functions of complex numbers, by their real and imaginary parts."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from codesign.frontend.complex.planes import Complex, Emitter, Real, aten
from codesign.frontend.complex.registry import RULES, rule
from codesign.ir.errors import UnsupportedError

Args = Mapping[str, Any]
Pair = tuple[Real, Real]

WHOLE_POWERS = 8
"""Powers up to this one are products; higher ones, and all others, go through the logarithm."""


# -- arithmetic --------------------------------------------------------------------------------------------------------------
def times(x: Pair, y: Pair) -> Pair:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i"""
    (a, b), (c, d) = x, y
    return a * c - b * d, a * d + b * c


def over(x: Pair, y: Pair) -> Pair:
    """A quotient by Smith's method (Communications of the ACM 5, 1962), whose intermediate values do not overflow where the result does not."""
    (a, b), (c, d) = x, y
    if c.is_number and d.is_number and (c.value or d.value):
        if abs(c.value) >= abs(d.value):
            ratio = d / c
            scale = c + d * ratio
            return (a + b * ratio) / scale, (b - a * ratio) / scale
        ratio = c / d
        scale = d + c * ratio
        return (b + a * ratio) / scale, (b * ratio - a) / scale
    c, d = (c.over(a), d.over(a)) if c.is_number and d.is_number else (c.over(d), d.over(c))
    wide = c.function("abs") >= d.function("abs")
    big, small = wide.choose(c, d), wide.choose(d, c)
    ratio = small / big
    scale = big + small * ratio
    a, b = a.over(c), b.over(c)
    first, second = wide.choose(a, b), wide.choose(b, a)
    rest = second - first * ratio
    zero = c.equals(0.0) & d.equals(0.0)  # torch divides each part by it
    re, im = (first + second * ratio) / scale, wide.choose(rest, -rest) / scale
    magnitude = c.function("abs")
    return zero.choose(a / magnitude, re), zero.choose(b / magnitude, im)


def _scaled(e: Emitter, value: Any, factor: Any) -> Pair:
    operand = e.operand(value)
    return operand if factor == 1 else times(operand, e.operand(factor))


@rule("add")
def add(e: Emitter, args: Args) -> Complex:
    (a, b), (c, d) = e.operand(args["self"]), _scaled(e, args["other"], args["alpha"])
    return e.complex(a + c, b + d)


@rule("sub")
def sub(e: Emitter, args: Args) -> Complex:
    (a, b), (c, d) = e.operand(args["self"]), _scaled(e, args["other"], args["alpha"])
    return e.complex(a - c, b - d)


@rule("rsub")
def rsub(e: Emitter, args: Args) -> Complex:
    (a, b), (c, d) = _scaled(e, args["self"], args["alpha"]), e.operand(args["other"])
    return e.complex(c - a, d - b)


@rule("mul")
def mul(e: Emitter, args: Args) -> Complex:
    return e.complex(*times(e.operand(args["self"]), e.operand(args["other"])))


@rule("div", "true_divide")
def div(e: Emitter, args: Args) -> Complex:
    if args.get("rounding_mode") is not None:
        raise UnsupportedError("complex numbers are not rounded")
    return e.complex(*over(e.operand(args["self"]), e.operand(args["other"])))


@rule("reciprocal")
def reciprocal(e: Emitter, args: Args) -> Complex:
    return e.complex(*over(e.operand(1), e.operand(args["self"])))


@rule("_conj", "conj", "_conj_physical", "conj_physical")
def conj(e: Emitter, args: Args) -> Complex:
    re, im = e.operand(args["self"])
    return e.complex(re, -im)


# -- parts -------------------------------------------------------------------------------------------------------------------
@rule("real")
def real(e: Emitter, args: Args) -> Node:
    return _complex(args["self"]).re


@rule("imag")
def imag(e: Emitter, args: Args) -> Node:
    return _complex(args["self"]).im


@rule("complex")
def of_parts(e: Emitter, args: Args) -> Complex:
    re, im = args["real"], args["imag"]
    return e.complex(_spread(e, re, im), _spread(e, im, re))


@rule("polar")
def polar(e: Emitter, args: Args) -> Complex:
    radius, angle = e.plane(args["abs"]), e.plane(args["angle"])
    return e.complex(radius * angle.function("cos"), radius * angle.function("sin"))


@rule("abs")
def absolute(e: Emitter, args: Args) -> Real:
    re, im = e.operand(args["self"])
    return re.function("hypot", im)


@rule("angle")
def angle(e: Emitter, args: Args) -> Real:
    re, im = e.operand(args["self"])
    return im.function("atan2", re)


@rule("sgn")
def sgn(e: Emitter, args: Args) -> Complex:
    re, im = e.operand(args["self"])
    size = re.function("hypot", im)
    zero = size.equals(0.0)
    return e.complex(zero.choose(0.0, re / size), zero.choose(0.0, im / size))


# -- functions ---------------------------------------------------------------------------------------------------------------
def exp(z: Pair) -> Pair:
    re, im = z
    size = re.function("exp")
    return size * im.function("cos"), im.equals(0.0).choose(im, size * im.function("sin"))


def log(z: Pair) -> Pair:
    re, im = z
    return re.function("hypot", im).function("log"), im.function("atan2", re)


def sqrt(z: Pair) -> Pair:
    """The root with a part >= 0: its larger part by a sum without cancellation, the other one by the product 2 x y = b."""
    a, b = z
    large = ((a.function("hypot", b) + a.function("abs")) * 0.5).function("sqrt")
    zero = large.equals(0.0)
    small = zero.choose(b, b / (large + large))
    right = a >= 0.0
    return right.choose(large, small.function("abs")), right.choose(small, large.function("copysign", b))


def sinh_cosh(z: Pair) -> tuple[Pair, Pair]:
    re, im = z
    sinh, cosh, sin, cos = re.function("sinh"), re.function("cosh"), im.function("sin"), im.function("cos")
    return (sinh * cos, cosh * sin), (cosh * cos, sinh * sin)


def tanh(z: Pair) -> Pair:
    """(sinh 2a + i sin 2b) / (cosh 2a + cos 2b), both scaled by 2 exp(-2|a|), which keeps them finite."""
    a, b = z
    falling = (a.function("abs") * -2.0).function("exp")
    rising = -((a.function("abs") * -4.0).function("expm1"))
    double = b + b
    below = falling * falling + falling * double.function("cos") * 2.0 + 1.0
    return rising.function("copysign", a) / below, falling * double.function("sin") * 2.0 / below


def turned(z: Pair) -> Pair:
    """i z"""
    return -z[1], z[0]


def turned_back(z: Pair) -> Pair:
    """-i z"""
    return z[1], -z[0]


def sigmoid(z: Pair) -> Pair:
    """1 / (1 + exp(-z)) = (1 + tanh(z / 2)) / 2"""
    re, im = tanh((z[0] * 0.5, z[1] * 0.5))
    return re * 0.5 + 0.5, im * 0.5


def _by(factor: float, z: Pair) -> Pair:
    return z[0] * factor, z[1] * factor


_FUNCTIONS: dict[str, Callable[[Pair], Pair]] = {
    "exp": exp,
    "exp2": lambda z: exp(_by(math.log(2.0), z)),
    "log": log,
    "log2": lambda z: _by(1 / math.log(2.0), log(z)),
    "log10": lambda z: _by(1 / math.log(10.0), log(z)),
    "sqrt": sqrt,
    "sinh": lambda z: sinh_cosh(z)[0],
    "cosh": lambda z: sinh_cosh(z)[1],
    "tanh": tanh,
    "sin": lambda z: turned_back(sinh_cosh(turned(z))[0]),
    "cos": lambda z: sinh_cosh(turned(z))[1],
    "tan": lambda z: turned_back(tanh(turned(z))),
    "sigmoid": sigmoid,
    "square": lambda z: times(z, z),
}


def register(name: str, function: Callable[[Pair], Pair]) -> None:
    """Make a function of one number the rule of the operator of that name."""
    RULES[name] = lambda e, args: e.complex(*function(e.operand(args["self"])))


for _name, _function in _FUNCTIONS.items():
    register(_name, _function)


@rule("rsqrt")
def rsqrt(e: Emitter, args: Args) -> Complex:
    return e.complex(*over(e.operand(1), sqrt(e.operand(args["self"]))))


@rule("pow")
def power(e: Emitter, args: Args) -> Complex:
    base, exponent = args["self"], args["exponent"]
    if isinstance(exponent, (bool, int, float)) and float(exponent).is_integer() and abs(exponent) <= WHOLE_POWERS:
        return e.complex(*_whole_power(e, e.operand(base), int(exponent)))
    if isinstance(base, (bool, int, float, complex)):
        if base == 0:
            raise UnsupportedError("a power of zero with a complex exponent")
        logarithm = cmath.log(base)
        return e.complex(*exp(times(e.operand(exponent), e.operand(logarithm))))
    (a, b), w = e.operand(base), e.operand(exponent)
    re, im = exp(times(w, log((a, b))))
    zero = a.equals(0.0) & b.equals(0.0)
    at_zero = _power_of_zero(*(part.over(a) for part in w))
    return e.complex(zero.choose(at_zero[0], re), zero.choose(at_zero[1], im))


def _power_of_zero(c: Real, d: Real) -> Pair:
    """Zero to a power with a real part above zero, one for power zero, and no number otherwise."""
    none, above, nan = c.equals(0.0) & d.equals(0.0), c > 0.0, c.constant(math.nan)
    re = above.choose(0.0, none.choose(1.0, (c >= 0.0).choose(nan, math.inf)))
    return re, above.choose(0.0, none.choose(0.0, nan))


def _whole_power(e: Emitter, z: Pair, exponent: int) -> Pair:
    if exponent == 0:
        return z[0].constant(1.0), z[0].constant(0.0)
    result: Pair | None = None
    square, rest = z, abs(exponent)
    while rest:
        if rest & 1:
            result = square if result is None else times(result, square)
        rest >>= 1
        square = times(square, square) if rest else square
    assert result is not None
    return result if exponent > 0 else over(e.operand(1), result)


@rule("ldexp")
def ldexp(e: Emitter, args: Args) -> Complex:
    (re, im), exponent = e.operand(args["self"]), e.plane(args["other"])
    factor = Real(e, e.call(aten.pow.Scalar, 2.0, exponent))
    return e.complex(re * factor, im * factor)


# -- comparisons -------------------------------------------------------------------------------------------------------------
@rule("eq")
def eq(e: Emitter, args: Args) -> Real:
    (a, b), (c, d) = e.operand(args["self"]), e.operand(args["other"])
    return a.equals(c) & b.equals(d)


@rule("ne")
def ne(e: Emitter, args: Args) -> Real:
    (a, b), (c, d) = e.operand(args["self"]), e.operand(args["other"])
    return a.differs(c) | b.differs(d)


@rule("isnan", "isinf")
def either(e: Emitter, args: Args) -> Real:
    name = str(e.origin.target).split(".")[1]
    re, im = e.operand(args["self"])
    return re.function(name) | im.function(name)


@rule("isfinite")
def isfinite(e: Emitter, args: Args) -> Real:
    re, im = e.operand(args["self"])
    return re.function("isfinite") & im.function("isfinite")


def truth(e: Emitter, value: Any) -> Real:
    """Whether each number is other than zero."""
    re, im = e.operand(value)
    return re.differs(0.0) | im.differs(0.0)


@rule("_to_copy")
def to_copy(e: Emitter, args: Args) -> Complex | Node | Real:
    wanted = e.origin.meta["val"].dtype
    if wanted.is_complex:
        return e.complex(*e.operand(args["self"]))
    if wanted is torch.bool:
        return truth(e, args["self"])
    return e.call(aten._to_copy.default, _complex(args["self"]).re, dtype=wanted)


def _complex(value: Any) -> Complex:
    assert isinstance(value, Complex)
    return value


def _spread(e: Emitter, tensor: Node, other: Node) -> Node:
    """A tensor at the shape that it and another one broadcast to."""
    mine, theirs = tensor.meta["val"].shape, other.meta["val"].shape
    if len(mine) == len(theirs) and all(a == b for a, b in zip(mine, theirs, strict=True)):
        return tensor
    rank = max(len(mine), len(theirs))
    sizes: list[Any] = []
    for back in range(rank, 0, -1):
        use = tensor if back <= len(mine) and (back > len(theirs) or mine[-back] != 1) else other
        size = use.meta["val"].shape[-back]
        known = size if isinstance(size, int) else e.call(aten.sym_size.int, use, use.meta["val"].dim() - back)
        sizes.append(known)
    return e.call(aten.expand.default, tensor, sizes)
