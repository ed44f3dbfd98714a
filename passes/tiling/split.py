"""Splitting a reduction over the grid, as two groups: partial results in parallel, then their combination and what follows.

rewrite:
    fusion { r = sum(k: K) { f(k) }; out = g(r) }
    ->  partial = fusion { p[s: S] = sum(k: C) { f(s*C + k) } };  fusion { r = sum(s: S) { partial[s] }; out = g(r) }

The parts are of one length C = K/S, or of a multiple of `STEP` where S does not divide K: the last one is then ragged, and what lies
beyond K gives the reduction's identity. Deterministic, unlike partial results combined by atomics.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.core import Block, Op, Value
from codesign.ir.index import Index, index
from codesign.ir.precision import precision_of
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.passes.tiling import monoids

STEP = 64
"""Parts that are not all of one length are of a multiple of this many elements: whole steps and whole lines of memory but in the last."""


@dataclass(frozen=True)
class Splittable:
    """A reduction of a group that can be split along one dim, and the computes that only feed it."""

    compute: Compute
    dim: str
    extent: int
    feeders: tuple[Compute, ...]


def splittable(fusion: Fusion) -> Splittable | None:
    """The longest reduction dim of the group that can be split, if there is one.

    It is of a constant extent and belongs to one reduction (not an arg-reduction) and to element-wise computes that only feed it.
    """
    found: list[Splittable] = []
    members = {compute.result: compute for compute in fusion.computes}
    for compute in fusion.computes:
        if not compute.reductions or compute.monoid in ("argmax", "argmin"):
            continue
        feeders = _feeders(compute, members)
        inside = {compute, *feeders}
        private = all(
            other in inside or not any(value.owner in feeders for value in other.operands())
            for other in fusion.computes
        )
        if not private or any(f.reductions or f.result in fusion.body.yields for f in feeders):
            continue
        for dim in compute.reductions:
            elsewhere = any(
                d.name == dim.name for other in fusion.computes if other not in inside for d in other.domain
            )
            if dim.extent.is_constant and not elsewhere:
                found.append(Splittable(compute, dim.name, dim.extent.constant, feeders))
    return max(found, key=lambda candidate: candidate.extent, default=None)


def part_length(extent: int, parts: int) -> int:
    """Elements of each part but the last, which has the rest."""
    if extent % parts == 0:
        return extent // parts
    return -(-extent // (parts * STEP)) * STEP


def whole_parts(extent: int, parts: int) -> int:
    """The number of parts, at most so many, that a split of an extent has."""
    return -(-extent // part_length(extent, parts))


def split_reduction(fusion: Fusion, where: Splittable, parts: int) -> tuple[Fusion, Fusion]:
    """The group of partial results, of `whole_parts` parts, and the group that combines them."""
    parts = whole_parts(where.extent, parts)
    chunk = part_length(where.extent, parts)
    part = Dim(_fresh(f"{where.dim}_part", fusion), index(parts))
    small = Dim(where.dim, index(chunk))
    place = index(part.name) * chunk + index(where.dim)
    values = {where.dim: place}
    beyond = _Beyond(place, where.extent) if parts * chunk > where.extent else None
    made: dict[Value, Value] = {}

    def change(node: Scalar) -> Scalar | None:
        if isinstance(node, Read) and node.source in made:
            owner = made[node.source].owner
            assert isinstance(owner, Compute)
            return Read(made[node.source], [dim.name for dim in owner.dims])
        return None

    ops: list[Op] = []
    for compute in (*where.feeders, where.compute):
        body = compute.body.substitute(values).rewrite(change)
        last = compute is where.compute
        if beyond is not None:
            body = beyond.identity(body, compute) if last else beyond.safe(body)
        dims: list[Dim] = [part] if last else []
        for dim in compute.dims:
            dims += [part, small] if dim.name == where.dim else [dim]
        new = Compute(
            dims,
            body,
            dtype=compute.accumulate if last else compute.dtype,
            reductions=[small if dim.name == where.dim else dim for dim in compute.reductions],
            monoid=compute.monoid,
            accumulate=compute.accumulate,
            name=f"{compute.result.name}_part" if last else compute.result.name,
            location=compute.location,
        )
        made[compute.result] = new.result
        ops.append(new)
    label = fusion.label or fusion.results[0].name
    partial = Fusion(Block([], ops, [ops[-1].result]), label=f"{label}_parts", location=fusion.location)
    return partial, _combination(fusion, where, part, partial.result)


@dataclass(frozen=True)
class _Beyond:
    """The points of the last part at or beyond the extent, which nothing may be read at and which must not count."""

    place: Index
    extent: int

    def identity(self, body: Scalar, reduction: Compute) -> Scalar:
        """The reduced body, which there is the reduction's identity."""
        assert reduction.monoid is not None
        body = monoids.truth(reduction.monoid, body)
        return self._valued(body, monoids.identity(reduction.monoid, body.dtype).value)

    def safe(self, body: Scalar) -> Scalar:
        """The body with zeros for what it reads beyond a tensor."""
        dims = self.place.variables()

        def change(node: Scalar) -> Scalar | None:
            if not isinstance(node, Read) or node.otherwise is not None:
                return None
            reaches = any(dims & i.variables() for i in node.indices)
            return Read(node.source, node.indices, Literal(0, node.dtype)) if reaches else None

        return body.rewrite(change)

    def _valued(self, body: Scalar, value: float | int | bool) -> Scalar:
        """The body with a value at the points beyond: by what its loads bring where that is enough, else by a comparison.

        Both factors of a product are zero there, as zero times infinity is not.
        """
        if isinstance(body, Read) and self._ends(body, value):
            return Read(body.source, body.indices, Literal(value, body.dtype))
        if isinstance(body, Apply) and body.function == "cast" and body.args[0].dtype.kind == body.dtype.kind:
            return cast(self._valued(body.args[0], value), body.dtype)
        if isinstance(body, Apply) and precision_of(body.function) and value == 0:
            if all(arg.variables() & self.place.variables() for arg in body.args):
                return apply(body.function, *(self._valued(arg, value) for arg in body.args))
        inside = apply("lt", IndexValue(self.place), IndexValue(index(self.extent)))
        return select(inside, self.safe(body), Literal(value, body.dtype))

    def _ends(self, read: Read, value: float | int | bool) -> bool:
        """Whether the tensor ends where the extent does, so that points beyond are outside of it."""
        if read.otherwise is not None and not (isinstance(read.otherwise, Literal) and read.otherwise.value == value):
            return False
        pairs = zip(read.indices, read.source.shape, strict=True)
        return any(i == self.place and size == self.extent for i, size in pairs)


def _combination(fusion: Fusion, where: Splittable, part: Dim, partial: Value) -> Fusion:
    compute = where.compute
    total = Compute(
        compute.dims,
        Read(partial, [part.name, *(dim.name for dim in compute.dims)]),
        dtype=compute.dtype,
        reductions=[part],
        monoid=compute.monoid,
        accumulate=compute.accumulate,
        name=compute.result.name,
        location=compute.location,
    )
    made: dict[Value, Value] = {compute.result: total.result}
    ops: list[Op] = []
    for op in fusion.computes:
        if op is compute:
            ops.append(total)
        elif op not in where.feeders:
            new = Compute(
                op.dims,
                op.body.replace_sources(made),
                dtype=op.dtype,
                reductions=op.reductions,
                monoid=op.monoid,
                accumulate=op.accumulate,
                name=op.result.name,
                location=op.location,
            )
            made[op.result] = new.result
            ops.append(new)
    yields = [made[value] for value in fusion.body.yields]
    names = [value.name for value in fusion.results]
    block, writes = Block([], ops, yields), fusion.writes
    return Fusion(block, names=names, label=fusion.label, writes=writes, location=fusion.location)


def _feeders(compute: Compute, members: dict[Value, Compute]) -> tuple[Compute, ...]:
    """Computes of the group that a compute depends on, in order."""
    found: set[Compute] = set()
    stack = [compute]
    while stack:
        for value in stack.pop().operands():
            if value in members and members[value] not in found:
                found.add(members[value])
                stack.append(members[value])
    return tuple(other for other in members.values() if other in found)


def _fresh(name: str, fusion: Fusion) -> str:
    taken = set(fusion.dims())
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}{count}"
    return candidate
