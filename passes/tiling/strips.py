"""Results made strip by strip of one of their dims, and with each strip its part of the sums along that dim.

rewrite:
    fusion { y[i: M, j: N] = f(i, j);  w[j: N] = sum(i: M) { g(i, j) };  out = h(w) }
    ->  %whole = empty [M, N]
        fusion { y[p: S, i: C, j: N] = f(p*C+i, j);  w_part[p: S, j: N] = sum(i: C) { g(p*C+i, j) } }
            writes y into %whole at [p*C+i, j]
        fusion { w[j: N] = sum(p: S) { w_part[p, j] };  out = h(w) }

What is read for the one is read for the other: so the gradients of a norm's weight and bias come from the pass over its rows that makes the
gradient of its input. Nothing is done again, unlike in a split whose second group makes all results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codesign.ir.analysis import contraction
from codesign.ir.core import Block, Op, Value, tensor_type
from codesign.ir.index import index
from codesign.ir.scalar import Read
from codesign.ir.tensor import Compute, Dim, Empty, Fusion
from codesign.ir.writes import Write
from codesign.passes.tiling.cut import Cut, live


@dataclass(frozen=True)
class Strips:
    """What of a group is done strip by strip along a `dim`: the results at `kept` (their positions) and parts of the `sums`."""

    dim: str
    extent: int
    kept: tuple[int, ...]
    sums: tuple[Compute, ...]
    before: tuple[Compute, ...]
    """What needs no sum."""

    def halves(self, fusion: Fusion, parts: int) -> tuple[Fusion, Fusion]:
        """The group of kept results, then parts of sums, and the group that adds the parts up and makes the other results."""
        cut = Cut.of(fusion, self.dim, self.extent, parts)
        inside = {*self.before, *self.sums}
        ops: list[Op] = [cut.compute(op, partial=op in self.sums) for op in fusion.computes if op in inside]
        sums = [cut.made[op.result] for op in self.sums]
        kept = [fusion.body.yields[position] for position in self.kept]
        yields = [*(cut.made[value] for value in kept), *sums]
        writes = {
            place: _into_whole(fusion.results[k], fusion.body.yields[k], cut) for place, k in enumerate(self.kept)
        }
        names = [*(fusion.results[k].name for k in self.kept), *(value.name for value in sums)]
        label = fusion.label or fusion.results[0].name
        strips = Fusion(
            Block([], live(ops, yields), yields),
            names=names,
            label=f"{label}_parts",
            writes=writes,
            location=fusion.location,
        )
        return strips, self._rest(fusion, cut.part, strips)

    def _rest(self, fusion: Fusion, part: Dim, strips: Fusion) -> Fusion:
        partial = dict(zip(self.sums, strips.results[len(self.kept) :], strict=True))
        made: dict[Value, Value] = {}
        ops: list[Op] = []
        for op in fusion.computes:
            if op in partial:
                read = Read(partial[op], [part.name, *(dim.name for dim in op.dims)])
                new = op.with_domain(op.dims, [part], read)
            elif self.dim in op.extents():
                continue
            else:
                new = op.with_body(op.body.replace_sources(made))
            made[op.result] = new.result
            ops.append(new)
        rest = [k for k in range(len(fusion.results)) if k not in self.kept]
        yields = [made[fusion.body.yields[k]] for k in rest]
        shapes = {place: fusion.shapes[k] for place, k in enumerate(rest) if k in fusion.shapes}
        names = [fusion.results[k].name for k in rest]
        block = Block([], live(ops, yields), yields)
        return Fusion(block, names=names, label=fusion.label, shapes=shapes, location=fusion.location)


def strips_of(fusion: Fusion) -> Iterator[Strips]:
    """The ways of a group to be done in strips, by dim."""
    if fusion.writes or any(contraction(op) is not None for op in fusion.computes):
        return
    for name, extent in fusion.dims().items():
        if extent.is_constant and extent.constant > 1 and name in fusion.inner_dims():
            found = _along(fusion, name, extent.constant)
            if found is not None:
                yield found


def _along(fusion: Fusion, dim: str, extent: int) -> Strips | None:
    """The strips along a dim: all that needs no sum over it, where what does lies not along it and is no such sum itself."""
    needing: set[Value] = set()
    sums: list[Compute] = []
    before: list[Compute] = []
    for op in fusion.computes:
        summed = any(d.name == dim for d in op.reductions)
        if needing & set(op.operands()):
            if dim in op.extents():
                return None
            needing.add(op.result)
        elif summed:
            if op.monoid in ("argmax", "argmin"):
                return None
            sums.append(op)
            needing.add(op.result)
        else:
            before.append(op)
    kept = tuple(k for k, value in enumerate(fusion.body.yields) if value not in needing)
    along = all(dim in _dims(fusion.body.yields[k]) and k not in fusion.shapes for k in kept)
    return Strips(dim, extent, kept, tuple(sums), tuple(before)) if kept and sums and along else None


def _dims(value: Value) -> set[str]:
    assert isinstance(value.owner, Compute)
    return {dim.name for dim in value.owner.dims}


def _into_whole(result: Value, inner: Value, cut: Cut) -> Write:
    """Where the strips of a result go."""
    whole = Empty(tensor_type(result), name=result.name).result
    assert isinstance(inner.owner, Compute)
    return Write(whole, tuple(cut.place if d.name == cut.dim else index(d.name) for d in inner.owner.dims))
