"""Cuts as schedules say them: a group is cut as it is told, and what is written of a run makes the same kernels again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.analysis import structural_hash
from codesign.ir.core import Block, Function, Module
from codesign.ir.errors import ScheduleError
from codesign.ir.interpreter import evaluate
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.verify import verify
from codesign.passes.lowering import KernelInfo, schedules_of, tile_module
from codesign.passes.naming import kernel_name
from codesign.passes.schedule.replay import Schedules, read_schedules, write_schedules
from codesign.passes.schedule.tuner import Tuner
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")
PRODUCT = groups.gemm(64, 96, 256)
GRADIENTS = groups.norm_gradients(48, columns=40)
CUTS: dict[str, tuple[Fusion, dict[str, Any]]] = {
    "all points": (PRODUCT, {"split": {"k": 4}}),
    "a tail": (PRODUCT, {"split": {"k": 2}, "extras": {"cut": "tail j 64"}}),
    "strips": (GRADIENTS, {"split": {"i0": 6}, "extras": {"cut": "strips"}}),
}


def tiled(fusion: Fusion, schedules: Schedules) -> tuple[Module, dict[str, KernelInfo]]:
    body = Block(list(fusion.uses()), [fusion], fusion.results)
    module = Module(functions={"main": Function("main", body)})
    made = tile_module(module, Tuner(H100, budget=64), schedules)
    verify(module)
    return module, made


def fresh(name: str) -> Fusion:
    """The group anew: tiling takes its op apart."""
    fusion = CUTS[name][0]
    return Fusion(fusion.body, names=[value.name for value in fusion.results])


@pytest.mark.parametrize("name", CUTS)
def test_a_group_is_cut_as_told_and_again_from_the_file(name: str, tmp_path: Path) -> None:
    fusion = fresh(name)
    arrays = groups.random_inputs(fusion)
    wanted = groups.reference(fusion, arrays)
    entry = Schedule.from_json(CUTS[name][1])
    module, made = tiled(fresh(name), Schedules({"told": entry}, {"told": structural_hash(fusion)}))
    assert len(made) == 2
    for found, value in zip(evaluate(module, arrays), wanted, strict=True):
        np.testing.assert_allclose(found.astype(np.float64), value.astype(np.float64), rtol=4e-3, atol=4e-3)
    write_schedules(tmp_path / "schedules.json", schedules_of(made))
    _, again = tiled(fresh(name), read_schedules(tmp_path / "schedules.json"))
    assert {n: k.structure for n, k in again.items()} == {n: k.structure for n, k in made.items()}
    assert {n: k.tuned.schedule for n, k in again.items()} == {n: k.tuned.schedule for n, k in made.items()}
    assert all(kernel.replayed for kernel in again.values())


def test_a_group_is_not_cut_where_its_schedule_says_so() -> None:
    """A tall product that the tuner would cut."""
    fusion = groups.gemm(32, 32, 16384)
    assert Tuner(H100, budget=64).tune(fusion).phases
    whole = Schedule({"i": 32, "j": 32, "k": 64}, order=("i", "j"), reduce={"k": "looped"})
    _, made = tiled(fusion, Schedules({"one": whole}, {"one": structural_hash(fusion)}))
    assert [kernel.tuned.schedule for kernel in made.values()] == [whole]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"extras": {"cut": "strips"}}, "extras.cut: nothing is split"),
        ({"split": {"z": 2}}, "split: the group has no dim z"),
        ({"split": {"k": 2}, "extras": {"cut": "tail z 8"}}, "extras.cut: the group has no dim z"),
        ({"split": {"k": 2}, "extras": {"cut": "strips"}}, "split.k: the group can't be cut into 2 parts along it as"),
        ({"split": {"k": 2, "j": 2}}, "split: k, j, but a group is split along one dim"),
        ({"split": {"k": 2}, "extras": {"cut": "tail j 4096"}}, "split.k: the group can't be cut into 2 parts"),
        ({"split": {"j": 2}}, "split.j: the group can't be cut into 2 parts"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(said: dict[str, Any], why: str) -> None:
    fusion = fresh("a tail")
    entry = Schedules({f"{kernel_name(fusion)}_parts_whole": Schedule.from_json(said)})
    with pytest.raises(ScheduleError, match=why):
        tiled(fusion, entry)


def test_an_entry_of_the_group_s_structure_that_cannot_cut_it_says_so() -> None:
    fusion = fresh("all points")
    told = Schedules({"product": Schedule.from_json({"split": {"k": 10**6}})}, {"product": structural_hash(fusion)})
    with pytest.raises(ScheduleError, match=r"@product: split.k: the group can't be cut into 1000000 parts along it"):
        tiled(fresh("all points"), told)


def test_accelerators_cut_all_points_alike() -> None:
    fusion = fresh("a tail")
    told = Schedules({"told": Schedule.from_json(CUTS["a tail"][1])}, {"told": structural_hash(fusion)})
    body = Block(list(fusion.uses()), [fusion], fusion.results)
    with pytest.raises(ScheduleError, match="maia100 cuts all points"):
        tile_module(Module(functions={"main": Function("main", body)}), Tuner(load_machine("maia100"), budget=64), told)


@pytest.mark.parametrize("value", ["tail", "tail j", "tail j -3", "tail j " + 5000 * "9", "strip", 3])
def test_a_file_that_says_another_cut_is_refused(value: object, tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    path.write_text(json.dumps({"a": {"split": {"k": 2}, "extras": {"cut": value}}}))
    with pytest.raises(ScheduleError, match=r'extras.cut: needs "strips", or "tail j 4096"'):
        read_schedules(path)
