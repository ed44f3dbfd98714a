"""Loops on the engines of a core, by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from codesign.costmodel.dataflow import target_of
from codesign.costmodel.dataflow.buffers import Buffer
from codesign.costmodel.dataflow.placing import Placed, Storage
from codesign.costmodel.dataflow.selection import Section
from codesign.costmodel.dataflow.timeline import Timeline
from codesign.costmodel.dataflow.work import Stage, Task, Work
from codesign.costmodel.machine import load_machine
from codesign.ir.index import index

MAIA = target_of(load_machine("maia100"))
LATENCY, ISSUE = MAIA.latency_clocks, MAIA.issue_clocks


def stage(trips: float, *tasks: Task) -> Stage:
    sums = {t.engine: sum(o.clocks for o in tasks if o.engine == t.engine) for t in tasks}
    read, written = (sum(t.moved for t in tasks if t.engine == engine) for engine in ("load", "store"))
    passing, leaving = (read,) * len(MAIA.ports), (written,) * len(MAIA.ports)
    return Stage(trips=trips, instructions=len(tasks), read=passing, written=leaving, tasks=list(tasks), busy=sums)


def program(stages: list[Stage], users: Mapping[int, str] | None = None) -> Work:
    """Stages whose computations need what was loaded before them in the step, and what the computation before made; stores the last. `users`:
    by the number of a load in its stage, the engine that alone needs it."""
    buffers: list[Buffer] = []
    sections = {id(stage): Section() for stage in stages if not stage.straight}
    for stage in stages:
        path = [sections[id(stage)]] if id(stage) in sections else []
        if stage.around is not None:
            path.insert(0, sections[id(stage.around)])
        stage.section, stage.touched = sections.get(id(stage)), []
        brought: list[tuple[Buffer, str | None]] = []
        made: Buffer | None = None
        for number, task in enumerate(stage.tasks):
            touched: list[tuple[Buffer, bool]] = []
            if task.engine != "load" and made is not None:
                touched.append((made, False))
            if task.engine in ("tensor", "vector"):
                touched += [(buffer, False) for buffer, user in brought if user in (None, task.engine)]
                brought = [(buffer, user) for buffer, user in brought if user not in (None, task.engine)]
            if task.engine != "store":
                buffer = Buffer(index(4096))
                buffers.append(buffer)
                touched.append((buffer, True))
                if task.engine == "load":
                    brought.append((buffer, (users or {}).get(number)))
                else:
                    made = buffer
            for buffer, _ in touched:
                at = sum(len(before.touched) for before in stages[: stages.index(stage) + 1])
                buffer.engines.add(task.engine)
                buffer.paths.append(tuple(path))
                buffer.first, buffer.last = min(buffer.first, at), max(buffer.last, at)
            stage.touched.append(tuple(touched))
    return Work(stages, Storage(tuple(buffers)))


def clocks(
    stages: list[Stage],
    *,
    cores: float = 1,
    programs: float = 1,
    turns: float = 1,
    depth: float = 1,
    users: Mapping[int, str] | None = None,
) -> float:
    most = [np.array([port.cores]) for port in MAIA.ports]
    work = program(stages, users)
    apart = np.array([[4096.0 * number for number in range(len(work.storage.buffers))]])
    where = Placed(np.zeros(1, np.int64), np.zeros(1), apart, np.zeros_like(apart), np.full_like(apart, 4096.0))
    line = Timeline(MAIA, 1, np.array([cores]), most, np.array([turns]), np.array([depth]), where)
    return float(line.run(work, np.array([cores * programs]), np.array([programs]), np.zeros(1))[0])


@pytest.mark.parametrize("trips", [3, 6, 40])
@pytest.mark.parametrize(("load", "vector"), [(100, 50), (100, 700), (3000, 40)])
def test_a_loop_with_one_slot_takes_turns(trips: int, load: int, vector: int) -> None:
    loop = stage(trips, Task("load", load), Task("vector", vector))
    assert clocks([loop]) == pytest.approx(trips * (load + LATENCY + vector) + 2 * ISSUE, rel=1e-3)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize(("load", "vector"), [(100, 50), (100, 4000), (3000, 40)])
def test_slots_let_loads_run_ahead(depth: int, load: int, vector: int) -> None:
    trips = 60
    loop = stage(trips, Task("load", load), Task("vector", vector))
    slowest = max(load, vector, (load + LATENCY + vector) / depth)
    assert clocks([loop], depth=depth) == pytest.approx(trips * slowest + LATENCY, rel=0.06)


def test_what_crosses_engines_is_a_chain_within_a_step() -> None:
    loop = stage(50, Task("load", 10), Task("tensor", 300), Task("vector", 200), Task("tensor", 100))
    assert clocks([loop]) == pytest.approx(50 * (10 + LATENCY + 300), rel=0.02), "the first product frees the slot"
    assert clocks([loop], depth=4) == pytest.approx(50 * 600 + LATENCY, rel=0.02), (
        "the tensor unit waits for its second operand"
    )
    ahead = stage(50, Task("load", 10), Task("tensor", 300), Task("vector", 200))
    assert clocks([ahead], depth=4) == pytest.approx(50 * max(300.0, (310 + LATENCY) / 4) + LATENCY, rel=0.03), (
        "a slot is free when the tensor unit is done with it"
    )


def test_cores_wait_for_each_other_at_memory() -> None:
    port = MAIA.ports[0]
    moved = 64 * port.bytes_per_clock  # 64 clocks of memory for each core
    assert clocks([stage(1, Task("load", 1, moved), Task("vector", 1))], cores=1) < 200 + LATENCY
    assert clocks([stage(1, Task("load", 1, moved), Task("vector", 1))], cores=64) >= 64 * 64 + LATENCY
    loop = stage(100, Task("load", 1, moved), Task("vector", 1))
    assert clocks([loop], cores=64, depth=4) == pytest.approx(100 * 64 * 64 + LATENCY, rel=0.02)


def test_programs_of_a_core_overlap_when_their_buffers_have_two_slots() -> None:
    one = [stage(1, Task("load", 100), Task("vector", 100), Task("store", 100))]
    apart, together = clocks(one, programs=50), clocks(one, programs=50, turns=2)
    assert apart == pytest.approx(50 * (200 + LATENCY) + LATENCY, rel=0.05)
    assert together == pytest.approx(25 * (200 + LATENCY), rel=0.06)


def test_a_store_waits_at_memory_for_loads_of_the_next_step_that_came_no_later() -> None:
    took, vector = 500.0, 100
    moved = took * min(port.bytes_per_clock for port in MAIA.ports)
    loop = stage(60, Task("load", 1, moved), Task("load", 1, moved), Task("vector", vector), Task("store", 1, moved))
    assert clocks([loop]) == pytest.approx(60 * (3 * took + LATENCY + vector), rel=0.02)


def test_with_one_slot_a_load_waits_for_all_that_its_user_was_asked_for() -> None:
    load, tensor, vector = 100, 300, 700
    tasks = [
        Task("load", load),
        Task("tensor", tensor),
        Task("vector", vector),
        Task("load", load),
        Task("tensor", tensor),
    ]
    step = load + LATENCY + tensor + max(load + LATENCY, vector) + tensor
    assert clocks([stage(50, *tasks)]) == pytest.approx(50 * step, rel=0.02)
    tasks = [Task("tensor", tensor), Task("load", load), Task("vector", vector), Task("tensor", tensor)]
    given = {1: "tensor"}  # though the vector unit is next
    assert clocks([stage(50, *tasks)], users=given) == pytest.approx(
        50 * (2 * tensor + max(vector, load + LATENCY)), rel=0.02
    )


def test_a_full_queue_keeps_loads_from_running_ahead() -> None:
    load, vector, many = 100, 10, MAIA.queue_depth
    loop = stage(60, Task("load", load), *(Task("vector", vector) for _ in range(many)))
    ahead = (load + LATENCY + (many - 1) * vector) / 2  # until the last one but a step has begun
    assert ahead > many * vector
    assert clocks([loop], depth=4) == pytest.approx(60 * ahead, rel=0.06)


def test_a_full_queue_keeps_the_next_programs_loads_back() -> None:
    load, vector, more = 100, 10, 4
    half = [Task("vector", vector) for _ in range((MAIA.queue_depth + more) // 2)]
    both = [stage(1, Task("load", load), *half), stage(1, *half)]
    period = (more - 1) * vector + load + LATENCY  # the next load is issued once so many have begun
    assert clocks(both, programs=50, turns=2) == pytest.approx(50 * period, rel=0.03)


@pytest.mark.parametrize(("steps", "depth"), [(4, 3), (2, 3), (5, 4)])
def test_slots_are_free_as_before_only_after_some_programs(steps: int, depth: int) -> None:
    load, vector = 100, 50
    took = clocks([stage(steps, Task("load", load), Task("vector", vector))], programs=60, turns=2, depth=depth)
    assert took == pytest.approx(60 * steps * (load + LATENCY + vector) / depth, rel=0.03)


@pytest.mark.parametrize("depth", [3, 4])
def test_a_loop_inside_a_loop_is_followed_until_its_slots_were_used(depth: int) -> None:
    load, vector, steps, times = 100, 50, 48, 10
    outer = stage(times, Task("vector", 1))
    inner = stage(steps * times, Task("load", load), Task("vector", vector))
    inner.around = outer
    period = (load + LATENCY + vector) / depth
    assert clocks([inner, outer], depth=depth) == pytest.approx(times * steps * period, rel=0.05)


def _batch(rng: np.random.Generator, count: int, *, nested: bool) -> tuple[Timeline, Work, tuple[np.ndarray, ...]]:
    """A timeline of random programs under so many schedules."""

    def drawn(low: float, high: float) -> np.ndarray:
        return np.round(rng.uniform(low, high, count))

    def task(engine: str) -> Task:
        clocks = drawn(1, 900) * (rng.random(count) < 0.9)  # some schedules do without it
        if engine in ("load", "store"):
            shared = rng.random(count) if rng.random() < 0.3 else None
            return Task(engine, clocks, drawn(0, 1 << 14), shared=shared)
        return Task(engine, clocks)

    def some(steps: np.ndarray | float) -> Stage:
        engines = ["load", *rng.choice(["load", "tensor", "vector"], 3), "vector", "store"]
        made = stage(1, *(task(engine) for engine in engines))
        made.trips = made.steps = steps
        made.straight = bool(np.all(np.asarray(steps) == 1))
        return made

    loop = some(drawn(2, 12))
    stages = [some(1.0), loop]
    if nested:
        inner = some(drawn(1, 9) * loop.steps)
        inner.around = loop
        stages.insert(1, inner)
    cores = np.minimum(2 ** drawn(0, 6), MAIA.cores)
    most = [np.array([port.cores]) for port in MAIA.ports]
    work = program(stages)
    each = (count, len(work.storage.buffers))
    place, near, size = rng.integers(0, 9, each), rng.integers(0, 2, each), rng.integers(0, 3, each)
    tables = (table.astype(np.float64) for table in (place, near, size))
    where = Placed(rng.integers(0, 6, count), np.zeros(count), *tables)
    line = Timeline(MAIA, count, cores, most, drawn(1, 2), drawn(1, 4), where)
    programs = drawn(1, 9)
    return line, work, (cores * programs - drawn(0, 1), programs, drawn(1, 99))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_python_without_a_compiler_and_each_schedule_alone_find_the_same(seed: int, nested: bool) -> None:
    count = 11
    line, work, figures = _batch(np.random.default_rng(seed), count, nested=nested)
    together = line.run(work, *figures)
    assert line.run(work, *figures, compiled=False).tolist() == together.tolist()
    for row in range(count):
        rows = slice(row, row + 1)
        cores, turns, depth = (each[rows] for each in (line.cores, line.turns, line.depth))
        alone = Timeline(MAIA, 1, cores, line.most, turns, depth, line.placed.of(rows))
        assert alone.run(work.of(rows), *(figure[rows] for figure in figures)).tolist() == [together[row]]
