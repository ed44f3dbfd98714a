"""What the control processor works out of each instruction: its addresses in axes, data, and names for everything else."""

from __future__ import annotations

from dataclasses import dataclass, field

from codesign.backends.accelerator.rewrite import map_guards
from codesign.ir.index import Datum, Index, Var, index
from codesign.ir.program import Instruction, Keep, Load, Matmul, Program, Store, Vector
from codesign.ir.scalar import IndexValue, Read, Scalar
from codesign.ir.tile import Guard


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

    @property
    def asked(self) -> tuple[Index, ...]:
        """What the control processor works out for it: its controls, then its waits."""
        return (*self.expressions, *(wait.value for wait in self.source.waits))

    @property
    def moves(self) -> bool:
        """Whether it is a transfer, whose signal comes with the memories' latency."""
        return isinstance(self.source, Load | Store)


def place_of(item: Prepared, program: Program) -> str:
    """Where an error in an instruction is."""
    location = item.source.location
    return str(location) if location.known else f"@{program.name}"


def prepare(number: int, op: Instruction) -> Prepared:
    """Name what does not depend on the axes, so that each index is linear in axes plus one name."""
    item = Prepared(number, op, op)
    axes = {axis.name for axis in (*getattr(op, "axes", ()), *getattr(op, "reduced", ()))}

    def name(value: Index, label: str = "") -> Index:
        if not label and value in item.expressions:
            return index(item.controls[item.expressions.index(value)])
        item.controls.append(label or f".{len(item.controls)}")
        item.expressions.append(value)
        return index(item.controls[-1])

    def named(term: Index) -> bool:
        return any(name.startswith(".") for name in term.variables())

    def hoist(value: Index) -> Index:
        apart = [(t, Index((t,))) for t in value.terms]
        rest = Index(tuple(t for t, one in apart if not one.variables() & axes and not one.data() and not named(one)))
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
            if isinstance(node, IndexValue):
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
        half = None if op.half is None else hoist(op.half)
        target = in_place(op.target)
        item.instruction = type(op)(target, op.axes, op.source, indices, guards, op.otherwise, keep=keep, half=half)
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
        left, right = op.scales
        scales = (tuple(map(in_place, left)), tuple(map(in_place, right)))
        item.instruction = Matmul(*places, op.axes, op.accumulate, first, op.precision, scales)
    return item
