"""Cores that load together: what passes each memory, when it begins, and what happens when one of them never comes."""

from __future__ import annotations

import re
from math import prod

import numpy as np
import pytest

from codesign.backends.accelerator import Deadlock, check, lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import MACHINE_FOLDER, Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.errors import EvaluationError
from codesign.ir.program import Load, Program
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.ir.text.program import parse_program
from codesign.passes.normalize import Normalized, normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups
from tests.passes.tiling.test_folding import group
from tests.passes.tiling.test_folding_attention import VARIANTS, in_float64, inputs, names_of, variant

MAIA = load_machine("maia100")
SQUARE = {"cluster": AtLevel({"i": 4, "j": 4}), "core": AtLevel({"i": 2, "j": 2})}


def product(schedule: Schedule, machine: Machine = MAIA, m: int = 512, n: int = 512, k: int = 256) -> Program:
    form = normalize(groups.gemm(m, n, k))
    return lower(tile(form.fusion, schedule, outputs=form.outputs), machine)


def tiled(levels: dict[str, AtLevel], **tiles: int) -> Schedule:
    return Schedule({"i": 64, "j": 64, "k": 64, **tiles}, levels, reduce={"k": "looped"}, pipeline=2)


def read_by_dram(program: Program, machine: Machine = MAIA) -> float:
    stored = prod(size.constant for size in program.results[0].shape) * program.results[0].type.dtype.bytes
    return simulate(program, None, machine, values=False).dram_bytes - stored


@pytest.mark.parametrize(
    ("levels", "x_times", "w_times"),
    [
        ({}, 8, 8),
        (SQUARE, 1, 1),
        ({"cluster": AtLevel({"i": 4, "j": 4})}, 2, 2),
        ({"cluster": AtLevel({"i": 8}), "core": AtLevel({"j": 4})}, 2, 1),
        ({"core": AtLevel({"j": 4})}, 2, 8),
    ],
)
def test_dram_is_read_once_for_all_cores_that_need_the_same(
    levels: dict[str, AtLevel], x_times: int, w_times: int
) -> None:
    bias = 512 * 2 * w_times  # it depends on the same dim as the right operand
    assert read_by_dram(product(tiled(levels))) == (x_times + w_times) * 512 * 256 * 2 + bias


def test_a_memory_that_cannot_send_to_many_is_read_by_each_instance_of_the_next(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("machines") / "alone.toml"
    text = (MACHINE_FOLDER / "maia100.toml").read_text().replace("multicast = true", "multicast = false")
    path.write_text(text.replace('name = "maia100"', 'name = "alone"', 1))
    alone = load_machine(str(path))
    each = read_by_dram(product(tiled(SQUARE), alone), alone)
    once = read_by_dram(product(tiled(SQUARE)))
    assert 3.9 < each / once < 4.1  # four clusters along each side


def test_what_only_depends_on_split_dims_is_not_shared() -> None:
    program = product(tiled({"core": AtLevel({"j": 4})}))
    shared = {op.source.name: op.share is not None for op in program.instructions() if isinstance(op, Load)}
    assert shared == {"x": True, "w": False, "bias": False}


@pytest.mark.parametrize(("m", "n"), [(512, 512), (450, 700), (70, 512)])
def test_values_are_right_where_programs_do_not_fill_the_last_block(m: int, n: int) -> None:
    group = groups.gemm(m, n, 96)
    form = normalize(group)
    kernel = tile(form.fusion, tiled(SQUARE, i=32, j=32), outputs=form.outputs)
    arrays = groups.random_inputs(group)
    result = simulate(lower(kernel, MAIA), arrays, MAIA)
    np.testing.assert_allclose(result.outputs[0], groups.run_tiles(kernel, arrays)[0], rtol=4e-3, atol=4e-2)


@pytest.mark.parametrize("machine", ["maia100", "tpu_v4"])
def test_the_model_agrees_with_the_simulator(machine: str) -> None:
    target = load_machine(machine)
    form = normalize(groups.gemm(1024, 960, 512))
    summary = summarize(form.fusion)
    levels: list[dict[str, AtLevel]] = [{}, {"core": AtLevel({"i": 2})}, {"core": AtLevel({"j": 2})}]
    levels += [SQUARE, {"cluster": AtLevel({"i": 16}), "core": AtLevel({"j": 4})}] if machine == "maia100" else []
    for at in levels:
        schedule = tiled(at, i=128)
        run = simulate(lower(tile(form.fusion, schedule, outputs=form.outputs), target), None, target, values=False)
        cost = DataflowModel().predict(summary, target, ScheduleBatch.of([schedule]))
        assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.05), at
        assert cost.dram_bytes[0] == pytest.approx(run.dram_bytes, rel=0.06), at
        assert cost.joules[0] == pytest.approx(run.joules, rel=0.05), at


def test_a_core_that_never_comes_is_a_deadlock_with_its_load() -> None:
    text = """
program @alone(%x: f32[64]) -> (%y: f32[64]) on 4 cores {
  scratch a: f32[64] at 0
  load a[i] [i: 64] = %x[i] shared 7 by 5
}
"""
    with pytest.raises(Deadlock, match=r"waits for others to load 7 together: 4 are there"):
        simulate(parse_program(text), None, MAIA, values=False)


SETS = """
program @sets(%x: f32[256]) -> (%y: f32[256]) on 4 cores {
  scratch a: f32[64] at 0
  semaphore here, gone
  for t in 0 to 3 step 1 count i {
    load a[i] [i: 64] = %x[i + t*64] shared KEY by 2 wait gone >= i signal here
    store %y[i + core*64] [i: 64] = a[i] wait here >= #here signal gone
  }
}
"""


def test_two_sets_of_cores_have_keys_of_their_own() -> None:
    """With one key for both who meets whom would be a matter of clocks; and three cores would come to an odd one out."""
    apart = parse_program(SETS.replace("KEY", "core // 2"))
    check(apart, MAIA)
    assert simulate(apart, None, MAIA, values=False).cycles > 0
    for program in (SETS.replace("KEY", "0"), SETS.replace("KEY", "core // 3")):
        with pytest.raises(
            EvaluationError, match=r"load instruction 0 is shared with key 0 by 2, and [34] cores come with it: 0, 1, 2"
        ) as caught:
            check(parse_program(program), MAIA)
        with pytest.raises(EvaluationError, match=re.escape(str(caught.value).splitlines()[0])):
            simulate(parse_program(program), None, MAIA, values=False)


def test_who_loads_together_loads_the_same() -> None:
    text = SETS.replace("KEY", "core // 2").replace("%x[i + t*64]", "%x[i + core*64]")
    with pytest.raises(EvaluationError, match=r"shared with key 0 by cores 0 and 1, which load different data"):
        check(parse_program(text), MAIA)


def test_members_of_a_set_agree_how_many_they_are() -> None:
    text = SETS.replace("KEY by 2", "core // 2 by 2 + core % 2")
    with pytest.raises(EvaluationError, match=r"shared with key 0 by 3, and 2 cores come with it: 0, 1"):
        check(parse_program(text), MAIA)


CROSSED = """
program @crossed(%x: f32[64], %z: f32[64]) -> (%y: f32[128]) on 2 cores {
  scratch a: f32[64] at 0
  scratch b: f32[64] at 256 in LEVEL
  semaphore here
  for u in 0 to 2 step 1 {
    for v in 0 to (u + core + 1) % 2 step 1 {
      load a[i] [i: 64] = %x[i] shared 0 by 2 signal here
    }
    for v in 0 to (u + core) % 2 step 1 {
      SECOND b[i] [i: 64] = %z[i] shared 0 by 2
    }
  }
  store %y[core*64 + i] [i: 64] = a[i] wait here >= 1
}
"""


def test_loads_that_one_core_makes_in_the_opposite_order() -> None:
    """On one engine each core waits for the other; engines of their own get past each other, though no core's text order does."""
    both = parse_program(CROSSED.replace("LEVEL", "cluster").replace("SECOND", "stage"))
    check(both, MAIA)
    x = np.arange(64, dtype=np.float32)
    np.testing.assert_array_equal(simulate(both, [x, x], MAIA).outputs[0], np.tile(x, 2))
    one = parse_program(CROSSED.replace("LEVEL", "core").replace("SECOND", "load"))
    for run in (check, lambda program, machine: simulate(program, None, machine, values=False)):
        with pytest.raises(Deadlock, match=r"waits for others to load 0 together: 1 are there"):
            run(one, MAIA)


def test_a_loop_whose_end_is_another_for_each_program_loads_alone() -> None:
    """A triangle: rows of programs along `i` need another part of the right operand, so only those along `j` share the left one."""
    form = normalize(groups.masked_product(512, 256, 512, groups.below("k")))
    summary = summarize(form.fusion)
    assert summary.reach
    rows, columns = summary.outer
    (inner,) = summary.inner
    levels = {"cluster": AtLevel({rows: 4, columns: 4}), "core": AtLevel({rows: 2, columns: 2})}
    schedule = Schedule({rows: 32, columns: 32, inner: 32}, levels, reduce={inner: "looped"}, pipeline=2)
    program = lower(tile(form.fusion, schedule, outputs=form.outputs), MAIA)
    loads = [op for op in program.instructions() if isinstance(op, Load)]
    assert {op.share is not None for op in loads} == {True, False}
    cost = DataflowModel().predict(summary, MAIA, ScheduleBatch.of([schedule]))
    run = simulate(program, None, MAIA, values=False)
    assert cost.dram_bytes[0] == pytest.approx(run.dram_bytes, rel=0.05)
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.15)


@pytest.mark.parametrize(
    ("split", "times"), [({}, 8), ({"h_1": 4}, 2), ({"h_0": 2, "h_1": 2}, 4), ({"h_1": 4, "i": 2}, 1)]
)
def test_keys_that_query_heads_share_are_read_once_for_all_of_them(split: dict[str, int], times: int) -> None:
    """Eight query heads for two key heads, each in two tiles of rows."""
    fusion = group(
        "%q: f16[128, 8, 64], %k: f16[2, 256, 64]",
        "%o = compute f16[h: 8, i: 128, j: 256] sum(d: 64) { f32(%q[i, h, d]) * f32(%k[h // 4, j, d]) }",
    )
    form = normalize(fusion)
    schedule = Schedule({"i": 64, "j": 256, "d": 64}, {"cluster": AtLevel(split)}, reduce={"d": "looped"}, pipeline=2)
    program = lower(tile(form.fusion, schedule, outputs=form.outputs), MAIA)
    check(program, MAIA)
    assert read_by_dram(program) == times * 2 * 256 * 64 * 2 + 128 * 8 * 64 * 2
    agrees(form, schedule, program)
    arrays = groups.random_inputs(fusion)
    result = simulate(program, arrays, MAIA).outputs[0]
    np.testing.assert_allclose(result, groups.reference(fusion, arrays)[0], rtol=4e-3, atol=4e-2)


@pytest.mark.parametrize(("split", "times"), [({}, 4), ({"h_1_i": 2}, 2), ({"h_1_i": 4}, 1)])
def test_so_are_keys_and_values_of_attention_whose_heads_are_rows(split: dict[str, int], times: int) -> None:
    """Two query heads for each of two key heads, of 32 queries: 64 rows for a key head."""
    text, score = VARIANTS["bias"]
    fusion = variant(text, "bf16", group_size=2, width=32)
    form = normalize(fusion)
    tiles = {"h_1_i": 16, "j": 16, "d": 16, "e": 32}
    levels = {"cluster": AtLevel(split)}
    schedule = Schedule(tiles, levels, reduce={"j": "fold", "d": "resident"}, pipeline=2)
    program = lower(tile(form.fusion, schedule, outputs=form.outputs), MAIA)
    check(program, MAIA)
    keys_and_values, bias, queries = 2 * 80 * (16 + 32) * 2, 32 * 80 * 4, 4 * 32 * 16 * 2
    assert read_by_dram(program) == times * keys_and_values + 4 * bias + queries
    agrees(form, schedule, program)
    arrays = inputs(fusion, "bf16", 1.0)
    found = simulate(program, arrays, MAIA).outputs[0].astype(np.float64)
    np.testing.assert_allclose(found, in_float64(score, arrays, names_of(fusion)), rtol=0, atol=0.02)


def agrees(form: Normalized, schedule: Schedule, program: Program) -> None:
    """The model with the simulator: exactly in bytes."""
    cost = DataflowModel().predict(summarize(form.fusion), MAIA, ScheduleBatch.of([schedule]))
    run = simulate(program, None, MAIA, values=False)
    assert cost.dram_bytes[0] == run.dram_bytes
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.05)
    assert cost.joules[0] == pytest.approx(run.joules, rel=0.05)
