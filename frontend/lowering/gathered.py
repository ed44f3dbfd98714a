"""Gradients of what reads windows of its input with weights that follow from places alone: each input place gathers what windows over it had.

Resizing, mean pooling and padding with edge values are such maps, each along one dim after the other; the gradient of one is a sum over the outputs
that touch an input place, which lie side by side. From which output on, and how many there are at most, is worked out from the map itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.convolution import per_dim
from codesign.frontend.lowering.promotion import accumulator, opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.resampling import Taps, resizing_taps
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value
from codesign.ir.dtypes import I64, DType
from codesign.ir.index import Index, IndexLike, index, maximum, minimum
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.scalar import IndexValue, Literal, Scalar, apply, cast

Weight = Callable[[Index, Index], Scalar]
"""Of an output place and an input place: how much of the input the output has, 0 where it does not touch it."""

OUTPUT = "o"


@dataclass(frozen=True)
class Along:
    """A map along one dim: the first output that may touch an input place, how many may, and the weight of each."""

    first: Callable[[Index], Index]
    count: int
    weight: Weight


def along(
    size: int, low: npt.NDArray[Any], high: npt.NDArray[Any], slopes: Sequence[Fraction], weight: Weight
) -> Along:
    """The map whose output o touches no inputs but those from `low[o]` to `high[o]`; `slopes`: outputs per input place, of which that is
    taken which needs the fewest outputs."""
    # an output that hits a place touches fewer than those beside it
    low, high = np.minimum.accumulate(low[::-1])[::-1], np.maximum.accumulate(high)
    places = np.arange(size)
    firsts = np.searchsorted(high, places, "left")
    lasts = np.searchsorted(low, places, "right") - 1
    touched = lasts >= firsts
    best: tuple[int, Fraction, int] | None = None
    for slope in slopes:
        line = places * slope.numerator // slope.denominator
        offset = int((firsts - line)[touched].min(initial=0)) if touched.any() else 0
        count = int((lasts - line - offset)[touched].max(initial=0)) + 1 if touched.any() else 1
        if best is None or count < best[0]:
            best = count, slope, offset
    assert best is not None
    count, slope, offset = best

    def first(place: Index) -> Index:
        return place * slope.numerator // slope.denominator + offset

    return Along(first, count, weight)


def gathered(b: Builder, grad: Value, lead: int, maps: Sequence[Along]) -> Value:
    """The gradient of the input: over the dims after the first `lead`, the sum of the outputs' gradients by their weights."""
    sums = accumulator(b.dtype)

    def body(i: Point, r: Point) -> Scalar:
        outputs = [m.first(place) + step for m, place, step in zip(maps, i[lead:], r, strict=True)]
        total = cast(read(grad, (*i[:lead], *outputs), literal(0, b.dtype)), sums)
        for m, output, place in zip(maps, outputs, i[lead:], strict=True):
            factor = m.weight(output, place)
            if not (isinstance(factor, Literal) and factor.value == 1):
                total = apply("mul", total, cast(factor, sums))
        return total

    over = [m.count for m in maps]
    total = b.reduce("sum", b.shape, over, body, accumulate=sums, dtype=sums, name=f"{b.name}_sum")
    return total if sums is b.dtype else b.compute(b.shape, lambda i: cast(read(total, i), b.dtype))


def known_sizes(shapes: Sequence[Sequence[Index]]) -> list[list[int]] | None:
    """Sizes as integers; None where one is not known or there is nothing to gather."""
    if any(not size.is_constant or size.constant == 0 for shape in shapes for size in shape):
        return None
    return [[size.constant for size in shape] for shape in shapes]


def _between(place: Index, low: IndexLike, high: IndexLike, yes: Scalar) -> Scalar:
    """A number where `low <= place < high`, else 0."""
    above = apply("ge", IndexValue(place), IndexValue(index(low)))
    here = apply("and", above, apply("lt", IndexValue(place), IndexValue(index(high))))
    return where(here, yes, literal(0, yes.dtype))


# -- images of another size ----------------------------------------------------------------------------------------------------
@lower(
    "aten.upsample_linear1d_backward.default",
    "aten.upsample_bilinear2d_backward.default",
    "aten.upsample_trilinear3d_backward.default",
    "aten.upsample_bicubic2d_backward.default",
    *(
        f"aten.{kind}{d}d_backward.default"
        for kind in ("upsample_nearest", "_upsample_nearest_exact")
        for d in (1, 2, 3)
    ),
)
def upsample_backward(b: Builder, grad: Value, output_size: Any, input_size: Any, *rest: Any) -> Any:
    """Each input place gathers what outputs took from it; sizes that are not known stay a call."""
    known = known_sizes([shape_of(grad)[2:], b.shape[2:]])
    if known is None:
        return NotImplemented
    outs, sizes = known
    kind = opmath(b.dtype)
    align = "nearest" not in b.target and bool(rest[0])
    given = list(rest if "nearest" in b.target else rest[1:])
    given += [None] * (len(sizes) - len(given))
    maps = []
    for size, out, scale in zip(sizes, outs, given, strict=True):

        def taps(output: Index, size: int = size, out: int = out, scale: float | None = scale) -> Taps:
            return resizing_taps(b, output, index(size), index(out), align, scale, kind)

        slopes = [Fraction(out, size), Fraction(max(out - 1, 0), max(size - 1, 1))]
        if scale:
            slopes.append(Fraction(scale).limit_denominator(1 << 20))
        low, high = _touched(taps(index(OUTPUT)), out)
        maps.append(along(size, low, high, slopes, _weight_of(taps, kind)))
    return gathered(b, grad, 2, maps)


def _touched(taps: Taps, out: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The least and the greatest position of the taps that have a weight, at every output."""
    evaluator = Evaluator(Domain([Span(OUTPUT, 0, out)], {}), {})
    places = np.stack([np.broadcast_to(evaluator.scalar(place), (out,)) for place, _ in taps])
    weights = np.stack([np.broadcast_to(evaluator.scalar(weight), (out,)) for _, weight in taps])
    heaviest = np.take_along_axis(places, np.abs(weights).argmax(0)[None], 0)
    weighing = np.where(weights != 0, places, heaviest)
    return weighing.min(0), weighing.max(0)


def _weight_of(taps: Callable[[Index], Taps], kind: DType) -> Weight:
    def weight(output: Index, place: Index) -> Scalar:
        total: Scalar | None = None
        for at, share in taps(output):
            term = where(apply("eq", at, cast(IndexValue(place), I64)), cast(share, kind), literal(0, kind))
            total = term if total is None else apply("add", total, term)
        assert total is not None
        return total

    return weight


# -- means of windows ----------------------------------------------------------------------------------------------------------
@lower("aten.avg_pool2d_backward.default", "aten.avg_pool3d_backward.default")
def avg_pool_backward(
    b: Builder,
    grad: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
) -> Any:
    """Each input place gathers its share of every window over it."""
    rank = 2 if "2d" in b.target else 3
    lead = len(b.shape) - rank
    known = known_sizes([shape_of(grad)[lead:], b.shape[lead:]])
    if known is None or not b.dtype.is_float:
        return NotImplemented
    sums = accumulator(b.dtype)
    window, pads = _numbers(kernel, rank), _numbers(padding, rank)
    steps = _numbers(stride, rank) if stride else window
    maps = []
    for d, (out, size) in enumerate(zip(*known, strict=True)):

        def weight(
            o: Index, y: Index, size: int = size, k: int = window[d], s: int = steps[d], p: int = pads[d]
        ) -> Scalar:
            start = o * s - p
            end = minimum(start + k, size + p)
            low, high = (start, end) if count_include_pad else (maximum(start, 0), minimum(end, size))
            points = literal(1, sums) if divisor else cast(IndexValue(high - low), sums)
            return _between(y, start, start + k, apply("div", literal(1, sums), points))

        starts = np.arange(out) * steps[d] - pads[d]
        slopes = [Fraction(1, steps[d]), Fraction(out, size)]
        maps.append(along(size, starts, starts + window[d] - 1, slopes, weight))
    total = gathered(b, grad, lead, maps)
    if not divisor:
        return total
    return b.compute(
        b.shape, lambda i: cast(apply("div", cast(read(total, i), sums), b.number(divisor, sums)), b.dtype)
    )


def _numbers(values: Sequence[int], rank: int) -> list[int]:
    return [value.constant for value in per_dim(values, rank)]


@lower("aten._adaptive_avg_pool2d_backward.default", "aten._adaptive_avg_pool3d_backward.default")
def adaptive_avg_pool_backward(b: Builder, grad: Value, x: Value) -> Any:
    """Output position o has the mean of the input from floor(o * n / out) to ceil((o + 1) * n / out)."""
    rank = 2 if "2d" in b.target else 3
    lead = len(b.shape) - rank
    known = known_sizes([shape_of(grad)[lead:], b.shape[lead:]])
    if known is None:
        return NotImplemented
    sums = accumulator(b.dtype)
    maps = []
    for out, size in zip(*known, strict=True):

        def weight(o: Index, y: Index, size: int = size, out: int = out) -> Scalar:
            start, end = o * size // out, ((o + 1) * size + (out - 1)) // out
            return _between(y, start, end, apply("div", literal(1, sums), cast(IndexValue(end - start), sums)))

        o = np.arange(out)
        maps.append(along(size, o * size // out, ((o + 1) * size + out - 1) // out - 1, [Fraction(out, size)], weight))
    return gathered(b, grad, lead, maps)


# -- padding -------------------------------------------------------------------------------------------------------------------
@lower(*(f"aten.replication_pad{d}d_backward.default" for d in (1, 2, 3)))
def replication_pad_backward(b: Builder, grad: Value, x: Value, padding: Sequence[int]) -> Any:
    """The places at the edges gather what was repeated of them."""
    rank = next(d for d in (1, 2, 3) if f"{d}d" in b.target)
    lead = len(b.shape) - rank
    known = known_sizes([shape_of(grad)[lead:], b.shape[lead:]])
    if known is None or not all(isinstance(n, int) for n in padding):
        return NotImplemented
    maps = []
    for d, (out, size) in enumerate(zip(*known, strict=True)):
        before = padding[2 * (rank - 1 - d)]

        def weight(o: Index, y: Index, size: int = size, before: int = before) -> Scalar:
            source = maximum(minimum(o - before, size - 1), 0)
            one = literal(1, accumulator(b.dtype))
            return where(apply("eq", IndexValue(source), IndexValue(y)), one, literal(0, one.dtype))

        source = np.clip(np.arange(out) - before, 0, size - 1)
        maps.append(along(size, source, source, [Fraction(1)], weight))
    return gathered(b, grad, lead, maps)
