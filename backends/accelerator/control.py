"""Turns a program into what the simulator runs: a control stream per core as a compiled Python generator, and for each
instruction the parts of its addresses that the control processor works out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from codesign.backends.accelerator.rewrite import map_guards
from codesign.ir.errors import VerificationError
from codesign.ir.index import Datum, Extremum, FloorDiv, Index, Mod, Var, index
from codesign.ir.program import Instruction, Keep, Load, Loop, Matmul, Program, Set, Statement, Store, Vector
from codesign.ir.scalar import IndexValue, Read, Scalar
from codesign.ir.tile import Guard

Issue = tuple[int, tuple[int, ...], tuple[int, ...], int]
"""An instruction put into a queue: its number, the values of its `controls`, of its waits, and control steps since the last."""


@dataclass
class Prepared:
    """An instruction whose index expressions hold axes and the names in `controls` only."""

    number: int
    source: Instruction
    instruction: Instruction
    controls: list[str] = field(default_factory=list)
    expressions: list[Index] = field(default_factory=list)
    share: tuple[int, int] | None = None
    """Where among the `controls` the key and the members of a shared load are."""
    again: int | None = None
    """Where among them it is whether a load's data is kept already."""


@dataclass(frozen=True)
class Control:
    """`start(core)` gives the core's stream of issues; `prepared[i]` is instruction number i."""

    prepared: list[Prepared]
    start: Callable[[int, int], Iterator[Issue]]
    text: str


def compile_control(program: Program) -> Control:
    """Compile the control flow; VerificationError for a name without a value."""
    return _Compiler(program).compile()


class _Compiler:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.prepared: list[Prepared] = []
        self.lines: list[str] = []
        self.names = {"core": "core", "cores": "cores"}
        self.issued = {s.name: f"n{i}" for i, s in enumerate(program.semaphores)}
        self.counts = 0

    def compile(self) -> Control:
        self.lines.append("def control(core, cores):")
        self._line(1, "s = 0")
        for variable in self.issued.values():
            self._line(1, f"{variable} = 0")
        head = len(self.lines)
        self._block(self.program.body, 1)
        self.lines[head:head] = [f"    c{i} = 0" for i in range(self.counts)]
        self._line(1, "return")
        self._line(1, "yield")
        text = "\n".join(self.lines)
        space: dict[str, object] = {}
        exec(compile(text, f"<control of @{self.program.name}>", "exec"), space)
        return Control(self.prepared, space["control"], text)  # type: ignore[arg-type]

    def _line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def _block(self, body: list[Statement], depth: int) -> None:
        for statement in body:
            if isinstance(statement, Set):
                value = self._python(statement.value)
                self.names[statement.name] = self.names.get(statement.name, f"v{len(self.names)}")
                self._line(depth, f"{self.names[statement.name]} = {value}")
                self._line(depth, "s += 1")
            elif isinstance(statement, Loop):
                self._loop(statement, depth)
            else:
                self._issue(statement, depth)

    def _loop(self, loop: Loop, depth: int) -> None:
        bounds = ", ".join(self._python(i) for i in (loop.lower, loop.upper, loop.step))
        outer = dict(self.names)
        self.names[loop.variable] = f"v{len(self.names)}"
        self._line(depth, f"for {self.names[loop.variable]} in range({bounds}):")
        self._line(depth + 1, "s += 1")
        if loop.count:
            counter = f"c{self.counts}"
            self.counts += 1
            self.names[loop.count] = f"v{len(self.names)}"
            self._line(depth + 1, f"{self.names[loop.count]} = {counter}")
            self._line(depth + 1, f"{counter} += 1")
        self._block(loop.body, depth + 1)
        self.names = {**outer, **{k: v for k, v in self.names.items() if k in outer}}

    def _issue(self, op: Instruction, depth: int) -> None:
        item = _prepare(len(self.prepared), op)
        self.prepared.append(item)
        values = "".join(f"{self._python(e)}, " for e in item.expressions)
        waits = "".join(f"{self._python(w.value)}, " for w in op.waits)
        self._line(depth, f"yield {item.number}, ({values}), ({waits}), s")
        self._line(depth, "s = 0")
        for name in op.signals:
            self._line(depth, f"{self.issued[name]} += 1")

    def _python(self, value: Index) -> str:
        if not value.terms:
            return "0"
        return " + ".join("*".join([*map(self._atom, monomial), str(c)]) for monomial, c in value.terms)

    def _atom(self, atom: object) -> str:
        if isinstance(atom, Var):
            if atom.name.startswith("#"):
                if atom.name[1:] not in self.issued:
                    raise VerificationError(f"program @{self.program.name}: unknown semaphore in '{atom.name}'")
                return self.issued[atom.name[1:]]
            if atom.name not in self.names:
                raise VerificationError(
                    f"program @{self.program.name}: '{atom.name}' has no value here",
                    hint="it is neither an axis of the instruction nor a register or loop around it",
                )
            return self.names[atom.name]
        if isinstance(atom, FloorDiv | Mod):
            sign = "//" if isinstance(atom, FloorDiv) else "%"
            return f"(({self._python(atom.numerator)}) {sign} ({self._python(atom.denominator)}))"
        if isinstance(atom, Extremum):
            return f"{atom.kind}({', '.join(map(self._python, atom.args))})"
        raise VerificationError(f"program @{self.program.name}: the control processor cannot work out {atom}")


def _prepare(number: int, op: Instruction) -> Prepared:
    """Name what does not depend on the axes, so that each index is linear in axes plus one name."""
    item = Prepared(number, op, op)
    axes = {axis.name for axis in (*getattr(op, "axes", ()), *getattr(op, "reduced", ()))}

    def name(value: Index, label: str = "") -> Index:
        if not label and value in item.expressions:
            return index(item.controls[item.expressions.index(value)])
        item.controls.append(label or f".{len(item.controls)}")
        item.expressions.append(value)
        return index(item.controls[-1])

    def hoist(value: Index) -> Index:
        rest = Index(tuple(t for t in value.terms if not Index((t,)).variables() & axes and not Index((t,)).data()))
        kept = value - rest
        if not rest.is_constant:
            rest = name(rest)
        for atom in kept.atoms():
            if isinstance(atom, Var) and atom.name not in axes and atom.name not in item.controls:
                name(index(atom.name), atom.name)
        if any(isinstance(atom, Datum) for atom in kept.atoms()):
            kept = kept.substitute({}, in_scalar)
        return kept + rest

    def in_scalar(scalar: Scalar) -> Scalar:
        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Read):
                return Read(node.source, tuple(map(hoist, node.indices)), node.otherwise)
            if isinstance(node, IndexValue) and not node.children():
                return IndexValue(hoist(node.index), node.dtype)
            return None

        return scalar.rewrite(change)

    def in_place(read: Read) -> Read:
        return Read(read.source, tuple(map(hoist, read.indices)))

    def in_guards(guards: tuple[Guard, ...]) -> tuple[Guard, ...]:
        return map_guards(guards, hoist)

    if isinstance(op, Load):
        indices = tuple(map(hoist, op.indices))
        keep = None if op.keep is None else Keep(in_place(op.keep.place), name(op.keep.again))
        guards = in_guards(op.guards)
        item.instruction = Load(in_place(op.target), op.axes, op.source, indices, guards, op.otherwise, keep=keep)
        if keep is not None:
            item.again = item.controls.index(str(keep.again))
        if op.share is not None:
            names = [str(name(side)) for side in (op.share.key, op.share.members)]
            item.share = (item.controls.index(names[0]), item.controls.index(names[1]))
    elif isinstance(op, Store):
        indices = tuple(map(hoist, op.indices))
        item.instruction = Store(op.target, indices, op.axes, in_place(op.source), in_guards(op.guards), op.atomic)
    elif isinstance(op, Vector):
        item.instruction = Vector(in_place(op.target), op.axes, in_scalar(op.body), op.reduced, op.monoid)
    elif isinstance(op, Matmul):
        first = None if op.first is None else name(op.first)
        places = (in_place(op.target), in_place(op.a), in_place(op.b))
        item.instruction = Matmul(*places, op.axes, op.accumulate, first, op.precision)
    return item
