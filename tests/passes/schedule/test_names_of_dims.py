"""A group takes over what was found for another of equal structure, whatever the two call their dims."""

from __future__ import annotations

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.core import Block, Function, Module
from codesign.ir.structure import structural_hash
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.lowering import tile_module
from codesign.passes.normalize import normalize
from codesign.passes.schedule.tuner import Tuner


def product(rows: str, columns: str, summed: str, extent: int) -> Fusion:
    """A matrix product whose dims have these names."""
    body = f"{{ %x[{rows}, {summed}] * %w[{summed}, {columns}] }}"
    compute = f"%o = compute f32[{rows}: 32, {columns}: 32] sum({summed}: {extent}) {body}"
    text = f"func @f(%x: f32[32, {extent}], %w: f32[{extent}, 32]) {{\n%y = fusion {{\n{compute}\nyield %o\n}}\nreturn %y\n}}"
    (fusion,) = parse(text).main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


@pytest.mark.parametrize("extent", [64, 65536])
def test_what_was_tuned_under_other_names_is_lowered(extent: int) -> None:
    """As an explanation leaves it, which tunes groups that are not the ones that are launched."""
    first, second = product("i0", "i1", "r0", extent), product("r0", "i0", "r01", extent)
    tuner = Tuner(load_machine("h100_sxm"))
    tuner.tune(first)
    module = Module(functions={"main": Function("main", Block(list(second.uses()), [second], second.results))})
    for info in tile_module(module, tuner).values():
        own = {*info.normalized.fusion.dims()}
        listed = (info.tuned.schedule, *(other.schedule for other in (*info.tuned.runners_up, *info.tuned.programs)))
        assert all({*schedule.tiles, *schedule.reduce, *schedule.order} <= own for schedule in listed)


@pytest.mark.parametrize("extent", [64, 65536])
def test_a_schedule_speaks_of_the_dims_of_its_own_group(extent: int) -> None:
    first, second = product("i0", "i1", "r0", extent), product("r0", "i0", "r01", extent)
    assert structural_hash(first) == structural_hash(second)
    tuner = Tuner(load_machine("h100_sxm"))
    assert tuner.price(first) == tuner.price(second)
    tuned = tuner.tune(second)
    assert bool(tuned.phases) == (extent == 65536)
    assert {*tuned.schedule.tiles, *tuned.schedule.reduce} <= {*normalize(second).fusion.dims()}
    assert tuned.seconds == pytest.approx(tuner.price(first))
