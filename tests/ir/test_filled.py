"""Conditions in tiles that a mask fills: decided by what is known of them there, and what they choose gone."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL, F32, I64
from codesign.ir.filled import Filled
from codesign.ir.index import Bounds, index
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.reach import Reach, reaches
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, cast, literal, select
from codesign.ir.tensor import Compute, Dim
from tests.ir.test_reach import CASES, COLUMN, COLUMNS, LOW, ROW, ROWS, ZERO, X, Y, at, le, reduced, x


def known(reach: Reach, *members: Compute) -> Filled:
    extents = {"i": index(ROWS), "k": index(COLUMNS)}
    return Filled.of("k", reach, Bounds(extents), {member.result: member for member in members})


@pytest.mark.parametrize("name", CASES)
def test_where_all_is_reached_the_expression_is_the_same_without_its_mask(name: str) -> None:
    body, monoid, _, _ = CASES[name]
    one = reduced(body, monoid)
    reach = reaches([one], {one.result}, Bounds())["k"]
    found = known(reach)
    plain = found.scalar(body)
    assert found.used
    assert not any(isinstance(node, IndexValue) for node in plain.walk())
    rng = np.random.default_rng(0)
    arrays = {
        X: rng.standard_normal((ROWS, COLUMNS)).astype(np.float32),
        Y: rng.standard_normal(COLUMNS).astype(np.float32),
    }
    domain = Domain([Span("i", 0, ROWS), Span("k", 0, COLUMNS)], {})
    with np.errstate(all="ignore"):
        before, after = (
            np.broadcast_to(Evaluator(domain, arrays, one.location).scalar(one_body), (ROWS, COLUMNS))
            for one_body in (body, plain)
        )
    for row in range(ROWS):
        low, high = (int(end.evaluate({"i": row})) for end in (reach.low, reach.high))
        np.testing.assert_array_equal(before[row, low:high], after[row, low:high])


CAUSAL = Reach(index(0), ROW + 1)


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        (le(COLUMN, ROW), True),
        (apply("gt", at(COLUMN), at(ROW)), False),
        (le(COLUMN, ROW + 3), True),
        (apply("ne", at(COLUMN), at(ROW + 1)), True),
        (le(COLUMN, ROW - 1), None),
        (apply("eq", at(COLUMN), at(ROW)), None),
        (apply("lt", at(ROW), at(5)), None),
        (apply("gt", Read(X, ["i", "k"]), ZERO), None),
    ],
)
def test_a_condition_is_decided_where_it_follows(condition: Scalar, truth: bool | None) -> None:
    found = known(CAUSAL).scalar(condition)
    assert found == (condition if truth is None else Literal(truth, BOOL))


def test_a_condition_that_a_member_of_the_group_works_out() -> None:
    both = [Dim("i", index(ROWS)), Dim("k", index(COLUMNS))]
    mask = Compute(both, le(COLUMN, ROW), name="mask")
    added = Compute(both, select(Read(mask.result, ["i", "k"]), ZERO, LOW), name="added")
    body = apply("add", x(), Read(added.result, ["i", "k"]))
    assert known(CAUSAL, mask, added).scalar(body) == x()


def test_numbers_fold() -> None:
    factor = apply("mul", cast(le(COLUMN, ROW), F32), x())
    assert known(CAUSAL).scalar(factor) == x()
    both = Apply("and", (le(COLUMN, ROW), apply("gt", x(), ZERO)), BOOL)
    assert known(CAUSAL).scalar(both) == apply("gt", x(), ZERO)
    assert known(CAUSAL).scalar(select(apply("not", le(COLUMN, ROW)), literal(1.0), x())) == x()
    count = Apply("add", (cast(le(COLUMN, ROW), I64), Literal(2, I64)), I64)
    assert known(CAUSAL).scalar(count) == Literal(3, I64)


def test_unused() -> None:
    found = known(CAUSAL)
    value = Value(X.type, "z")
    assert found.scalar(Read(value, ["i", "k"])) == Read(value, ["i", "k"])
    assert not found.used


@pytest.mark.parametrize("function", ["and", "or"])
@pytest.mark.parametrize("mask", [7, 8, 0])
def test_bits_of_integers_are_no_conditions(function: str, mask: int) -> None:
    """`select(k <= i, k, 0) & 7` is `k & 7` where the mask is gone."""
    number = select(le(COLUMN, ROW), at(COLUMN), at(0))
    body = apply(function, number, literal(mask, number.dtype))
    domain = Domain([Span("i", 0, ROWS), Span("k", 0, COLUMNS)], {})
    before, after = (
        np.broadcast_to(Evaluator(domain, {}).scalar(one), (ROWS, COLUMNS))
        for one in (body, known(CAUSAL).scalar(body))
    )
    for row in range(ROWS):
        np.testing.assert_array_equal(before[row, : row + 1], after[row, : row + 1])
