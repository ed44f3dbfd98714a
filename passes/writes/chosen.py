"""Writes of one element of each row, or of a few, at places that data choose, as selects over all of the row, which fuse like any other.

rewrite:
    %r = scatter set %b over (i: N) at [i, %t[i]] { f(i) }   ->   %r = compute[i: N, j: M] { select(j == %t[i], f(i), %b[i, j]) }
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import BOOL
from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, conjunction, select
from codesign.ir.tensor import Compute, Dim, Scatter, Sort
from codesign.passes.algebra import Rewriting
from codesign.passes.canonicalize import simplify_index
from codesign.passes.views import inline_index, inside, made_safe
from codesign.passes.writes.dense import unsure

FEW = 16
"""Points of one row up to which each element of it is held against the place of each, where a write has nothing but a number to write into."""


def chosen(op: Scatter, outer: Bounds, places: Places) -> Compute | None:
    """The write as a compute over the whole tensor, where its points lie apart from row to row and are one in each, or few in rows of a number;
    None where they do not, or where one that lies outside is an error that nothing else would tell."""
    rows = _rows(op)
    if rows is None or (op.result.type.dtype is BOOL and op.combine != "set"):
        return None
    if any(dim.extent == 0 for dim in op.dims) or (op.within and not places.sure(op, outer)):
        return None
    free = [dim for dim in op.dims if dim.extent != 1 and dim.name not in rows.values()]
    if free and not (_number(op.init) and _points(free) <= FEW):
        return None
    dims = tuple(Dim(f"o{k}", size) for k, size in enumerate(op.init.shape))
    bounds = outer.with_extents({dim.name: dim.extent for dim in dims})
    own: dict[str, Index] = {dim.name: index(0) for dim in op.dims}
    own |= {name: index(dims[position].name) for position, name in rows.items()}
    extents = op.extents()
    within = [inside(own[name], extents[name], bounds) for name in rows.values()]
    body: Scalar = Read(op.init, [dim.name for dim in dims])
    for point in _each(free):
        at = own | point
        there = [
            made_safe(apply("eq", IndexValue(dims[position].name), IndexValue(place.substitute(at))), bounds)
            for position, place in enumerate(op.target)
            if position not in rows
        ]
        new = made_safe(op.body.substitute(at), bounds)
        if op.combine != "set":
            new = apply(op.combine, body, new)
        open_ = [each for each in (*within, *there) if not (isinstance(each, Literal) and each.value is True)]
        body = select(conjunction(open_ or there), new, body)
    return Compute(dims, body, dtype=op.result.type.dtype, name=op.result.name, location=op.location)


def _rows(op: Scatter) -> dict[int, str] | None:
    """The dim of the domain that lies along each dim of the tensor as it is; None where no place is read from data by others."""
    along: dict[int, str] = {}
    for position, place in enumerate(op.target):
        name = place.variable
        if name in op.extents() and name not in along.values():
            along[position] = str(name)
    others = [place for position, place in enumerate(op.target) if position not in along]
    return along if others and any(place.data() for place in others) else None


def _number(value: Value) -> bool:
    """Whether all of a tensor is one number."""
    body: Scalar = Read(value, ())
    while not isinstance(body, Literal):
        if isinstance(body, Apply) and body.function == "cast":
            body = body.args[0]
        elif isinstance(body, Read) and isinstance(body.source.owner, Compute) and not body.source.owner.reductions:
            body = body.source.owner.body
        else:
            return False
    return True


def _points(dims: list[Dim]) -> int:
    """Points of a domain; more than few where that is not known."""
    count = 1
    for dim in dims:
        count *= dim.extent.constant if dim.extent.is_constant else FEW + 1
    return count


def _each(dims: list[Dim]) -> Iterator[dict[str, Index]]:
    """The points of a domain in row-major order: of those that share an element, the last one's is written."""
    for point in itertools.product(*(range(dim.extent.constant) for dim in dims)):
        yield {dim.name: index(number) for dim, number in zip(dims, point, strict=True)}


@dataclass
class Places:
    """What is known of places that are read from data, in one block: those that a read goes to as well are checked there."""

    block: Block
    _makers: dict[Value, Compute] = field(init=False)
    _read: list[tuple[Mapping[str, Index], Index, Index]] | None = field(init=False, default=None)
    """Dims of an op, where a read of it goes along a dim of a tensor, and that dim's size."""

    def __post_init__(self) -> None:
        self._makers = {op.result: op for op in self.block.ops if isinstance(op, Compute) and not op.reductions}

    def sure(self, op: Scatter, outer: Bounds) -> bool:
        """Whether no point of a write lies outside of its tensor without an error elsewhere."""
        bounds = outer.with_extents(op.extents())
        pairs = zip(op.target, op.init.shape, strict=True)
        return all(self._sure(op, place, size, bounds, outer) for place, size in pairs if unsure(place, size, bounds))

    def _sure(self, op: Scatter, place: Index, size: Index, bounds: Bounds, outer: Bounds) -> bool:
        if not place.data():
            return False
        worked_out = self._worked_out(place, op.extents(), outer)
        if not worked_out.data():
            return not unsure(worked_out, size, bounds)
        if _position_in(worked_out, size):
            return True
        return any(
            other_size == size and _alike(worked_out, op.extents(), other, extents)
            for extents, other, other_size in self._reads(outer)
        )

    def _reads(self, outer: Bounds) -> list[tuple[Mapping[str, Index], Index, Index]]:
        """Where the block's ops read at places read from data."""
        if self._read is None:
            self._read = []
            for op in self.block.ops:
                if not isinstance(op, (Compute, Scatter)):
                    continue
                for read in op.body.reads():
                    if read.otherwise is not None:
                        continue
                    for place, size in zip(read.indices, read.source.shape, strict=True):
                        if place.data():
                            extents = op.extents()
                            self._read.append((extents, self._worked_out(place, extents, outer), size))
        return self._read

    def _worked_out(self, place: Index, extents: Mapping[str, Index], outer: Bounds) -> Index:
        """A place in terms of what element-wise work starts from."""
        bounds = outer.with_extents(extents)
        found = place.substitute(dict.fromkeys([name for name, extent in extents.items() if extent == 1], 0))
        while any(read.source in self._makers for scalar in found.data() for read in scalar.reads()):
            found = inline_index(found, self._makers, bounds)
        return simplify_index(found, Rewriting(bounds))


def _position_in(place: Index, size: Index) -> bool:
    """Whether a place is a position that a sort or a search for an extreme found along a dim of that size."""
    read = place.data()[0]
    if not isinstance(read, Read) or read.as_index() != place:
        return False
    source = read.source
    maker: Op | None = source.owner
    if isinstance(maker, Sort):
        return source is maker.results[1] and maker.source.shape[maker.dim] == size
    if not isinstance(maker, Compute) or maker.monoid not in ("argmax", "argmin"):
        return False
    return [dim.extent for dim in maker.reductions] == [size]


def _alike(one: Index, extents: Mapping[str, Index], other: Index, others: Mapping[str, Index]) -> bool:
    """Whether two places over two domains are the same ones."""
    mine, theirs = (sorted(place.variables() & own.keys()) for place, own in ((one, extents), (other, others)))
    if len(mine) != len(theirs) or len(mine) > len(extents):
        return False
    for order in itertools.permutations(theirs):
        if all(extents[a] == others[b] for a, b in zip(mine, order, strict=True)):
            if other.substitute({b: index(a) for a, b in zip(mine, order, strict=True)}) == one:
                return True
    return False
