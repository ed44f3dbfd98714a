"""Images sampled at positions that a grid gives, and the gradients of image and grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.resampling import Taps, clamped, cubic_weights, minus, plus, times, weighted
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import I64, DType
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
_CUBIC = -0.75


@dataclass(frozen=True)
class Sampling:
    """How a grid in [-1, 1], whose last dim holds (x, y[, z]), says where an image is read."""

    b: Builder
    image: tuple[Index, ...]
    grid: Value
    mode: str
    padding: str
    align: bool
    kind: DType

    @classmethod
    def of(cls, b: Builder, x: Value, grid: Value, mode: int, padding: int, align: bool) -> Sampling:
        kind = opmath(tensor_type(x).dtype)
        return cls(b, shape_of(x)[2:], grid, _MODES[mode], _PADDINGS[padding], align, kind)

    @property
    def rank(self) -> int:
        return len(self.image)

    @property
    def count(self) -> int:
        """Taps along a dim."""
        return {"bilinear": 2, "nearest": 1, "bicubic": 4}[self.mode]

    def position(self, at: Point, d: int) -> Scalar:
        """Where the point of the grid for output `at` (without channels) lies along dim d of the image, before padding."""
        place = cast(read(self.grid, (*at, index(self.rank - 1 - d))), self.kind)
        size, one, two = self.b.number(self.image[d], self.kind), literal(1, self.kind), literal(2, self.kind)
        if self.align:
            return times(apply("div", plus(place, one), two), minus(size, one))
        return apply("div", minus(times(plus(place, one), size), one), two)

    def padded(self, place: Scalar, d: int) -> Scalar:
        """A position moved into the image, as border and reflection padding want it."""
        if self.padding == "reflection":
            place = self._reflected(place, d)[0]
        return clamped(place, literal(0, self.kind), self.b.number(self.image[d] - 1, self.kind))

    def taps(self, at: Point, d: int) -> Taps:
        """The places that are read along dim d, and their weights."""
        return [(place, weight) for place, weight, _ in self._read(at, d)]

    def slopes(self, at: Point, d: int) -> list[Scalar]:
        """How fast the weights of the taps change with the grid's own number."""
        inner = self.b.number(self.image[d] - 1 if self.align else self.image[d], self.kind)
        factor = apply("div", inner, literal(2, self.kind))
        if self.padding != "zeros" and self.mode != "bicubic":
            factor = times(factor, self._moved(self.position(at, d), d))
        return [times(slope, factor) for _, _, slope in self._read(at, d)]

    def _read(self, at: Point, d: int) -> list[tuple[Scalar, Scalar, Scalar]]:
        """Place, weight and the weight's slope in the position, of each tap."""
        kind, place = self.kind, self.position(at, d)
        zero, one = literal(0, kind), literal(1, kind)
        if self.mode == "bicubic":
            base = apply("floor", place)
            share = minus(place, base)
            spots = [plus(base, literal(k - 1, kind)) for k in range(4)]
            moved = spots if self.padding == "zeros" else [self.padded(spot, d) for spot in spots]
            parts = zip(moved, cubic_weights(share, _CUBIC), _cubic_slopes(share, _CUBIC), strict=True)
            return [(cast(spot, I64), weight, slope) for spot, weight, slope in parts]
        if self.padding != "zeros":
            place = self.padded(place, d)
        if self.mode == "nearest":
            return [(cast(apply("round", place), I64), one, zero)]
        base = apply("floor", place)
        share, first = minus(place, base), cast(base, I64)
        return [(first, minus(one, share), literal(-1, kind)), (plus(first, literal(1, I64)), share, one)]

    def _moved(self, place: Scalar, d: int) -> Scalar:
        """How fast a position moves once it is padded: not at all where it is held at an edge, backwards where it is mirrored."""
        kind = self.kind
        zero, one, last = literal(0, kind), literal(1, kind), self.b.number(self.image[d] - 1, kind)
        rate: Scalar = one
        if self.padding == "reflection":
            place, rate = self._reflected(place, d)
        inside = apply("and", apply("gt", place, zero), apply("lt", place, last))
        return where(inside, rate, zero)

    def _reflected(self, place: Scalar, d: int) -> tuple[Scalar, Scalar]:
        """A position mirrored at the image's edges (at pixel centres when corners are aligned, else at pixel borders), and how fast it moves."""
        kind = self.kind
        low = literal(0 if self.align else -0.5, kind)
        span = self.b.number(self.image[d] - 1 if self.align else self.image[d], kind)
        zero, one, two = literal(0, kind), literal(1, kind), literal(2, kind)
        offset = minus(place, low)
        distance = apply("abs", offset)
        extra, flips = apply("fmod", distance, span), apply("floor", apply("div", distance, span))
        even = apply("eq", apply("fmod", flips, two), zero)
        mirrored = where(even, plus(extra, low), plus(minus(span, extra), low))
        ahead = apply("eq", even, apply("ge", offset, zero))
        rate = where(ahead, one, literal(-1, kind))
        if self.align:
            flat = apply("eq", span, zero)
            return where(flat, zero, mirrored), where(flat, zero, rate)
        return mirrored, rate


def _cubic_slopes(t: Scalar, a: float) -> list[Scalar]:
    """How fast the weights of cubic convolution change with the distance t from the second tap."""
    kind = t.dtype
    one, two = literal(1, kind), literal(2, kind)

    def near(x: Scalar) -> Scalar:  # (3 (a + 2) x - 2 (a + 3)) x
        return times(minus(times(literal(3 * (a + 2), kind), x), literal(2 * (a + 3), kind)), x)

    def far(x: Scalar) -> Scalar:  # (3 a x - 10 a) x + 8 a
        return plus(times(minus(times(literal(3 * a, kind), x), literal(10 * a, kind)), x), literal(8 * a, kind))

    return [far(plus(t, one)), near(t), apply("neg", near(minus(one, t))), apply("neg", far(minus(two, t)))]


@lower("aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default", "aten.grid_sampler.default")
def grid_sampler(b: Builder, x: Value, grid: Value, mode: int, padding: int, align: bool) -> Value:
    """The image at the positions of a grid."""
    sampling = Sampling.of(b, x, grid, mode, padding, align)

    def body(i: Point) -> Scalar:
        taps = [sampling.taps((i[0], *i[2:]), d) for d in range(sampling.rank)]
        return cast(weighted(b, x, i[:2], taps, sampling.kind), b.dtype)

    return b.compute(b.shape, body)


@lower("aten.grid_sampler_2d_backward.default", "aten.grid_sampler_3d_backward.default")
def grid_sampler_backward(
    b: Builder, grad: Value, x: Value, grid: Value, mode: int, padding: int, align: bool, wanted: Sequence[bool]
) -> list[Value | None]:
    """Each output's gradient is added to the places that it was read from; a position's is what moving it would change of the output."""
    sampling = Sampling.of(b, x, grid, mode, padding, align)
    image = _gradient_of_image(b, grad, x, sampling) if wanted[0] else None
    return [image, _gradient_of_grid(b, grad, x, sampling) if wanted[1] else None]


def _gradient_of_image(b: Builder, grad: Value, x: Value, sampling: Sampling) -> Value:
    kind, sums, rank = tensor_type(x).dtype, accumulator(tensor_type(x).dtype), sampling.rank
    zeros = b.compute(shape_of(x), lambda i: literal(0, sums), name=f"{b.name}_zeros")
    lead = len(shape_of(grad))

    def body(i: Point) -> tuple[Sequence[Index], Scalar]:
        at = (i[0], *i[2:lead])
        total, places = cast(read(grad, i[:lead]), sums), []
        for d in range(rank):
            chosen = list(zip(*sampling.taps(at, d), strict=True))
            place, weight = (_numbered(list(each), i[lead + d]) for each in chosen)
            places.append(place.as_index())
            total = times(total, cast(weight, sums))
        return (*i[:2], *places), total

    over = (*shape_of(grad), *(index(sampling.count) for _ in range(rank)))
    total = b.scatter("add", zeros, over, body, within=False, name=f"{b.name}_sum")
    return b.compute(shape_of(x), lambda i: cast(read(total, i), kind), name=f"{b.name}_image")


def _numbered(values: Sequence[Scalar], number: Index) -> Scalar:
    """One of some values, by its number."""
    found = values[-1]
    for k, value in reversed(list(enumerate(values[:-1]))):
        found = where(apply("eq", IndexValue(number), IndexValue(index(k))), value, found)
    return found


def _gradient_of_grid(b: Builder, grad: Value, x: Value, sampling: Sampling) -> Value:
    kind, sums, rank = tensor_type(sampling.grid).dtype, accumulator(tensor_type(x).dtype), sampling.rank

    def along(at: Point, channel: Index, d: int) -> Scalar:
        """What the output of a channel changes as a position moves along dim d of the image."""
        taps = [sampling.taps(at, other) for other in range(rank)]
        taps[d] = list(zip((place for place, _ in taps[d]), sampling.slopes(at, d), strict=True))
        return weighted(b, x, (at[0], channel), taps, sampling.kind)

    def body(i: Point, r: Point) -> Scalar:
        at = i[:-1]
        moved = _numbered([along(at, r[0], rank - 1 - k) for k in range(rank)], i[-1])
        return cast(times(cast(read(grad, (at[0], r[0], *at[1:])), sampling.kind), moved), sums)

    shape = shape_of(sampling.grid)
    total = b.reduce("sum", shape, shape_of(x)[1:2], body, accumulate=sums, dtype=sums, name=f"{b.name}_moved")
    return b.compute(shape, lambda i: cast(read(total, i), kind), name=f"{b.name}_grid")
