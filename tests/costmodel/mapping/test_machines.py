"""A machine nobody has described before, from its file alone, and what must hold of the best mapping on any machine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.costmodel.machine import load_machine
from codesign.costmodel.mapping import (
    ACCELFORGE,
    COUNTINGS,
    OWN,
    Counting,
    Hierarchy,
    Problem,
    gemm,
    hierarchy_of,
    parse_problem,
    search,
)
from codesign.costmodel.mapping.given import mapping_of, schedule_of
from codesign.costmodel.mapping.search import costs_of
from codesign.ir.errors import MachineError, ScheduleError, UnsupportedError
from codesign.ir.schedule import AtLevel, Schedule

LEVEL = """[[levels]]
name = "{name}"
place = "{name}"
fanout = {fanout}
capacity_bytes = {{ value = {capacity}, source = "MINE" }}
bandwidth = {{ value = {bandwidth}, source = "MINE" }}
[levels.energy]
read_joules_per_byte = {{ value = {joules}, source = "MINE" }}
write_joules_per_byte = {{ value = {joules}, source = "MINE" }}
"""
RING = (
    'topology = "{topology}", link_bandwidth = {{ value = {links}, source = "MINE" }}, '
    'link_joules_per_byte = {{ value = {link_joules}, source = "MINE" }}'
)


def written(
    folder: Path,
    *,
    topology: str = "ring",
    links: float = 6.4e10,
    dram: float = 1e11,
    clusters: int = 3,
    clock: float = 1e9,
    link_joules: float = 0.0,
) -> Hierarchy:
    """Six cores below three scratchpads: of the chip, of each of three clusters on a ring, of each core; arrays of 8 x 8."""
    ring = RING.format(topology=topology, links=links, link_joules=link_joules)
    text = "\n".join(
        [
            'schema_version = 1\nname = "mine"\ndescription = "three scratchpads and a ring"\nkind = "dataflow"',
            'vendor = "nobody"\narchitecture = "mine"\n[sources]\nMINE = "made up"',
            LEVEL.format(name="dram", fanout=1, capacity=1e9, bandwidth=dram, joules=5e-11),
            LEVEL.format(name="chip", fanout=1, capacity=65536, bandwidth=4e11, joules=1e-11)
            + '[levels.holds]\nmay = ["weight"]',
            LEVEL.format(name="cluster", fanout=clusters, capacity=16384, bandwidth=3e11, joules=4e-12)
            + f'[levels.holds]\nmay = ["input"]\naxes = [{{ name = "clusters", size = {clusters}, {ring} }}]',
            LEVEL.format(name="core", fanout=2, capacity=4096, bandwidth=2e11, joules=1e-12)
            + '[levels.holds]\nkeeps = ["input", "weight", "output"]',
            '[[levels]]\nname = "array"\nplace = "array"\ncapacity_bytes = { value = 1024, source = "MINE" }',
            '[[units]]\nname = "tensor"\nlevel = "array"\ncount = 1\ndataflows = ["output_stationary"]',
            f'clock_hz = {{ value = {clock}, source = "MINE" }}\n[units.rate]\nbf16 = {{ value = 64, source = "MINE" }}',
            '[units.array]\nrows = { value = 8, source = "MINE" }\ncolumns = { value = 8, source = "MINE" }',
        ]
    )
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.toml"  # files are read once
    path.write_text(text)
    return hierarchy_of(load_machine(str(path)), "bf16")


def product(m: int = 24, n: int = 16, k: int = 12) -> Problem:
    return gemm(m, n, k, "bf16", 2.0)


@pytest.mark.parametrize("counting", COUNTINGS.values(), ids=COUNTINGS)
def test_a_new_machine_is_one_file(tmp_path: Path, counting: Counting) -> None:
    mine = written(tmp_path)
    assert [store.name for store in mine.stores] == ["dram", "chip", "cluster", "core", "array"]
    assert mine.multipliers == 3 * 2 * 64
    found = search(product(), mine, counting, "latency")
    assert found.costs.fit.item()
    assert found.costs.seconds.item() >= product().macs / (mine.rate * mine.multipliers)
    schedule = schedule_of(found.nest, found.factors, counting)
    assert found.nest.stationary == "output stationary"
    again = costs_of(*mapping_of(schedule, product(), mine), counting)
    assert again.seconds.item() == pytest.approx(found.costs.seconds.item(), rel=1e-12)


def test_what_moves_over_a_ring_is_counted(tmp_path: Path) -> None:
    """By hand: three clusters split m, so each has its own rows of `a` and all need `w`."""
    mapping = Schedule(
        levels={
            "cluster": AtLevel(split={"m": 3}),
            "core": AtLevel(split={"n": 2}, stage={"a": 1, "w": 1, "c": 1}, order=("w", "a", "c")),
            "array": AtLevel(split={"m": 8, "n": 8}, stage={"c": 1}),
        }
    )
    problem = product(24, 16, 4)
    found = {}
    for topology in ("line", "ring"):
        mine = written(tmp_path, topology=topology, links=1e6)
        costs = costs_of(*mapping_of(mapping, problem, mine), ACCELFORGE)
        assert costs.fit.item()
        found[topology] = {name: busy.item() for (_, name), busy in costs.links.items()}
        assert costs.seconds.item() == pytest.approx(sum(found[topology].values()))
    whole = {"a": 24 * 4 * 2.0, "w": 4 * 16 * 2.0, "c": 24 * 16 * 2.0}
    times = {"a": 2.0, "w": 1.0, "c": 1.0}  # both cores of a cluster need the same rows of a, and nothing sends to both
    for name, bytes_ in whole.items():
        assert found["line"][name] == pytest.approx(bytes_ * times[name] / 1e6)
        assert found["ring"][name] == pytest.approx(bytes_ * times[name] / 2e6)


def test_what_passes_links_costs_energy(tmp_path: Path) -> None:
    """By hand: of five clusters on a line (a ring) four split m and use links 1 to 4 (one of each side's two)."""
    mapping = Schedule(
        levels={
            "cluster": AtLevel(split={"m": 4}),
            "core": AtLevel(stage={"a": 1, "w": 1, "c": 1}, order=("w", "a", "c")),
            "array": AtLevel(split={"m": 8, "n": 8}, stage={"c": 1}),
        }
    )
    problem = product(32, 8, 4)
    whole = {"a": 32 * 4 * 2.0, "w": 4 * 8 * 2.0, "c": 32 * 8 * 2.0}
    mean = {"line": (1 + 2 + 3 + 4) / 4, "ring": (1 + 1 + 2 + 2) / 4}
    for topology, way in mean.items():
        mine = written(tmp_path, topology=topology, clusters=4, link_joules=1e-6)
        costs = costs_of(*mapping_of(mapping, problem, mine), ACCELFORGE)
        found = {name: joules.item() / 1e-6 for name, joules in costs.link_joules.items()}
        assert found == pytest.approx({"a": whole["a"] * way, "w": whole["w"] * 4, "c": whole["c"] * way})
        plain = costs_of(*mapping_of(mapping, problem, written(tmp_path, topology=topology, clusters=4)), ACCELFORGE)
        assert costs.joules.item() == pytest.approx(plain.joules.item() + sum(found.values()) * 1e-6)


def test_links_that_cost_more_are_passed_less(tmp_path: Path) -> None:
    least = [
        search(product(), written(tmp_path, link_joules=joules), ACCELFORGE, "energy").costs.joules.item()
        for joules in (0.0, 1e-12, 1e-9)
    ]
    assert least == sorted(least)
    assert least[0] < least[1]


def test_a_slow_ring_binds_and_a_faster_one_is_never_slower(tmp_path: Path) -> None:
    seconds = [
        search(product(), written(tmp_path, links=links), ACCELFORGE, "latency").costs.seconds.item()
        for links in (1e8, 1e9, 1e12)
    ]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > seconds[-1]


@settings(max_examples=3)
@given(
    sizes=st.tuples(*[st.sampled_from([8, 12, 16])] * 3),
    what=st.sampled_from(["dram", "clusters", "clock", "links"]),
    counting=st.sampled_from([OWN, ACCELFORGE]),
)
def test_more_of_anything_is_never_slower_and_nothing_beats_the_roofline(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, int, int], what: str, counting: Counting
) -> None:
    folder, problem = tmp_path_factory.mktemp("mine"), product(*sizes)
    less: dict[str, Any] = {"dram": 1e10, "clusters": 2, "clock": 1e9, "links": 1e10}
    more = {**less, what: less[what] * 2}
    slow, fast = (written(folder, **figures) for figures in (less, more))
    before, after = (search(problem, each, counting, "latency").costs.seconds.item() for each in (slow, fast))
    assert after <= before * (1 + 1e-9)
    for each, seconds in ((slow, before), (fast, after)):
        assert seconds >= problem.macs / (each.rate * each.multipliers) * (1 - 1e-9)
        assert seconds >= problem.compulsory_bytes / each.stores[0].read_bandwidth * (1 - 1e-9)


@settings(max_examples=8)
@given(sizes=st.tuples(*[st.sampled_from([4, 6, 8, 16])] * 3), capacity=st.sampled_from([256, 1024, 4096]))
def test_traffic_is_never_below_the_bound_for_the_capacity(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, int, int], capacity: int
) -> None:
    mine = written(tmp_path_factory.mktemp("mine"), clusters=1)
    core = next(store for store in mine.stores if store.name == "core")
    flat = replace(mine, stores=(mine.stores[0], replace(core, capacity=float(capacity))), axes=())
    problem = product(*sizes)
    try:
        costs = search(problem, flat, ACCELFORGE, "latency").costs
    except ScheduleError:
        return
    moved = sum(value.item() for found in (costs.reads, costs.writes) for (at, _), value in found.items() if at == 0)
    assert moved >= problem.compulsory_bytes
    values = capacity / 2
    assert (
        moved / 2 >= 2.0 * problem.macs / values**0.5 - 3.0 * values
    )  # Smith et al. 2019, whose bound leaves the capacity off


def test_a_window_is_mapped_without_reading_its_rim_too_often(tmp_path: Path) -> None:
    text = "o[k, p, q] = x[c, p + r, q + s] * f[k, c, r, s]"
    problem = parse_problem(text, {"k": 8, "c": 4, "p": 6, "q": 6, "r": 3, "s": 3}, "bf16", 2.0)
    found = search(problem, written(tmp_path, clusters=1), ACCELFORGE, "energy")
    moved = {name: value.item() for (at, name), value in found.costs.reads.items() if at == 0}
    assert moved["x"] >= 4 * 8 * 8 * 2
    assert found.costs.fit.item()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c[m, n] = a[m, k]", "is no product"),
        ("c[m, m] = a[m, k] * b[k, n]", "names a dim twice"),
        ("c[m, z] = a[m, k] * b[k, n]", "no size for z"),
        ("c[m] = a[m, k] * b[k]", "n: not among the product's dims"),
        ("c[m, n] = a[m, k-1] * b[k, n]", "cannot read the operand"),
    ],
)
def test_what_is_no_product_is_refused(text: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        parse_problem(text, {"m": 4, "n": 4, "k": 4}, "bf16", 2.0)


@pytest.mark.parametrize(
    ("level", "at", "message"),
    [
        ("clutser", AtLevel(), "no such level; nearest: cluster"),
        ("cluster", AtLevel(stage={"c": 1}), "holds no output there"),
        ("core", AtLevel(order=("a", "w")), "always has the output there"),
        ("cluster", AtLevel(split={"m": 5}), "5 parts do not divide 24"),
        ("cluster", AtLevel(split={"m": 8}), "do not lie along its axes"),
        ("core", AtLevel(order=("a", "w", "c", "y")), "'y' is no operand and no dim"),
        ("core", AtLevel(order=("a", "w", "c", "m"), tile={"m": 7}), "7 does not divide 24"),
    ],
)
def test_a_mapping_that_is_none_is_refused(tmp_path: Path, level: str, at: AtLevel, message: str) -> None:
    levels = {"core": AtLevel(order=("a", "w", "c")), "array": AtLevel(order=("c",)), level: at}
    with pytest.raises(ScheduleError, match=message):
        mapping_of(Schedule(levels=levels), product(), written(tmp_path))


def test_what_has_no_mappings_is_refused() -> None:
    with pytest.raises(MachineError, match="h100_sxm is a gpu"):
        hierarchy_of(load_machine("h100_sxm"), "bf16")
    with pytest.raises(UnsupportedError, match="multiplies no f64"):
        hierarchy_of(load_machine("maia100"), "f64")
