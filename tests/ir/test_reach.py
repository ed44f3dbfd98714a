"""What masks leave of reductions: the values of the reduced dim that may count."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Value
from codesign.ir.dtypes import F32, I64
from codesign.ir.index import Bounds, Index, index, maximum, minimum
from codesign.ir.reach import Reach, extremes, reaches
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, literal, select
from codesign.ir.tensor import Compute, Dim, Monoid
from codesign.ir.types import tensor

ROWS, COLUMNS = 48, 64
X = Value(tensor(F32, ROWS, COLUMNS), "x")
Y = Value(tensor(F32, COLUMNS), "y")
LOW = literal(float("-inf"))
ZERO = Literal(0, F32)


def x() -> Scalar:
    return Read(X, ["i", "k"])


def y() -> Scalar:
    return Read(Y, ["k"])


def at(expression: str | Index | int) -> Scalar:
    return IndexValue(index(expression))


def le(a: str | Index | int, b: str | Index | int) -> Scalar:
    return apply("le", at(a), at(b))


def reduced(body: Scalar, monoid: Monoid = "sum", name: str = "r") -> Compute:
    return Compute([Dim("i", index(ROWS))], body, reductions=[Dim("k", index(COLUMNS))], monoid=monoid, name=name)


def found(*computes: Compute) -> Reach | None:
    return reaches(computes, {computes[-1].result}, Bounds()).get("k")


ROW, COLUMN = index("i"), index("k")
CASES: dict[str, tuple[Scalar, Monoid, Index, Index]] = {
    "lower triangle": (apply("mul", select(le("k", "i"), x(), ZERO), y()), "sum", index(0), ROW + 1),
    "upper triangle": (apply("mul", y(), select(le(ROW + 3, "k"), x(), ZERO)), "sum", ROW + 3, index(COLUMNS)),
    "the other branch": (select(le(ROW + 1, "k"), ZERO, x()), "sum", index(0), ROW + 1),
    "scores": (select(le("k", "i"), apply("mul", x(), literal(0.125)), LOW), "max", index(0), ROW + 1),
    "a mask that is added": (apply("add", x(), select(le("k", "i"), ZERO, LOW)), "max", index(0), ROW + 1),
    "a mask that is a factor": (apply("mul", x(), cast(le("k", "i"), F32)), "sum", index(0), ROW + 1),
    "powers of scores": (apply("exp", apply("sub", select(le("k", "i"), x(), LOW), y())), "sum", index(0), ROW + 1),
    "a window": (
        select(apply("and", le("k", "i"), apply("lt", at(ROW - COLUMN), at(8))), x(), LOW), "max", maximum(ROW - 7, 0), ROW + 1,
    ),
    "a band": (
        select(apply("le", apply("abs", at(ROW - COLUMN)), Literal(4, I64)), x(), LOW), "max", maximum(ROW - 4, 0), ROW + 5,
    ),
    "a prefix": (
        select(apply("or", le("k", "i"), apply("lt", at("k"), at(16))), x(), LOW), "max", index(0), maximum(ROW + 1, 16),
    ),
    "chunks": (
        select(apply("eq", at(COLUMN // 16), at(ROW // 16)), x(), LOW), "max", ROW // 16 * 16, ROW // 16 * 16 + 16,
    ),
    "every other": (select(le(COLUMN * 2, "i"), x(), ZERO), "sum", index(0), ROW // 2 + 1),
    "not": (select(apply("not", le("k", "i")), x(), LOW), "max", ROW + 1, index(COLUMNS)),
    "two masks": (
        apply("mul", select(le("k", "i"), x(), ZERO), select(le(8, "k"), y(), ZERO)), "sum", index(8), ROW + 1,
    ),
    "products of those": (select(le("k", "i"), x(), literal(1.0)), "prod", index(0), ROW + 1),
    "zero where ones are not": (
        select(apply("eq", select(le("k", "i"), literal(1.0), ZERO), ZERO), LOW, x()), "max", index(0), ROW + 1,
    ),
    "a float mask that is positive": (
        select(apply("gt", cast(le("k", "i"), F32), literal(0.5)), x(), ZERO), "sum", index(0), ROW + 1,
    ),
    "the lowest number": (select(le("k", "i"), x(), literal(-65504.0)), "max", index(0), ROW + 1),
    "the lowest number of float32": (
        apply("add", x(), select(le("k", "i"), ZERO, literal(float(np.finfo(np.float32).min)))), "max", index(0), ROW + 1,
    ),
    "a row": (select(le("i", 5), x(), ZERO), "sum", index(0), COLUMNS * minimum(maximum(-ROW + 6, 0), 1)),
    "some rows of a triangle": (
        select(apply("and", le("k", "i"), le(9, "i")), x(), LOW), "max", index(0),
        minimum(ROW + 1, COLUMNS * minimum(maximum(ROW - 8, 0), 1)),
    ),
    "a column": (select(le("k", 5), x(), LOW), "max", index(0), index(6)),
    "any": (apply("and", le("k", "i"), apply("gt", x(), ZERO)), "any", index(0), ROW + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_mask_is_an_interval_of_the_reduced_dim(name: str) -> None:
    body, monoid, low, high = CASES[name]
    reach = found(reduced(body, monoid))
    assert reach is not None
    for row in range(ROWS):
        wanted = range(max(int(low.evaluate({"i": row})), 0), min(int(high.evaluate({"i": row})), COLUMNS))
        there = range(int(reach.low.evaluate({"i": row})), int(reach.high.evaluate({"i": row})))
        assert set(there) == set(wanted)


def test_a_union_is_two_intervals_where_loops_may_go_along_one_after_the_other() -> None:
    window, first = apply("lt", at(ROW - COLUMN), at(8)), apply("lt", at("k"), at(4))
    body = select(apply("and", le("k", "i"), apply("or", window, first)), x(), LOW)
    reach = found(reduced(body, "max"))
    assert reach is not None
    assert reach.union == ((index(0), minimum(ROW + 1, 4)), (maximum(ROW - 7, 0), ROW + 1))
    for either in (apply("or", le("k", "i"), le("i", "k")), apply("or", first, le("k", ROW + 4))):
        whole = found(reduced(select(either, x(), LOW), "max"))
        assert whole is None or not whole.union, "nothing is between them"


def test_unions_of_more_intervals() -> None:
    """First and last tokens and a band between (BigBird): the band, which may end behind where the last begin, has what is before these."""
    band = apply("le", apply("abs", at(ROW - COLUMN)), Literal(2, I64))
    body = select(apply("or", apply("or", le("k", 3), le(60, "k")), band), x(), LOW)
    reach = found(reduced(body, "max"))
    assert reach is not None
    assert len(reach.union) == 3
    assert not reach.once, "every row reaches the first tokens"
    one, two = apply("eq", at("k"), at(20)), apply("eq", at("k"), at(30))
    rows = found(reduced(select(apply("or", apply("or", band, one), two), x(), LOW), "max"))
    assert not getattr(rows, "union", ()), "now the band is first, now another"


NOT_CUT: dict[str, tuple[Scalar, Monoid]] = {
    "no mask": (apply("mul", x(), y()), "sum"),
    "another value than the neutral one": (select(le("k", "i"), x(), LOW), "min"),
    "a term": (apply("add", select(le("k", "i"), x(), ZERO), y()), "sum"),
    "a number that is only low": (select(le("k", "i"), x(), literal(-1e30)), "max"),
    "rows of the lowest number alone": (select(le("k", ROW - 1), x(), literal(-65504.0)), "max"),
    "data": (select(apply("gt", x(), y()), x(), ZERO), "sum"),
    "a power of zero": (apply("exp", select(le("k", "i"), x(), ZERO)), "sum"),
    "positions": (select(le("k", "i"), x(), LOW), "argmax"),
    "unequal": (select(apply("ne", at("k"), at("i")), x(), ZERO), "sum"),
    "whole": (select(le("k", ROW + COLUMNS), x(), ZERO), "sum"),
}


@pytest.mark.parametrize("name", NOT_CUT)
def test_what_may_count_everywhere_is_not_cut(name: str) -> None:
    assert found(reduced(*NOT_CUT[name])) is None


def softmax_sum(result: str) -> tuple[list[Compute], Compute]:
    both = [Dim("i", index(ROWS)), Dim("k", index(COLUMNS))]
    scores = Compute(both, select(le("k", "i"), x(), LOW), name="scores")
    top = reduced(Read(scores.result, ["i", "k"]), "max", "top")
    power = Compute(
        both, apply("exp", apply("sub", Read(scores.result, ["i", "k"]), Read(top.result, ["i"]))), name="power"
    )
    total = reduced(Read(power.result, ["i", "k"]), "sum", "total")
    chosen = {"total": total, "power": power}[result]
    return [scores, top, power, total], chosen


def test_a_mask_reaches_through_the_members_of_a_group() -> None:
    computes, total = softmax_sum("total")
    reach = reaches(computes, {total.result}, Bounds())["k"]
    assert reach == Reach(index(0), ROW + 1, once=True)


def test_what_is_stored_whole_is_not_cut() -> None:
    computes, power = softmax_sum("power")
    assert reaches(computes, {power.result}, Bounds()) == {}


def test_loops_together_reach_what_any_of_them_does() -> None:
    one = reduced(select(le("k", "i"), x(), ZERO), name="one")
    other = reduced(select(le("k", ROW - 10), x(), ZERO), name="other")
    cut = reaches([one, other], {one.result, other.result}, Bounds())["k"]
    assert cut.high == ROW + 1
    assert not reaches([one, reduced(x())], {one.result}, Bounds())


@pytest.mark.parametrize(
    "expression",
    [
        ROW * 3 - 5,
        -ROW + 2,
        maximum(ROW - 7, 0) // 4 * 4,
        minimum(ROW * 2, 40 - ROW),
        (ROW + index("r") * 2) // 3,
        index("n") * ROW,
    ],
)
def test_extremes_hold_all_values_of_a_block(expression: Index) -> None:
    for first, size in ((0, 1), (5, 9), (16, 16)):
        ends = {"i": (first, first + size - 1), "r": (0, 6)}
        low, high = extremes(expression, ends)
        assert low is not None
        assert high is not None
        rows, others = np.meshgrid(np.arange(first, first + size), np.arange(7))
        values = np.asarray(expression.evaluate({"i": rows, "r": others, "n": 3}))
        assert low.evaluate({"n": 3}) <= values.min()
        assert values.max() <= high.evaluate({"n": 3})
    assert extremes(ROW % 5, {"i": (0, 9)}) == (None, None)
