"""What the checker refuses before a program runs; what it lets pass has one meaning, in whatever order its engines get on."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from codesign.backends.accelerator import Deadlock, Race, check, lower, simulate
from codesign.backends.accelerator.flat import flatten
from codesign.backends.accelerator.order import Batch, Untimed
from codesign.backends.accelerator.timing import gangs_of
from codesign.backends.accelerator.values import Values
from codesign.costmodel.dataflow import target_of
from codesign.costmodel.machine import load_machine
from codesign.ir.errors import CodesignError, EvaluationError, ScheduleError, UnsupportedError
from codesign.ir.program import Instruction, Program
from codesign.ir.schedule import Schedule
from codesign.ir.text.program import parse_program
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups
from tests.passes.tiling.test_tile import any_group, any_schedule

MATMUL = (Path(__file__).parent / "matmul.casm").read_text()
MAIA = load_machine("maia100")


def values_in_any_order(program: Program, arrays: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """What a program computes when any engine that may go on is as likely to be the next."""
    flat, target = flatten(program), target_of(MAIA)
    results = [np.zeros([s.constant for s in v.shape], v.type.dtype.numpy) for v in program.results]
    memories = Values(program, flat, target, [*arrays, *results], {})
    run = Untimed(program, flat, gangs_of(flat), target)
    for place in run.order(lambda work: work.pop(int(rng.integers(len(work))))):
        memories.execute(Batch(int(flat.number[place]), np.array([place])))
    return results


@given(st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_what_passes_has_the_values_of_the_interpreter_in_any_order(data: st.DataObject) -> None:
    """Programs with one wait or signal taken out: refused, or it was not needed."""
    fusion = data.draw(any_group())
    form = normalize(fusion)
    drawn = data.draw(any_schedule(form.fusion))
    schedule = Schedule(drawn.tiles, {}, drawn.order, drawn.reduce, pipeline=data.draw(st.integers(1, 3)))
    try:
        kernel = tile(form.fusion, schedule, outputs=form.outputs)
        program = lower(kernel, MAIA, cores=2)
    except (UnsupportedError, ScheduleError):
        return
    assume(len(flatten(program).number) < 400)
    places = [
        (op, kind, i)
        for op in program.instructions()
        for kind in ("waits", "signals")
        for i in range(len(getattr(op, kind)))
    ]
    broken: tuple[Instruction, str, int] | None = data.draw(st.none() | st.sampled_from(places)) if places else None
    if broken is not None:
        op, kind, position = broken
        left = getattr(op, kind)
        setattr(op, kind, left[:position] + left[position + 1 :])
    arrays = groups.random_inputs(fusion)
    try:
        check(program, MAIA)
    except EvaluationError:
        assert broken is not None, "what lowering makes is never refused"
        return
    wanted = groups.run_tiles(kernel, arrays)
    got = values_in_any_order(program, arrays, np.random.default_rng(data.draw(st.integers(0, 99))))
    for array, expected, value in zip(got, wanted, kernel.results, strict=True):
        rounding = 4 * value.type.dtype.epsilon
        scale = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))) if rounding else 0.0
        np.testing.assert_allclose(array, expected, rtol=rounding, atol=rounding * scale, equal_nan=True)


@pytest.mark.parametrize(("old", "new", "error", "message"), [
    ("wait loaded >= #loaded, ready >= #ready", "wait ready >= #ready", Race,
     "on core 0 at scratchpad byte 0: tensor instruction 2 reads a while load instruction 0 writes a"),
    ("signal multiplied", "", Deadlock,
     "core 0 load (instruction 0) waits for multiplied >= 1, which is 0, and nothing signals 'multiplied'"),
    ("wait multiplied >= i - 1", "wait multiplied >= i + 1", Deadlock,
     "core 0 load (instruction 0) waits for multiplied >= 1, which is 0"),
    ("%x[row*64 + m, k0 + k]", "%x[row*64 + m + 64, k0 + k]", EvaluationError,
     "address out of range: index 256..319 along dim 0 of %x, whose size is 256"),
    ("load a[i % 2, m, k]", "load a[i % 3, m, k]", EvaluationError, "along dim 0 of %a, whose size is 2"),
    ("on 4 cores", "on 65 cores", ScheduleError, "wants 65 cores, maia100 has 64"),
])  # fmt: skip
def test_what_is_refused(old: str, new: str, error: type[CodesignError], message: str) -> None:
    assert old in MATMUL
    check(parse_program(MATMUL), MAIA)
    with pytest.raises(error) as caught:
        check(parse_program(MATMUL.replace(old, new)), MAIA)
    assert message in str(caught.value)


def test_a_guard_keeps_addresses_inside() -> None:
    text = """
program @edge(%x: f32[100]) -> (%y: f32[100]) on 2 cores {
  scratch a: f32[64] at 0
  semaphore here
  load a[m] [m: 64] = %x[core*64 + m] where core*64 + m < 100 else 0.0 signal here
  store %y[core*64 + m] [m: 64] = a[m] where core*64 + m < 100 wait here >= 1
}"""
    check(parse_program(text), MAIA)
    x = np.arange(100, dtype=np.float32)
    np.testing.assert_array_equal(simulate(parse_program(text), [x], MAIA).outputs[0], x)
    with pytest.raises(EvaluationError, match=r"index 64..127 along dim 0 of %x, whose size is 100"):
        check(parse_program(text.replace("< 100 else", "< 101 else")), MAIA)


@pytest.mark.parametrize(("load", "message"), [
    ("a[m] [m: 1000000007] = %x[0]", "index 0..1000000006 along dim 0 of %a, whose size is 64"),
    ("a[m % 64] [m: 1000000007] = %x[m + core]", "index 0..1000000006 along dim 0 of %x, whose size is 100"),
    ("a[m // 20000000] [m: 1000000007] = %x[99 - m] where m - core < 100 else 0.0",
     "index -999999907..99 along dim 0 of %x, whose size is 100"),
])  # fmt: skip
def test_very_many_lanes_are_judged_by_their_ends(load: str, message: str) -> None:
    text = f"""
program @many(%x: f32[100]) -> (%y: f32[64]) on 2 cores {{
  scratch a: f32[64] at 0
  load {load}
}}"""
    with pytest.raises(EvaluationError, match=re.escape(message)):
        check(parse_program(text), MAIA)
    if "where" in load:
        check(parse_program(text.replace("- core < 100", "+ core < 100")), MAIA)


def test_engines_that_wait_for_each_other() -> None:
    """Each waits for what the other does after it: nobody begins, and both are named."""
    program = parse_program("""
program @knot(%x: f32[64]) -> (%y: f32[64]) on 1 cores {
  scratch a: f32[64] at 0
  scratch b: f32[64] at 256
  semaphore first, second
  vector b[m] [m: 64] = 1.0 wait second >= 1 signal first
  load a[m] [m: 64] = %x[m] wait first >= 1 signal second
  store %y[m] [m: 64] = a[m] wait second >= 1
}""")
    with pytest.raises(Deadlock) as caught:
        check(program, MAIA)
    assert "core 0 vector (instruction 0) waits for second >= 1, which is 0" in str(caught.value)
    assert "core 0 load (instruction 1) waits for first >= 1, which is 0" in str(caught.value)


@pytest.mark.parametrize("end", ["10000000000000", "10000000000000 + #there"])
def test_a_loop_of_too_many_steps_is_refused_at_once(end: str) -> None:
    text = f"""
program @long(%x: f32[64]) -> (%y: f32[64]) on 2 cores {{
  scratch a: f32[64] at 0
  semaphore there
  for t in 0 to {end} step 1 {{
    load a[m] [m: 64] = %x[m] signal there
  }}
}}"""
    with pytest.raises(EvaluationError, match=r"loop 't' makes [12]0,000,000,000,000 steps over all cores"):
        check(parse_program(text), MAIA)
