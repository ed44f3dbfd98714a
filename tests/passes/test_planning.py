"""The plan of a module: what was decided, and the same again from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.core import Block, Function, Module
from codesign.ir.errors import CodesignError, ScheduleError
from codesign.ir.plan import Plan, differences
from codesign.ir.schedule import Schedule
from codesign.ir.text import parse
from codesign.passes.planning import Choices, plan_module, sizes_of
from codesign.passes.schedule.replay import read_schedules
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")


def module(size: int) -> Module:
    """A linear layer before fusion."""
    fusion = groups.gemm(size, 512, 512)
    inputs = list(fusion.uses())
    return Module("layer", functions={"main": Function("main", Block(inputs, fusion.body.ops, fusion.body.yields))})


def test_a_plan_is_the_same_again_and_replays(tmp_path: Path) -> None:
    planned = plan_module(module(512), H100, Choices())
    plan = planned.plan("layer")
    (kernel,) = plan.kernels
    assert plan.order == (kernel.name,)
    assert plan.seconds == planned.kernels[kernel.name].tuned.seconds
    assert plan.memory.output_bytes == 512 * 512 * 2
    assert differences(plan, plan_module(module(512), H100, Choices()).plan("layer")) == {}
    smaller = replace(kernel.schedule, tiles={**kernel.schedule.tiles, "i": 32})
    path = tmp_path / "plan.json"
    path.write_text(replace(plan, kernels=(replace(kernel, name="mine", schedule=smaller),)).to_text())
    again = plan_module(module(512), H100, Choices(schedules=read_schedules(path))).plan("layer")
    assert set(differences(plan, again)) == {
        f"kernels.{kernel.name}.schedule.tiles.i",
        f"kernels.{kernel.name}.seconds",
    }
    assert Plan.from_json(again.to_json()) == again


def test_a_plan_tells_machines_of_one_name_apart() -> None:
    faster = H100.with_figures({"levels.dram.bandwidth": 2 * H100.need(H100.level("dram").bandwidth, "")})
    one, other = (plan_module(module(512), m, Choices()).plan() for m in (H100, faster))
    assert one.machine == other.machine
    assert "machine_hash" in differences(one, other)


def test_schedules_of_other_modules_are_no_mistake_where_that_is_said() -> None:
    given = {"elsewhere": Schedule({"i": 32})}
    assert plan_module(module(512), H100, Choices(schedules=given, of_others=True)).kernels
    with pytest.raises(ScheduleError, match="elsewhere"):
        plan_module(module(512), H100, Choices(schedules=given))


def test_a_size_that_there_is_not_is_named() -> None:
    with pytest.raises(CodesignError, match="no dynamic size 'batch'"):
        plan_module(module(512), H100, Choices(sizes={"batch": 3}))


@pytest.mark.parametrize(("size", "advice"), [(1, "capture with inputs of that size"), (5000, "dynamic_shapes")])
def test_a_size_outside_of_its_range_says_what_to_do(size: int, advice: str) -> None:
    batched = parse("module @m\nsymbol batch: 2 to 4096 example 24\nfunc @main(%x: f32[batch]) { return %x }\n")
    with pytest.raises(CodesignError, match=rf"batch = {size} is outside its range 2 to 4096") as refused:
        sizes_of(batched, {"batch": size})
    assert advice in str(refused.value.hint)
