"""Schedules held to what a compiler reports: refused over a limit, priced again where they spill, and replaced by better ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from codesign import compiled_truth
from codesign.costmodel.gpu.model import GpuTileModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for, informed
from codesign.costmodel.protocol import Reported
from codesign.document import Compiled
from codesign.ir.core import Block, Function, Module
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.lowering import KernelInfo, tile_module
from codesign.passes.schedule.context import Candidate
from codesign.passes.schedule.tuner import Tuner
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")
Report = Callable[[Schedule], Compiled]


@dataclass
class Compiler:
    """A backend that only reports."""

    report: Report
    asked: list[Schedule] = field(default_factory=list)

    def build(self, infos: Iterable[KernelInfo], tick: Callable[[], None]) -> dict[str, Compiled]:
        found = {}
        for info in infos:
            self.asked.append(info.tuned.schedule)
            found[info.kernel.name] = self.report(info.kernel.schedule)
        return found


def tiled(fusion: Fusion, tuner: Tuner, given: Schedule | None = None) -> tuple[Module, dict[str, KernelInfo]]:
    """A module of one group, and its kernel."""
    module = Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})
    return module, tile_module(module, tuner, {"r": given} if given else None)


def compiled(report: Report, given: Schedule | None = None) -> tuple[KernelInfo, Compiled, list[Schedule], Module]:
    """A product compiled under a compiler that says this of each schedule."""
    tuner = Tuner(H100)
    module, kernels = tiled(groups.gemm(1024, 1024, 1024), tuner, given)
    (name,) = kernels
    backend: Any = Compiler(report)
    outcome = compiled_truth.build(module, kernels, tuner, backend, lambda: None)[name]
    return kernels[name], outcome, backend.asked, module


def fine(schedule: Schedule) -> Compiled:
    return Compiled(arch="toy", registers=128, warps=schedule.extra("warps", 4), shared_bytes=65536, spills=0)


def spilling(schedule: Schedule) -> Compiled:
    warps = schedule.extra("warps", 4)
    return Compiled(arch="toy", registers=min(255, 2048 // warps), warps=warps, shared_bytes=65536, spills=131072)


def test_what_compiles_as_priced_is_left_alone() -> None:
    info, outcome, asked, _ = compiled(fine)
    assert asked == [info.tuned.schedule]
    assert outcome.tried == []
    assert info.tuned.reported is None


@pytest.mark.parametrize("wrong", ["spills", "is over the limit"])
def test_another_schedule_is_taken_where_the_first_is_worse_than_was_thought(wrong: str) -> None:
    first: list[Schedule] = []

    def report(schedule: Schedule) -> Compiled:
        first.append(schedule)
        if schedule.tiles != first[0].tiles:
            return fine(schedule)
        return (
            spilling(schedule) if wrong == "spills" else Compiled(arch="toy", error="takes 300,000 B of shared memory")
        )

    info, outcome, asked, module = compiled(report)
    assert info.tuned.schedule.tiles != asked[0].tiles
    assert info.kernel.schedule == info.tuned.schedule
    assert module.kernels[info.kernel.name] is info.kernel
    assert outcome.spills == 0
    assert outcome.error is None
    assert outcome.tried[0].schedule == asked[0].to_json()
    assert outcome.tried[0].why.startswith("131,072 B" if wrong == "spills" else "takes 300,000 B")
    assert (outcome.tried[0].seconds is None) == (wrong != "spills")
    assert info.tuned.seconds > outcome.tried[0].priced_seconds
    if wrong == "spills":
        assert outcome.tried[0].seconds is not None
        assert info.tuned.seconds < outcome.tried[0].seconds


def test_a_few_schedules_are_tried_and_the_least_bad_is_kept_at_its_real_price() -> None:
    info, outcome, asked, _ = compiled(spilling)
    distinct = {(str(s.tiles), s.extra("warps", 4)) for s in asked[:-1]}
    assert 3 <= len(distinct) <= 1 + compiled_truth.MOST_TRIED
    warps = info.tuned.schedule.extra("warps", 4)
    assert info.tuned.reported == Reported(min(255, 2048 // warps), warps, 65536, 65536.0)
    assert all(one.seconds is not None and info.tuned.seconds <= one.seconds for one in outcome.tried)
    assert any("131,072 B spilt" in remark for remark in info.tuned.remarks)


@pytest.mark.parametrize(("slower", "kept"), [(1.01, False), (1.2, True)])
def test_what_spills_a_little_gives_way_to_what_is_priced_about_as_fast(slower: float, kept: bool) -> None:
    tuner = Tuner(H100)
    module, kernels = tiled(groups.gemm(1024, 1024, 1024), tuner)
    (info,) = kernels.values()
    first = info.tuned.schedule
    other = replace(first, tiles={dim: max(size // 2, 1) for dim, size in first.tiles.items()})
    info.tuned = replace(info.tuned, programs=(Candidate(other, slower * info.tuned.seconds),))

    def report(schedule: Schedule) -> Compiled:
        return fine(schedule).model_copy(update={"spills": 24 if schedule == first else 0})

    backend: Any = Compiler(report)
    compiled_truth.build(module, kernels, tuner, backend, lambda: None)
    assert (other in backend.asked) != kept


def test_none_is_begun_when_those_before_took_their_seconds() -> None:
    """Those beside the first alone: however long the first took, another is tried."""
    asked = []
    for seconds in (0.0, 0.6 * compiled_truth.MOST_SECONDS, 1.1 * compiled_truth.MOST_SECONDS):

        def report(schedule: Schedule, took: float = seconds) -> Compiled:
            return spilling(schedule).model_copy(update={"compile_seconds": took})

        outcome = compiled(report)[1]
        asked.append(len(outcome.tried))
        assert "compile_seconds" not in outcome.model_dump()
    assert asked == [compiled_truth.MOST_TRIED, 2, 1]


def test_what_spilt_with_its_loop_folded_is_not_compiled_with_the_loop_going_by_again() -> None:
    tuner, backend = Tuner(H100), Compiler(spilling)
    module, kernels = tiled(groups.softmax(4096, 65536), tuner)
    (info,) = kernels.values()
    folded = info.tuned.schedule
    assert "fold" in folded.reduce.values()
    again = replace(folded, reduce=dict.fromkeys(folded.reduce, "looped"))
    halved = replace(again, tiles={dim: max(size // 2, 1) for dim, size in folded.tiles.items()})
    programs = tuple(Candidate(schedule, 0.5 * info.tuned.seconds) for schedule in (again, halved))
    info.tuned = replace(info.tuned, programs=programs)
    any_backend: Any = backend
    compiled_truth.build(module, kernels, tuner, any_backend, lambda: None)
    assert again not in backend.asked
    assert halved in backend.asked


def test_a_given_schedule_stays_and_is_priced_as_compiled() -> None:
    chosen = compiled(fine)[0].tuned
    info, outcome, asked, _ = compiled(spilling, chosen.schedule)
    assert asked == [chosen.schedule] == [info.tuned.schedule]
    assert outcome.tried == []
    assert info.tuned.seconds > chosen.seconds


def test_code_that_no_sm_has_room_for_is_an_error() -> None:
    def report(schedule: Schedule) -> Compiled:
        return Compiled(arch="toy", registers=255, warps=32, shared_bytes=0, spills=8)

    _, outcome, _, _ = compiled(report)
    assert outcome.error is not None
    assert "registers: 261,120" in outcome.error or "registers: 262,144" in outcome.error


def test_reports_count_for_their_schedules_alone() -> None:
    tuned = compiled(fine)[0].tuned
    batch = ScheduleBatch.of([tuned.schedule, tuned.runners_up[0].schedule])
    plain = cost_model_for(H100).predict(tuned.summary, H100, batch)
    registers, warps = 8 * int(plain.details["registers"][0] // 8), tuned.schedule.extra("warps", 4)
    report = Reported(registers, warps, int(plain.details["shared_bytes"][0]))
    same = informed(GpuTileModel(), {tuned.schedule: report}).predict(tuned.summary, H100, batch)
    np.testing.assert_allclose(same.seconds, plain.seconds, rtol=1e-12)
    crowded = Reported(255, warps, H100_SHARED, 512.0)
    worse = informed(GpuTileModel(), {tuned.schedule: crowded}).predict(tuned.summary, H100, batch)
    assert worse.seconds[0] > plain.seconds[0]
    assert worse.seconds[1] == plain.seconds[1]
    assert worse.details["blocks_per_sm"][0] == 1.0


H100_SHARED = int(H100.limit("shared_per_block_bytes"))
