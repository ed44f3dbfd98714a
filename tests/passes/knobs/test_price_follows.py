"""The price of a schedule changes when what is generated for it does, and at no other time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from codesign.backends import accelerator
from codesign.backends.triton.emit import emission
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import KernelSummary, summarize
from codesign.ir.dtypes import F16, F32
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import AtLevel, Knob, Schedule, ScheduleBatch
from codesign.ir.text.program import print_program
from codesign.passes.knobs import Site, check, rooms
from codesign.passes.normalize import Normalized, normalize
from codesign.passes.tile import lower
from tests.passes.tiling import groups

SMALL_CACHE = {"levels.l2.capacity_bytes": 1e6}
"""A cache in which operands of a product do not stay, so that it matters in which order the grid is walked."""
MACHINES = {
    "h100_sxm": load_machine("h100_sxm").with_figures(SMALL_CACHE),
    "a100_sxm": load_machine("a100_sxm").with_figures(SMALL_CACHE),
    "maia100": load_machine("maia100").with_figures({"levels.cluster.capacity_bytes": 65536.0}),
    "systolic_16x16": load_machine("systolic_16x16"),
}
GROUPS = {
    "product": (groups.gemm(8192, 4096, 1024, F16), Schedule({"i": 64, "j": 64, "k": 64}, pipeline=2)),
    "split product": (
        groups.gemm(4096, 2048, 512, F16),
        Schedule({"i": 64, "j": 64, "k": 64}, {"cluster": AtLevel({"i": 16}), "core": AtLevel({"j": 4})}, pipeline=2),
    ),
    "whole product": (groups.gemm(300, 200, 64, F32), Schedule({"i": 32, "j": 16, "k": 64}, reduce={"k": "resident"})),
    "softmax": (groups.softmax(256, 512), Schedule({"i": 4, "j": 64}, pipeline=2)),
    "sum": (groups.reduction(64, 3000, "sum"), Schedule({"i": 1, "j": 256})),
    "copy": (groups.element_wise(2048, 256, permuted=True), Schedule({"d0": 16, "d1": 32})),
}
LIBRARY = {"vector_unit": 1, "access_bytes": 2, "cluster.i": 2, "launches": 3, "in_flight": 64, "inner.thread.i": 4}


def generated(form: Normalized, schedule: Schedule, machine: Machine) -> str:
    """All that a compiler or simulator is given for a schedule."""
    kernel = lower(form.fusion, schedule, outputs=form.outputs)
    if machine.kind == "gpu":
        made = emission(kernel)
        return f"{made.core} {made.warps} {made.stages} {made.options}"
    return print_program(accelerator.lower(kernel, machine, {}))


def priced(summary: KernelSummary, schedule: Schedule, machine: Machine) -> float:
    batch = ScheduleBatch.of([schedule])
    return float(cost_model_for(machine).predict(summary, machine, batch).seconds[0])


def variants(site: Site, schedule: Schedule) -> Iterator[tuple[str, Schedule]]:
    """Schedules that differ in one knob, for every knob there is."""
    for room in rooms():
        for dim in site.extents:
            if room.name == "tile":
                yield from (("tile", replace(schedule, tiles={**schedule.tiles, dim: size})) for size in (16, 128))
            if room.name == "reduce":
                yield from (("reduce", replace(schedule, reduce={dim: mode})) for mode in ("looped", "resident"))
        if room.name == "pipeline":
            yield from ((room.name, replace(schedule, pipeline=depth)) for depth in (1, 3))
        elif room.name == "order":
            yield room.name, replace(schedule, order=tuple(reversed(site.summary.outer)))
        elif room.name not in ("tile", "reduce", "split"):
            values: list[Knob] = [
                0,
                1,
                2,
                8,
                32,
                "tf32",
                *filter(lambda value: isinstance(value, str), room.values(None)[:3]),
            ]
            needed: dict[str, Knob] = {room.needs: 1} if room.needs else {}
            yield from ((room.name, replace(schedule, extras={**needed, room.name: value})) for value in values)
    yield from ((name, replace(schedule, extras={name: value})) for name, value in LIBRARY.items())


@pytest.mark.parametrize("name", MACHINES)
def test_the_price_changes_if_and_only_if_what_is_generated_does(name: str) -> None:
    machine = MACHINES[name]
    moved: dict[str, set[str]] = defaultdict(set)
    for label, (group, base) in GROUPS.items():
        form = normalize(group)
        site = Site.of(summarize(form.fusion), machine)
        text, seconds = generated(form, base, machine), priced(site.summary, base, machine)
        assert np.isfinite(seconds)
        for knob, schedule in variants(site, base):
            try:
                check(schedule, site)
                changed = generated(form, schedule, machine) != text
            except ScheduleError:
                continue
            other = priced(site.summary, schedule, machine)
            if not changed:
                assert other == pytest.approx(seconds, rel=1e-6), f"{label}: {schedule}"
            elif np.isfinite(other):
                moved[knob] |= {"generated"} | ({"price"} if other != seconds else set())
    assert moved, "some knob must do something"
    for knob, what in moved.items():
        assert what == {"generated", "price"}, f"{knob} changes what is generated and never the price"
    assert not moved.keys() & LIBRARY.keys()


@pytest.mark.parametrize("name", LIBRARY)
def test_knobs_of_library_kernels_are_refused_and_move_no_price_of_a_kernel_of_ours(name: str) -> None:
    machine = MACHINES["h100_sxm"]
    for group, base in GROUPS.values():
        schedule = replace(base, extras={name: LIBRARY[name]})
        summary = summarize(normalize(group).fusion)
        with pytest.raises(ScheduleError, match=rf"extras\.{name}: no backend reads this knob; nearest: "):
            check(schedule, Site.of(summary, machine))
        assert priced(summary, schedule, machine) == priced(summary, base, machine)
