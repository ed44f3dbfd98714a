"""Smaller problems for verification: what can't be smaller is left as it is, its inputs too."""

from __future__ import annotations

from codesign.backends.verification.shrink import FEW_STEPS, shrink
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.normalize import normalize

DIMS = 8


def test_a_group_of_many_short_dims_stays_with_inputs_of_which_it_reads_a_part() -> None:
    """Every second row: its kernel is the original's, so its inputs are as large as the original's."""
    names = [f"i{k}" for k in range(DIMS)]
    dims, sizes = ", ".join(f"{name}: 2" for name in names), ", ".join(["4"] + ["2"] * (DIMS - 1))
    read = ", ".join(["i0*2", *reversed(names[1:])])
    module = parse(f"""module @m
func @main(%x: f32[{sizes}]) {{
  %y = fusion {{
    %v = compute f32[{dims}] {{ exp(%x[{read}]) }}
    yield %v
  }}
  return %y
}}""")
    (fusion,) = (op for op in module.main.body.ops if isinstance(op, Fusion))
    group = normalize(fusion)
    tiles = dict.fromkeys(group.fusion.dims(), 1)
    assert 2 ** len(tiles) > FEW_STEPS
    small = shrink(group, Schedule(tiles=tiles))
    assert not small.changed
    assert small.group is group
    assert all(before is after for before, after in small.values.items())
