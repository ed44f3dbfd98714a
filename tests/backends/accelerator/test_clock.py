"""The engine's clock against the plainest one, in machine code and in Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from codesign.backends.accelerator import SimulationResult, lower, simulate
from codesign.backends.accelerator.engine import Clock
from codesign.backends.accelerator.flat import flatten
from codesign.backends.accelerator.timing import classes_of, gangs_of
from codesign.backends.accelerator.walk import walked
from codesign.costmodel.dataflow import target_of
from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.errors import ScheduleError, UnsupportedError
from codesign.ir.program import Program
from codesign.ir.schedule import AtLevel, Schedule
from codesign.ir.text.program import parse_program
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.backends.accelerator.plain import PlainClock
from tests.passes.tiling import groups
from tests.passes.tiling.test_tile import any_group, any_schedule

MAIA = load_machine("maia100")
TIGHT = MAIA.with_figures({"levels.dram.bandwidth": 6e10, "levels.cluster.bandwidth": 9e10, "limits.queue_depth": 3})
SLOW_ISSUE = MAIA.with_figures({"limits.issue_clocks": 61.0, "levels.dram.latency_seconds": 3.3e-8})
MACHINES = {"maia100": MAIA, "tight": TIGHT, "slow issue": SLOW_ISSUE, "systolic": load_machine("systolic_16x16")}


def same_clock(program: Program, machine: Machine) -> SimulationResult:
    """The result of a program, which is the same to the last bit from machine code and from Python."""
    result = simulate(program, None, machine, values=False)
    clock = clock_of(program, machine)
    clock.advance(compiled=False)
    assert (clock.end, clock.busy, clock.stalled) == (
        result.cycles,
        [*result.busy.values()],
        [*result.stalled.values()],
    )
    return result


def clock_of(program: Program, machine: Machine) -> Clock:
    """The clock before anything was done."""
    flat, target = flatten(program), target_of(machine)
    return Clock(program, target, flat, classes_of(program, flat, target, {}), gangs_of(flat))


@given(st.data())
@settings(
    max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_any_program_takes_the_clocks_of_the_plain_engine(data: st.DataObject) -> None:
    form = normalize(data.draw(any_group()))
    drawn = data.draw(any_schedule(form.fusion))
    machine = MACHINES[data.draw(st.sampled_from(sorted(MACHINES)))]
    schedule = Schedule(drawn.tiles, {}, drawn.order, drawn.reduce, pipeline=data.draw(st.integers(1, 4)))
    try:
        kernel = tile(form.fusion, schedule, outputs=form.outputs)
        program = lower(kernel, machine, cores=data.draw(st.sampled_from([1, 2, 5])))
    except (UnsupportedError, ScheduleError):
        return
    flat = flatten(program)
    assume(len(flat.number) < 1500)
    walk = walked(program, flat.prepared)
    assert (walk.first, walk.number, walk.steps) == (flat.first.tolist(), flat.number.tolist(), flat.steps.tolist())
    for item, rows in zip(flat.prepared, flat.rows, strict=True):
        columns = [*rows.controls.values(), *rows.waits]
        assert [list(row) for row in zip(*columns, strict=True)] == (walk.values[item.number] if columns else [])
    result = same_clock(program, machine)
    cycles, busy, stalled = PlainClock(program, target_of(machine)).run()
    assert result.cycles == cycles
    assert result.busy == busy
    assert result.stalled == stalled


@pytest.mark.parametrize("machine", ["maia100", "tight", "slow issue"])
@pytest.mark.parametrize(("cores", "k", "depth"), [(2, 640, 1), (4, 1024, 3), (3, 2048, 4)])
def test_a_long_loop_takes_the_clocks_of_the_plain_engine(machine: str, cores: int, k: int, depth: int) -> None:
    schedule = Schedule({"i": 16, "j": 32, "k": 16}, reduce={"k": "looped"}, pipeline=depth)
    program = lower(tile(groups.gemm(48, 64, k), schedule), MACHINES[machine], cores=cores)
    result = same_clock(program, MACHINES[machine])
    assert result.cycles == PlainClock(program, target_of(MACHINES[machine])).run()[0]


@pytest.mark.parametrize("machine", ["maia100", "tight"])
def test_cores_that_share_loads(machine: str) -> None:
    levels = {"cluster": AtLevel({"i": 2, "j": 2}), "core": AtLevel({"i": 2, "j": 1})}
    schedule = Schedule({"i": 32, "j": 32, "k": 64}, levels, reduce={"k": "looped"}, pipeline=2)
    program = lower(tile(groups.gemm(256, 128, 256), schedule), MACHINES[machine])
    same_clock(program, MACHINES[machine])


def test_registers_and_counts_of_signals_in_the_control_flow() -> None:
    """Programs whose control flow depends on what was done before are walked statement by statement."""
    program = parse_program(
        """
program @p(%x: f32[64]) -> (%y: f32[64]) on 2 cores {
  scratch a: f32[64] at 0
  semaphore there, done
  set n = 1
  for i in 0 to 3 step 1 count c {
    set n = n + i
    for j in 0 to #there step 1 {
      store %y[m] [m: 64] = a[m] wait there >= #there signal done
    }
    load a[m] [m: n] = %x[m + n] wait done >= #done signal there
  }
}""".replace("[m: n]", "[m: 8]")
    )
    flat = flatten(program)
    assert flat.number.tolist() == 2 * [1, 0, 1, 0, 0, 1]
    assert flat.rows[1].controls[flat.prepared[1].controls[0]].tolist() == 2 * [1, 2, 4]
    cycles, busy, _ = PlainClock(program, target_of(MAIA)).run()
    result = simulate(program, None, MAIA, values=False)
    assert (result.cycles, result.busy) == (cycles, busy)


def test_a_semaphore_that_several_engines_signal() -> None:
    program = parse_program("""
program @p(%x: f32[512]) -> (%y: f32[64]) on 2 cores {
  scratch a: f32[512] at 0
  scratch b: f32[64] at 4096
  scratch c: f32[64] at 8192
  semaphore any
  load a[m] [m: 512] = %x[m] signal any
  vector b[m] [m: 64] = 1.0 signal any
  sync load signal any
  vector c[m] [m: 64] = 2.0 wait any >= 2 signal any
  vector c[m] [m: 64] = a[m] + b[m] wait any >= 4 signal any
  store %y[m] [m: 64] = c[m] wait any >= 5
}""")
    cycles, busy, stalled = PlainClock(program, target_of(MAIA)).run()
    result = simulate(program, None, MAIA, values=False)
    assert (result.cycles, result.busy, result.stalled) == (cycles, busy, stalled)
    x = np.arange(512, dtype=np.float32)
    np.testing.assert_array_equal(simulate(program, [x], MAIA).outputs[0], x[:64] + 1.0)
