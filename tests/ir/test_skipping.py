"""Conditions on data under which a step of a loop counts."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL, F32, I32
from codesign.ir.index import index
from codesign.ir.scalar import Literal, Read, Scalar, apply, literal, select
from codesign.ir.skipping import contributing
from codesign.ir.tensor import Compute, Dim, Monoid
from codesign.ir.types import tensor
from tests.ir.test_reach import COLUMNS, LOW, ROWS, ZERO, le, reduced, softmax_sum, x

P, K = Value(tensor(I32, ROWS), "p"), Value(tensor(I32, COLUMNS), "k")
B, F = Value(tensor(BOOL, ROWS, COLUMNS), "b"), Value(tensor(F32, ROWS, COLUMNS), "f")

SAME = apply("eq", Read(P, ["i"]), Read(K, ["k"]))
BLOCK = Read(B, ["i", "k"])
ADDED = Read(F, ["i", "k"])

FOUND: dict[str, tuple[Scalar, Monoid, Scalar]] = {
    "documents": (select(SAME, x(), LOW), "max", SAME),
    "other documents": (select(SAME, LOW, x()), "max", apply("not", SAME)),
    "a mask of bools": (apply("mul", select(BLOCK, x(), ZERO), x()), "sum", BLOCK),
    "a mask that is added": (apply("add", x(), select(BLOCK, ZERO, LOW)), "max", BLOCK),
    "two": (select(apply("and", SAME, le("k", "i")), x(), LOW), "max", apply("and", SAME, le("k", "i"))),
    "either": (select(apply("or", SAME, BLOCK), x(), LOW), "max", apply("or", SAME, BLOCK)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_a_mask_that_is_data_is_a_condition(name: str) -> None:
    body, monoid, wanted = FOUND[name]
    assert contributing([reduced(body, monoid)], "k", {}, folded=True) == wanted


NOT_FOUND: dict[str, tuple[Scalar, Monoid]] = {
    "a mask of indices": (select(le("k", "i"), x(), LOW), "max"),
    "another value": (select(SAME, x(), ZERO), "max"),
    "the lowest number alone in a row": (select(SAME, x(), literal(float(np.finfo(np.float32).min))), "max"),
    "a row": (select(apply("eq", Read(P, ["i"]), Literal(3, I32)), x(), LOW), "max"),
    "positions": (select(SAME, x(), LOW), "argmax"),
    "no mask": (apply("mul", x(), x()), "sum"),
    "numbers that are added": (apply("exp", apply("add", x(), ADDED)), "sum"),
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_is_no_such_mask_is_none(name: str) -> None:
    assert contributing([reduced(*NOT_FOUND[name])], "k", {}, folded=True) is None


def test_what_a_reduction_makes_is_not_asked() -> None:
    top = reduced(x(), "max", "top")
    body = select(apply("gt", Read(top.result, ["i"]), x()), x(), LOW)
    assert contributing([reduced(body, "max")], "k", {top.result: top}, folded=True) is None


def test_reductions_that_want_their_masked_rows_are_asked_in_one_pass_alone() -> None:
    """A sum of exponentials of a row that is masked whole is NaN by itself; what goes on in one pass makes it so after."""
    computes, total = softmax_sum("total")
    both = [Dim("i", index(ROWS)), Dim("k", index(COLUMNS))]
    masked = Compute(both, select(SAME, x(), LOW), name="scores")
    inside = {masked.result: masked}
    for compute in computes[1:]:
        compute.replace({computes[0].result: masked.result})
        inside[compute.result] = compute
    assert contributing([total], "k", inside, folded=False) is None
    assert contributing([total, computes[1]], "k", inside, folded=True) == SAME
