"""The last tiles of a grid done by more programs, each of a part of the sums: the hybrid of stream-K.

rewrite:
    fusion { r[i: M, j: N] = sum(k: K) { f(i, j, k) }; out = g(r) }
    ->  %whole = empty [M, N]
        fusion { r[i: M, j: A] = sum(k: K) { f(i, j, k) }; out = g(r);  p[s: S, i: M, j: N-A] = sum(k: C) { f(i, A+j, s*C+k) } }
            writes out into %whole at [i, j]
        fusion { r[i: M, j: N-A] = sum(s: S) { p[s, i, j] }; out = g(r) }  writes out at [i, A+j]

Programs of one length that are some more than whole rounds of the machine leave most of it idle in the last round. The points before A
make whole rounds; what is left is cut along its sums, so that all of the machine works on it (Osama et al., Stream-K, PPoPP 2023,
section 5.3: tiles of data-parallel rounds and a work-centric rest). Both are strands of one grid; a second group merges the parts, each
in its place of the same memory. So nothing waits for anything inside a kernel, and the order of additions does not depend on the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codesign.ir.core import Block, Op, Value, tensor_type
from codesign.ir.index import Index, index
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute, Dim, Empty, Fusion
from codesign.ir.writes import Write
from codesign.passes.tiling.split import split_reduction, splittable


@dataclass(frozen=True)
class Tail:
    """The points of a group from `start` on along one of its dims, by the dim's `position` among the group's."""

    position: int
    start: int

    def dim(self, fusion: Fusion) -> Dim:
        """The dim in a group."""
        name, extent = list(fusion.dims().items())[self.position]
        return Dim(name, extent)


def has_tail(fusion: Fusion, dim: Dim) -> bool:
    """Whether a group's points from some place on along a dim can be done apart: all its results go along it, none into a tensor from
    before or in another shape, and what it reduces over them can be split."""
    if fusion.writes or fusion.shapes or not dim.extent.is_constant or dim.name in fusion.inner_dims():
        return False
    owners = (value.owner for value in fusion.body.yields)
    along = all(isinstance(owner, Compute) and dim.name in owner.extents() for owner in owners)
    return along and splittable(fusion) is not None


def split_tail(fusion: Fusion, tail: Tail, parts: int) -> tuple[Fusion, Fusion]:
    """The group of whole results before the tail and of partial ones of it, and the group that combines these."""
    dim = tail.dim(fusion)
    memory = [Empty(tensor_type(value), name=value.name).result for value in fusion.results]
    head = _Piece(fusion, dim.name, index(0), index(tail.start), {})
    rest = _Piece(fusion, dim.name, index(tail.start), dim.extent - tail.start, _fresh_names(fusion)).group(memory)
    where = splittable(rest)
    assert where is not None
    partial, combination = split_reduction(rest, where, parts)
    ops, yields = [*head.ops, *partial.body.ops], [*head.yields, *partial.body.yields]
    label = f"{fusion.label or fusion.results[0].name}_parts"
    names = [value.name for value in (*fusion.results, *partial.results)]
    both = Fusion(
        Block([], ops, yields), names=names, label=label, writes=head.writes(memory), location=fusion.location
    )
    combination.replace(dict(zip((*memory, *partial.results), both.results, strict=True)))
    return both, combination


class _Piece:
    """A group's computes over some of its points along a dim, from `start` on; `names`: new ones of its dims."""

    def __init__(self, fusion: Fusion, dim: str, start: Index, extent: Index, names: Mapping[str, str]) -> None:
        self.fusion = fusion
        self.dim, self.start = dim, start
        self.names = names
        self.extent = extent
        self.ops: list[Op] = []
        made: dict[Value, Value] = {}
        for compute in fusion.computes:
            op = self._compute(compute, made)
            made[compute.result] = op.result
            self.ops.append(op)
        self.yields = [made[value] for value in fusion.body.yields]

    def group(self, memory: Sequence[Value]) -> Fusion:
        """The piece as a group of its own, whose results are written into tensors of the whole group's shape."""
        names = [value.name for value in self.fusion.results]
        block, location = Block([], self.ops, self.yields), self.fusion.location
        return Fusion(block, names=names, label=self.fusion.label, writes=self.writes(memory), location=location)

    def writes(self, memory: Sequence[Value]) -> dict[int, Write]:
        """Where the results go."""
        places: dict[int, Write] = {}
        for position, value in enumerate(self.fusion.body.yields):
            assert isinstance(value.owner, Compute)
            at = tuple(self._place(dim.name) for dim in value.owner.dims)
            places[position] = Write(memory[position], at)
        return places

    def _compute(self, compute: Compute, made: Mapping[Value, Value]) -> Compute:
        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Read) and node.source in made:
                owner = made[node.source].owner
                assert isinstance(owner, Compute)
                return Read(made[node.source], [dim.name for dim in owner.dims])
            return None

        places = {dim.name: self._place(dim.name) for dim in compute.domain}
        body = compute.body.substitute(places).rewrite(change)
        return compute.with_domain(self._dims(compute.dims), self._dims(compute.reductions), body)

    def _dims(self, dims: Sequence[Dim]) -> list[Dim]:
        names = self.names
        return [Dim(names.get(d.name, d.name), self.extent if d.name == self.dim else d.extent) for d in dims]

    def _place(self, name: str) -> Index:
        """A dim of the whole group over those of the piece."""
        new = index(self.names.get(name, name))
        return new + self.start if name == self.dim else new


def _fresh_names(fusion: Fusion) -> dict[str, str]:
    """Other names for all dims of a group, so that two pieces of it share no loop."""
    taken = set(fusion.dims()) | {name for extent in fusion.dims().values() for name in extent.variables()}
    found: dict[str, str] = {}
    for name in fusion.dims():
        new = f"{name}_rest"
        while new in taken:
            new += "_"
        taken.add(new)
        found[name] = new
    return found
