"""The first steps of a program on the engines of a core, for a batch of schedules at once, and how it goes on from there.

Engines take their instructions in order; loads wait for a free slot, compute for its operands, stores for results. Two cores are
followed: the one that memory serves first and the one that it serves last, with all others between them. After a few steps a loop
repeats itself, and what is left of it is its period times its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.dataflow.work import Stage, Task, Work

DEEPEST = 4
"""Iterations in flight that are told apart."""
STEPS, NESTED_STEPS, PROGRAMS = 6, 4, 3
"""Steps that are followed: of a loop, of a loop with loops inside (and of those), and of the loop over a core's programs."""
AGAIN = 2
"""Steps of a loop that are followed when its period is known from the program before."""

_OTHER = {"load": ("store",), "store": ("load",)}

Times = npt.NDArray[np.float64]


class _Back:
    """How many steps back to look, for each schedule (1: the last one)."""

    def __init__(self, steps: Array) -> None:
        self.steps = np.asarray(steps)
        masks = ((number, self.steps >= number) for number in range(2, DEEPEST + 1))
        self.masks = [(number, mask) for number, mask in masks if np.any(mask)]


@dataclass
class _Ring:
    """Ends of the last steps, latest first."""

    ends: list[Times]

    def back(self, steps: _Back) -> Times:
        """The end of the step so many steps ago."""
        found: Times = self.ends[0]
        for number, mask in steps.masks:
            found = np.where(mask, self.ends[number - 1], found)
        return found

    def push(self, end: Times, active: npt.NDArray[np.bool_] | None) -> None:
        later = [end, *self.ends[:-1]]
        if active is not None:
            later = [np.where(active, new, old) for new, old in zip(later, self.ends, strict=True)]
        self.ends = later


@dataclass
class _Port:
    """A queue at the memories above the cores: when the last transfer of all cores came, from the first of them; when it was begun; the clocks
    that it takes for all, and how many of them go by for each clock that another comes later than the first."""

    first: Times
    begun: Times
    length: Times
    slope: Times

    def free(self, came: Times) -> Times:
        """When the port is done with what was there before one that came at a time."""
        late = came - self.first
        return np.where(late >= 0.0, self.begun + np.minimum(late * self.slope, self.length), 0.0)


@dataclass
class Timeline:
    """Times of two cores [2, schedules]."""

    target: Target
    count: int
    cores: Array
    most: list[Array]
    """For each port, the cores that reach it through one instance when all work."""
    turns: Array
    depth: Array
    apart: npt.NDArray[np.bool_]
    """Whether what is loaded shares its addresses with nothing, so that loads may run ahead of other loops."""
    back_turns: _Back = field(init=False)
    back_depth: _Back = field(init=False)
    control: Times = field(init=False)
    chain: Times = field(init=False)
    ready: Times = field(init=False)
    stored: Times = field(init=False)
    opened: Times = field(init=False)
    gate: Times = field(init=False)
    free: dict[str, Times] = field(init=False)
    ports: dict[str, _Port] = field(init=False, default_factory=dict)
    periods: dict[int, Times] = field(init=False, default_factory=dict)
    rings: dict[tuple[int, str], _Ring] = field(init=False, default_factory=dict)
    lengths: dict[int, tuple[Array, Array]] = field(init=False, default_factory=dict)
    """By transfer, clocks of the ports for one core, and for all that are at work."""
    issues: dict[int, Array] = field(init=False, default_factory=dict)
    """By instruction, clocks of the control processor: none where it takes no clocks."""

    def __post_init__(self) -> None:
        zero = np.zeros((2, self.count))
        self.back_turns, self.back_depth = _Back(self.turns), _Back(self.depth)
        self.control = self.chain = self.ready = self.stored = self.opened = self.gate = zero
        self.free = dict.fromkeys(("load", "tensor", "vector", "store"), zero)

    def run(self, work: Work, grid: Array, programs: Array, least: Array) -> Array:
        """Clocks until the last store of the last program has arrived. `grid`: programs of all cores; `least`: clocks that one takes at
        least."""
        inner: dict[int, list[Stage]] = {}
        for stage in work.stages:
            if stage.around is not None:
                inner.setdefault(id(stage.around), []).append(stage)
        cores, last = self.cores, grid - self.cores * (programs - 1.0)
        outer = [stage for stage in work.stages if stage.around is None and (stage.tasks or id(stage) in inner)]
        ring = self._ring(0, "program")
        ends: list[Times] = []
        for number in range(PROGRAMS):
            active = None if np.all(programs > number) else np.asarray(programs > number)
            if active is not None and not np.any(active):
                break
            self.opened = ring.back(self.back_turns) if number else np.zeros(1)
            ending = np.asarray(programs == number + 1)
            if number and np.any(ending):
                self.cores, self.lengths = np.where(ending, last, cores), {}
            for stage in outer:
                self._stage(stage, inner, active)
            ring.push(self.chain, active)
            ends.append(self.chain)
        left = np.maximum(programs - PROGRAMS, 0.0)
        if np.any(left):
            period = np.where(self.turns > 1, (ends[-1] - ends[-3]) / 2.0, ends[-1] - ends[-2])
            self._skip(left * np.maximum(period, least))
        return np.maximum(self.stored, self.chain).max(axis=0)

    # -- loops ---------------------------------------------------------------------------------------------------
    def _stage(self, stage: Stage, inner: dict[int, list[Stage]], active: npt.NDArray[np.bool_] | None) -> None:
        children = inner.get(id(stage), [])
        total = stage.steps if stage.around is None else np.asarray(stage.steps) / np.maximum(stage.around.steps, 1e-9)
        most = NESTED_STEPS if children or stage.around is not None else STEPS
        again = min(most, AGAIN) if id(stage) in self.periods else most
        followed = np.where(np.asarray(total) > most, again, most)  # a short loop is followed to its end each time
        depth = self.back_turns if stage.straight and stage.around is None else self.back_depth
        ends: list[Times] = [self.chain]
        if stage.around is None:
            self.gate = np.where(self.apart, 0.0, self.chain)
        for step in range(most):
            going = np.asarray((total > step) & (step < followed))
            if not np.any(going):
                break
            now = active if np.all(going) else (going if active is None else going & active)
            if not stage.straight:
                self.chain = self._set(self.chain, np.zeros(1), now)
                self.control = self._set(self.control, self.control + self.target.issue_clocks, now)
            for child in children:
                self._stage(child, inner, now)
            self._step(stage, depth, now)
            ends.append(self.chain)
        left = np.maximum(np.asarray(total) - followed, 0.0)
        if np.any(left):
            if id(stage) not in self.periods:
                self.periods[id(stage)] = np.maximum(self._period(ends), self._least(stage))
            extra = left * self.periods[id(stage)]
            self._skip(extra if active is None else np.where(active, extra, 0.0))

    def _period(self, ends: list[Times]) -> Times:
        """Clocks from the end of one step to that of the next, over as many as are in flight together."""
        period = ends[-1] - ends[-2]
        for number in range(2, len(ends) - 2):
            period = np.where(self.depth >= number, (ends[-1] - ends[-1 - number]) / number, period)
        return period

    def _least(self, stage: Stage) -> Array:
        """Clocks that a step takes when no engine ever waits."""
        busy: Array = 0.0
        for clocks in stage.busy.values():
            busy = np.maximum(busy, clocks)
        busy = shared_clocks(self.target, self.most, self.cores, busy, stage.read, stage.written)
        return np.maximum(busy, (stage.instructions + 1) * self.target.issue_clocks)

    def _skip(self, clocks: Times) -> None:
        """Go on by so many clocks in which everything repeats itself."""
        self.free = {engine: time + clocks for engine, time in self.free.items()}
        self.control, self.chain, self.ready, self.stored = (
            time + clocks for time in (self.control, self.chain, self.ready, self.stored)
        )
        late = np.broadcast_to(clocks, (2, self.count))
        for way, port in self.ports.items():
            self.ports[way] = _Port(port.first + late[0], port.begun + late.max(axis=0), port.length, port.slope)
        for ring in self.rings.values():
            ring.ends = [end + clocks for end in ring.ends]

    # -- one step ------------------------------------------------------------------------------------------------
    def _step(self, stage: Stage, depth: _Back, active: npt.NDArray[np.bool_] | None) -> None:
        key = id(stage)
        engines = {task.engine for task in stage.tasks}
        crosses = {"tensor", "vector"} <= engines
        step_ring = self._ring(key, "chain")
        waits = step_ring.back(depth) if crosses else np.zeros(1)
        group = 0
        computed = False
        last = max((i for i, task in enumerate(stage.tasks) if task.engine in ("tensor", "vector")), default=-1)
        for position, task in enumerate(stage.tasks):
            self._issue(task, active)
            if task.engine == "load":
                if computed:
                    self._ring(key, f"used{group}").push(self.chain, active)
                    group, computed = group + 1, False
                slot = self._ring(key, f"used{group}").back(depth)
                if (user := _signalled(stage.tasks, position)) is not None:
                    slot = np.where(depth.steps > 1, slot, np.maximum(slot, self.free[user]))
                self._load(task, np.maximum(slot, self.gate), active)
            elif task.engine == "store":
                self._store(task, active)
            else:
                held = self._ring(key, "stored").back(depth) if position == last and "store" in engines else np.zeros(1)
                self._compute(task, np.maximum(np.maximum(waits, held), self.opened), active)
                computed = True
        if computed:
            self._ring(key, f"used{group}").push(self.chain, active)
        if "store" in engines:
            self._ring(key, "stored").push(self.stored, active)
        step_ring.push(self.chain, active)

    def _load(self, task: Task, slot: Times, active: npt.NDArray[np.bool_] | None) -> None:
        start = np.maximum(np.maximum(self.free["load"], self.control), slot)
        if task.follows:
            start = np.maximum(start, self.ready)
        end = self._transfer(task, start, active)
        self.free["load"] = self._set(self.free["load"], end, active)
        self.ready = self._set(self.ready, np.maximum(self.ready, end + self.target.latency_clocks), active)

    def _compute(self, task: Task, slot: Times, active: npt.NDArray[np.bool_] | None) -> None:
        start = np.maximum(np.maximum(self.free[task.engine], self.control), np.maximum(self.ready, self.chain))
        end = np.maximum(start, slot) + task.clocks
        end = np.where(np.asarray(task.clocks) > 0, end, self.chain)
        self.free[task.engine] = self._set(self.free[task.engine], np.maximum(end, self.free[task.engine]), active)
        self.chain = self._set(self.chain, end, active)

    def _store(self, task: Task, active: npt.NDArray[np.bool_] | None) -> None:
        start = np.maximum(np.maximum(self.free["store"], self.control), np.maximum(self.chain, self.ready))
        end = self._transfer(task, start, active)
        self.free["store"] = self._set(self.free["store"], end, active)
        self.stored = self._set(self.stored, end + self.target.latency_clocks, active)

    def _transfer(self, task: Task, start: Times, active: npt.NDArray[np.bool_] | None) -> Times:
        """End of a transfer that all cores make: the engine's own, or when the ports have served those that came before."""
        if task.shared is not None:  # begins when the last of them can
            first, last = start
            start = np.stack([first + np.maximum(last - first, 0.0) * task.shared, last])
        ports = self.target.ports
        shared = ports and not ports[0].write_bytes_per_clock
        ways = [task.engine, *(_OTHER[task.engine] if shared else ())]
        served: Times = np.maximum(start + task.clocks, self._served(ways, start, *self._lengths(task), active))
        return served

    def _lengths(self, task: Task) -> tuple[Array, Array]:
        """Clocks of the ports for a transfer of one core, and for those of all that are at work."""
        known = self.lengths.get(id(task))
        if known is None:
            one: Array = 0.0
            whole: Array = 0.0
            portions = task.portions or (1.0,) * len(self.target.ports)
            links = task.links or (0.0,) * len(self.target.ports)
            for port, most, portion, linked in zip(self.target.ports, self.most, portions, links, strict=True):
                rate = port.write_bytes_per_clock if task.engine == "store" else 0.0
                each = np.asarray(task.moved) / (rate or port.bytes_per_clock)
                one = np.maximum(one, each)
                whole = np.maximum(whole, each * np.maximum(np.minimum(self.cores, most) * portion, 1.0))
                if port.network is not None:
                    each = np.asarray(task.moved) / port.network.bytes_per_clock
                    one = np.maximum(one, np.where(np.asarray(linked) > 0, each, 0.0))
                    whole = np.maximum(whole, each * np.minimum(self.cores, most) * linked)
            known = self.lengths[id(task)] = (one, whole)
        return known

    def _served(
        self, ways: list[str], start: Times, one: Array, whole: Array, active: npt.NDArray[np.bool_] | None
    ) -> Times:
        """When a port has served a transfer (`one`: its clocks) of the first and of the last core; `whole`: clocks of those of all.

        `ways`: its own queue, and those that it shares the port with, where what came before this is served first.
        """
        first, last = start
        begins = first
        for way in ways:
            if way in self.ports:
                begins = np.maximum(begins, self.ports[way].free(first))
        slope = whole / np.maximum(last - first, 1e-9)
        new: tuple[Times, ...] = (first, begins, np.broadcast_to(whole, first.shape), slope)
        if active is not None:
            none = np.zeros(self.count)
            before = self.ports.get(ways[0], _Port(none, none, none, none))
            old = (before.first, before.begun, before.length, before.slope)
            new = tuple(np.where(active, after, past) for after, past in zip(new, old, strict=True))
        self.ports[ways[0]] = _Port(*new)
        served = np.empty((2, self.count))
        served[0], served[1] = begins + one, np.maximum(begins + whole, last + one)
        return served

    def _issue(self, task: Task, active: npt.NDArray[np.bool_] | None) -> None:
        """The control processor's time for one instruction."""
        step = self.issues.get(id(task))
        if step is None:
            some = np.asarray(task.clocks) > 0
            clocks = self.target.issue_clocks
            step = self.issues[id(task)] = clocks if np.all(some) else np.where(some, clocks, 0.0)
        self.control = self._set(self.control, self.control + step, active)

    def _set(self, old: Times, new: Array, active: npt.NDArray[np.bool_] | None) -> Times:
        return np.asarray(new if active is None else np.where(active, new, old), dtype=np.float64)

    def _ring(self, stage: int, what: str) -> _Ring:
        if (stage, what) not in self.rings:
            self.rings[stage, what] = _Ring([np.zeros((2, self.count))] * DEEPEST)
        return self.rings[stage, what]


def _signalled(tasks: list[Task], position: int) -> str | None:
    """The engine that a load with one slot waits for in its own step: its user's, when that has handed a result on before it.

    A wait is for all that the user's engine has been asked to signal so far.
    """
    working = ("tensor", "vector")
    user = next((task.engine for task in tasks[position:] if task.engine in working), None)
    for number, task in enumerate(tasks[:position]):
        after = next((other.engine for other in tasks[number + 1 :] if other.engine != "load"), None)
        if task.engine == user and user in working and after not in (None, user):
            return user
    return None


def shared_clocks(
    target: Target, most: Sequence[Array], cores: Array, clocks: Array, read: Sequence[Array], written: Sequence[Array]
) -> Array:
    """Clocks of transfers that all cores make at once: the engine's, or those of the busiest way of a port above.

    `most`: cores that reach each port through one instance. `read`, `written`: for each port, what passes it for one core (empty: nothing).
    """
    slowest = np.asarray(clocks)
    none = (0.0,) * len(target.ports)
    for port, users, inward, outward in zip(target.ports, most, read or none, written or none, strict=True):
        users = np.minimum(cores, users)
        together = inward if port.write_bytes_per_clock else inward + outward
        slowest = np.maximum(slowest, users * together / port.bytes_per_clock)
        if port.write_bytes_per_clock:
            slowest = np.maximum(slowest, users * outward / port.write_bytes_per_clock)
    return slowest
