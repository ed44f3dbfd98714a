"""Resizing with a filter as wide as the output's places are apart, one dim after the other, and its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.gathered import OUTPUT, Along, along, gathered, known_sizes
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.resampling import clamped, minus, plus, scale_of, times
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value
from codesign.ir.dtypes import I64, DType
from codesign.ir.index import Index, index
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.scalar import IndexValue, Scalar, apply, cast

_CUBIC = -0.5
"""The parameter of Keys' cubic filter that torch has here."""


@dataclass(frozen=True)
class _Filter:
    """A filter along one dim of `size` places, of which each of `out` outputs reads some that lie side by side."""

    b: Builder
    size: int
    out: int
    align: bool
    given: float | None
    kind: DType

    @property
    def cubic(self) -> bool:
        return "bicubic" in self.b.target

    @property
    def step(self) -> Scalar:
        """Input places per output place."""
        return scale_of(self.b, index(self.size), index(self.out), self.align, self.given, self.kind)

    def _number(self, value: float) -> Scalar:
        return literal(value, self.kind)

    def _center(self, output: Index) -> Scalar:
        return times(self.step, plus(cast(IndexValue(output), self.kind), self._number(0.5)))

    def _reach(self) -> Scalar:
        return times(self._number(2.0 if self.cubic else 1.0), apply("max", self.step, self._number(1)))

    def first(self, output: Index) -> Scalar:
        place = cast(plus(minus(self._center(output), self._reach()), self._number(0.5)), I64)
        return apply("max", place, literal(0, I64))

    def end(self, output: Index) -> Scalar:
        place = cast(plus(plus(self._center(output), self._reach()), self._number(0.5)), I64)
        return apply("min", place, literal(self.size, I64))

    def bounds(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The first place of every output and the one after its last."""
        evaluator = Evaluator(Domain([Span(OUTPUT, 0, self.out)], {}), {})
        places = (self.first(index(OUTPUT)), self.end(index(OUTPUT)))
        first, end = (np.broadcast_to(evaluator.scalar(place), (self.out,)) for place in places)
        return first, end

    def weights(self, count: int, name: str) -> Value:
        """[out, count]: those of the places from the first on; they add up to one."""

        def raw(o: Index, j: Index) -> Scalar:
            place = plus(self.first(o), IndexValue(j))
            offset = plus(minus(cast(place, self.kind), self._center(o)), self._number(0.5))
            distance = apply("abs", apply("div", offset, apply("max", self.step, self._number(1))))
            return where(apply("lt", place, self.end(o)), self._shape(distance), self._number(0))

        b = self.b
        total = b.reduce(
            "sum", (self.out,), (count,), lambda i, r: raw(i[0], r[0]), accumulate=self.kind, name=f"{name}_total"
        )
        return b.compute((self.out, count), lambda i: apply("div", raw(i[0], i[1]), read(total, i[:1])), name=name)

    def _shape(self, distance: Scalar) -> Scalar:
        """The filter's weight at a distance from its middle."""
        n = self._number
        if not self.cubic:
            return apply("max", minus(n(1), distance), n(0))
        a = _CUBIC
        near = plus(times(times(minus(times(n(a + 2), distance), n(a + 3)), distance), distance), n(1))
        inner = plus(times(minus(times(n(a), distance), n(5 * a)), distance), n(8 * a))
        far = minus(times(inner, distance), n(4 * a))
        return where(apply("lt", distance, n(1)), near, where(apply("lt", distance, n(2)), far, n(0)))


def _filters(b: Builder, sizes: list[int], outs: list[int], align: bool, given: Any) -> list[_Filter]:
    kind = opmath(b.dtype)
    scales = [*given, None, None][:2]
    return [_Filter(b, size, out, align, scale, kind) for size, out, scale in zip(sizes, outs, scales, strict=True)]


@lower("aten._upsample_bilinear2d_aa.default", "aten._upsample_bicubic2d_aa.default")
def upsample(b: Builder, x: Value, output_size: Any, align: bool, *scales: float | None) -> Any:
    """Rows first, then columns, with what lies between them in the dtype of the image; integers and sizes that are not known are a call."""
    known = known_sizes([shape_of(x)[2:], b.shape[2:]])
    if known is None or not b.dtype.is_float:
        return NotImplemented
    found, shape = x, list(shape_of(x))
    for d, each in reversed(list(enumerate(_filters(b, known[0], known[1], align, scales), start=2))):
        first, end = each.bounds()
        count = max(int((end - first).max()), 1)
        weights = each.weights(count, f"{b.name}_weights_{d}")
        shape[d] = index(each.out)
        found = _filtered(b, found, d, each, weights, count, shape)
    return found


def _filtered(b: Builder, x: Value, d: int, own: _Filter, weights: Value, count: int, shape: list[Index]) -> Value:
    def term(i: Point, r: Point) -> Scalar:
        place = plus(own.first(i[d]), IndexValue(r[0])).as_index()
        value = cast(read(x, (*i[:d], place, *i[d + 1 :]), literal(0, b.dtype)), own.kind)
        return times(value, read(weights, (i[d], r[0])))

    name = f"{b.name}_along_{d}"
    total = b.reduce("sum", shape, (count,), term, accumulate=own.kind, name=name)
    return total if own.kind is b.dtype else b.compute(shape, lambda i: cast(read(total, i), b.dtype))


@lower("aten._upsample_bilinear2d_aa_backward.default", "aten._upsample_bicubic2d_aa_backward.default")
def upsample_backward(
    b: Builder, grad: Value, output_size: Any, input_size: Any, align: bool, *scales: float | None
) -> Any:
    """Each input place gathers what outputs took from it."""
    known = known_sizes([b.shape[2:], shape_of(grad)[2:]])
    if known is None or not b.dtype.is_float:
        return NotImplemented
    maps = [
        _gathering(b, each, f"{b.name}_weights_{d}")
        for d, each in enumerate(_filters(b, known[0], known[1], align, scales))
    ]
    return gathered(b, grad, 2, maps)


def _gathering(b: Builder, own: _Filter, name: str) -> Along:
    first, end = own.bounds()
    count = max(int((end - first).max()), 1)
    weights = own.weights(count, name)

    def weight(o: Index, y: Index) -> Scalar:
        inside = clamped(IndexValue(o), literal(0, I64), literal(own.out - 1, I64)).as_index()
        number = minus(IndexValue(y), read_first(inside))
        return read(weights, (inside, number.as_index()), literal(0, own.kind))

    def read_first(o: Index) -> Scalar:
        return read(starts, (o,))

    starts = b.compute((own.out,), lambda i: own.first(i[0]), name=f"{name}_starts")
    slopes = [Fraction(own.out, own.size), Fraction(max(own.out - 1, 0), max(own.size - 1, 1))]
    return along(own.size, first, np.maximum(end - 1, first), slopes, weight)
