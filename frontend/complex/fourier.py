"""Discrete Fourier transforms as products with the matrices of their factors (J. Cooley and J. Tukey, Mathematics of Computation 19, 1965).

A transform of length n = p q is q transforms of length p, a rotation of each value, and p transforms of length q. Lengths up to `DIRECT`, and
primes, are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from codesign.frontend.complex.elementwise import Pair, times
from codesign.frontend.complex.planes import Complex, Emitter, Real, aten
from codesign.frontend.complex.registry import rule
from codesign.frontend.lowering.products import EXACT
from codesign.ir.errors import UnsupportedError

Args = Mapping[str, Any]

DIRECT = 64
"""Lengths up to this one are not split: their matrix is no larger than a tile of a matrix product."""

LARGEST_PRIME = 4096
"""A longer prime length is refused, because its matrix would take more memory and time than any model means."""


@rule("_fft_c2c")
def complex_to_complex(e: Emitter, args: Args) -> Complex:
    value, sign = e.operand(args["self"]), -1 if args["forward"] else 1
    count = 1
    for dim in args["dim"]:
        length = _length(value[0], dim)
        count *= length
        value = _along(e, value, dim, length, sign)
    return e.complex(*_normalized(value, args["normalization"], count))


@rule("_fft_r2c")
def real_to_complex(e: Emitter, args: Args) -> Complex:
    value: Pair = (e.plane(args["self"]), Real(e, 0.0))
    dims = list(args["dim"])
    count = 1
    for dim in reversed(dims):  # the last one is halved, and goes first while the values are real
        length = _length(value[0], dim)
        count *= length
        value = _along(e, value, dim, length, -1)
        if dim == dims[-1] and args["onesided"]:
            value = _first(e, value, dim, length // 2 + 1)
    return e.complex(*_normalized(value, args["normalization"], count))


@rule("_fft_c2r")
def complex_to_real(e: Emitter, args: Args) -> Real:
    value = e.operand(args["self"])
    *others, last = args["dim"]
    count = length = args["last_dim_size"]
    if not isinstance(length, int):
        raise UnsupportedError("a Fourier transform along a dynamic size", hint="fix the dimension")
    for dim in others:
        count *= _length(value[0], dim)
        value = _along(e, value, dim, _length(value[0], dim), 1)
    value = _along(e, _with_mirror(e, value, last, length), last, length, 1)
    return _normalized(value, args["normalization"], count)[0]


def _first(e: Emitter, value: Pair, dim: int, count: int) -> Pair:
    return _each(e, value, lambda plane: e.call(aten.slice.Tensor, plane, dim, 0, count))


def _with_mirror(e: Emitter, value: Pair, dim: int, length: int) -> Pair:
    """All frequencies of a real signal from the first half: those of n - k are the conjugates of those of k."""
    missing = length - length // 2 - 1
    if missing == 0:
        return value

    def mirrored(plane: Real) -> Real:
        return Real(e, e.call(aten.flip.default, e.call(aten.slice.Tensor, plane, dim, 1, missing + 1), [dim]))

    re, im = value
    parts = (re, mirrored(re)), (im, -mirrored(im))
    first, second = (Real(e, e.call(aten.cat.default, list(pair), dim)) for pair in parts)
    return first, second


def _length(plane: Real, dim: int) -> int:
    size = plane.value.meta["val"].shape[dim]
    if not isinstance(size, int):
        raise UnsupportedError("a Fourier transform along a dynamic size", hint="fix the dimension")
    return size


def _normalized(value: Pair, mode: int, count: int) -> Pair:
    """torch's modes: 0 leaves the sums, 1 divides them by the root of their length, 2 by it."""
    factor = (1.0, 1 / math.sqrt(count), 1 / count)[mode]
    return value if factor == 1 else (value[0] * factor, value[1] * factor)


def _each(e: Emitter, value: Pair, change: Callable[[Real], Any]) -> Pair:
    """Both planes changed alike; a plane that is a number stays."""
    re, im = (plane if plane.is_number else Real(e, change(plane)) for plane in value)
    return re, im


def _along(e: Emitter, value: Pair, dim: int, length: int, sign: int) -> Pair:
    """The transform along one dim, with exp(sign 2 pi i j k / length)."""
    last = value[0].value.meta["val"].dim() - 1
    swapped = dim % (last + 1) != last
    if swapped:
        value = _each(e, value, lambda plane: e.call(aten.transpose.int, plane, dim, last))
    value = _last(e, value, length, sign)
    return _each(e, value, lambda plane: e.call(aten.transpose.int, plane, dim, last)) if swapped else value


def _last(e: Emitter, value: Pair, length: int, sign: int) -> Pair:
    short = next((p for p in range(math.isqrt(length), 1, -1) if length % p == 0), 1)
    if length <= DIRECT or short == 1:
        if length > LARGEST_PRIME:
            raise UnsupportedError(f"a Fourier transform of the prime length {length}", hint="pad it to another length")
        return _product(e, value, _rotations(e, value[0], length, length, length, sign))
    long = length // short

    def turn(plane: Real) -> Any:
        return e.call(aten.transpose.int, plane, -2, -1)

    value = _each(e, value, lambda plane: turn(Real(e, e.call(aten.unflatten.int, plane, -1, [short, long]))))
    value = times(_last(e, value, short, sign), _rotations(e, value[0], long, short, length, sign))
    value = _each(e, _last(e, _each(e, value, turn), long, sign), turn)
    return _each(e, value, lambda plane: e.call(aten.flatten.using_ints, plane, -2, -1))


def _rotations(e: Emitter, like: Real, rows: int, columns: int, length: int, sign: int) -> Pair:
    """The matrix exp(sign 2 pi i j k / length); the product of the integers is reduced first, so that the angle stays exact."""
    device = like.value.meta["val"].device
    j, k = (e.call(aten.arange.start_step, 0, n, 1, dtype=torch.int64, device=device) for n in (rows, columns))
    turns = e.call(aten.remainder.Scalar, e.call(aten.mul.Tensor, e.call(aten.unsqueeze.default, j, 1), k), length)
    angle = e.plane(turns) * (sign * 2 * math.pi / length)
    return angle.function("cos"), angle.function("sin")


def _product(e: Emitter, value: Pair, matrix: Pair) -> Pair:
    (a, b), (c, d) = value, matrix

    def multiply(x: Real, y: Real) -> Real:
        product = e.call(aten.matmul.default, x, y)
        product.meta[EXACT] = True
        return Real(e, product)

    if b.is_number:  # of a real signal
        return multiply(a, c), multiply(a, d)
    return multiply(a, c) - multiply(b, d), multiply(a, d) + multiply(b, c)
