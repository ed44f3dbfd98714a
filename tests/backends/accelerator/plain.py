"""The clock of a program worked out in the plainest way: at each moment everything that can begin does, one thing after the other.

What the engine's shortcuts are held to; slow, and it shares with them only what an instruction costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from codesign.backends.accelerator.costs import cost_of
from codesign.backends.accelerator.prepare import prepare
from codesign.backends.accelerator.timing import on_grid
from codesign.backends.accelerator.walk import walked
from codesign.costmodel.dataflow.space import passes
from codesign.costmodel.dataflow.target import Target
from codesign.ir.program import ENGINES, Load, Program, Store
from codesign.ir.program import Engine as EngineName


@dataclass
class Engine:
    """One engine of a core: issues that have not begun, with the clock that each is ready at; until when it works."""

    queue: list[tuple[int, float]] = field(default_factory=list)
    free: float = 0.0
    met: bool = False


class PlainClock:
    """`run` gives the clocks of the whole program, and of each kind of engine how long it worked and was held up."""

    def __init__(self, program: Program, target: Target) -> None:
        self.program, self.target = program, target
        self.prepared = [prepare(number, op) for number, op in enumerate(program.instructions())]
        self.costs = [cost_of(item, program, target) for item in self.prepared]
        walk = walked(program, self.prepared)
        taken = [0] * len(self.prepared)
        self.streams: list[list[tuple[int, float, list[int]]]] = []
        for core in range(program.cores):
            stream = []
            for place in range(walk.first[core], walk.first[core + 1]):
                number = walk.number[place]
                gap = on_grid(target.issue_clocks) * (1 + walk.steps[place])
                stream.append((number, gap, walk.values[number][taken[number]]))
                taken[number] += 1
            self.streams.append(stream)
        self.engines = [[Engine() for _ in ENGINES] for _ in range(program.cores)]
        self.at, self.control = [0] * program.cores, [0.0] * program.cores
        self.counts: dict[tuple[str, int], int] = {}
        self.signals: list[tuple[float, str, int]] = []
        self.inward = [[0.0] * -(-program.cores // port.cores) for port in target.ports]
        self.outward = [
            [0.0] * len(way) if port.write_bytes_per_clock else way
            for port, way in zip(target.ports, self.inward, strict=True)
        ]
        self.groups: dict[tuple[int, int], list[int]] = {}
        self.busy, self.stalled = dict.fromkeys(ENGINES, 0.0), dict.fromkeys(ENGINES, 0.0)
        self.end = 0.0

    def run(self) -> tuple[float, dict[EngineName, float], dict[EngineName, float]]:
        now = 0.0
        while True:
            while self._arrive(now) or self._issue(now) or self._compute(now) or self._move(now):
                pass
            later = [time for time, _, _ in self.signals]
            later += [engine.free for core in self.engines for engine in core if engine.queue]
            later += [engine.queue[0][1] for core in self.engines for engine in core if engine.queue]
            later = [time for time in later if time > now]
            if not later:
                assert not any(engine.queue for core in self.engines for engine in core), "deadlock"
                return self.end, self.busy, self.stalled
            now = min(later)

    def _arrive(self, now: float) -> bool:
        due = [signal for signal in self.signals if signal[0] <= now]
        for signal in due:
            self.signals.remove(signal)
            self.counts[signal[1:]] = self.counts.get(signal[1:], 0) + 1
        return bool(due)

    def _owner(self, name: str, core: int) -> int:
        scope = next(s.scope for s in self.program.semaphores if s.name == name)
        return core // self.target.sharing.get(scope, 1)

    def _issue(self, now: float) -> bool:
        """Every control processor goes on until a queue is full; it knows of room from this moment on."""
        moved = False
        for core, stream in enumerate(self.streams):
            while self.at[core] < len(stream):
                number, gap, _ = stream[self.at[core]]
                engine = self.engines[core][ENGINES.index(self.prepared[number].source.engine)]
                if len(engine.queue) >= self.target.queue_depth:
                    self.control[core] = max(self.control[core], now - gap)  # it waits for room with this one in hand
                    break
                self.control[core] += gap
                engine.queue.append((self.at[core], self.control[core]))
                self.at[core] += 1
                moved = True
        return moved

    def _head(self, core: int, kind: int, now: float) -> tuple[int, list[int], float] | None:
        """What an engine would begin now: instruction, values, and since when it could but for its waits."""
        engine = self.engines[core][kind]
        if not engine.queue or engine.free > now or engine.queue[0][1] > now:
            return None
        number, _, values = self.streams[core][engine.queue[0][0]]
        item = self.prepared[number]
        for wait, least in zip(item.source.waits, values[len(item.controls) :], strict=True):
            if self.counts.get((wait.name, self._owner(wait.name, core)), 0) < least:
                return None
        return number, values, max(engine.free, engine.queue[0][1])

    def _compute(self, now: float) -> bool:
        for core in range(self.program.cores):
            for kind in range(len(ENGINES)):
                head = self._head(core, kind, now)
                if head is not None and self.costs[head[0]].fixed is not None:
                    clocks = on_grid(self.costs[head[0]].fixed or 0.0)
                    self._begin(core, kind, now, now + clocks, 0.0)
                    return True
        return False

    def _move(self, now: float) -> bool:
        """The first transfer that can begin now, by core and engine."""
        for core in range(self.program.cores):
            for kind in range(len(ENGINES)):
                head = self._head(core, kind, now)
                if head is None or self.engines[core][kind].met:
                    continue
                number, values, _ = head
                item = self.prepared[number]
                named = dict(zip(item.controls, values, strict=False))
                group = [core]
                if item.share is not None and named[item.controls[item.share[1]]] > 1:
                    key = (number, named[item.controls[item.share[0]]])
                    group = self.groups.setdefault(key, [])
                    group.append(core)
                    self.engines[core][kind].met = True
                    if len(group) < named[item.controls[item.share[1]]]:
                        return True
                    del self.groups[key]
                self._transfer(number, named, group, kind, now)
                return True
        return False

    def _transfer(self, number: int, named: dict[str, int], group: list[int], kind: int, now: float) -> None:
        op, ports = self.prepared[number].source, self.target.ports
        assert isinstance(op, Load | Store)
        clocks, moved, _, _ = self.costs[number].transfer(named)
        finish = now + on_grid(clocks)
        leaves, arrives = passes(self.target, group) if len(group) > 1 else ([1] * len(ports), [1] * len(ports))
        again = self.prepared[number].again
        first = 0
        if isinstance(op, Load) and op.keep is not None and again is not None:
            level = self.program.scratch_of(op.keep.place.source).level
            kept = next(i for i, port in enumerate(ports) if i and port.place == level)
            first = kept if named[self.prepared[number].controls[again]] else 0
        stores = ENGINES[kind] == "store"
        for i in range(first, len(ports)):
            rate = (stores and ports[i].write_bytes_per_clock) or ports[i].bytes_per_clock
            takes = on_grid(moved / rate * leaves[i] / arrives[i])
            way = (self.outward if stores else self.inward)[i]
            for place in dict.fromkeys(core // ports[i].cores for core in group):
                way[place] = max(way[place], now) + takes
                finish = max(finish, way[place])
        for core in group:
            self.engines[core][kind].met = False
            self._begin(core, kind, now, finish, on_grid(self.target.latency_clocks))

    def _begin(self, core: int, kind: int, now: float, finish: float, latency: float) -> None:
        engine = self.engines[core][kind]
        place, ready = engine.queue.pop(0)
        self.stalled[ENGINES[kind]] += now - max(ready, engine.free)
        self.busy[ENGINES[kind]] += finish - now
        engine.free = finish
        for name in self.prepared[self.streams[core][place][0]].source.signals:
            self.signals.append((finish + latency, name, self._owner(name, core)))
        self.end = max(self.end, finish + latency)
