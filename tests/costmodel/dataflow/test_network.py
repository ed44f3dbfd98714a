"""Lines, rings and meshes between DRAM and the clusters of a machine: one table of its file, in the model and the simulator alike."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.dataflow.network import Network
from codesign.costmodel.dataflow.target import target_of
from codesign.costmodel.machine import MACHINE_FOLDER, Machine, load_machine
from codesign.costmodel.mapping import hierarchy_of
from codesign.costmodel.summary import summarize
from codesign.ir.errors import MachineError
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile
from tests.passes.tiling import groups

NETWORK = """[levels.network]
topology = "{topology}"
columns = {columns}
link_bandwidth = {{ value = {bandwidth}, source = "ASSUMED" }}
hop_seconds = {{ value = {hop}, source = "ASSUMED" }}
joules_per_byte = {{ value = {joules}, source = "ASSUMED" }}

"""


def connected(
    folder: Path,
    topology: str,
    columns: int = 1,
    *,
    bandwidth: float = 1e12,
    hop: float = 5e-9,
    joules: float = 1e-12,
    multicast: bool = True,
) -> Machine:
    """maia100 with its clusters on a network."""
    text = (MACHINE_FOLDER / "maia100.toml").read_text()
    core = text.index('[[levels]]\nname = "core"')
    more = NETWORK.format(topology=topology, columns=columns, bandwidth=bandwidth, hop=hop, joules=joules)
    name = f"net_{hashlib.sha256(f'{more}{multicast}'.encode()).hexdigest()[:12]}"
    changed = (text[:core] + more + text[core:]).replace('name = "maia100"', f'name = "{name}"', 1)
    if not multicast:
        changed = changed.replace("multicast = true  # assumed: the chip", "multicast = false  # assumed: the chip")
    path = folder / f"{name}.toml"
    path.write_text(changed)
    return load_machine(str(path))


def net(topology: str, count: int, columns: int = 1) -> Network:
    return Network(topology, count, columns, 1, 1, 1.0, 1.0, 1.0)


def test_ways_are_the_shortest() -> None:
    assert [len(way) for way in net("line", 5).ways] == [0, 1, 2, 3, 4]
    assert [len(way) for way in net("ring", 6).ways] == [0, 1, 2, 3, 2, 1]
    assert [len(way) for way in net("mesh", 6, 3).ways] == [0, 1, 2, 1, 2, 3]
    assert net("mesh", 6, 3).tree([2, 5]) == {1, 2, 3, 4, 5}
    assert net("mesh", 6, 3).tree([1, 2]) == {1, 2}


@pytest.mark.parametrize("network", [net("line", 7), net("ring", 8), net("mesh", 12, 4)])
def test_transfers_to_one_and_to_all(network: Network) -> None:
    """To one: the mean of the ways, and the link next to the port is the busiest; to very many: each link once."""
    assert network.passed(np.ones(1)) == pytest.approx(network.hops)
    assert network.passed(np.array([1e4])) == pytest.approx(network.count - 1)
    through = [sum(link in way for way in network.ways) / network.count for link in range(1, network.count)]
    assert network.busiest(np.ones(1)) == pytest.approx(max(through))
    assert network.busiest(np.array([1e4])) == pytest.approx(1.0)


SQUARE = {"cluster": AtLevel({"i": 4, "j": 4}), "core": AtLevel({"i": 2, "j": 2})}
SCHEDULES = [
    Schedule({"i": 32, "j": 64, "k": 64}, levels, reduce={"k": "looped"}, pipeline=2) for levels in ({}, SQUARE)
]


@pytest.mark.parametrize(("topology", "columns"), [("line", 1), ("ring", 1), ("mesh", 4)])
@pytest.mark.parametrize("bandwidth", [2e11, 1e12])
def test_model_and_simulator_agree(tmp_path: Path, topology: str, columns: int, bandwidth: float) -> None:
    machine, form = connected(tmp_path, topology, columns, bandwidth=bandwidth), normalize(groups.gemm(512, 512, 256))
    cost = DataflowModel().predict(summarize(form.fusion), machine, ScheduleBatch.of(SCHEDULES))
    for row, one in enumerate(SCHEDULES):
        run = simulate(lower(tile(form.fusion, one, outputs=form.outputs), machine), None, machine, values=False)
        assert cost.seconds[row] == pytest.approx(run.seconds, rel=0.12)
        assert cost.joules[row] == pytest.approx(run.joules, rel=0.02)


def seconds_and_joules(machine: Machine, schedule: Schedule) -> tuple[float, float]:
    form = normalize(groups.gemm(512, 512, 256))
    run = simulate(lower(tile(form.fusion, schedule, outputs=form.outputs), machine), None, machine, values=False)
    return run.seconds, run.joules


def test_what_is_sent_to_many_passes_a_link_once(tmp_path: Path) -> None:
    """Slow links: a mesh that sends to many at once is faster than one that does not, and cheaper."""
    many, one = (connected(tmp_path, "mesh", 4, bandwidth=1e11, joules=1e-11, multicast=m) for m in (True, False))
    (quick, cheap), (slow, dear) = (seconds_and_joules(machine, SCHEDULES[1]) for machine in (many, one))
    assert quick < 0.7 * slow
    assert cheap < dear


def test_more_links_or_wider_ones_are_never_slower(tmp_path: Path) -> None:
    line, ring = (connected(tmp_path, topology, bandwidth=1e11) for topology in ("line", "ring"))
    mesh, wide = (connected(tmp_path, "mesh", 4, bandwidth=width) for width in (1e11, 1e13))
    times = [seconds_and_joules(machine, SCHEDULES[0])[0] for machine in (line, mesh, wide)]
    assert times == sorted(times, reverse=True)
    assert seconds_and_joules(ring, SCHEDULES[0])[0] < times[0]
    plain, far = load_machine("maia100"), connected(tmp_path, "mesh", 4, bandwidth=1e15, hop=1e-8)
    hops = target_of(far).latency_clocks - target_of(plain).latency_clocks
    assert hops == pytest.approx(3 * 1e-8 * 1.7e9), "three hops in the mean, each of ten nanoseconds"
    assert seconds_and_joules(far, SCHEDULES[0])[0] > seconds_and_joules(plain, SCHEDULES[0])[0]


def test_the_mapper_has_the_sides_of_the_mesh(tmp_path: Path) -> None:
    found = hierarchy_of(connected(tmp_path, "mesh", 8), "bf16")
    sides = {axis.name: (axis.size, axis.link_bandwidth, axis.link_joules) for axis in found.axes}
    assert sides["cluster rows"] == (2, 1e12, 1e-12)
    assert sides["cluster columns"] == (8, 1e12, 1e-12)


def test_what_makes_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="3 do not make a mesh of the fanout of 16"):
        connected(tmp_path, "mesh", 3)
    with pytest.raises(MachineError, match="a ring has none"):
        connected(tmp_path, "ring", 4)
