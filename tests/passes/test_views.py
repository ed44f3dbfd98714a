"""View folding: views vanish into indices, guards compose, and values stay (interpreter on random chains of views)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.ir.core import Block, Function, Module, Value
from codesign.ir.dtypes import F32, I64
from codesign.ir.index import Index, IndexLike, index
from codesign.ir.interpreter import evaluate
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, select
from codesign.ir.tensor import Compute, Dim
from codesign.ir.types import tensor
from codesign.passes import optimize
from tests.passes import models

FOLD = "fold-views,canonicalize,dce"


def _compute(shape: Sequence[IndexLike], body: Scalar) -> Compute:
    return Compute([Dim(f"d{axis}", index(size)) for axis, size in enumerate(shape)], body)


def _names(count: int) -> list[str]:
    return [f"d{axis}" for axis in range(count)]


def _sizes(value: Value) -> list[int]:
    return [size.constant for size in value.shape]


def _run(module: Module, *inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(evaluate(module, list(inputs))[0])


def _module(args: list[Value], ops: list[Compute], *results: Value) -> Module:
    return Module("m", {}, {"main": Function("main", Block(args, ops, results))})


@pytest.mark.parametrize("name", sorted(models.ALL))
def test_no_view_is_left_between_computes(name: str) -> None:
    module = models.ALL[name]()
    folded = optimize(module, pipeline=FOLD)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal([s.constant for s in v.shape]).astype(np.float32) for v in module.main.args]
    for old, new in zip(evaluate(module, inputs), evaluate(folded, inputs), strict=True):
        np.testing.assert_array_equal(old, new)
    results = set(folded.main.results)
    for op in folded.main.body.ops:
        assert isinstance(op, Compute)
        if isinstance(op.body, Read) and not op.reductions:
            assert op.result in results


def test_a_pad_read_through_a_crop_does_not_show_what_was_cropped() -> None:
    """crop(x)[0:4] padded with 7 on both sides: outside of the crop the pad's value holds, although x has elements there."""
    x = Value(tensor(F32, 8), "x")
    crop = _compute([4], Read(x, [index("d0") + 2]))
    pad = _compute([8], Read(crop.result, [index("d0") - 2], Literal(7.0, F32)))
    module = _module([x], [crop, pad], pad.result)
    data = np.arange(8, dtype=np.float32)
    expected = np.array([7, 7, 2, 3, 4, 5, 7, 7], np.float32)
    np.testing.assert_array_equal(_run(module, data), expected)
    folded = optimize(module, pipeline=FOLD)
    assert len(folded.main.body.ops) == 1
    np.testing.assert_array_equal(_run(folded, data), expected)


def test_a_guard_on_a_permuted_tensor_stays_a_guard() -> None:
    """Convolution borders on a channels-last input: no select is needed, the outer read's own guard says it all."""
    x = Value(tensor(F32, 5, 3), "x")
    turned = _compute([3, 5], Read(x, ["d1", "d0"]))
    op = _compute([3, 7], Read(turned.result, ["d0", index("d1") - 1], Literal(0.0, F32)))
    folded = optimize(_module([x], [turned, op], op.result), pipeline=FOLD)
    (only,) = folded.main.body.ops
    assert isinstance(only, Compute)
    assert isinstance(only.body, Read)
    assert only.body.otherwise == Literal(0.0, F32)


def test_iota_in_a_gather_becomes_an_index() -> None:
    table = Value(tensor(F32, 6, 2), "table")
    iota = _compute([6], IndexValue(Index(()) + 5 - index("d0")))
    op = _compute([6, 2], Read(table, [Read(iota.result, ["d0"]).as_index(), "d1"]))
    folded = optimize(_module([table], [iota, op], op.result), pipeline=FOLD)
    (only,) = folded.main.body.ops
    assert isinstance(only, Compute)
    assert str(only.body) == "%table[-d0 + 5, d1]"


def test_a_gather_is_not_a_view() -> None:
    table, ids = Value(tensor(F32, 6, 2), "table"), Value(tensor(I64, 4), "ids")
    gather = _compute([4, 2], Read(table, [Read(ids, ["d0"]).as_index(), "d1"]))
    twice = _compute([4, 2], apply("add", Read(gather.result, ["d0", "d1"]), Read(gather.result, ["d0", "d1"])))
    folded = optimize(_module([table, ids], [gather, twice], twice.result), pipeline=FOLD)
    assert len(folded.main.body.ops) == 2


# -- random chains ----------------------------------------------------------------------------------------------------
@st.composite
def _chains(draw: st.DrawFn) -> Module:
    """A chain of reshapes, permutations, slices, flips, pads, broadcasts and repeats, with element-wise ops between some."""
    x = Value(tensor(F32, *draw(st.sampled_from([(12,), (4, 6), (2, 3, 4)]))), "x")
    ops: list[Compute] = []
    value = x
    for _ in range(draw(st.integers(1, 7))):
        shape = _sizes(value)
        names = _names(len(shape))
        axis = draw(st.integers(0, len(shape) - 1))
        kind = draw(
            st.sampled_from(["reshape", "permute", "slice", "flip", "pad", "broadcast", "repeat", "roll", "work"])
        )
        new, places, otherwise = list(shape), [index(n) for n in names], None
        if kind == "reshape":
            total = int(np.prod(shape))
            first = draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
            new = [first, total // first]
            flat = index("d0") * new[1] + "d1"
            places = []
            for size in reversed(shape):
                places.insert(0, flat % size)
                flat = flat // size
        elif kind == "permute":
            order = draw(st.permutations(range(len(shape))))
            new = [shape[o] for o in order]
            places = [index(f"d{order.index(i)}") for i in range(len(shape))]
        elif kind == "slice":
            start = draw(st.integers(0, shape[axis] - 1))
            step = draw(st.integers(1, 3))
            new[axis] = -(-(shape[axis] - start) // step)
            places[axis] = index(names[axis]) * step + start
        elif kind == "flip":
            places[axis] = Index(()) + shape[axis] - 1 - index(names[axis])
        elif kind == "pad":
            low, high = draw(st.integers(0, 3)), draw(st.integers(0, 3))
            new[axis] += low + high
            places[axis] = index(names[axis]) - low
            otherwise = Literal(float(draw(st.integers(0, 1))), F32)
        elif kind == "broadcast" and len(shape) < 4:
            new, places = [2, *shape], [index(f"d{i + 1}") for i in range(len(shape))]
        elif kind == "repeat":
            new[axis] *= 2
            places[axis] = index(names[axis]) % shape[axis]
        elif kind == "roll":
            places[axis] = (index(names[axis]) + draw(st.integers(0, 5))) % shape[axis]
        body: Scalar = Read(value, places, otherwise)
        if kind == "work":
            body = apply("exp", apply("neg", apply("abs", body)))
        elif draw(st.booleans()):
            limit = draw(st.integers(0, 5))
            last = IndexValue(f"d{len(new) - 1}")
            body = select(apply("lt", last, Literal(limit, I64)), body, Literal(3.0, F32))
        ops.append(_compute(new, body))
        value = ops[-1].result
    return _module([x], ops, value)


@settings(max_examples=200, deadline=None)
@given(_chains())
def test_random_chains_of_views(module: Module) -> None:
    x = np.random.default_rng(0).standard_normal(_sizes(module.main.args[0])).astype(np.float32)
    expected = _run(module, x)
    folded = optimize(module, pipeline="canonicalize,fold-views,canonicalize,cse,dce")
    np.testing.assert_allclose(_run(folded, x), expected, rtol=1e-6)
    fused = optimize(module, pipeline="canonicalize,fold-views,canonicalize,cse,dce,fuse{prices=roofline}")
    np.testing.assert_allclose(_run(fused, x), expected, rtol=1e-6)
