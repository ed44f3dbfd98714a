"""Gradients of losses that ask one score to be ahead of others by a margin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from codesign.frontend.lowering.builder import Builder, Point, literal, read, where
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, I64, DType
from codesign.ir.index import Index, index, product
from codesign.ir.scalar import IndexValue, Scalar, apply, cast

MEAN = 1
"""The number that torch has for reducing by the mean."""


class _Scores:
    """Rows of scores; a single row has no dim of rows. `factor`: by which a row's gradient is multiplied."""

    def __init__(self, b: Builder, grad: Value, x: Value, reduction: int) -> None:
        self.b, self.grad, self.x = b, grad, x
        self.rows, self.size = shape_of(x)[:-1], shape_of(x)[-1] if shape_of(x) else index(1)
        self.kind = accumulator(tensor_type(x).dtype)
        self.count = self.size * product(self.rows) if reduction == MEAN else self.size

    def at(self, row: Point, place: Index) -> Scalar:
        return cast(read(self.x, (*row, place) if shape_of(self.x) else ()), self.kind)

    def factor(self, row: Point) -> Scalar:
        given = cast(read(self.grad, row if shape_of(self.grad) else ()), self.kind)
        return apply("div", given, self.b.number(self.count, self.kind))

    def sum(self, shape: Sequence[Index], term: Callable[[Point, Index], Scalar], kind: DType, name: str) -> Value:
        over = (self.size,)
        return self.b.reduce("sum", shape, over, lambda i, r: term(i, r[0]), accumulate=kind, name=name)


def _target(target: Value, row: Point, place: Index | None = None) -> Scalar:
    """The class of a row, or one of its list."""
    point = row if place is None else (*row, place)
    return cast(read(target, point[: len(shape_of(target))] if shape_of(target) else ()), I64)


@lower("aten.multi_margin_loss_backward.default")
def multi_margin_backward(
    b: Builder,
    grad: Value,
    x: Value,
    target: Value,
    p: float,
    margin: float,
    weight: Value | None = None,
    reduction: int = MEAN,
) -> Value:
    """A score that is too near the right one is pulled down, and the right one up by all of these."""
    scores = _Scores(b, grad, x, reduction)
    kind, zero = scores.kind, literal(0, scores.kind)

    def right(row: Point) -> Scalar:
        return _target(target, row if row else (index(0),))

    def pull(row: Point, place: Index) -> Scalar:
        own = right(row)
        ahead = apply("sub", literal(margin, kind), scores.at(row, own.as_index()))
        excess = apply("add", ahead, scores.at(row, place))
        rate = literal(1, kind) if p == 1 else apply("mul", literal(2, kind), excess)
        if weight is not None:
            rate = apply("mul", rate, cast(read(weight, (own.as_index(),)), kind))
        other = apply("and", apply("ne", IndexValue(place), own), apply("gt", excess, zero))
        return where(other, apply("mul", rate, scores.factor(row)), zero)

    pulled = scores.sum(scores.rows, pull, kind, f"{b.name}_pulled")

    def body(i: Point) -> Scalar:
        row, place = (i[:-1], i[-1]) if i else ((), index(0))
        down = apply("neg", read(pulled, row))
        return cast(where(apply("eq", IndexValue(place), right(row)), down, pull(row, place)), b.dtype)

    return b.compute(b.shape, body)


class _Lists:
    """Of each row the list of right scores, which ends before the first negative number; all of them are to be ahead of all others by one."""

    def __init__(self, scores: _Scores, target: Value, is_target: Value | None = None) -> None:
        self.scores, self.target = scores, target
        b, size = scores.b, scores.size

        def end(row: Point, r: Point) -> Scalar:
            held = apply("ge", _target(target, row, r[0]), literal(0, I64))
            return where(held, b.number(size, I64), IndexValue(r[0]))

        self.ends = b.reduce("min", scores.rows, (size,), end, accumulate=I64, name=f"{b.name}_ends")
        if is_target is None:
            shape = (*scores.rows, size) if shape_of(scores.x) else ()
            is_target = b.reduce("any", shape, (size,), self._is_own, accumulate=BOOL, name=f"{b.name}_held")
        self.is_target = is_target

    def _is_own(self, i: Point, r: Point) -> Scalar:
        """Whether an entry of the list is this score."""
        row, place = (i[:-1], i[-1]) if i else ((), index(0))
        own = apply("eq", _target(self.target, row, r[0]), IndexValue(place))
        return apply("and", self.listed(row, r[0]), own)

    def listed(self, row: Point, r: Index) -> Scalar:
        return apply("lt", IndexValue(r), read(self.ends, row))

    def wrong(self, row: Point, place: Index) -> Scalar:
        held = read(self.is_target, (*row, place) if shape_of(self.is_target) else ())
        return apply("eq", cast(held, self.scores.kind), literal(0, self.scores.kind))

    def excess(self, row: Point, right: Index, place: Index) -> Scalar:
        """By how much a score is too near to a right one, where above zero."""
        ahead = apply("sub", literal(1, self.scores.kind), self.scores.at(row, right))
        return apply("add", ahead, self.scores.at(row, place))

    def near(self, row: Point, right: Index, place: Index) -> Scalar:
        return apply("gt", self.excess(row, right, place), literal(0, self.scores.kind))

    def right(self, row: Point, r: Index) -> Index:
        """The score that an entry of the list names; after the list the first."""
        return where(self.listed(row, r), _target(self.target, row, r), literal(0, I64)).as_index()

    def up(self, i: Point, r: Index) -> Scalar:
        """Wrong scores that are too near to this one."""
        return cast(apply("and", self.wrong(i[:-1], r), self.near(i[:-1], i[-1], r)), self.scores.kind)

    def times(self, i: Point, r: Index) -> Scalar:
        return cast(self._is_own(i, (r,)), self.scores.kind)

    def down(self, i: Point, r: Index) -> Scalar:
        """Right scores that this one is too near to."""
        near = self.near(i[:-1], self.right(i[:-1], r), i[-1])
        return cast(apply("and", self.listed(i[:-1], r), near), self.scores.kind)


@lower("aten.multilabel_margin_loss_forward.default")
def multilabel_margin(b: Builder, x: Value, target: Value, reduction: int) -> tuple[Value, Value]:
    """How much scores are too near to right ones, by their number; and which are right. torch's decomposition adds what follows the lists."""
    scores = _Scores(b, x, x, reduction)
    lists, kind = _Lists(scores, target), scores.kind

    def term(row: Point, r: Point) -> Scalar:
        entry, place = r
        counts = apply("and", lists.listed(row, entry), lists.wrong(row, place))
        excess = lists.excess(row, lists.right(row, entry), place)
        return where(counts, apply("max", excess, literal(0, kind)), literal(0, kind))

    size = scores.size
    rows = b.reduce("sum", scores.rows, (size, size), term, accumulate=kind, name=f"{b.name}_rows")
    found = rows
    if not b.shape and scores.rows:
        found = b.reduce("sum", (), scores.rows, lambda i, r: read(rows, r), accumulate=kind, name=f"{b.name}_sum")
    count = b.number(scores.count, kind)
    loss = b.compute(b.shape, lambda i: cast(apply("div", read(found, i), count), b.dtype))
    held = lists.is_target
    return loss, b.compute(shape_of(held), lambda i: cast(read(held, i), b.dtype), name=f"{b.name}_is_target")


@lower("aten.multilabel_margin_loss_backward.default")
def multilabel_margin_backward(
    b: Builder, grad: Value, x: Value, target: Value, reduction: int, is_target: Value
) -> Value:
    """Wrong scores that are too near are pulled down, once for each right one, and those up."""
    scores = _Scores(b, grad, x, reduction)
    lists, kind = _Lists(scores, target, is_target), scores.kind
    shape = (*scores.rows, scores.size)
    ups, listed, downs = (
        scores.sum(shape, term, kind, f"{b.name}_{name}")
        for term, name in ((lists.up, "up"), (lists.times, "listed"), (lists.down, "down"))
    )

    def body(i: Point) -> Scalar:
        point = i if i else (index(0),)
        rise = apply("neg", apply("mul", read(ups, point), read(listed, point)))
        moved = where(lists.wrong(point[:-1], point[-1]), read(downs, point), rise)
        return cast(apply("mul", moved, scores.factor(point[:-1])), b.dtype)

    return b.compute(b.shape, body)
