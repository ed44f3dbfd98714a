"""Inverse circular and hyperbolic functions of complex numbers, and those near one and zero, without cancellation or jumps off the branch cuts.

W. Kahan, "Branch cuts for complex elementary functions, or much ado about nothing's sign bit" (1987): p and q are roots of 1 - z and 1 + z.
"""

from __future__ import annotations

from codesign.frontend.complex.elementwise import Pair, register, sqrt, turned, turned_back
from codesign.frontend.complex.planes import Real


def log1p(z: Pair) -> Pair:
    """log |1 + z| by log1p(x (2 + x) + y^2) / 2 where z is small."""
    x, y = z
    excess = x * (x + 2.0) + y * y
    near = excess.equals(0.0).choose(x, excess.function("log1p") * 0.5)
    far = (x + 1.0).function("hypot", y).function("log")
    return (x.function("hypot", y) >= 0.5).choose(far, near), y.function("atan2", x + 1.0)


def expm1(z: Pair) -> Pair:
    """(exp x - 1) cos y - 2 sin^2(y / 2), and exp x sin y"""
    x, y = z
    half = (y * 0.5).function("sin")
    return x.function("expm1") * y.function("cos") - half * half * 2.0, x.function("exp") * y.function("sin")


def asin(z: Pair) -> Pair:
    p, q = _roots(z)
    return z[0].function("atan2", p[0] * q[0] - p[1] * q[1]), (p[0] * q[1] - p[1] * q[0]).function("asinh")


def acos(z: Pair) -> Pair:
    p, q = _roots(z)
    return p[0].function("atan2", q[0]) * 2.0, (q[0] * p[1] - q[1] * p[0]).function("asinh")


def acosh(z: Pair) -> Pair:
    p, q = sqrt((z[0] - 1.0, z[1])), sqrt((z[0] + 1.0, z[1]))
    return (p[0] * q[0] + p[1] * q[1]).function("asinh"), p[1].function("atan2", q[0]) * 2.0


def atanh(z: Pair) -> Pair:
    """log1p(4 |x| / ((1 - |x|)^2 + y^2)) / 4 with the sign of x, and half the angle of (1 - z)(1 + z) turned"""
    x, y = z
    size = x.function("abs")
    rest = -size + 1.0
    re: Real = (size * 4.0 / (rest * rest + y * y)).function("log1p") * 0.25
    return re.function("copysign", x), (y + y).function("atan2", rest * (size + 1.0) - y * y) * 0.5


def _roots(z: Pair) -> tuple[Pair, Pair]:
    return sqrt((-z[0] + 1.0, -z[1])), sqrt((z[0] + 1.0, z[1]))


register("log1p", log1p)
register("expm1", expm1)
register("asin", asin)
register("acos", acos)
register("acosh", acosh)
register("asinh", lambda z: turned_back(asin(turned(z))))
register("atanh", atanh)
register("atan", lambda z: turned_back(atanh(turned(z))))
