"""Plans as plain data: written, read, compared, and refused where they are wrong."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from codesign.ir.errors import ScheduleError
from codesign.ir.plan import Plan, PlannedKernel, PlannedMemory, differences
from codesign.ir.schedule import Schedule

LINEAR = PlannedKernel(
    "linear", "ab12", Schedule({"m": 64, "k": 32}, reduce={"k": "looped"}), ("linear", "gelu"), ("a.py:3 up",), 2, 1e-5
)
NORM = PlannedKernel("norm", "cd34", Schedule({"m": 1}, extras={"warps": 4}), seconds=2e-6)
MEMORY = PlannedMemory(512, 64, 64, 4096, {"h": (0, 256), "g": (256, 256)})
PLAN = Plan("mlp", "h100_sxm", "00ff", (LINEAR, NORM), ("linear", "norm", "linear"), MEMORY, {"batch": 8})


def test_it_comes_back_from_its_json() -> None:
    assert Plan.from_json(PLAN.to_json()) == PLAN
    assert PLAN.seconds == pytest.approx(2.2e-5)
    assert PLAN.kernel("norm") is NORM


def test_differences_name_what_changed() -> None:
    assert differences(PLAN, PLAN) == {}
    wider = replace(LINEAR, schedule=Schedule({"m": 128, "k": 32}, reduce={"k": "looped"}))
    other = replace(PLAN, kernels=(wider, NORM), machine="a100_sxm")
    assert differences(PLAN, other) == {
        "machine": ("h100_sxm", "a100_sxm"),
        "kernels.linear.schedule.tiles.m": (64, 128),
    }


def test_a_kernel_of_another_name_is_the_same_by_its_structure() -> None:
    renamed = replace(PLAN, kernels=(replace(LINEAR, name="linear_7"), NORM), order=("linear_7", "norm", "linear_7"))
    assert differences(PLAN, renamed) == {}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("plan",), 7, "not a plan"),
        (("kernels", "linear", "schedule", "tiles", "m"), -1, "tiles.m"),
        (("kernels", "linear", "launches"), "two", "kernels.linear.launches"),
        (("kernels", "linear", "tile"), {}, "unknown field 'tile'"),
        (("kernels", "norm", "fuses"), "gelu", "kernels.norm.fuses"),
        (("memory", "buffers", "h"), [1], "memory.buffers.h"),
        (("memory", "arena"), 1, "unknown field 'arena'"),
        (("sizes", "batch"), 1.5, "sizes.batch"),
        (("order",), [3], "order"),
        (("colour",), "red", "unknown field 'colour'"),
    ],
)
def test_what_is_wrong_is_named(path: tuple[str, ...], value: Any, message: str) -> None:
    data = copy.deepcopy(PLAN.to_json())
    where: Any = data
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    with pytest.raises(ScheduleError, match=message):
        Plan.from_json(data)


def test_a_name_that_it_does_not_have_lists_those_that_it_has() -> None:
    with pytest.raises(ScheduleError, match="linear, norm"):
        PLAN.kernel("gelu")
