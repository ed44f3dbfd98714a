"""Reductions over rows that no block can hold: a further sweep is DRAM traffic as far as L2 does not hold the rows at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from codesign.costmodel.events import EventModel
from codesign.costmodel.gpu.block import code_of
from codesign.costmodel.gpu.chip import cache_bytes
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.gpu.phases import phases_of
from codesign.costmodel.gpu.sweeps import sweeps_of
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.performed import performed
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.schedule.tuner import Tuned, Tuner
from tests.costmodel.groups import group
from tests.passes.tiling import groups


def one_kernel(fusion: Fusion, machine: Machine | str = "h100_sxm") -> Tuned:
    """The best schedule of a group as one kernel: few long rows are better done by two."""
    return Tuner(load_machine(machine) if isinstance(machine, str) else machine).tune(fusion, split=False)


def softmax(rows: int, length: int) -> tuple[Fusion, int]:
    return group(
        f"%x: f32[{rows}, {length}]",
        f"%m = compute f32[i: {rows}] max(j: {length}) {{ %x[i, j] }}",
        f"%e = compute f32[i: {rows}, j: {length}] {{ exp(%x[i, j] - %m[i]) }}",
        f"%s = compute f32[i: {rows}] sum(j: {length}) {{ %e[i, j] }}",
        f"%y = compute f32[i: {rows}, j: {length}] {{ %e[i, j] / %s[i] }}",
    ), 1  # the maximum and the sum in one sweep, the result in another


def norm(rows: int, length: int) -> tuple[Fusion, int]:
    return group(
        f"%x: f32[{rows}, {length}]",
        f"%s = compute f32[i: {rows}] sum(j: {length}) {{ %x[i, j] * %x[i, j] }}",
        f"%y = compute f32[i: {rows}, j: {length}] {{ %x[i, j] * rsqrt(%s[i]) }}",
    ), 1


def reduction(rows: int, length: int) -> tuple[Fusion, int]:
    return group(f"%x: f32[{rows}, {length}]", f"%y = compute f32[i: {rows}] sum(j: {length}) {{ %x[i, j] }}"), 0


def bandwidth(machine: Machine) -> float:
    return machine.need(machine.level("dram").bandwidth, "dram")


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm", "b200_sxm", "l40s", "mi300x"])
@pytest.mark.parametrize("make", [softmax, norm, reduction])
def test_sweeps_over_long_rows_are_read_from_memory(name: str, make: Callable[[int, int], tuple[Fusion, int]]) -> None:
    machine = load_machine(name)
    rows, length = 1024, 1 << 19
    fusion, sweeps = make(rows, length)
    found = one_kernel(fusion, machine)
    whole, row = rows * length * 4.0, length * 4.0
    at_work = min(machine.instances("shared"), rows) * row  # a block on each SM at least
    missed = 1.0 - min(cache_bytes(machine) / at_work, 1.0)
    stored = whole if sweeps else 0.0
    least = (whole * (1.0 + sweeps * missed) + stored) / bandwidth(machine)
    most = (whole * (1.0 + sweeps) + stored) / bandwidth(machine)
    simulated = EventModel().predict(found.summary, machine, ScheduleBatch.of([found.schedule])).seconds[0]
    for seconds in (found.seconds, simulated):
        assert least <= seconds <= 1.35 * most
    assert simulated == pytest.approx(found.seconds, rel=0.15)
    assert whole * (1.0 + sweeps * missed) + stored <= found.dram_bytes <= 1.01 * (whole * (1.0 + sweeps) + stored)


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm"])
@pytest.mark.parametrize("make", [softmax, norm])
def test_rows_that_stay_on_chip_are_read_once(name: str, make: Callable[[int, int], tuple[Fusion, int]]) -> None:
    """In registers, or in L2 between two loops: 8 rows of 1 MiB are no more than L2 holds."""
    machine = load_machine(name)
    for rows, length in ((65536, 2048), (8, 1 << 18)):
        fusion, _ = make(rows, length)
        assert one_kernel(fusion, machine).dram_bytes == pytest.approx(2.0 * 4.0 * rows * length, rel=0.02)


def test_more_rows_at_work_leave_less_of_each_in_l2() -> None:
    """The same loops with one block an SM and with four: traffic follows the rows in flight."""
    found = one_kernel(softmax(4096, 1 << 15)[0])
    row, column = found.summary.outer[0], found.summary.inner[0]
    loop = Schedule(tiles={row: 1, column: 2048}, reduce={column: "looped"}, pipeline=2)
    few, many = (replace(loop, extras={"warps": warps}) for warps in (32, 4))
    machine = load_machine("h100_sxm")
    for model in (cost_model_for(machine), EventModel()):
        seen = model.predict(found.summary, machine, ScheduleBatch.of([few, many]))
        assert seen.details["blocks_per_sm"][0] < seen.details["blocks_per_sm"][1]
        assert seen.dram_bytes[0] < 0.9 * seen.dram_bytes[1]


def test_a_loop_that_masks_part_goes_over_its_operands_once() -> None:
    """Tiles that a causal mask leaves whole and those at its border are two loops, of which the second goes on where the first ends."""
    summary = summarize(groups.attention(1, 512, 512, 16, groups.below()))
    tiles = Schedule({"i": 64, "j": 32, "d": 16, "e": 16}, reduce={"d": "resident", "j": "fold"})
    which, plain = performed(summary, tiles)
    knobs = {name: column.astype(np.float64) for name, column in knob_columns(ScheduleBatch.of([plain])).items()}
    program, _ = code_of(which, geometry(which, knobs, {}), load_machine("h100_sxm"), knobs)
    assert any(phase.continues for phase in phases_of(program))
    assert not sweeps_of(program)


def test_blocks_of_one_warp_compute_side_by_side() -> None:
    """Of loops that wait for their loads, in whose queue a block takes what the units need and not how long its one warp takes alone."""
    machine = load_machine("b200_sxm")
    summary = summarize(normalize(softmax(4096, 1 << 15)[0]).fusion)
    row, column = summary.outer[0], summary.inner[0]
    alone = Schedule({row: 4, column: 4096}, reduce={column: "fold"}, extras={"warps": 1})
    analytic, simulated = (
        model.predict(summary, machine, ScheduleBatch.of([alone])) for model in (cost_model_for(machine), EventModel())
    )
    assert analytic.details["blocks_per_sm"][0] == 8
    assert simulated.seconds[0] == pytest.approx(analytic.seconds[0], rel=0.3)
