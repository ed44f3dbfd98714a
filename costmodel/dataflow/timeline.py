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
            later = [
                old if new is old else np.where(active, new, old) for new, old in zip(later, self.ends, strict=True)
            ]
        self.ends = later


class _Queue:
    """When the last instructions of an engine were begun, as many as its queue holds, for each schedule."""

    def __init__(self, depth: int, count: int) -> None:
        self.begun = np.zeros((depth, count, 2))
        self.next = np.zeros(count, np.int64)
        self.rows = np.arange(count)

    def room(self) -> Times:
        """When the queue takes one more: the one that many before has begun."""
        found: Times = self.begun[self.next, self.rows].T
        return found

    def push(self, start: Times, clocks: Array, active: npt.NDArray[np.bool_] | None) -> None:
        """One more was begun, where it takes clocks."""
        some = np.asarray(clocks) > 0
        going = np.broadcast_to(some if active is None else some & active, self.rows.shape)
        late = np.broadcast_to(start, (2, len(self.rows))).T
        if not np.all(going):
            late = np.where(going[:, None], late, self.begun[self.next, self.rows])
        self.begun[self.next, self.rows] = late
        self.next = (self.next + going) % len(self.begun)


@dataclass
class _Port:
    """A queue at the memories above the cores: when the last transfer of all cores came, from the first and from the last of them; when it was
    begun and is done for all; and the clocks that it takes for all."""

    first: Times
    last: Times
    begun: Times
    done: Times
    length: Times

    def before(self, came: Times, least: Array = 0.0) -> Times:
        """Clocks of what was there before one that came at a time, no earlier than the first."""
        late = (came - self.first) / np.maximum(self.last - self.first, 1e-9)
        return np.minimum(np.maximum(late * self.length, least), self.length)

    def free(self, came: Times) -> Times:
        """When the port is done with what was there before one that came at a time."""
        between = came <= self.last
        if not between.any():
            return self.done
        some = np.where(between, self.begun + self.before(came), self.done)
        return np.where(came >= self.first, some, 0.0)

    def where(self, active: npt.NDArray[np.bool_], other: _Port) -> _Port:
        """This one where `active`, and another elsewhere."""
        return _Port(
            np.where(active, self.first, other.first),
            np.where(active, self.last, other.last),
            np.where(active, self.begun, other.begun),
            np.where(active, self.done, other.done),
            np.where(active, self.length, other.length),
        )


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
    deepest: int = field(init=False)
    """Iterations in flight of any schedule."""
    control: Times = field(init=False)
    chain: Times = field(init=False)
    ready: Times = field(init=False)
    stored: Times = field(init=False)
    opened: Times = field(init=False)
    gate: Times = field(init=False)
    free: dict[str, Times] = field(init=False)
    arrived: dict[str, Times] = field(init=False)
    """When the last of what an engine waits for comes."""
    ports: dict[str, _Port] = field(init=False, default_factory=dict)
    periods: dict[int, Times] = field(init=False, default_factory=dict)
    rings: dict[tuple[int, str], _Ring] = field(init=False, default_factory=dict)
    lengths: dict[int, tuple[Array, Array]] = field(init=False, default_factory=dict)
    """By transfer, clocks of the ports for one core, and for all that are at work."""
    signalled: dict[tuple[int, str], Times] = field(init=False, default_factory=dict)
    """When an engine was last done with what others wait for in the loop over programs (0) or in that of a stage."""
    handed: dict[int, tuple[list[str | None], list[bool]]] = field(init=False, default_factory=dict)
    queues: dict[str, _Queue] = field(init=False, default_factory=dict)
    """Of engines that compute so much that the control processor may find their queues full."""
    issues: dict[int, Array] = field(init=False, default_factory=dict)
    """By instruction, clocks of the control processor: none where it takes no clocks."""

    def __post_init__(self) -> None:
        zero = np.zeros((2, self.count))
        self.back_turns, self.back_depth = _Back(self.turns), _Back(self.depth)
        self.deepest = max(
            (number for back in (self.back_turns, self.back_depth) for number, _ in back.masks), default=1
        )
        self.control = self.chain = self.ready = self.stored = self.opened = self.gate = zero
        self.arrived = dict.fromkeys(("tensor", "vector"), zero)
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
        for engine in self.arrived:
            many = sum(task.engine == engine for stage in work.stages for task in stage.tasks)
            if many * (DEEPEST - 1) > self.target.queue_depth:
                self.queues[engine] = _Queue(self.target.queue_depth, self.count)
        ring = self._ring(0, "program")
        ends: list[Times] = []
        followed = self._followed(outer)
        for number in range(int(followed.max())):
            going = np.asarray((programs > number) & (number < followed))
            active = None if np.all(going) else going
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
        left = np.maximum(programs - followed, 0.0)
        if np.any(left):
            first, *_, one, other = ends[:PROGRAMS]
            period = np.where(self.turns > 1, (other - first) / (PROGRAMS - 1), other - one)
            for number in range(PROGRAMS, len(ends)):
                period = np.where(followed == number + 1, (ends[number] - first) / number, period)
            self._skip(left * np.maximum(period, least))
        return np.maximum(self.stored, self.chain).max(axis=0)

    def _followed(self, outer: list[Stage]) -> Array:
        """Programs that are followed: where a loop's steps don't go into its slots, until as many programs later it finds them as before."""
        depth = np.minimum(self.depth, DEEPEST)
        uneven = [np.round(np.asarray(stage.steps)) % depth != 0 for stage in outer if not stage.straight]
        some = np.logical_or.reduce(np.broadcast_arrays(*uneven)) if uneven else np.zeros(1, np.bool_)
        return np.where(some & (depth >= PROGRAMS), depth + 1, PROGRAMS)

    # -- loops ---------------------------------------------------------------------------------------------------
    def _stage(self, stage: Stage, inner: dict[int, list[Stage]], active: npt.NDArray[np.bool_] | None) -> None:
        children = inner.get(id(stage), [])
        total = stage.steps if stage.around is None else np.asarray(stage.steps) / np.maximum(stage.around.steps, 1e-9)
        most: Array = NESTED_STEPS if children or stage.around is not None else STEPS
        if stage.around is not None and not children:  # until its slots have been used once
            most = np.where(self.depth > 2, np.minimum(self.depth, DEEPEST) + 2, most)
        again: Array = np.minimum(most, AGAIN) if id(stage) in self.periods else most
        followed: Array = np.where(np.asarray(total) > most, again, most)  # a short one is followed whole
        depth = self.back_turns if stage.straight and stage.around is None else self.back_depth
        ends: list[Times] = [self.chain]
        if stage.around is None:
            self.gate = np.where(self.apart, 0.0, self.chain)
        for step in range(int(np.max(most))):
            going = np.asarray((total > step) & (step < followed))
            if not going.any():
                break
            now = active if going.all() else (going if active is None else going & active)
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
                self.periods[id(stage)] = np.maximum(self._period(ends, most), self._least(stage))
            extra = left * self.periods[id(stage)]
            self._skip(extra if active is None else np.where(active, extra, 0.0))

    def _period(self, ends: list[Times], most: Array) -> Times:
        """Clocks from the end of one step to that of the next, over as many as are in flight together; `most`: steps that were followed."""
        found = np.zeros((2, self.count))
        for steps in np.unique(most):
            known = ends[: int(steps) + 1]
            period = known[-1] - known[-2]
            for number in range(2, len(known) - 2):
                period = np.where(self.depth >= number, (known[-1] - known[-1 - number]) / number, period)
            found = np.where(most == steps, period, found)
        return found

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
            begun, done = port.begun + late.max(axis=0), port.done + late.max(axis=0)
            self.ports[way] = _Port(port.first + late[0], port.last + late[1], begun, done, port.length)
        for ring in self.rings.values():
            ring.ends = [end + clocks for end in ring.ends]
        self.arrived = {engine: time + clocks for engine, time in self.arrived.items()}
        self.signalled = {key: time + clocks for key, time in self.signalled.items()}
        for queue in self.queues.values():
            queue.begun += np.broadcast_to(clocks, (2, self.count)).T

    # -- one step ------------------------------------------------------------------------------------------------
    def _step(self, stage: Stage, depth: _Back, active: npt.NDArray[np.bool_] | None) -> None:
        key = id(stage)
        engines = {task.engine for task in stage.tasks}
        crosses = {"tensor", "vector"} <= engines
        step_ring = self._ring(key, "chain")
        waits = step_ring.back(depth) if crosses else np.zeros(1)
        users, signals = self._handed(stage)
        block = 0 if stage.straight and stage.around is None else key
        last = max((i for i, task in enumerate(stage.tasks) if task.engine in ("tensor", "vector")), default=-1)
        for position, task in enumerate(stage.tasks):
            self._issue(task, active)
            if task.engine == "load":
                slot = self.opened  # until the program that had its slot is over
                if (
                    user := users[position]
                ) is not None:  # with one slot, until all that its user was asked to signal so far
                    freed = self._ring(key, f"done{user}").back(depth)
                    slot = np.where(depth.steps > 1, freed, self.signalled.get((block, user), 0.0))
                self._load(task, np.maximum(slot, self.gate), active)
            elif task.engine == "store":
                self._store(task, active)
            else:
                held = self._ring(key, "stored").back(depth) if position == last and "store" in engines else np.zeros(1)
                self._compute(task, np.maximum(np.maximum(waits, held), self.opened), active)
                if task.engine in self.queues:
                    self.queues[task.engine].push(self.chain - task.clocks, task.clocks, active)
                if signals[position]:
                    before = self.signalled.get((block, task.engine), np.zeros(1))
                    self.signalled[block, task.engine] = self._set(before, self.chain, active)
        for engine in {user for user in users if user is not None}:
            self._ring(key, f"done{engine}").push(self.free[engine], active)
        if "store" in engines:
            self._ring(key, "stored").push(self.stored, active)
        step_ring.push(self.chain, active)

    def _handed(self, stage: Stage) -> tuple[list[str | None], list[bool]]:
        if id(stage) not in self.handed:
            self.handed[id(stage)] = _handed(stage.tasks)
        return self.handed[id(stage)]

    def _load(self, task: Task, slot: Times, active: npt.NDArray[np.bool_] | None) -> None:
        start = np.maximum(np.maximum(self.free["load"], self.control), slot)
        if task.follows:
            start = np.maximum(start, self.ready)
        end = self._transfer(task, start, active)
        self.free["load"] = self._set(self.free["load"], end, active)
        comes = end + self.target.latency_clocks
        self.ready = self._set(self.ready, np.maximum(self.ready, comes), active)
        for engine in task.users or ("tensor", "vector"):
            if engine in self.arrived:
                self.arrived[engine] = self._set(self.arrived[engine], np.maximum(self.arrived[engine], comes), active)

    def _compute(self, task: Task, slot: Times, active: npt.NDArray[np.bool_] | None) -> None:
        start = np.maximum(
            np.maximum(self.free[task.engine], self.control), np.maximum(self.arrived[task.engine], self.chain)
        )
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
            start = np.array([first + np.maximum(last - first, 0.0) * task.shared, last])
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
        others = [(way, self.ports[way]) for way in ways if way in self.ports]
        for _, other in others:
            begins = np.maximum(begins, other.free(first))
        end = np.maximum(begins + whole, last + one)
        for way, other in others:
            if way != ways[0]:  # those of the last cores come in between
                both = np.minimum(begins, other.begun) + whole + other.before(last)
                end = np.where(last >= other.first, np.maximum(end, both), end)
        now = _Port(first, last, begins, end, whole)
        for way, other in others:
            if way == "store" != ways[0]:
                self._push(other, now, one, active)
        if active is not None and ways[0] in self.ports:
            now = now.where(active, self.ports[ways[0]])
        self.ports[ways[0]] = now
        served = np.empty((2, self.count))
        served[0], served[1] = begins + one, end
        return served

    def _push(self, store: _Port, load: _Port, one: Array, active: npt.NDArray[np.bool_] | None) -> None:
        """Let a store that came to the port later than a load, though it is earlier in the program, be served after it."""
        if not np.any(load.first <= store.last):
            return
        begun = np.where(load.first <= store.first, load.begun + load.before(store.first, one), 0.0)
        both = np.minimum(load.begun, store.begun) + store.length + load.before(store.last, one)
        ended = np.where(load.first <= store.last, both, 0.0)
        delay = np.stack([np.maximum(begun - store.begun, 0.0), np.maximum(ended - store.done, 0.0)])
        if not np.any(delay):
            return
        late = self._set(np.zeros(1), delay, active)
        self.ports["store"] = _Port(store.first, store.last, store.begun + late[0], store.done + late[1], store.length)
        before = self.stored
        self.free["store"], self.stored = self.free["store"] + late, self.stored + late
        for (_, what), ring in self.rings.items():
            if what == "stored":
                ring.ends[0] = np.where(ring.ends[0] == before, self.stored, ring.ends[0])

    def _issue(self, task: Task, active: npt.NDArray[np.bool_] | None) -> None:
        """The control processor's time for one instruction, and until its engine's queue has room."""
        step = self.issues.get(id(task))
        if step is None:
            some = np.asarray(task.clocks) > 0
            clocks = self.target.issue_clocks
            step = self.issues[id(task)] = clocks if np.all(some) else np.where(some, clocks, 0.0)
        now = self.control + step
        if task.engine in self.queues:
            now = np.maximum(now, self.queues[task.engine].room())
        self.control = self._set(self.control, now, active)

    def _set(self, old: Times, new: Array, active: npt.NDArray[np.bool_] | None) -> Times:
        return np.asarray(new if active is None else np.where(active, new, old), dtype=np.float64)

    def _ring(self, stage: int, what: str) -> _Ring:
        if (stage, what) not in self.rings:
            self.rings[stage, what] = _Ring([np.zeros((2, self.count))] * self.deepest)
        return self.rings[stage, what]


def _handed(tasks: list[Task]) -> tuple[list[str | None], list[bool]]:
    """Of each load of a step the engine that uses what it brings; of each computation whether it is signalled: another engine goes on with it, or
    it is the engine's last of the step, which frees what was loaded."""
    working = [task.engine if task.engine in ("tensor", "vector") else None for task in tasks]
    users: list[str | None] = []
    signals: list[bool] = []
    for number, task in enumerate(tasks):
        later = [engine for engine in working[number + 1 :] if engine is not None]
        using = [engine for engine in later if engine in task.users] if task.users else later
        users.append(using[0] if task.engine == "load" and using else None)
        after = next((other.engine for other in tasks[number + 1 :] if other.engine != "load"), None)
        signals.append(working[number] is not None and (after != task.engine or task.engine not in later))
    return users, signals


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
