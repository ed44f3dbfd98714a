"""Dead code, common subexpressions, constant folding."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Block, Function, Module, Value
from codesign.ir.dtypes import BOOL, F32, I64
from codesign.ir.index import index
from codesign.ir.interpreter import evaluate
from codesign.ir.scalar import IndexValue, Read, apply, cast
from codesign.ir.tensor import Compute, Constant, Dim, Fusion, If, Monoid, Scan
from codesign.ir.types import tensor
from codesign.passes import CLEAN_UP, optimize
from tests.passes import models


def _exp(source: Value, dim: str = "i") -> Compute:
    return Compute([Dim(dim, source.shape[0])], apply("exp", Read(source, [dim])))


def test_equal_ops_merge_whatever_their_dims_are_called() -> None:
    x = Value(tensor(F32, 8), "x")
    a, b = _exp(x, "i"), _exp(x, "j")
    c, d = _exp(a.result), _exp(b.result)  # equal only once a and b are merged
    out = Compute([Dim("i", index(8))], apply("add", Read(c.result, ["i"]), Read(d.result, ["i"])))
    module = Module("m", {}, {"main": Function("main", Block([x], [a, b, c, d, out], [out.result]))})
    merged = optimize(module, pipeline="cse")
    assert len(merged.main.body.ops) == 3
    data = np.linspace(-1, 1, 8, dtype=np.float32)
    np.testing.assert_array_equal(evaluate(merged, [data])[0], evaluate(module, [data])[0])


def test_different_reductions_do_not_merge() -> None:
    x = Value(tensor(F32, 4, 4), "x")
    dims, reductions = [Dim("i", index(4))], [Dim("k", index(4))]
    rows = Compute(dims, Read(x, ["i", "k"]), reductions=reductions, monoid="sum")
    columns = Compute(dims, Read(x, ["k", "i"]), reductions=reductions, monoid="sum")
    largest = Compute(dims, Read(x, ["i", "k"]), reductions=reductions, monoid="max")
    block = Block([x], [rows, columns, largest], [rows.result, columns.result, largest.result])
    merged = optimize(Module("m", {}, {"main": Function("main", block)}), pipeline="cse")
    assert len(merged.main.body.ops) == 3


def test_dead_ops_go_also_those_that_only_a_dead_region_used() -> None:
    x, flag = Value(tensor(F32, 8), "x"), Value(tensor(BOOL), "flag")
    used, only_inside = _exp(x), _exp(x)
    inner = _exp(only_inside.result)
    dead = If(flag, Block([], [inner], [inner.result]), Block([], [], [x]))
    block = Block([x, flag], [used, only_inside, dead], [used.result])
    cleaned = optimize(Module("m", {}, {"main": Function("main", block)}), pipeline="dce")
    assert len(cleaned.main.body.ops) == 1


def test_small_constants_fold_and_big_ones_stay() -> None:
    b = models.Builder()
    x = b.input(4, 8)
    small = b.pointwise("exp", b.constant(np.arange(8, dtype=np.float32)))
    one = b.constant(np.array(2.5, np.float32))
    big = b.constant(np.zeros((100, 100), np.float32))
    scaled = b.pointwise("mul", b.pointwise("add", x, small), one)
    kept = b.pointwise("exp", big)
    module = b.module(scaled, kept)
    folded = optimize(module, pipeline="constant-fold,dce")
    computes = [op for op in folded.main.body.ops if isinstance(op, Compute)]
    assert [str(op.body) for op in computes][1] == "(%v1[a, b] * 2.5)"
    assert len(computes) == 3  # add, multiply, and the exponential of what is too big to fold
    names = {op.constant for op in folded.main.body.ops if isinstance(op, Constant)}
    assert any(name.startswith("folded") for name in names)
    assert "c1" not in names
    data = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    for old, new in zip(evaluate(module, [data]), evaluate(folded, [data]), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-6)


def test_a_constant_without_data_stays_by_name() -> None:
    b = models.Builder()
    weight = b.constant(np.ones(8, np.float32))
    module = b.module(b.pointwise("exp", weight))
    module.constants.clear()  # as of a model on the meta device
    folded = optimize(module, pipeline="constant-fold,dce")
    assert [op.opcode for op in folded.main.body.ops] == ["constant", "compute"]


def test_clean_up_goes_into_regions() -> None:
    x, flag = Value(tensor(F32, 8), "x"), Value(tensor(BOOL), "flag")
    view = Compute([Dim("i", index(8))], Read(x, [index(7) - "i"]))
    inner, dead = _exp(view.result), _exp(x)
    choice = If(flag, Block([], [view, dead, inner], [inner.result]), Block([], [], [x]))
    module = Module("m", {}, {"main": Function("main", Block([x, flag], [choice], [choice.result]))})
    cleaned = optimize(module, pipeline="fold-views,dce,fuse{policy=none}")
    (op,) = cleaned.main.body.ops
    assert isinstance(op, If)
    (fusion,) = op.then.ops
    assert isinstance(fusion, Fusion)
    data = np.arange(8, dtype=np.float32)
    for value in (True, False):
        inputs = [data, np.array(value)]
        np.testing.assert_allclose(evaluate(cleaned, inputs)[0], evaluate(module, inputs)[0], rtol=1e-6)


@pytest.mark.parametrize("length", [16, 8192])
@pytest.mark.parametrize(
    "pipeline", ["canonicalize,constant-fold,fold-views,canonicalize,dce", CLEAN_UP], ids=["alone", "among all"]
)
def test_a_scan_of_index_arithmetic_is_done_ahead_of_time(pipeline: str, length: int) -> None:
    """cumsum(position[i] != position[i - 1] + 1) of consecutive positions is zero everywhere: a mask over it vanishes."""
    names = [Dim("i", index(length))]
    jump = Compute(names, cast(apply("ne", IndexValue("i"), IndexValue(index("i") * 1)), I64))
    scan = Scan([Dim("i", index(length))], Read(jump.result, ["i"]), monoid="sum", over="i")
    same = Compute(
        [Dim("i", index(length)), Dim("j", index(length))],
        apply("eq", Read(scan.result, ["i"]), Read(scan.result, ["j"])),
    )
    module = Module("m", {}, {"main": Function("main", Block([], [jump, scan, same], [same.result]))})
    folded = optimize(module, pipeline=pipeline)
    (op,) = folded.main.body.ops
    assert isinstance(op, Compute)
    assert str(op.body) == "true"


def test_a_long_scan_whose_result_is_no_line_stays() -> None:
    """Its data would be a large constant."""
    squares = Scan([Dim("i", index(8192))], IndexValue(index("i")), monoid="sum", over="i")
    module = Module("m", {}, {"main": Function("main", Block([], [squares], [squares.result]))})
    folded = optimize(module, pipeline="constant-fold")
    assert [type(op) for op in folded.main.body.ops] == [Scan]
    np.testing.assert_array_equal(evaluate(folded, [])[0], np.cumsum(np.arange(8192)))


def test_integer_data_that_counts_becomes_an_index() -> None:
    b = models.Builder(dtype=I64)
    table = b.input(40, 3, dtype=F32)
    positions = b.constant(np.arange(20).reshape(4, 5) * 2 + 1)
    odd = b.constant(np.array([3, 1, 2]))
    read = Read(table, [Read(positions, ["a", "b"]).as_index(), Read(odd, ["c"]).as_index() - 1])
    module = b.module(b.compute({"a": 4, "b": 5, "c": 3}, read))
    folded = optimize(module, pipeline="constant-fold,fold-views,canonicalize,dce")
    assert [op.opcode for op in folded.main.body.ops] == ["constant", "compute"]  # only the odd one stays
    op = folded.main.body.ops[-1]
    assert isinstance(op, Compute)
    assert str(op.body) == "%x0[a*10 + b*2 + 1, %c1[c] - 1]"
    data = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    np.testing.assert_array_equal(evaluate(folded, [data])[0], evaluate(module, [data])[0])


@pytest.mark.parametrize(
    ("monoid", "identity"),
    [("sum", 0.0), ("prod", 1.0), ("max", -np.inf), ("min", np.inf), ("any", False), ("all", True)],
)
def test_empty_reductions_and_results(monoid: Monoid, identity: float) -> None:
    x = Value(tensor(BOOL if monoid in ("any", "all") else F32, 3, 0), "x")
    reduced = Compute([Dim("i", index(3))], Read(x, ["i", "k"]), reductions=[Dim("k", index(0))], monoid=monoid)
    empty = Compute([Dim("i", index(3)), Dim("j", index(0))], apply("max", Read(x, ["i", "j"]), Read(x, ["i", "j"])))
    block = Block([x], [reduced, empty], [reduced.result, empty.result])
    cleaned = optimize(Module("m", {}, {"main": Function("main", block)}), pipeline="canonicalize,constant-fold,dce")
    assert [op.opcode for op in cleaned.main.body.ops] == ["compute", "constant"]
    assert not cleaned.main.body.ops[0].operands()
    results = evaluate(cleaned, [np.zeros((3, 0), x.type.dtype.numpy)])
    np.testing.assert_array_equal(results[0], np.full(3, identity))
    assert results[1].shape == (3, 0)
