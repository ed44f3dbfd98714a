"""States of a fold in memory, one for each part of its elements, and their merge.

    m = max(k) { x }; s = sum(k) { exp(x - m) }
    ->  states:    m_p = max(k of p) { x };  s_p = sum(k of p) { exp(x - m_p) }
        combined:  m = max(p) { m_p };  s = sum(p) { s_p * exp(m_p - m) }

What a part refers to, how its total is brought to the references of all, and each result are the fold's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from codesign.ir.core import Op, Value
from codesign.ir.fold import AFTER, BEFORE, Fold, Part
from codesign.ir.index import Index, IndexLike, product
from codesign.ir.scalar import Read, Scalar, cast
from codesign.ir.tensor import Compute
from codesign.passes.tiling.cut import Cut


def states(fold: Fold, cut: Cut, ops: list[Op]) -> list[Compute]:
    """The state of each part, a compute for each value of it; they and what they need besides are added to `ops`."""
    made: list[Compute] = []
    references: dict[Value, Scalar] = {}
    length = {AFTER: _count(fold, cut, cut.length)}
    added: set[Value] = set()
    for part in fold.parts:
        for shared in _needed(part, fold):
            if shared.result not in added:
                added.add(shared.result)
                ops.append(cut.compute(shared, references))
        new = cut.compute(part.reduced, references, partial=True)
        ops.append(new)
        made.append(new)
        if part.reference is not None:
            total = {part.total: _read(new.result, part, cut)}
            references[part.reference.now] = _filled(part.reference.settled, total, length)
    return made


def combined(fold: Fold, cut: Cut, partial: Mapping[Value, Value]) -> dict[Value, list[Compute]]:
    """What makes each result of a fold from states in memory (`partial`, by the value that stands for a part's total)."""
    left = {BEFORE: _count(fold, cut, cut.length)}
    whole = {AFTER: _count(fold, cut, cut.extent)}
    stand_ins: dict[Value, Scalar] = {}
    results: dict[Value, list[Compute]] = {}
    waiting: list[Compute] = []
    for part in fold.parts:
        there = {part.total: _read(partial[part.total], part, cut)}
        if part.reference is not None:
            stand_ins[part.reference.before] = _filled(part.reference.left, there, left)
        reduced = part.reduced
        carried = _filled(part.carry, {**stand_ins, **there}, left)
        total = reduced.with_domain(reduced.dims, [cut.part], carried, dtype=reduced.accumulate)
        waiting.append(total)
        here: dict[Value, Scalar] = {part.total: Read(total.result, part.dims)}
        if part.reference is not None:
            stand_ins[part.reference.now] = _filled(part.reference.settled, here, whole)
        if part.compute is not None:
            last = part.compute
            body = cast(_filled(part.finish, {**stand_ins, **here}, whole), last.dtype)
            result = Compute(last.dims, body, dtype=last.dtype, name=last.result.name, location=last.location)
            results[last.result] = [*waiting, result]
            waiting = []
    return results


def _count(fold: Fold, cut: Cut, length: IndexLike) -> Index:
    """Elements of so many values of the dim that is cut."""
    extents = {dim.name: dim.extent for dim in fold.parts[0].reduced.reductions}
    return product(extent for name, extent in extents.items() if name != cut.dim) * length


def _needed(part: Part, fold: Fold) -> Sequence[Compute]:
    """What several parts evaluate, as far as this one does, in order."""
    wanted = set(part.reduced.operands())
    found = []
    for shared in reversed(fold.shared):
        if shared.result in wanted:
            wanted.update(shared.operands())
            found.append(shared)
    return found[::-1]


def _read(value: Value, part: Part, cut: Cut) -> Read:
    return Read(value, [cut.part.name, *part.dims])


def _filled(scalar: Scalar, reads: Mapping[Value, Scalar], sizes: Mapping[str, Index]) -> Scalar:
    """An expression of a fold with what its stand-ins stand for."""

    def change(node: Scalar) -> Scalar | None:
        return reads.get(node.source) if isinstance(node, Read) else None

    return scalar.substitute(sizes).rewrite(change)
