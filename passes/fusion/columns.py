"""Products and other reductions that a reader wants at several points of one dim: the dim is cut, and each part is a reduction of its own.

rewrite (the halves of a head, each turned by the other: rotary position embedding):
    %p = compute[m, n: 2*B] sum(k) { %x[m, k] * %w[n, k] }
    %o = compute[m, n: 2*B] { select(n < B, %p[m, n] - %p[m, n + B], %p[m, n] + %p[m, n - B]) }
    ->  %p_0 = compute[m, b: B] sum(k) { %x[m, k] * %w[b, k] };   %p_1 = ... %w[b + B, k] ...
        %o_0 = compute[m, b: B] { %p_0[m, b] - %p_1[m, b] };      %o_1 = { %p_1[m, b] + %p_0[m, b] }
        %o = compute[m, s: 2, b: B] { select(s < 1, %o_0[m, b], %o_1[m, b]) }

So it is with pairs that lie side by side (`n % 2`), with a gate and a value that are columns of one product (`%p[m, n] * %p[m, n + N]`), and
with what a concatenation puts side by side. No element is made twice: the points are parts of the dim, not neighbours that overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from codesign.ir.core import Value
from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute, Dim
from codesign.passes.fusion.branches import branches
from codesign.passes.fusion.group import Group, fresh_name
from codesign.passes.rebase import Split, mixed_radix, rebased
from codesign.passes.unroll import Parts, each_point, joined, unrolled

MOST = 8
"""Parts of a dim at the most: each has an accumulator of its own."""


def in_columns(
    first: Group,
    readers: Sequence[Compute],
    outputs: Mapping[Value, Compute],
    producer: Compute,
    kept: Set[Value],
    outer: Bounds,
) -> tuple[Group, Group] | None:
    """Both groups with a producer of the first in parts, such that each read of it by the second is at the own points of a part; None where it
    has no such parts.

    `readers`: the second's computes, which read private values of the first; `outputs`: what they provide; `kept`: of the first, what is needed
    elsewhere.
    """
    splits, sizes = branches(readers, producer.result)
    if math.prod(sizes.values()) > MOST:
        return None
    cut, renamed = rebased(readers, {}, splits, outer)
    try:
        made, parts = unrolled(cut, each_point(sizes), outer)
        columns = _columns(producer, made)
        if columns is None or (columns.count == 1 and not sizes):
            return None
        before = _Before.of(first, producer, columns, kept, outer)
    except ValueError:
        return None
    computes, mapping = before.read_by(made)
    if computes is None:
        return None
    provided: dict[Value, Value] = {}
    for value, op in outputs.items():
        provided[value] = _whole(parts[renamed[op.result]], mapping, computes)
    second = Group(tuple(computes), provided, first.location)
    wanted = {value: value for value in second.external if value in before.values}
    return Group(before.computes, {**before.outputs, **wanted}, first.location), second


def _whole(parts: Parts, mapping: Mapping[Value, Value], computes: list[Compute]) -> Value:
    """The value of which these are the parts, made of them by a further compute where there are several."""
    held = replace(parts, values={point: mapping.get(value, value) for point, value in parts.values.items()})
    if not held.along:
        return held.at({})
    computes.append(joined(held))
    return computes[-1].result


@dataclass(frozen=True)
class _Columns:
    """How a dim of a producer is cut: part k of `count` is read at `base + k * step`, where the digits of `base` are dims of the reader."""

    position: int
    base: Index
    step: int
    count: int
    digits: tuple[Dim, ...] = ()

    def part(self, place: Index) -> int | None:
        """The part that is read at a place; None for a place at no part's own points."""
        number = place - self.base
        if not number.is_constant or number.constant % self.step or not 0 <= number.constant < self.step * self.count:
            return None
        return number.constant // self.step


def _columns(producer: Compute, readers: Iterable[Compute]) -> _Columns | None:
    """The parts of a producer's dim at which readers read it; one part where they all read it at the same points."""
    reads = {read: op for op in readers for read in op.body.reads() if read.source is producer.result}
    if any(read.otherwise is not None or any(i.data() for i in read.indices) for read in reads):
        return None
    found = _Columns(0, index(0), 1, 1)
    for position, dim in enumerate(producer.dims):
        places = {read.indices[position] for read in reads}
        bases = {place - place.offset for place in places}
        if len(places) < 2:
            continue
        if len(bases) > 1 or found.count > 1 or not dim.extent.is_constant:
            return None
        (base,) = bases
        extents = {d.name: d.extent for op in reads.values() for d in op.domain}
        own = base.variables()
        mine = [Dim(name, extent) for name, extent in extents.items() if name in own]
        step = math.gcd(*(place.offset for place in places))
        inner = math.prod(d.extent.constant for d in mine) if all(d.extent.is_constant for d in mine) else 0
        count = dim.extent.constant // inner if inner else 0
        if not 2 <= count <= MOST:
            return None
        part = Dim(fresh_name(dim.name), index(count))
        order = mixed_radix(base + index(part.name) * step, dim.extent, {**extents, part.name: part.extent})
        if order is None:
            return None
        of = {d.name: d for d in (*mine, part)}
        found = _Columns(position, base, step, count, tuple(of[name] for name in order))
    return found


@dataclass(frozen=True)
class _Before:
    """The first group with a dim in parts. `values`: of the group; `parts`: those of each value from before."""

    computes: tuple[Compute, ...]
    outputs: dict[Value, Value]
    parts: Mapping[Value, Parts]
    columns: _Columns
    cut: str

    @property
    def values(self) -> set[Value]:
        return {op.result for op in self.computes}

    @staticmethod
    def of(first: Group, producer: Compute, columns: _Columns, kept: Set[Value], outer: Bounds) -> _Before:
        cut = producer.dims[columns.position].name if columns.count > 1 else ""
        splits: dict[str, Split] = {}
        sizes: dict[str, int] = {}
        if cut:
            fresh = [Dim(fresh_name(dim.name), dim.extent) for dim in columns.digits]
            own = columns.base.variables()
            names = {old.name: new.name for old, new in zip(columns.digits, fresh, strict=True)}
            (part,) = (dim for dim in columns.digits if dim.name not in own)
            value = columns.base.substitute(names) + index(names[part.name]) * columns.step
            splits[cut] = Split(cut, tuple(fresh), value)
            sizes[names[part.name]] = columns.count
        moved, mapping = rebased(first.computes, {}, splits, outer)
        made, parts = unrolled(moved, each_point(sizes), outer)
        outputs = {
            value: _whole(parts[mapping[inner]], {}, made) for value, inner in first.outputs.items() if value in kept
        }
        of_old = {old: parts[new] for old, new in mapping.items()}
        return _Before(tuple(made), outputs, of_old, columns, cut)

    def read_by(self, readers: Iterable[Compute]) -> tuple[list[Compute] | None, dict[Value, Value]]:
        """Copies of readers of the group that read its parts, and their results; None where one reads at no part's own points."""
        made: list[Compute] = []
        mapping: dict[Value, Value] = {}
        for op in readers:
            instead = {read: self._read(read) for read in op.body.reads() if read.source in self.parts}
            if any(new is None for new in instead.values()):
                return None, mapping
            body = _with_reads(op.body, {read: new for read, new in instead.items() if new is not None})
            new = op.with_body(body.replace_sources(mapping))
            mapping[op.result] = new.result
            made.append(new)
        return made, mapping

    def _read(self, read: Read) -> Read | None:
        """The read of the part that holds what a read of a value from before asks for."""
        parts = self.parts[read.source]
        if not parts.along:
            return Read(parts.at({}), read.indices, read.otherwise)
        assert isinstance(read.source.owner, Compute)
        position = [dim.name for dim in read.source.owner.dims].index(self.cut)
        number = self.columns.part(read.indices[position])
        if number is None:
            return None
        own = self.columns.base.variables()
        digits = [index(dim.name) for dim in self.columns.digits if dim.name in own]
        places = [*read.indices[:position], *digits, *read.indices[position + 1 :]]
        return Read(parts.values[(number,)], places, read.otherwise)


def _with_reads(body: Scalar, instead: Mapping[Read, Read]) -> Scalar:
    return body.rewrite(lambda node: instead.get(node) if isinstance(node, Read) else None) if instead else body
