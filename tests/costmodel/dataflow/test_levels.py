"""Machines of other shapes: a memory level more, one fewer, other names; all from a machine file alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel, target_of
from codesign.costmodel.machine import MACHINE_FOLDER, Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.errors import MachineError
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.passes.knobs.site import Site
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups

GROUP = """[[levels]]
name = "group"
place = "group"
fanout = 4
capacity_bytes = { value = 67108864, source = "ASSUMED" }
bandwidth = { value = 1.6e12, source = "ASSUMED" }
latency_seconds = { value = 1e-7, source = "ASSUMED" }

[levels.energy]
read_joules_per_byte = { value = 8e-12, source = "ASSUMED" }
write_joules_per_byte = { value = 8e-12, source = "ASSUMED" }

"""
REGISTERS = """[[levels]]
name = "lanes"
place = "lane"
fanout = 16
capacity_bytes = { value = 1024, source = "ASSUMED" }
bandwidth = { value = 1e12, source = "ASSUMED" }

"""


COMPARE = """[[units]]
name = "compare"
level = "core"
count = 1
does = ["alu"]
clock_hz = { value = 1.7e9, source = "ASSUMED" }

[units.rate]
f32 = { value = 512, source = "ASSUMED" }
bf16 = { value = 512, source = "ASSUMED" }

[units.energy_joules_per_operation]
f32 = { value = 1e-13, source = "ASSUMED" }

"""


def machine(folder: Path, name: str, text: str) -> Machine:
    path = folder / f"{name}.toml"
    path.write_text(text.replace('name = "maia100"', f'name = "{name}"'))
    return load_machine(str(path))


@pytest.fixture
def shapes(tmp_path: Path) -> dict[str, Machine]:
    """maia100 with a level between DRAM and the clusters, with registers inside the array, and with other names for its core."""
    text = (MACHINE_FOLDER / "maia100.toml").read_text()
    cluster = text.index('[[levels]]\nname = "cluster"')
    units = text.index("[[units]]")
    more = text[:cluster] + GROUP + text[cluster:].replace("fanout = 16", "fanout = 4", 1)
    renamed = text.replace('name = "core"\nplace = "core"', 'name = "tile"\nplace = "tile"').replace(
        'level = "core"', 'level = "tile"'
    )
    return {
        "more": machine(tmp_path, "four_memories", more),
        "deeper": machine(tmp_path, "deeper", text[:units] + REGISTERS + text[units:]),
        "renamed": machine(tmp_path, "renamed", renamed),
    }


def site(found: Machine) -> Site:
    return Site.of(summarize(normalize(groups.gemm(512, 512, 256)).fusion), found)


def test_the_core_is_where_the_vector_unit_is(shapes: dict[str, Machine]) -> None:
    plain = load_machine("maia100")
    for found in shapes.values():
        target = target_of(found)
        assert target.cores == 64
        assert target.sharing["cluster"] == 4
        assert target.capacity["core"] == 2097152
        assert target.capacity["array"] == 131072
        assert (site(found).lanes, site(found).cores) == (site(plain).lanes, site(plain).cores)
    assert [port.name for port in target_of(shapes["more"]).ports] == ["dram", "group", "cluster"]
    assert [port.cores for port in target_of(shapes["more"]).ports] == [64, 16, 4]
    mi300x = load_machine("mi300x")
    assert (mi300x.core_level().name, mi300x.above(mi300x.core_level()).name) == ("shared", "l2")
    assert site(load_machine("systolic_16x16")).lanes == 262144 // 8


@pytest.mark.parametrize("shape", ["more", "deeper", "renamed"])
def test_such_a_machine_is_priced_and_simulated(shapes: dict[str, Machine], shape: str) -> None:
    target, form = shapes[shape], normalize(groups.gemm(512, 512, 256))
    kernel = summarize(form.fusion)
    places = [place for place, _ in target_of(target).places]
    schedules = [
        Schedule({"i": i, "j": 64, "k": 64}, levels, reduce={"k": "looped"}, pipeline=p)
        for i in (32, 64, 128)
        for p in (1, 2, 3)
        for levels in ({}, {place: AtLevel({"i": 2, "j": 2}) for place in places})
    ]
    cost = DataflowModel().predict(kernel, target, ScheduleBatch.of(schedules))
    runs = [
        simulate(lower(tile(form.fusion, s, outputs=form.outputs), target), None, target, values=False)
        for s in schedules
    ]
    np.testing.assert_allclose(cost.seconds, [run.seconds for run in runs], rtol=0.15)
    np.testing.assert_allclose(cost.dram_bytes, [run.dram_bytes for run in runs], rtol=0.03)
    np.testing.assert_allclose(cost.joules, [run.joules for run in runs], rtol=0.1)
    split = {knob.name for knob in space(kernel, target).knobs if knob.name.startswith("levels.")}
    assert split == {f"levels.{place}.split.{dim}" for place in places for dim in "ij"}


@pytest.mark.parametrize("multicast", [True, False])
def test_three_scratchpads_hold_what_their_cores_share(tmp_path: Path, multicast: bool) -> None:
    """Groups of clusters whose own scratchpads have next to no room: what is read again is kept in the groups', one copy for all cores of each."""
    text = (MACHINE_FOLDER / "maia100.toml").read_text()
    cluster = text.index('[[levels]]\nname = "cluster"')
    inner = text[cluster:].replace("fanout = 16", "fanout = 4", 1)
    full = re.sub(
        r"capacity_bytes = \{[^}]*\}", 'capacity_bytes = { value = 1024, source = "ASSUMED" }', inner, count=1
    )
    chip = text[:cluster] if multicast else text[:cluster].replace("multicast = true", "multicast = false")
    target = machine(tmp_path, "three_scratchpads", chip + GROUP + full)
    fusion = groups.gemm(1024, 128, 64)
    form = normalize(fusion)
    levels = {"group": AtLevel({"i": 4}), "cluster": AtLevel({"i": 4}), "core": AtLevel({"i": 2, "j": 2})}
    schedule = Schedule({"i": 16, "j": 16, "k": 32}, levels, reduce={"k": "looped"})
    kernel = tile(form.fusion, schedule, outputs=form.outputs)
    program = lower(kernel, target)
    assert "group" in {item.level for item in program.scratches}
    arrays = groups.random_inputs(fusion)
    run = simulate(program, arrays, target)
    np.testing.assert_allclose(run.outputs[0], groups.run_tiles(kernel, arrays)[0], rtol=2e-2, atol=2e-2)
    cost = DataflowModel().predict(summarize(form.fusion), target, ScheduleBatch.of([schedule]))
    assert cost.dram_bytes[0] == pytest.approx(run.dram_bytes, rel=0.01)
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.15)


def test_a_level_more_costs_its_way(shapes: dict[str, Machine]) -> None:
    kernel = summarize(normalize(groups.gemm(512, 512, 256)).fusion)
    batch = ScheduleBatch.of([Schedule({"i": 64, "j": 64, "k": 64}, reduce={"k": "looped"})])
    plain, more = (DataflowModel().predict(kernel, m, batch) for m in (load_machine("maia100"), shapes["more"]))
    assert more.seconds[0] > plain.seconds[0], "the latency of one more memory"
    assert more.joules[0] > plain.joules[0], "and the energy of passing it"


def test_a_unit_more_takes_what_it_is_there_for(tmp_path: Path) -> None:
    """Maxima of columns compare and nothing else: a unit for that, eight times as wide as the vector unit, does it faster."""
    text = (MACHINE_FOLDER / "maia100.toml").read_text()
    at = text.index("[[links]]")
    plain, more = load_machine("maia100"), machine(tmp_path, "compares", text[:at] + COMPARE + text[at:])
    assert {kind: pipe.name for kind, pipe in target_of(more).pipes.items()} == {
        "fma": "vector",
        "alu": "compare",
        "integer": "vector",
        "special": "special",
    }
    form = normalize(groups.reduction(1000, 1000, "max", over_rows=True))
    schedule = Schedule({"i": 16, "j": 128}, reduce={"i": "looped"}, pipeline=2)
    costs, runs = [], []
    for found in (plain, more):
        costs.append(DataflowModel().predict(summarize(form.fusion), found, ScheduleBatch.of([schedule])))
        program = lower(tile(form.fusion, schedule, outputs=form.outputs), found)
        runs.append(simulate(program, None, found, values=False))
    for cost, run in zip(costs, runs, strict=True):
        assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.05)
        assert cost.joules[0] == pytest.approx(run.joules, rel=0.01)
    assert runs[1].busy["vector"] < 0.8 * runs[0].busy["vector"], "the port of the scratchpad is what bounds now"
    assert costs[1].joules[0] < costs[0].joules[0]


def test_a_unit_that_is_there_for_nothing_is_refused(tmp_path: Path) -> None:
    text = (MACHINE_FOLDER / "maia100.toml").read_text()
    at = text.index("[[links]]")
    with pytest.raises(MachineError, match=r"units\[3\].does: nothing is done on 'compare'"):
        machine(tmp_path, "idle", text[:at] + COMPARE.replace('does = ["alu"]\n', "") + text[at:])
