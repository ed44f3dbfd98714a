"""Changes of basis: mixed-radix digits found exactly, and a rebased compute computes the same under another shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.ir.core import Block, Function, Module, Value
from codesign.ir.dtypes import F32
from codesign.ir.index import Bounds, Index, index
from codesign.ir.interpreter import evaluate
from codesign.ir.scalar import Read, apply
from codesign.ir.tensor import Compute, Dim
from codesign.ir.types import tensor
from codesign.passes.rebase import Split, digits_asked_for, mixed_radix, rebased

EXTENTS = {"i": index(6), "j": index(4), "k": index(2), "b": index("B"), "t": index("T")}
ROW, COLUMN, K = index("i"), index("j"), index("k")


@pytest.mark.parametrize(("one", "four"), [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("first", [True, False])
def test_digits_are_found_whatever_dims_are_called_and_in_whatever_order(one: str, four: str, first: bool) -> None:
    """A dim of one element has the stride of the digit above it."""
    extents = {one: index(1), four: index(4)} if first else {four: index(4), one: index(1)}
    assert mixed_radix(index(one) + four, index(4), extents) == (four, one)


@pytest.mark.parametrize(
    ("expression", "extent", "digits"),
    [
        (ROW * 4 + COLUMN, 24, ("i", "j")),
        (COLUMN * 6 + ROW, 24, ("j", "i")),
        (ROW * 8 + COLUMN * 2 + K, 48, ("i", "j", "k")),
        (index("b") * "T" + "t", index("B") * "T", ("b", "t")),
        (ROW, 6, ("i",)),
        (Index(()), 1, ()),
        (ROW * 4 + COLUMN, 25, None),  # not all of it
        (ROW * 5 + COLUMN, 30, None),  # gaps
        (ROW * 3 + COLUMN, 22, None),  # overlaps
        (ROW * 4 + COLUMN + 1, 24, None),  # shifted
        (ROW * 4 + (COLUMN * 3) % 4, 24, None),
        (ROW * COLUMN, 24, None),
    ],
)
def test_mixed_radix(expression: Index, extent: Index | int, digits: tuple[str, ...] | None) -> None:
    assert mixed_radix(expression, index(extent), EXTENTS) == digits


@given(st.permutations(["i", "j", "k"]), st.integers(1, 3))
def test_mixed_radix_counts_each_number_once(order: list[str], scale: int) -> None:
    flat, extent = Index(()), 1
    for name in order:
        flat = flat * EXTENTS[name] + name
        extent *= EXTENTS[name].constant
    assert mixed_radix(flat, index(extent), EXTENTS) == tuple(order)
    if scale > 1:
        assert mixed_radix(flat * scale, index(extent * scale), EXTENTS) is None


def test_digits_of_a_reshape() -> None:
    c = index("c")
    split = digits_asked_for("c", index(24), [c // 4, c % 4])
    assert split is not None
    assert [(d.name, d.extent.constant) for d in split.digits] == [("c_0", 6), ("c_1", 4)]
    assert (c // 4).substitute({"c": split.value}).simplify(Bounds({"c_0": index(6), "c_1": index(4)})) == index("c_0")
    three = digits_asked_for("c", index(24), [c // 12, (c // 4) % 3, c % 4])
    assert three is not None
    assert [d.extent.constant for d in three.digits] == [2, 3, 4]
    assert digits_asked_for("c", index(24), [c // 5]) is None  # 5 does not divide 24
    assert digits_asked_for("c", index(24), [c // 4, c // 6]) is None  # no chain of divisors
    assert digits_asked_for("c", index(24), [c]) is None
    symbolic = digits_asked_for("c", index("B") * "T", [c // index("T"), c % index("T")])
    assert symbolic is not None
    assert [str(d.extent) for d in symbolic.digits] == ["B", "T"]


def test_a_rebased_reduction_is_the_reshaped_reduction() -> None:
    x = Value(tensor(F32, 24, 10), "x")
    rows = Compute([Dim("p", index(24))], Read(x, ["p", "k"]), reductions=[Dim("k", index(10))], monoid="sum")
    scaled = Compute([Dim("p", index(24))], apply("exp", Read(rows.result, ["p"])))
    split = Split("p", (Dim("a", index(6)), Dim("b", index(4))), index("a") * 4 + "b")
    (first, second), mapping = rebased([rows, scaled], {"k": "z"}, {"p": split}, Bounds())
    assert mapping == {rows.result: first.result, scaled.result: second.result}
    assert [str(d) for d in second.dims] == ["a: 6", "b: 4"]
    assert str(second.body) == "exp(%[a, b])"
    assert [d.name for d in first.reductions] == ["z"]
    data = np.random.default_rng(0).standard_normal((24, 10)).astype(np.float32)
    results = []
    for ops in ([rows, scaled], [first, second]):
        module = Module("m", {}, {"main": Function("main", Block([x], ops, [ops[-1].result]))})
        results.append(evaluate(module, [data])[0])
    np.testing.assert_array_equal(results[0].reshape(6, 4), results[1])
