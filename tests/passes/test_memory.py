"""Memory plans: live buffers never overlap, reuse reaches the lower bound on chains, sizes bind symbols."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.ir.core import Block, Function, Value
from codesign.ir.dtypes import F16, F32
from codesign.ir.index import index
from codesign.ir.scalar import Read, Scalar, apply
from codesign.ir.tensor import Compute, Dim
from codesign.ir.types import tensor
from codesign.passes import optimize
from codesign.passes.memory import ALIGNMENT, MemoryPlan, find_aliases, plan
from tests.passes import models


def _no_live_overlap(result: MemoryPlan) -> None:
    pairs = itertools.combinations(result.buffers.items(), 2)
    for (a, first), (b, second) in pairs:
        if result.in_place.get(a) is b or result.in_place.get(b) is a:
            continue
        assert not first.overlaps(second), (a, b)


@pytest.mark.parametrize("name", sorted(models.ALL))
@pytest.mark.parametrize(
    "pipeline", ["dce", "canonicalize,fold-views,cse,dce", "canonicalize,fold-views,cse,dce,fuse{policy=none}"]
)
def test_live_buffers_do_not_overlap(name: str, pipeline: str) -> None:
    result = plan(optimize(models.ALL[name](), pipeline=pipeline).main)
    _no_live_overlap(result)
    assert result.lower_bound_bytes <= result.peak_bytes <= 1.1 * result.lower_bound_bytes + ALIGNMENT
    assert all(buffer.offset % ALIGNMENT == 0 for buffer in result.buffers.values())


def _add(*values: Value) -> Compute:
    names = [f"i{axis}" for axis in range(len(values[0].shape))]
    body: Scalar = Read(values[0], names)
    for value in values[1:]:
        body = apply("add", body, Read(value, names))
    return Compute([Dim(n, e) for n, e in zip(names, values[0].shape, strict=True)], body)


def test_a_chain_needs_two_buffers() -> None:
    x = Value(tensor(F32, 1024), "x")
    ops = []
    last = x
    for _ in range(10):
        ops.append(_add(last, last))
        last = ops[-1].result
    result = plan(Function("main", Block([x], ops, [last])))
    assert result.peak_bytes == 2 * 4096  # one being read, one being written; the result is the caller's
    assert result.input_bytes == result.output_bytes == 4096


def test_symbolic_sizes_bind() -> None:
    x = Value(tensor(F16, "n", 8), "x")
    first = _add(x, x)
    second = _add(first.result, x)
    function = Function("main", Block([x], [first, second], [second.result]))
    assert plan(function, {"n": 100}).sizes[first.result] == 1600
    with pytest.raises(KeyError, match="n"):
        plan(function)


def test_a_reshape_is_an_alias_and_keeps_its_source_alive() -> None:
    x = Value(tensor(F32, 6, 4), "x")
    made = _add(x, x)
    view = Compute(
        [Dim("i", index(2)), Dim("j", index(12))], Read(made.result, [index("i") * 3 + index("j") // 4, index("j") % 4])
    )
    transposed = Compute([Dim("i", index(4)), Dim("j", index(6))], Read(made.result, ["j", "i"]))
    used = _add(view.result, view.result)
    function = Function("main", Block([x], [made, view, transposed, used], [used.result, transposed.result]))
    assert find_aliases(function.body) == {view.result: made.result}
    result = plan(function)
    assert view.result not in result.buffers
    assert result.buffers[made.result].last == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_random_graphs(nodes: list[tuple[int, int, int]]) -> None:
    """Each op reads up to two of the seven latest values of its own size (or the input)."""
    args = {size: Value(tensor(F32, size), f"x{size}") for size, _, _ in nodes}
    made: dict[int, list[Value]] = {size: [value] for size, value in args.items()}
    ops = []
    for size, a, b in nodes:
        candidates = made[size][-7:]
        ops.append(_add(candidates[a % len(candidates)], candidates[b % len(candidates)]))
        made[size].append(ops[-1].result)
    function = Function("main", Block(args.values(), ops, [ops[-1].result]))
    _no_live_overlap(plan(function))
    fused = optimize(models.as_module(function), pipeline="fuse{policy=none}").main
    _no_live_overlap(plan(fused))
