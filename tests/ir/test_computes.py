"""A compute made of another: what it keeps, and what goes with its reductions."""

from __future__ import annotations

from codesign.ir.core import Value
from codesign.ir.dtypes import F16, F32
from codesign.ir.index import index
from codesign.ir.location import Location
from codesign.ir.scalar import Read
from codesign.ir.tensor import Compute, Dim
from codesign.ir.types import tensor

X = Value(tensor(F16, 8, 64), "x")
ROWS, TERMS, PART = Dim("i", index(8)), Dim("k", index(64)), Dim("p", index(4))
PLACE = Location(file="model.py", line=3)
SUM = Compute(
    [ROWS],
    Read(X, ("i", "k")),
    dtype=F16,
    reductions=[TERMS],
    monoid="sum",
    accumulate=F32,
    name="total",
    location=PLACE,
)


def test_over_another_domain_it_sums_as_before() -> None:
    body = Read(X, ("i", index("p") * 16 + index("k")))
    part = SUM.with_domain([PART, ROWS], [Dim("k", index(16))], body, dtype=SUM.accumulate, name="total_part")
    assert (part.monoid, part.accumulate, part.dtype, part.location) == ("sum", F32, F32, PLACE)
    assert part.result.name == "total_part"
    assert part.result.shape == (index(4), index(8))
    assert SUM.with_domain([PART, ROWS], [Dim("k", index(16))], body, monoid="max").monoid == "max"


def test_with_another_body_it_is_the_same_sum_to_a_result_of_its_own() -> None:
    other = SUM.with_body(Read(X, ("i", "k")))
    assert (other.dims, other.reductions, other.monoid) == (SUM.dims, SUM.reductions, SUM.monoid)
    assert (other.accumulate, other.dtype, other.result.name) == (F32, F16, "total")
    assert other.result is not SUM.result


def test_without_reductions_nothing_is_accumulated() -> None:
    plain = SUM.with_domain([ROWS, TERMS], [], Read(X, ("i", "k")))
    assert (plain.monoid, plain.accumulate, plain.dtype) == (None, F16, F16)
