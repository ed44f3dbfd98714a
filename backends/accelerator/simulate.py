"""Event simulation of a program: values and time together.

Per core, the control processor issues instructions into the bounded queues of four engines. An engine takes the instruction at its
head when its waits hold, is busy for the clocks that `codesign.costmodel.dataflow.engines` gives, and signals when it is done. DMA
transfers also pass the ports of the memories above the core, each of which serves the cores below it in order of arrival; that is
where cores slow each other down. A load that cores share begins when all of them could begin it. Events at the same clock are taken in
order of creation, so a run is deterministic.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.backends.accelerator.control import Control, Issue, Prepared, compile_control
from codesign.backends.accelerator.costs import InstructionCost, cost_of, shared_joules
from codesign.backends.accelerator.races import RaceDetector
from codesign.backends.accelerator.values import Values
from codesign.costmodel.dataflow.space import passes
from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.machine import Machine
from codesign.ir.errors import EvaluationError, ScheduleError
from codesign.ir.numerics import Array
from codesign.ir.program import ENGINES, Instruction, Load, Program


class Deadlock(EvaluationError):
    """Engines that wait for each other for ever; the message says who waits for what."""


@dataclass(frozen=True, slots=True)
class Span:
    """One instruction on an engine, in clocks; `waited` before `start` for semaphores or memory."""

    core: int
    engine: str
    number: int
    start: float
    end: float
    waited: float


@dataclass
class SimulationResult:
    """The outcome of a run.

    `cycles`: clocks from the start of the program to its last event; `seconds` adds the launch. `joules`: NaN where the machine file
    lacks an energy, with the reason in `remarks`. `busy[engine]`, `stalled[engine]`: clocks over all cores that an engine worked, and
    that the head of its queue waited for a semaphore. `dram_bytes`: whole lines moved. `trace`: spans, when asked for.
    """

    program: Program
    machine: str
    clock_hz: float
    cycles: float
    seconds: float
    joules: float
    dram_bytes: float
    instructions: int
    busy: dict[str, float]
    stalled: dict[str, float]
    joules_by: dict[str, float]
    outputs: list[Array]
    trace: list[Span]
    remarks: list[str] = field(default_factory=list)

    def utilisation(self, engine: str) -> float:
        """Share of the run that an engine works, over the cores in use."""
        return self.busy[engine] / (self.cycles * self.program.cores) if self.cycles else 0.0


def simulate(
    program: Program,
    buffers: Sequence[Array] | None,
    machine: Machine,
    *,
    values: bool = True,
    trace: bool = False,
) -> SimulationResult:
    """Run a program.

    `buffers`: the inputs, or inputs and outputs (which atomic stores add to), as the interpreter holds their dtypes; None with
    `values=False`, which computes time alone. Raises Deadlock, Race (with values), EvaluationError for an address out of range,
    ScheduleError when the program does not fit the machine.
    """
    target = target_of(machine)
    _check_fits(program, target)
    return _Run(program, target, buffers, values, trace).run()


def _check_fits(program: Program, target: Target) -> None:
    if program.cores > target.cores:
        raise ScheduleError(f"@{program.name} wants {program.cores} cores, {target.name} has {target.cores}")
    for level in dict.fromkeys(s.level for s in program.scratches):
        if level not in target.capacity:
            raise ScheduleError(
                f"@{program.name}: {target.name} has no memory '{level}'; it has {', '.join(target.capacity)}"
            )
        if program.scratch_bytes(level) > target.capacity[level]:
            raise ScheduleError(
                f"@{program.name}: {level} memory: needs {program.scratch_bytes(level):,} B, "
                f"limit {target.capacity[level]:,} B of {target.name}"
            )


def _kept_at(op: Instruction, program: Program, target: Target) -> int:
    """The port whose memory keeps a load's data; 0 where none does."""
    if not isinstance(op, Load) or op.keep is None:
        return 0
    level = program.scratch_of(op.keep.place.source).level
    return next(i for i, port in enumerate(target.ports) if i and port.place == level)


_WAKE, _FREE, _DONE = 0, 1, 2


class _Run:
    def __init__(
        self, program: Program, target: Target, buffers: Sequence[Array] | None, values: bool, trace: bool
    ) -> None:
        self.program = program
        self.target = target
        self.control: Control = compile_control(program)
        self.costs: list[InstructionCost] = [cost_of(p, program, target) for p in self.control.prepared]
        self.clusters = [core // target.cores_per_cluster for core in range(program.cores)]
        self.results: list[Array] = []
        self.values = self._memories(buffers) if values else None
        self.races = RaceDetector(program, self.control.prepared) if values else None
        self.tracing = trace
        self.spans: list[Span] = []

    def _memories(self, buffers: Sequence[Array] | None) -> Values:
        program = self.program
        given = list(buffers or [])
        if len(given) not in (len(program.inputs), len(program.params)):
            raise EvaluationError(f"@{program.name} takes {len(program.inputs)} input buffers, got {len(given)}")
        if len(given) == len(program.inputs):
            given += [np.zeros([s.constant for s in v.shape], v.type.dtype.numpy) for v in program.results]
        self.results = given[len(program.inputs) :]
        return Values(program, given, self.clusters)

    def run(self) -> SimulationResult:
        """The event loop; everything it touches often is a local name."""
        program, target, costs, prepared = self.program, self.target, self.costs, self.control.prepared
        cores, depth, issue_clocks = program.cores, target.queue_depth, target.issue_clocks
        kinds = len(ENGINES)
        engine_of = [ENGINES.index(p.source.engine) for p in prepared]
        counts, wait_ids, signal_ids = self._semaphores()
        waiting: dict[int, list[int]] = {}
        streams: list[Iterator[Issue]] = [self.control.start(core, cores) for core in range(cores)]
        clock = [0.0] * cores
        held: list[tuple[float, Issue] | None] = [None] * cores
        open_stream = [True] * cores
        queues: list[deque[tuple[float, Issue]]] = [deque() for _ in range(kinds * cores)]
        working = [False] * (kinds * cores)
        woken = [False] * (kinds * cores)
        since = [0.0] * (kinds * cores)
        busy, stalled = [0.0] * kinds, [0.0] * kinds
        shares = [p.share for p in prepared]
        agains = [p.again for p in prepared]
        kept_at = [_kept_at(p.source, program, target) for p in prepared]
        meetings: dict[tuple[int, int], list[int]] = {}
        met = [False] * (kinds * cores)
        inward = [([0.0] * (-(-cores // p.cores)), p.cores, 1.0 / p.bytes_per_clock) for p in target.ports]
        outward = [
            ([0.0] * (-(-cores // p.cores)), p.cores, 1.0 / p.write_bytes_per_clock) if p.write_bytes_per_clock else way
            for p, way in zip(target.ports, inward, strict=True)
        ]
        stores = ENGINES.index("store")
        fixed = [cost.fixed for cost in costs]
        ones = (1,) * len(target.ports)
        heads = [[list(enumerate(ids)) for ids in wait_ids[core]] for core in range(cores)]
        latency = target.latency_clocks
        values, races, tracing, spans = self.values, self.races, self.tracing, self.spans
        heap: list[tuple[float, int, int, int, Any]] = []
        push, pop = heapq.heappush, heapq.heappop
        order = 0
        issued = 0
        moved = 0.0
        runs = [0] * len(prepared)
        energy = 0.0
        now = end = 0.0

        def pump(core: int) -> None:
            """Let a control processor issue until a queue is full."""
            nonlocal issued
            base = kinds * core
            time = clock[core]
            if time < now:
                time = now
            stream = streams[core]
            item, held[core] = held[core], None
            while True:
                if item is None:
                    found = next(stream, None)
                    if found is None:
                        open_stream[core] = False
                        break
                    time += issue_clocks * (1 + found[3])
                    item = (time, found)
                engine = base + engine_of[item[1][0]]
                queue = queues[engine]
                if len(queue) >= depth:
                    held[core] = item
                    clock[core] = time
                    return
                if item[0] < time:
                    item = (time, item[1])
                queue.append(item)
                issued += 1
                item = None
                if not working[engine] and len(queue) == 1:
                    since[engine] = queue[0][0]
                    start(engine, core)
            clock[core] = time

        def start(engine: int, core: int) -> None:
            """Begin the instruction at the head of a queue if it can begin now."""
            nonlocal order, moved, energy
            queue = queues[engine]
            if working[engine] or not queue:
                return
            ready, issue = queue[0]
            if ready > now:
                if not woken[engine]:
                    woken[engine] = True
                    order += 1
                    push(heap, (ready, order, _WAKE, engine, None))
                return
            number = issue[0]
            least = issue[2]
            for position, semaphore in heads[core][number]:
                if counts[semaphore] < least[position]:
                    waiting.setdefault(semaphore, []).append(engine)
                    return
            share = shares[number]
            if share is not None and (members := issue[1][share[1]]) > 1:
                key = (number, issue[1][share[0]])
                group = meetings.setdefault(key, [])
                if met[engine]:
                    return
                met[engine] = True
                group.append(engine)
                if len(group) == members:
                    del meetings[key]
                    together(group)
                return
            queue.popleft()
            kind = engine % kinds
            began = since[engine] if since[engine] > ready else ready
            if now > began:
                stalled[kind] += now - began
            if races is not None:
                races.begin(core, number, issue[1], id(issue))
            working[engine] = True
            runs[number] += 1
            order += 1
            clocks = fixed[number]
            if clocks is not None:
                finish = now + clocks
                busy[kind] += clocks
                push(heap, (finish, order, _DONE, engine, issue))
            else:
                timed = costs[number].transfer(issue[1], None if values is None else values.data[core])
                clocks, amount, joules, _ = timed
                finish = now + clocks
                ways = outward if kind == stores else inward
                again = agains[number]
                if again is not None and issue[1][again]:
                    ways, amount = inward[kept_at[number] :], 0.0
                    joules = shared_joules(costs[number], timed, ones, ones, 1, kept_at[number])
                for free, sharing, per_byte in ways:
                    place = core // sharing
                    served = free[place]
                    served = (served if served > now else now) + timed[1] * per_byte
                    free[place] = served
                    if served > finish:
                        finish = served
                moved += amount
                energy += joules
                busy[kind] += finish - now
                push(heap, (finish, order, _FREE, engine, None))
                order += 1
                push(heap, (finish + latency, order, _DONE, engine, issue))
            if tracing:
                spans.append(Span(core, ENGINES[kind], number, now, finish, max(now - began, 0.0)))
            if held[core] is not None:
                pump(core)

        def together(group: list[int]) -> None:
            """Begin a load that the heads of these queues make together."""
            nonlocal order, moved, energy
            sharing = [engine // kinds for engine in group]
            leaves, arrives = passes(target, sharing)
            first = queues[group[0]][0][1]
            cost = costs[first[0]]
            timed = cost.transfer(first[1], None if values is None else values.data[sharing[0]])
            finish = now + timed[0]
            again = agains[first[0]]
            outer = kept_at[first[0]] if again is not None and first[1][again] else 0
            for (free, size, per_byte), out, into in list(zip(inward, leaves, arrives, strict=True))[outer:]:
                for place in dict.fromkeys(core // size for core in sharing):
                    served = (free[place] if free[place] > now else now) + timed[1] * per_byte * out / into
                    free[place] = served
                    finish = max(finish, served)
            moved += 0.0 if outer else timed[1] * leaves[0]
            energy += shared_joules(cost, timed, leaves, arrives, len(group), outer)
            for engine, core in zip(group, sharing, strict=True):
                ready, issue = queues[engine].popleft()
                number = issue[0]
                began = max(since[engine], ready)
                stalled[engine % kinds] += max(now - began, 0.0)
                if races is not None:
                    races.begin(core, number, issue[1], id(issue))
                met[engine], working[engine] = False, True
                runs[number] += 1
                busy[engine % kinds] += finish - now
                push(heap, (finish, order + 1, _FREE, engine, None))
                push(heap, (finish + latency, order + 2, _DONE, engine, issue))
                order += 2
                if tracing:
                    spans.append(Span(core, ENGINES[engine % kinds], number, now, finish, max(now - began, 0.0)))
            for core in sharing:
                if held[core] is not None:
                    pump(core)

        for core in range(cores):
            pump(core)
        while heap:
            now, _, event, engine, issue = pop(heap)
            core = engine // kinds
            if event == _WAKE:
                woken[engine] = False
                start(engine, core)
                continue
            if event == _DONE:
                end = now
                number = issue[0]
                if values is not None:
                    values.execute(prepared[number], core, issue[1])
                if races is not None:
                    races.end(core, number, id(issue))
                computing = fixed[number] is not None
                if computing:
                    working[engine] = False
                    since[engine] = now
                for semaphore in signal_ids[core][number]:
                    counts[semaphore] += 1
                    blocked = waiting.pop(semaphore, None)
                    if blocked:
                        for other in blocked:
                            start(other, other // kinds)
                if computing:
                    start(engine, core)
            else:
                working[engine] = False
                since[engine] = now
                start(engine, core)
        self._check_finished(queues, open_stream, counts, wait_ids, held, meetings)
        static = dict.fromkeys(("tensor", "vector"), 0.0)
        for number, times in enumerate(runs):
            kind = prepared[number].source.engine
            if kind in static:
                static[kind] += times * costs[number].fixed_joules
        return self._result(end, moved, energy, static, issued, busy, stalled)

    def _semaphores(self) -> tuple[list[int], list[list[tuple[int, ...]]], list[list[tuple[int, ...]]]]:
        """Counters, and per core and instruction which ones it waits for and signals."""
        numbers: dict[tuple[str, int], int] = {}
        wait_ids: list[list[tuple[int, ...]]] = []
        signal_ids: list[list[tuple[int, ...]]] = []
        scopes = {s.name: s.scope for s in self.program.semaphores}
        for core in range(self.program.cores):

            def find(name: str, core: int = core) -> int:
                owner = {"chip": 0, "cluster": self.clusters[core]}.get(scopes[name], core)
                return numbers.setdefault((name, owner), len(numbers))

            wait_ids.append([tuple(find(w.name) for w in p.source.waits) for p in self.control.prepared])
            signal_ids.append([tuple(find(name) for name in p.source.signals) for p in self.control.prepared])
        return [0] * len(numbers), wait_ids, signal_ids

    def _check_finished(
        self,
        queues: list[deque[tuple[float, Issue]]],
        open_stream: list[bool],
        counts: list[int],
        wait_ids: list[list[tuple[int, ...]]],
        held: list[tuple[float, Issue] | None],
        meetings: Mapping[tuple[int, int], list[int]],
    ) -> None:
        lines: list[str] = []
        for (number, key), group in meetings.items():
            core = group[0] // len(ENGINES)
            lines.append(
                f"core {core} (instruction {number}) waits for others to load {key} together: {len(group)} are there"
            )
        for engine, queue in enumerate(queues):
            if not queue:
                continue
            core, kind = divmod(engine, len(ENGINES))
            number, _, waits, _ = queue[0][1]
            item: Prepared = self.control.prepared[number]
            for semaphore, least, wait in zip(wait_ids[core][number], waits, item.source.waits, strict=True):
                if counts[semaphore] < least:
                    lines.append(
                        f"core {core} {ENGINES[kind]} (instruction {number}) waits for {wait.name} >= {least}, "
                        f"which is {counts[semaphore]}"
                    )
        for core, item_held in enumerate(held):
            if open_stream[core] and item_held is not None:
                engine_name = self.control.prepared[item_held[1][0]].source.engine
                lines.append(f"core {core} control waits for room in the {engine_name} queue")
        if lines:
            more = f" (and {len(lines) - 8} more)" if len(lines) > 8 else ""
            raise Deadlock(f"deadlock in @{self.program.name}: {'; '.join(lines[:8])}{more}")

    def _result(
        self,
        end: float,
        moved: float,
        dma_joules: float,
        static: dict[str, float],
        issued: int,
        busy: list[float],
        stalled: list[float],
    ) -> SimulationResult:
        target = self.target
        parts = {"dma": dma_joules, **static}
        seconds = float(target.throttled(end / target.clock_hz + target.launch_seconds, sum(parts.values())))
        remarks = [
            f"{target.name} lacks an energy figure that the {name} engine needs"
            for name, j in parts.items()
            if np.isnan(j)
        ]
        if np.isnan(target.static_watts):
            remarks.append(f"{target.name} has no static_watts: energy is of the switching only")
        else:
            parts["static"] = target.static_watts * seconds
        return SimulationResult(
            program=self.program,
            machine=target.name,
            clock_hz=target.clock_hz,
            cycles=end,
            seconds=seconds,
            joules=float(sum(parts.values())),
            dram_bytes=moved,
            instructions=issued,
            busy=dict(zip(ENGINES, busy, strict=True)),
            stalled=dict(zip(ENGINES, stalled, strict=True)),
            joules_by=parts,
            outputs=self.results,
            trace=self.spans,
            remarks=remarks,
        )
