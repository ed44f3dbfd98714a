"""From the work of a program to the time of a kernel: what it takes at the least, and on a timeline of its engines what it takes.

The least is what the busiest engine and DRAM take when nothing ever waits. A timeline costs far more than that, so schedules whose least is beyond
what is wanted of a batch are not followed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.bursts import Loop, bursts, start
from codesign.costmodel.dataflow.placing import Placed, placed
from codesign.costmodel.dataflow.shape import EVERY, Array, Shape, cut
from codesign.costmodel.dataflow.space import users
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.dataflow.timeline import Timeline, shared_clocks
from codesign.costmodel.dataflow.work import Work, busiest

TERM_NAMES = ("launch", "fill", "tensor", "vector", "load", "store", "dram", "latency", "control", "power")
_ENGINES = np.array([TERM_NAMES.index(name) for name in ("tensor", "vector", "load", "store", "dram", "control")])
_OF_A_CORE = [place for place, name in enumerate(("tensor", "vector", "load", "store", "dram")) if name != "dram"]
ROUNDED = 1.0 - 1e-9
"""What rounding may leave of a bound."""
MOSTLY = 0.7
"""Share of the time that the busiest engine works when it is what the time goes to; else the engines wait for each other."""

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Laid:
    """How programs lie on the cores (see Layout), under some schedules. `users`: of each port; `grid`: all programs."""

    cores: Array
    rounds: Array
    users: list[Array]
    grid: Array
    pipeline: Array
    joined: bool
    turns: tuple[Array, ...] = ()
    """Of blocks, their counts."""

    @classmethod
    def of(cls, target: Target, shape: Shape) -> Laid:
        lay = shape.layout
        return cls(
            lay.cores,
            lay.rounds,
            users(target, lay),
            shape.grid,
            shape.pipeline,
            shape.joined,
            tuple(turn.count for turn in shape.turns),
        )

    def cut(self, rows: slice | Rows) -> Laid:
        reach = [cut(many, rows) for many in self.users]
        cores, rounds, grid, depth = (cut(each, rows) for each in (self.cores, self.rounds, self.grid, self.pipeline))
        return Laid(cores, rounds, reach, grid, depth, self.joined, tuple(cut(count, rows) for count in self.turns))


@dataclass(frozen=True)
class Buffers:
    """What a program holds in scratchpad (`held` bytes), and how much may be in flight for it to fit: programs (`slots`) and steps of loops
    (`depth`)."""

    slots: Array
    depth: Array
    placed: Placed

    @classmethod
    def of(cls, target: Target, work: Work, pipeline: Array) -> Buffers:
        depth = np.maximum(pipeline, 1.0)
        slots = np.minimum(depth, 2.0)
        core, array = target.capacity["core"], target.capacity.get("array", 0)
        found = placed(work.storage.lives, work.sizes, depth, slots, core, array)
        return cls(np.where(found.choice < 2, slots, 1.0), np.where(found.choice < 4, depth, 1.0), found)

    @property
    def held(self) -> Floats:
        return self.placed.held


class Plan:
    """The programs of a kernel under so many schedules.

    `busy` [schedules, engines]: clocks of each engine for one program, DRAM's for one of every core. `clocks`: that no timeline is below;
    `least`: their seconds, infinite where a schedule does not fit, for a `reason`.
    """

    def __init__(self, target: Target, laid: Laid, work: Work, count: int) -> None:
        self.target, self.laid, self.work, self.count = target, laid, work, count
        self.buffers = Buffers.of(target, work, laid.pipeline)
        control = joules = np.zeros(1)
        read: tuple[Array, ...] = (np.zeros(1),) * len(target.ports)
        written = read
        for stage in work.stages:
            trips = stage.trips
            read, written = (
                tuple(before + more * trips for before, more in zip(total, passing or (0.0,) * len(total), strict=True))
                for total, passing in ((read, stage.read), (written, stage.written))
            )
            control = control + (stage.instructions + 1) * target.issue_clocks * trips
            joules = joules + stage.joules * trips
        self.joules = np.broadcast_to(joules * laid.grid, (count,))
        self.moved = np.broadcast_to((read[0] + written[0]) * laid.grid, (count,))
        self.dram = shared_clocks(target, laid.users, laid.grid / laid.rounds, np.zeros(1), read, written)
        total = busiest(work.stages)
        engines = (total.get(engine, np.zeros(1)) for engine in ("tensor", "vector", "load", "store"))
        full = np.broadcast_arrays(*engines, self.dram, control, np.zeros(count))[:-1]
        self.busy = np.stack(full, axis=-1)
        self.reason = self._reason()
        memory = np.broadcast_to(self.dram * laid.rounds + target.shortest_clocks, (count,))
        self.clocks = np.maximum(self.busy[:, _OF_A_CORE].max(axis=-1) * laid.rounds * ROUNDED, memory)
        self.least = np.where(self.reason == "", self._start + self.clocks / target.clock_hz, np.inf)

    @property
    def _start(self) -> Array:
        return self.target.meeting_seconds if self.laid.joined else self.target.launch_seconds

    def _reason(self) -> npt.NDArray[np.object_]:
        limit = self.target.capacity["core"]
        needed = np.broadcast_to(self.buffers.held, (self.count,))
        reason = np.full(self.count, "", dtype=object)
        for row in np.flatnonzero(needed > limit):
            reason[row] = f"scratchpad: needs {int(needed[row]):,} B, limit {limit:,} B"
        for place in np.flatnonzero((reason == "") & self.work.unfit).tolist():
            reason[place] = self.work.why(place)
        return reason

    def least_terms(self) -> Floats:
        """Seconds of what schedules take at the least, by what they go to."""
        terms = np.zeros((self.count, len(TERM_NAMES)))
        terms[:, 0] = self._start
        terms[np.arange(self.count), _ENGINES[self.busy.argmax(axis=-1)]] = self.clocks / self.target.clock_hz
        return self._throttled(terms, EVERY)

    def terms(self, rows: Rows) -> tuple[Floats, Floats]:
        """Seconds of some schedules as their timelines have it, by what they go to; and those of them that bursts take."""
        every = len(rows) == self.count
        some: slice | Rows = EVERY if every else rows
        laid, target = self.laid.cut(some), self.target
        work = self.work if every else self.work.of(rows)
        busy = self.busy[some]
        slots, depth = (cut(each, some) for each in (self.buffers.slots, self.buffers.depth))
        line = Timeline(target, len(rows), laid.cores, laid.users, slots, depth, self.buffers.placed.of(some))
        clocks = np.maximum(line.run(work, laid.grid, laid.rounds, busy.max(axis=-1)), self.clocks[some])
        late = np.broadcast_to(self._bursts(work, laid, depth), (len(rows),))
        clocks = clocks + late
        fill = np.minimum(_first_load(work, target, laid) + target.latency_clocks, clocks)
        terms = np.zeros((len(rows), len(TERM_NAMES)))
        terms[:, 0] = self._start
        terms[:, 1] = fill / target.clock_hz
        waiting = busy.max(axis=-1) * laid.rounds < MOSTLY * (clocks - fill)
        bound = np.where(waiting, TERM_NAMES.index("latency"), _ENGINES[busy.argmax(axis=-1)])
        terms[np.arange(len(rows)), bound] = (clocks - fill) / target.clock_hz
        return self._throttled(terms, some), late / target.clock_hz

    def _bursts(self, work: Work, laid: Laid, depth: Array) -> Array:
        """Clocks that steps take longer in which loads come from far away, beyond the even pace that the timeline has, and that the first of them
        wait for what is staged ahead."""
        total: Array = 0.0
        first: Array = 0.0
        for stage in work.stages:
            if stage.pulls:
                first = np.maximum(first, start(stage.pulls, self.target.latency_clocks))
            if stage.pulls and not stage.straight:
                computing = (stage.busy.get(engine, 0.0) for engine in ("tensor", "vector"))
                control = (stage.instructions + 1) * self.target.issue_clocks
                loop = Loop(np.maximum(control, np.maximum(*computing)), depth, self.target.latency_clocks)
                total = total + bursts(stage.pulls, laid.turns, loop) * stage.steps
        return total * laid.rounds + first

    def _throttled(self, terms: Floats, some: slice | Rows) -> Floats:
        """With what the machine's power limit adds."""
        terms[:, 9] = self.target.throttled(terms.sum(axis=1), self.joules[some]) - terms.sum(axis=1)
        return terms


def _first_load(work: Work, target: Target, laid: Laid) -> Array:
    """Clocks until the first operands are under way: the loads of the first stage that has any."""
    for stage in work.stages:
        if "load" in stage.busy:
            return shared_clocks(target, laid.users, laid.cores, stage.busy["load"], stage.read, ())
    return np.zeros(1)
