"""Unrolled dims: the parts make what the whole makes."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Block
from codesign.ir.index import Bounds, index
from codesign.ir.interpreter import evaluate
from codesign.ir.scalar import IndexValue
from codesign.ir.tensor import Compute, Dim
from codesign.ir.text import parse
from codesign.passes.unroll import Piece, each_point, joined, unrolled

TEXT = """func @main(%x: f32[3, 2, 4]) {
  %a = compute f32[i: 3, s: 2, j: 4] { %x[i, s, j] * f32(s + 1) }
  %b = compute f32[i: 3] MONOID(s: 2, j: 4) { %a[i, s, j] }
  %d = compute f32[i: 3] MONOID(s: 2) { %x[i, s, 1] }
  %c = compute f32[i: 3, j: 4, s: 2] { %a[i, s, j] - %b[i] - %d[i] }
  return %c
}"""


@pytest.mark.parametrize("monoid", ["sum", "max", "min", "prod"])
def test_parts_make_the_whole(monoid: str) -> None:
    text = TEXT.replace("MONOID", monoid)
    module = parse(text)
    block = module.main.body
    computes, parts = unrolled([op for op in block.ops if isinstance(op, Compute)], each_point({"s": 2}), Bounds())
    assert not any(dim.name == "s" for op in computes for dim in op.domain)
    (old,) = block.yields
    whole = joined(parts[old])
    module.main.body = Block(block.args, [*computes, whole], [whole.result])
    x = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(module, [x])[0], evaluate(parse(text), [x])[0], rtol=1e-6)


def test_a_position_along_the_dim_can_not_be_in_parts() -> None:
    module = parse("func @main(%x: f32[3, 2]) {\n  %a = compute i64[i: 3] argmax(s: 2) { %x[i, s] }\n  return %a\n}")
    with pytest.raises(ValueError, match="position"):
        unrolled([op for op in module.main.body.ops if isinstance(op, Compute)], each_point({"s": 2}), Bounds())


@pytest.mark.parametrize("at", [1, 3])
def test_runs_of_points_of_unequal_length(at: int) -> None:
    text = """func @main(%x: f32[3, 4], %y: f32[3]) {
  %a = compute f32[i: 3, j: 4] { select(j < AT, %x[i, j], %y[i]) }
  %m = compute f32[i: 3] max(j: 4) { %a[i, j] }
  %t = compute f32[i: 3] sum(j: 4) { exp(%a[i, j] - %m[i]) }
  return %t
}""".replace("AT", str(at))
    module = parse(text)
    block = module.main.body
    runs = [Piece(index("j"), (Dim("j", index(at)),)), Piece(index("rest") + at, (Dim("rest", index(4 - at)),))]
    computes, parts = unrolled([op for op in block.ops if isinstance(op, Compute)], {"j": runs}, Bounds())
    assert not any(isinstance(node, IndexValue) for op in computes for node in op.body.walk())
    module.main.body = Block(block.args, computes, [parts[block.yields[0]].at({})])
    x, y = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in ((3, 4), (3,)))
    np.testing.assert_allclose(evaluate(module, [x, y])[0], evaluate(parse(text), [x, y])[0], rtol=1e-6)
