"""Reductions that an accelerator splits in space: parts that rest near the cores, and a joined program that merges them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.backends.accelerator import SimulationResult, lower, simulate
from codesign.costmodel.dataflow.resting import room_for
from codesign.costmodel.dataflow.target import target_of
from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.core import Block, Function, Module, Value, tensor_type
from codesign.ir.errors import ScheduleError
from codesign.ir.numerics import Array
from codesign.ir.schedule import AtLevel, Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.text.program import parse_program, print_program
from codesign.passes.lowering import tile_module
from codesign.passes.schedule.phases import Half, check_joins, halves
from codesign.passes.schedule.tuner import Tuner
from codesign.passes.tile import lower as tile
from codesign.passes.tiling.cutting import Cutting
from tests.passes.tiling import groups

MAIA = load_machine("maia100")
TUNER = Tuner(MAIA)


def run(half: Half, tuner: Tuner, arrays: dict[Value, Array]) -> tuple[SimulationResult, float]:
    """A half's program at its best schedule, and what it was predicted to take; its results are added to the arrays."""
    form = tuner.form(half.fusion, common=half.common)
    found = tuner._search(form)
    assert not isinstance(found, ScheduleError)
    kernel = tile(form.normalized.fusion, found.schedule, outputs=form.normalized.outputs)
    program = lower(kernel, tuner.machine)
    text = print_program(program)
    assert print_program(parse_program(text)) == text
    inputs = [arrays[value] for value in form.normalized.fusion.uses()]
    shapes = [tuple(size.constant for size in value.shape) for value in program.inputs]
    result = simulate(program, [a.reshape(s) for a, s in zip(inputs, shapes, strict=True)], tuner.machine)
    for value, array in zip(half.fusion.results, result.outputs, strict=True):
        arrays[value] = array
    return result, found.seconds


@pytest.mark.parametrize("group", [groups.gemm(32, 32, 512), groups.softmax(4, 512)], ids=["sum", "fold"])
@pytest.mark.parametrize("machine", ["maia100", "tpu_v4", "gaudi3"])
def test_parts_are_merged_among_the_cores(group: Fusion, machine: str) -> None:
    """The sum of a product and the state of a softmax; gaudi3 has no memory to leave them in but DRAM."""
    tuner = Tuner(load_machine(machine), budget=100)
    given = groups.random_inputs(group)
    arrays = dict(zip(group.uses(), given, strict=True))
    first, second = halves(tuner, group, Cutting(4))
    place = {"maia100": "cluster", "tpu_v4": "chip", "gaudi3": ""}[machine]
    (parts, _), (merged, predicted) = run(first, tuner, arrays), run(second, tuner, arrays)
    (expected,) = groups.reference(group, given)
    np.testing.assert_allclose(merged.outputs[0].reshape(expected.shape), expected, rtol=4e-3, atol=4e-3)
    assert parts.program.resting == ({value.name: place for value in parts.program.results} if place else {})
    assert (not merged.program.resting) == (not place)
    assert merged.program.joined
    assert merged.seconds == pytest.approx(predicted, rel=0.1)
    assert merged.seconds < target_of(tuner.machine).launch_seconds + merged.cycles / merged.clock_hz
    if place:  # the parts never see DRAM
        stored = sum(array.nbytes for array in parts.outputs)
        alone = lower(tile(*_plain(first, tuner)), tuner.machine)
        apart = simulate(alone, None, tuner.machine, values=False)
        assert apart.dram_bytes - parts.dram_bytes >= stored


def _plain(half: Half, tuner: Tuner) -> tuple[Fusion, Schedule]:
    """The same half with its parts in DRAM."""
    form = tuner.form(half.fusion, common=half.common)
    found = tuner._search(form)
    assert not isinstance(found, ScheduleError)
    levels = {place: replace(at, stage={}) for place, at in found.schedule.levels.items()}
    return form.normalized.fusion, replace(found.schedule, levels=levels)


def test_a_long_sum_on_a_small_grid_is_split_over_the_cores() -> None:
    group = groups.gemm(16, 32, 16384)
    tuned = TUNER.tune(group)
    first, second = (phase.tuned.schedule for phase in tuned.phases)
    assert tuned.seconds < 0.75 * TUNER.tune(group, split=False).seconds
    assert first.levels["cluster"].stage == {"out0": 1}
    assert second.levels["cluster"].stage == {"in0": 1}
    assert second.extras["joined"]


def module_of(group: Fusion) -> Module:
    inputs = [Value(tensor_type(value), value.name) for value in group.uses()]
    group.body.replace(dict(zip(group.uses(), inputs, strict=True)))
    return Module(functions={"main": Function("main", Block(inputs, [group], list(group.results)))})


def test_its_schedules_replay_and_none_may_disagree() -> None:
    made = tile_module(module_of(groups.gemm(16, 32, 16384)), TUNER)
    schedules = {name: info.tuned.schedule for name, info in made.items()}
    assert len(schedules) == 2
    again = tile_module(module_of(groups.gemm(16, 32, 16384)), TUNER, schedules)
    assert all(info.replayed and info.tuned.schedule == schedules[name] for name, info in again.items())
    joined = next(name for name, schedule in schedules.items() if schedule.extras.get("joined"))
    apart = {joined: replace(schedules[joined], extras={})}
    with pytest.raises(ScheduleError, match=r"extras\.joined: says nothing where the split"):
        tile_module(module_of(groups.gemm(16, 32, 16384)), TUNER, apart)


def test_only_halves_of_a_split_are_joined() -> None:
    with pytest.raises(ScheduleError, match=r"levels\.\*\.stage: says cluster\.out0"):
        check_joins(Schedule(levels={"cluster": AtLevel(stage={"out0": 1})}), Schedule(), "k")
    check_joins(Schedule(levels={"cluster": AtLevel(stage={"in0": 1})}), Schedule(), "k")


def test_parts_rest_where_all_cores_reach_them_and_there_is_room() -> None:
    assert room_for(target_of(MAIA), 1 << 20) == "cluster"
    assert room_for(target_of(MAIA), 1 << 30) == ""
    assert room_for(target_of(load_machine("tpu_v6e")), 1) == ""
    islands: Machine = MAIA.model_copy(
        update={"levels": [level.model_copy(update={"multicast": False}) for level in MAIA.levels]}
    )
    assert room_for(target_of(islands), 1) == ""
