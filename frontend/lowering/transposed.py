"""The adjoint of a convolution (a transposed one, or the gradient of an input): one product for each kind of place.

Windows that are a step s apart cover a place y = q*s + rho by those of their K points for which (y + pad - r*spread) % s == 0. These are
r = phase + t*every, with every = s / gcd(s, spread) and a phase that depends on rho alone. So all places of one phase sum the same
points, K // every of them, or one more where the phase is less than K % every: nothing is multiplied by what no window holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast
from codesign.ir.types import TensorType


@dataclass(frozen=True)
class Phases:
    """Phases of one range that sum equally many points of the window: `count` of them from `first` on, `points` each."""

    first: int
    count: int
    points: int


@dataclass(frozen=True)
class Places:
    """How windows cover the places along one dim: `size` points a window, `spread` apart; windows a `step` apart, the first
    `pad` before the places begin."""

    step: int
    pad: int
    spread: int
    size: int

    @property
    def common(self) -> int:
        """Of so many places in a row, windows cover one."""
        return math.gcd(self.step, self.spread)

    @property
    def every(self) -> int:
        """Phases that there are, and the distance of the points that cover one place."""
        return self.step // self.common

    @property
    def ranges(self) -> list[Phases]:
        """The phases that any point has, in one range or two."""
        points, more = divmod(self.size, self.every)
        found = [Phases(0, more, points + 1), Phases(more, self.every - more, points)]
        return [phases for phases in found if phases.count and phases.points]

    def window(self, q: Index, phase: Index, t: Index) -> Index:
        """The window that covers the q-th place of a phase with its t-th point of it."""
        return q - (phase * self.spread - self.pad) // self.step - t * (self.spread // self.common)

    def phase(self, y: Index) -> Index:
        """The phase of a place that windows cover."""
        inverse = pow(self.spread // self.common, -1, self.every)
        return (((y + self.pad) // self.common) * inverse) % self.every


def places_of(
    steps: Sequence[Index], pads: Sequence[Index], spread: Sequence[Index], sizes: Sequence[Index]
) -> list[Places] | None:
    """The places along each dim; None where a figure is not known yet, or windows lie side by side in all dims."""
    rows = list(zip(steps, pads, spread, sizes, strict=True))
    if not all(value.is_constant for row in rows for value in row) or all(step == 1 for step in steps):
        return None
    return [Places(*(value.constant for value in row)) for row in rows]


def by_phase(
    b: Builder,
    x: Value,
    weight: Value,
    bias: Value | None,
    places: list[Places],
    groups: int,
    out: TensorType,
    name: str,
) -> Value:
    """The sum over all windows that cover a place of what they hold, and a bias; weight is [channels of x, o, r]."""
    extents = out.shape[2:]
    made: dict[tuple[Phases, ...], Value] = {}
    for ranges in product(*(dim.ranges for dim in places)):
        total = _product(b, x, weight, places, ranges, groups, out, bias is None, name)
        made[ranges] = total if bias is None else _with_bias(b, total, bias, out, name)

    def nothing(channel: Index) -> Scalar:
        zero = literal(0, out.dtype)
        return zero if bias is None else cast(read(bias, (channel,)), out.dtype)

    def pick(i: Point, chosen: tuple[Phases, ...], at: tuple[Index, ...]) -> Scalar:
        if len(chosen) == len(places):
            quotients = (y // dim.step for y, dim in zip(i[2:], places, strict=True))
            return read(made[chosen], (*i[:2], *at, *quotients), literal(0, out.dtype))
        dim, y = places[len(chosen)], i[2 + len(chosen)]
        phase = b.simplify(dim.phase(y), {f"i{2 + len(chosen)}": extents[len(chosen)]})
        found = nothing(i[1])
        for phases in reversed(dim.ranges):
            here = pick(i, (*chosen, phases), (*at, phase - phases.first))
            last = phases.first + phases.count
            inside = apply("lt", IndexValue(phase), IndexValue(index(last)))
            found = here if last == dim.every else where(inside, here, found)
        if dim.common > 1:
            covered = apply("eq", IndexValue((y + dim.pad) % dim.common), IndexValue(index(0)))
            found = where(covered, found, nothing(i[1]))
        return found

    return b.compute(out.shape, lambda i: pick(i, (), ()), name=name)


def _product(
    b: Builder,
    x: Value,
    weight: Value,
    places: list[Places],
    ranges: tuple[Phases, ...],
    groups: int,
    out: TensorType,
    rounded: bool,
    name: str,
) -> Value:
    """The places of some phases, [n, o, *phase, *q]: a sum over channels and points, in the result's dtype if `rounded`."""
    channels, filters = shape_of(x)[1] // groups, out.shape[1] // groups
    zero, sums = literal(0, tensor_type(x).dtype), accumulator(tensor_type(x).dtype)
    quotients = [(extent + dim.step - 1) // dim.step for extent, dim in zip(out.shape[2:], places, strict=True)]
    shape = [*out.shape[:2], *(index(phases.count) for phases in ranges), *quotients]

    def body(i: Point, r: Point) -> Scalar:
        group = index(0) if groups == 1 else b.simplify(i[1] // filters, {"i1": out.shape[1]})
        channel = group * channels + r[0]
        windows, points = [], []
        for j, (dim, phases) in enumerate(zip(places, ranges, strict=True)):
            phase = index(phases.first) if phases.count == 1 else i[2 + j] + phases.first
            windows.append(dim.window(i[2 + len(places) + j], phase, r[1 + j]))
            points.append(phase + r[1 + j] * dim.every)
        value = read(x, (i[0], channel, *windows), zero)
        return b.products.multiply(value, read(weight, (channel, i[1] - group * filters, *points)), sums, "convolution")

    over = [channels, *(index(phases.points) for phases in ranges)]
    dtype = out.dtype if rounded or not out.dtype.is_float else opmath(out.dtype)
    return b.reduce("sum", shape, over, body, accumulate=sums, dtype=dtype, name=f"{name}_phases")


def _with_bias(b: Builder, total: Value, bias: Value, out: TensorType, name: str) -> Value:
    compute = tensor_type(total).dtype

    def body(i: Point) -> Scalar:
        return cast(apply("add", read(total, i), cast(read(bias, (i[1],)), compute)), out.dtype)

    return b.compute(shape_of(total), body, name=f"{name}_phases")
