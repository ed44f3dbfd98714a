"""Orders the engines by semaphores so that a program means what its statements mean one after the other.

Two instructions on different engines conflict when they touch overlapping bytes and one of them writes. The later one waits for
the signals that the earlier one's engine has been asked for so far (`wait s >= #s`), which holds on every path through the loops,
back edges included. Where slots separate the iterations of a loop, the writer waits only until the iteration that used its
slot last has been released (`wait s >= i - 1` with two slots).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codesign.backends.accelerator.allocate import Slots, names_in
from codesign.ir.core import Value
from codesign.ir.index import Index, index
from codesign.ir.program import Engine, Instruction, Loop, Program, Scratch, Semaphore, Statement, Sync, Wait


@dataclass
class _Node:
    """An instruction with its place: `block` is the list that holds it, `path` the loops around it, outermost first."""

    instruction: Instruction
    position: int
    block: list[Statement]
    path: tuple[Loop, ...]
    reads: set[Value]
    writes: set[Value]
    waits: dict[str, Index] = field(default_factory=dict)
    signals: dict[str, None] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        return self.instruction.engine


def synchronise(program: Program, slots: Mapping[Value, Slots]) -> None:
    """Insert semaphores, waits and signals into a program that has none, in place."""
    _Synchroniser(program, slots).run()


class _Synchroniser:
    def __init__(self, program: Program, slots: Mapping[Value, Slots]) -> None:
        self.program = program
        self.slots = slots
        self.nodes: list[_Node] = []
        self.names: dict[tuple[object, ...], str] = {}
        self.taken = names_in(program)
        self.overlap = {a.value: {b.value for b in program.scratches if _overlaps(a, b)} for a in program.scratches}
        self._collect(program.body, ())

    def _collect(self, block: list[Statement], path: tuple[Loop, ...]) -> None:
        for statement in block:
            if isinstance(statement, Loop):
                self._collect(statement.body, (*path, statement))
            elif isinstance(statement, Instruction):
                reads = {r.source for r in statement.reads()}
                writes = {r.source for r in statement.writes()}
                self.nodes.append(_Node(statement, len(self.nodes), block, path, reads, writes))

    def run(self) -> None:
        released: dict[tuple[int, Engine], Loop] = {}
        for node in self.nodes:
            partners: dict[tuple[Engine, int], list[_Node]] = {}
            for other in self.nodes:
                if other.engine == node.engine and not self._gathers_from(node, other):
                    continue
                loop = self._slot_loop(node, other)
                if loop is not None:
                    released[id(loop), other.engine] = loop
                    depth = next(s.depth for s in self.slots.values() if s.loop is loop)
                    name = self._name(("released", id(loop), other.engine), f"{other.engine}_done", loop)
                    node.waits[name] = index(loop.count) - (depth - 1)
                elif self._conflict(node, other):
                    partners.setdefault((other.engine, id(other.block)), []).append(other)
            for (engine, _), others in partners.items():
                before = [o for o in others if o.position < node.position]
                last = max(before or others, key=lambda o: o.position)
                name = self._name(("made", engine, id(last.block)), engine, last.path[-1] if last.path else None)
                last.signals[name] = None
                node.waits[name] = index(f"#{name}")
        for (_, engine), loop in released.items():
            self._release(loop, engine)
        self._merge()
        self._prune(self.program.body, {})
        self._write()

    def _conflict(self, node: _Node, other: _Node) -> bool:
        """Whether the two touch common bytes, one writing, and `other` can run before `node`."""
        if other.position > node.position and not _common(node, other):
            return False
        return any(
            second in self.overlap[first]
            for mine, theirs in ((node.writes, other.reads | other.writes), (node.reads, other.writes))
            for first in mine
            for second in theirs
        )

    def _gathers_from(self, node: _Node, other: _Node) -> bool:
        """Whether a load takes its addresses from what an earlier load brings, which is still under way when it could start."""
        return node.engine == "load" and other.position < node.position and bool(node.reads & other.writes)

    def _slot_loop(self, node: _Node, other: _Node) -> Loop | None:
        """The loop whose slots keep `other`, later in an iteration, apart from `node` in a later iteration; else None."""
        if other.position < node.position:
            return None
        common = _common(node, other)
        for mine, theirs in ((node.writes, other.reads | other.writes), (node.reads, other.writes)):
            for value in mine:
                for touched in theirs & self.overlap[value]:
                    found = self.slots.get(value)
                    if touched is not value or found is None or not common or found.loop is not common[-1]:
                        return None
        for value in node.writes & (other.reads | other.writes):
            return self.slots[value].loop
        return None

    def _release(self, loop: Loop, engine: Engine) -> None:
        """Signal, once an iteration, that an engine is done with the slots of a loop."""
        name = self._name(("released", id(loop), engine), f"{engine}_done", loop)
        owned = {value for value, s in self.slots.items() if s.loop is loop}
        users = [n for n in self.nodes if n.engine == engine and (n.reads | n.writes) & owned]
        last = max(users, key=lambda n: n.position)
        if last.block is loop.body:
            last.signals[name] = None
            return
        child = last.path[last.path.index(loop) + 1]
        loop.body.insert(loop.body.index(child) + 1, Sync(engine, signals=(name,)))

    def _merge(self) -> None:
        """Use one semaphore where an instruction signals its result and the end of its slots together."""
        for key, name in list(self.names.items()):
            if key[0] != "released":
                continue
            signallers = [n for n in self.nodes if name in n.signals]
            if len(signallers) != 1:
                continue
            for other_key, other in list(self.names.items()):
                if other_key[0] == "made" and [n for n in self.nodes if other in n.signals] == signallers:
                    del self.names[key]
                    del signallers[0].signals[name]
                    for node in self.nodes:
                        if name in node.waits:
                            value = node.waits.pop(name)
                            node.waits.setdefault(other, value)  # `#other` is the stronger one
                    break

    def _prune(self, block: list[Statement], known: dict[tuple[Engine, str], Index]) -> None:
        """Drop waits that an instruction just before on the same engine has waited for already."""
        by_instruction = {id(n.instruction): n for n in self.nodes}
        for statement in block:
            if isinstance(statement, Loop):
                self._prune(statement.body, {})
                known.clear()
            node = by_instruction.get(id(statement))
            if node is None:
                continue
            for name, value in list(node.waits.items()):
                if known.get((node.engine, name)) == value:
                    del node.waits[name]
                known[node.engine, name] = value
            for name in node.signals:  # `#name` means more from here on
                for key in [k for k in known if k[1] == name]:
                    del known[key]

    def _name(self, key: tuple[object, ...], base: str, loop: Loop | None) -> str:
        if key not in self.names:
            wanted = f"{base}_{loop.variable}" if loop is not None else base
            name, number = wanted, 2
            while name in self.taken:
                name, number = f"{wanted}_{number}", number + 1
            self.taken.add(name)
            self.names[key] = name
        return self.names[key]

    def _write(self) -> None:
        for node in self.nodes:
            node.instruction.waits = tuple(Wait(name, value) for name, value in node.waits.items())
            node.instruction.signals = tuple(node.signals)
        self.program.semaphores = [Semaphore(name) for name in self.names.values()]


def _common(a: _Node, b: _Node) -> tuple[Loop, ...]:
    """The loops around both."""
    shared: list[Loop] = []
    for mine, theirs in zip(a.path, b.path, strict=False):
        if mine is not theirs:
            break
        shared.append(mine)
    return tuple(shared)


def _overlaps(a: Scratch, b: Scratch) -> bool:
    return a.level == b.level and a.address < b.end and b.address < a.end
