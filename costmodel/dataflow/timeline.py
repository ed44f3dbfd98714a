"""The first steps of a program on the engines of a core, for a batch of schedules at once, and how it goes on from there.

Engines take their instructions in order; loads wait for a free slot, compute for its operands, stores for results. Two cores are
followed: the one that memory serves first and the one that it serves last, with all others between them. After a few steps a loop
repeats itself, and what is left of it is its period times its steps. The loop over all that is in `stepping`; here a batch is put into its tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow import course
from codesign.costmodel.dataflow.buffers import Buffer
from codesign.costmodel.dataflow.course import DEEPEST, NOBODY, PROGRAMS, Course
from codesign.costmodel.dataflow.placing import IN_LOOP, IN_PROGRAMS, Placed, Storage
from codesign.costmodel.dataflow.shape import Array
from codesign.costmodel.dataflow.stepping import follow_all
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.dataflow.waits import Instruction, Wait, waits_of
from codesign.costmodel.dataflow.work import Stage, Work

STEPS, NESTED_STEPS = 6, 4
"""Steps that are followed: of a loop, and of a loop with loops inside (and of those)."""

FEW_STEPS = 16
"""Of a program, so that many of them are followed."""

_ENGINES = ("load", "tensor", "vector", "store")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Timeline:
    """A batch of so many schedules, whose programs lie on as many `cores`."""

    target: Target
    count: int
    cores: Array
    most: list[Array]
    """For each port, the cores that reach it through one instance when all work."""
    turns: Array
    depth: Array
    placed: Placed

    def run(self, work: Work, grid: Array, programs: Array, least: Array, *, compiled: bool = True) -> Floats:
        """Clocks until the last store of the last program has arrived. `grid`: programs of all cores; `least`: clocks that one takes at
        least; `compiled`: false where Python is to do it even if there is a compiler."""
        table = self._course(work, grid, programs, least)
        follow_all(table, compiled=compiled)
        return table.took[:, 0]

    def _course(self, work: Work, grid: Array, programs: Array, least: Array) -> Course:
        target, count = self.target, self.count
        inside = {id(stage.around) for stage in work.stages}
        stages = [stage for stage in work.stages if stage.tasks or id(stage) in inside]
        tasks = [task for stage in stages for task in stage.tasks]
        skeleton = _skeleton(work.storage, stages)
        back = [np.clip(np.asarray(steps), 1, DEEPEST).astype(np.int64) - 1 for steps in (self.turns, self.depth)]
        rings = course.SIGNALLED + course.ENGINES * (len(stages) + 1)
        places = rings + DEEPEST * course.ENGINES * (len(stages) + 1)
        ports = target.ports
        return Course(
            rows=count,
            depth=target.queue_depth,
            share=int(bool(ports) and not ports[0].writes_apart),
            ports=len(ports),
            **skeleton,
            deepest=1 + max(int(steps.max()) for steps in back),
            places=places,
            issue=self._floats(target.issue_clocks),
            latency=self._floats(target.latency_clocks),
            read_rate=self._floats(*(port.bytes_per_clock for port in ports)),
            write_rate=self._floats(*(port.write_bytes_per_clock for port in ports)),
            link_rate=self._floats(*(port.network.bytes_per_clock if port.network else 0.0 for port in ports)),
            cores=self._floats(self.cores),
            last_cores=self._floats(grid - self.cores * (programs - 1.0)),
            programs=self._floats(programs),
            followed=self._floats(self._followed(stages)),
            least=self._floats(least),
            program_back=self._ints(back[0]),
            step_back=self._ints(back[1]),
            depths=self._floats(self.depth),
            place=self.placed.place,
            near=self.placed.near,
            room=self.placed.whole,
            mixed=np.ascontiguousarray(self.placed.choice[:, None] % 2),
            steps=self._floats(*(_steps(stage) for stage in stages)),
            most=self._ints(*(self._most(stage, id(stage) in inside) for stage in stages)),
            again=self._ints(*(self._even(stage, np.minimum(self.depth, DEEPEST) + course.AGAIN) for stage in stages)),
            shortest=self._floats(*(self._least(stage) for stage in stages)),
            clocks=self._floats(*(task.clocks for task in tasks)),
            moved=self._floats(*(task.moved for task in tasks)),
            reach=self._floats(*(0.0 if task.shared is None else task.shared for task in tasks)),
            portions=self._floats(*(one for stage in stages for one in _beside(stage, "portions", 1.0, len(ports)))),
            links=self._floats(*(one for stage in stages for one in _beside(stage, "links", 0.0, len(ports)))),
            users=self._floats(*self.most),
            took=np.zeros((count, 1)),
            times=np.zeros((1, 2 * places)),
            port=np.zeros((1, course.PORT_PLACES)),
            ends=np.zeros((1, (2 * len(stages) + 2) * course.WIDTH)),
            periods=np.zeros((1, 2 * len(stages))),
            known=np.zeros((1, len(stages))),
            one=np.zeros((1, len(tasks))),
            whole=np.zeros((1, len(tasks))),
            begun=np.zeros((1, 2 * course.ENGINES * target.queue_depth)),
            next=np.zeros((1, course.ENGINES), np.int64),
            pair=np.zeros((1, 2)),
            on=np.zeros((1, skeleton["waits"])),
            signal=np.zeros((1, len(tasks) + 1)),
        )

    def _floats(self, *figures: Array) -> Floats:
        """Figures of the schedules side by side; of all of them, where they have the same ones."""
        alike = all(np.size(figure) == 1 for figure in figures)
        found = np.empty((1 if alike else self.count, len(figures)))
        for number, figure in enumerate(figures):
            found[:, number] = figure
        return found

    def _ints(self, *figures: Array) -> Ints:
        return self._floats(*figures).astype(np.int64)

    def _followed(self, stages: Sequence[Stage]) -> Array:
        """Programs that are followed: where a loop's steps don't go into its slots, until as many programs later it finds them as before; as many as
        are remembered where they have few steps, since full queues come round in yet other turns."""
        depth = np.minimum(self.depth, DEEPEST)
        outer = (stage for stage in stages if stage.around is None and not stage.straight)
        uneven = [np.round(np.asarray(stage.steps)) % depth != 0 for stage in outer]
        some = np.logical_or.reduce(np.broadcast_arrays(*uneven)) if uneven else np.zeros(1, np.bool_)
        steps = sum((np.asarray(stage.steps, np.float64) for stage in stages if not stage.straight), np.zeros(1))
        return np.where(some & (depth >= PROGRAMS), np.where(steps <= FEW_STEPS, course.WIDTH - 1, depth + 1), PROGRAMS)

    def _most(self, stage: Stage, has_loops: bool) -> Array:
        """Steps of a stage that are followed; of a loop inside until its slots have been used once."""
        if stage.around is None:
            return self._even(stage, NESTED_STEPS if has_loops else STEPS)
        if has_loops:
            return self._even(stage, NESTED_STEPS)
        return self._even(stage, np.where(self.depth > 2, np.minimum(self.depth, DEEPEST) + 2, NESTED_STEPS))

    def _even(self, stage: Stage, least: Array) -> Array:
        """So many steps, and as many more as make those that are left fill the slots a number of times: a period is the mean over steps in flight
        together, of which the last ones may come at once."""
        left = np.maximum(np.floor(_steps(stage)) - least, 0.0)
        return least + left % np.clip(self.depth, 1, DEEPEST)

    def _least(self, stage: Stage) -> Array:
        """Clocks that a step takes when no engine ever waits."""
        busy: Array = 0.0
        for clocks in stage.busy.values():
            busy = np.maximum(busy, clocks)
        read, written = ([one * _busy_share(stage) for one in ways] for ways in (stage.read, stage.written))
        busy = shared_clocks(self.target, self.most, self.cores, busy, read, written)
        return np.maximum(busy, (stage.instructions + 1) * self.target.issue_clocks)


def _ints(numbers: Iterable[int]) -> Ints:
    return np.array([*numbers], np.int64)


def _steps(stage: Stage) -> Array:
    """Steps of a stage, of one inside in a step of that around it."""
    return stage.steps if stage.around is None else np.asarray(stage.steps) / np.maximum(stage.around.steps, 1e-9)


def _busy_share(stage: Stage) -> Array:
    """Steps of a stage in the mean over all cores, as a share of those of the core that makes most, which is followed: so much of its time the
    others are there too, and what all of them move is what they move in the mean."""
    return np.asarray(stage.trips) / np.maximum(stage.steps, 1e-9)


def _beside(stage: Stage, name: Literal["portions", "links"], none: float, ports: int) -> Iterable[Array]:
    """Of each transfer of a stage and port, what passes it for each core in the mean."""
    share = _busy_share(stage)
    return [one * share for task in stage.tasks for one in getattr(task, name) or (none,) * ports]


def _skeleton(storage: Storage, stages: Sequence[Stage]) -> dict[str, Any]:
    """The tables of a course that no schedule changes, worked out once for the same stages."""
    numbers = {id(stage): number for number, stage in enumerate(stages)}
    around = tuple(NOBODY if stage.around is None else numbers[id(stage.around)] for stage in stages)
    straight = tuple(bool(stage.straight) for stage in stages)
    tasks = tuple(
        tuple((task.engine, task.follows, task.shared is not None) for task in stage.tasks) for stage in stages
    )
    touched = tuple(tuple(stage.touched) for stage in stages)
    key = ("skeleton", tuple(stage.section for stage in stages), around, straight, tasks, touched)
    if key not in storage.known:
        storage.known[key] = _made_skeleton(storage, stages, around)
    found: dict[str, Any] = storage.known[key]
    return found


def _made_skeleton(storage: Storage, stages: Sequence[Stage], around: Sequence[int]) -> dict[str, Any]:
    inner = [[n for n, outside in enumerate(around) if outside == number] for number in range(len(stages))]
    tasks = [task for stage in stages for task in stage.tasks]
    blocks = [0 if stage.straight and stage.around is None else n + 1 for n, stage in enumerate(stages)]
    waits = _waits(stages, blocks, storage.buffers)
    numbered = course.ENGINES * (len(stages) + 1)
    rings = course.SIGNALLED + numbered
    return {
        "stages": len(stages),
        "outers": around.count(NOBODY),
        "outer": _ints(n for n, outside in enumerate(around) if outside == NOBODY),
        "inner_end": np.cumsum([len(found) for found in inner]),
        "inner": _ints(n for found in inner for n in found),
        "around": _ints(around),
        "straight": _ints(bool(stage.straight) for stage in stages),
        "block": _ints(blocks),
        "computes": _ints(any(task.engine in ("tensor", "vector") for task in stage.tasks) for stage in stages),
        "ringed": np.isin(np.arange(numbered), [_place(wait) for wait in waits if wait.slots]).astype(np.int64),
        "task_end": np.cumsum([len(stage.tasks) for stage in stages]),
        "tasks": len(tasks),
        "engine": _ints(_ENGINES.index(task.engine) for task in tasks),
        "follows": _ints(task.follows for task in tasks),
        "together": _ints(task.shared is not None for task in tasks),
        "of": storage.lives.of,
        "rings": rings,
        **_tables(waits, len(tasks), rings),
    }


def _waits(stages: Sequence[Stage], blocks: Sequence[int], buffers: Sequence[Buffer]) -> tuple[Wait, ...]:
    """What the instructions of all stages wait for."""
    numbers = {id(buffer): number for number, buffer in enumerate(buffers)}
    homes = {id(stage.section): block for stage, block in zip(stages, blocks, strict=True)}
    instructions = tuple(
        Instruction(task.engine, block, tuple((numbers[id(buffer)], writes) for buffer, writes in touched))
        for stage, block in zip(stages, blocks, strict=True)
        for task, touched in zip(stage.tasks, stage.touched, strict=True)
    )
    return waits_of(
        instructions,
        tuple(0 if buffer.home is None else homes.get(id(buffer.home), 0) for buffer in buffers),
        tuple(buffer.life for buffer in buffers),
    )


def _tables(waits: Sequence[Wait], tasks: int, rings: int) -> dict[str, Any]:
    """The tables of what waits for what."""
    causes = [cause for wait in waits for cause in wait.causes]
    own = np.bincount([wait.task for wait in waits if not wait.shared], minlength=tasks)
    every = np.bincount([wait.task for wait in waits], minlength=tasks)
    ends = np.cumsum(every)
    return {
        "own_end": ends - every + own,
        "wait_end": ends,
        "waits": len(waits),
        "awaited": _ints(
            rings + DEEPEST * _place(wait) if wait.slots else course.SIGNALLED + _place(wait) for wait in waits
        ),
        "ring": _ints((IN_LOOP if wait.block else IN_PROGRAMS) if wait.slots else 0 for wait in waits),
        "cause_end": np.cumsum(_ints(len(wait.causes) for wait in waits)),
        "when": _ints(cause.when for cause in causes),
        "mine": _ints(cause.mine for cause in causes),
        "other": _ints(cause.other for cause in causes),
        "cause": _ints(cause.task for cause in causes),
    }


def _place(wait: Wait) -> int:
    """Of an engine in a block."""
    return course.ENGINES * wait.block + _ENGINES.index(wait.engine)


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
        together = inward if port.writes_apart else inward + outward
        slowest = np.maximum(slowest, users * together / port.bytes_per_clock)
        if port.writes_apart:
            slowest = np.maximum(slowest, users * outward / port.write_bytes_per_clock)
    return slowest
