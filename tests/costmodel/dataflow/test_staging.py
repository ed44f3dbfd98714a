"""Tiles and staging of a memory between DRAM and the cores: said by a schedule, lowered, simulated and priced alike."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.dataflow.turns import largest_divisor
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.errors import ScheduleError
from codesign.ir.program import Load
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.ir.text.program import parse_program, print_program
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups


def small(capacity: int = 1 << 18) -> Machine:
    """tpu_v4 with little room between DRAM and its two cores."""
    return load_machine("tpu_v4").with_figures({"levels.cmem.capacity_bytes": float(capacity)})


def schedule(
    tiles: dict[str, int],
    staged: tuple[str, ...] = (),
    order: tuple[str, ...] = ("i", "j"),
    walk: tuple[str, ...] = (),
) -> Schedule:
    levels = {"chip": AtLevel({}, tiles, walk, dict.fromkeys(staged, 1)), "core": AtLevel({"j": 2})}
    return Schedule({"i": 64, "j": 64, "k": 64}, levels, order, {"k": "looped"}, pipeline=2)


TILES: tuple[dict[str, int], ...] = ({}, {"j": 256}, {"i": 256, "j": 512}, {"i": 100})
CHOICES = [
    schedule(tiles, staged, order)
    for tiles, staged, order in itertools.product(TILES, ((), ("in0",), ("in0", "in1")), (("i", "j"), ("j", "i")))
]
CHOICES += [
    schedule({"i": 256, "j": 256}, staged, ("i", "j"), walk)
    for staged, walk in itertools.product(((), ("in1",)), (("i",), ("j",), ("j", "i")))
]


def test_simulator_and_model_obey_every_tile_and_stage() -> None:
    """What is refused is refused by both for one reason; what runs moves as many bytes as the model says."""
    machine, form = small(), normalize(groups.gemm(1024, 512, 128))
    kernel = summarize(form.fusion)
    batch = ScheduleBatch.of(CHOICES)
    assert [batch.row(i).to_json() for i in range(len(CHOICES))] == [one.to_json() for one in CHOICES]
    cost = DataflowModel().predict(kernel, machine, batch)
    moved = set()
    for row, one in enumerate(CHOICES):
        assert Schedule.from_json(one.to_json()).hash == one.hash
        alone = DataflowModel().predict(kernel, machine, ScheduleBatch.of([one]))
        assert (alone.reason[0], alone.dram_bytes[0]) == (cost.reason[row], cost.dram_bytes[row])
        if cost.reason[row]:
            with pytest.raises(ScheduleError) as raised:
                lower(tile(form.fusion, one, outputs=form.outputs), machine)
            assert str(cost.reason[row]) in str(raised.value)
            continue
        run = simulate(lower(tile(form.fusion, one, outputs=form.outputs), machine), None, machine, values=False)
        assert cost.dram_bytes[row] == pytest.approx(run.dram_bytes, rel=0.01), one
        moved.add(run.dram_bytes)
    assert len(moved) > 4
    assert any(cost.reason)


def test_a_tile_makes_room_for_both_operands() -> None:
    """1024 x 1024 x 256 with half of an operand's room: without tiles one of them is read for each block, with tiles it is read four times."""
    machine, kernel = small(), summarize(normalize(groups.gemm(1024, 1024, 256)).fusion)
    plain, tiled = (DataflowModel().predict(kernel, machine, ScheduleBatch.of([schedule(t)])) for t in ({}, {"j": 256}))
    operand, result, bias = 1024 * 256 * 2, 1024 * 1024 * 2, 1024 * 2
    assert plain.dram_bytes[0] > result + 8 * operand
    assert tiled.dram_bytes[0] == result + 5 * operand + bias


@pytest.mark.parametrize(("m", "n", "k"), [(256, 384, 64), (200, 300, 96)])
@pytest.mark.parametrize("staged", [(), ("in0",)])
def test_values_are_right(m: int, n: int, k: int, staged: tuple[str, ...]) -> None:
    machine, group = small(1 << 20), groups.gemm(m, n, k)
    form = normalize(group)
    kernel = tile(form.fusion, schedule({"i": 128, "j": 128}, staged), outputs=form.outputs)
    program = lower(kernel, machine)
    kept = {op.source.name for op in program.instructions() if isinstance(op, Load) and op.keep is not None}
    named = {"in0": "x", "in1": "w"}
    assert kept == ({named[one] for one in staged} or {"x", "w", "bias"})
    text = print_program(program)
    assert print_program(parse_program(text)) == text
    arrays = groups.random_inputs(group)
    result = simulate(program, arrays, machine)
    np.testing.assert_allclose(result.outputs[0], groups.run_tiles(kernel, arrays)[0], rtol=4e-3, atol=4e-2)


def test_a_search_is_offered_them_where_not_all_fits() -> None:
    kernel = summarize(normalize(groups.gemm(4096, 4096, 1024)).fusion)
    names = {knob.name for knob in space(kernel, small()).knobs}
    assert {"levels.chip.tile.i", "levels.chip.tile.j", "levels.chip.stage.in0", "levels.chip.stage.in1"} <= names
    assert not any("stage" in knob.name for knob in space(kernel, load_machine("tpu_v4")).knobs)


def test_blocks_are_cut_evenly() -> None:
    numbers, limits = np.array([12, 12, 12, 7, 8]), np.array([5, 12, 0, 3, 1 << 31])
    assert largest_divisor(numbers, limits).tolist() == [4, 12, 1, 1, 8]


def test_a_level_goes_from_tile_to_tile_in_an_order_of_its_own() -> None:
    """A column of tiles after the other, each row by row: the right operand is read once, the left one once for each column."""
    machine, kernel = small(410_000), summarize(normalize(groups.gemm(1024, 1024, 256)).fusion)
    rows, columns = (
        DataflowModel().predict(kernel, machine, ScheduleBatch.of([schedule({"i": 512, "j": 256}, walk=walk)]))
        for walk in (("i",), ("j",))
    )
    operand, rest = 1024 * 256 * 2, 1024 * 1024 * 2 + 1024 * 2
    assert rows.dram_bytes[0] == rest + operand + 2 * operand
    assert columns.dram_bytes[0] == rest + operand + 4 * operand


def test_the_order_of_tiles_is_offered_where_tiles_are() -> None:
    found = space(summarize(normalize(groups.gemm(1024, 1024, 256)).fusion), small())
    names = [knob.name for knob in found.knobs]
    codes = found.start()
    codes[0, names.index("levels.chip.order.j")] = 1
    assert found.batch(codes).row(0).levels["chip"].order == ("j",)
    assert not found.batch(found.start()).row(0).levels.get("chip", AtLevel()).order
