"""The first few of a row in order, one after the other: each is the greatest of those that are behind the one before it.

rewrite:
    %v, %p = sort %x dim 1 descending keep 2
    ->  %o = compute i64[i: M, j: N] { bits of x[i, j] in order, then those of N - j }
        %m0 = compute[i: M] max(j: N) { o[i, j] }
        %m1 = compute[i: M] max(j: N) { select(o[i, j] < m0[i], o[i, j], lowest) };   %v, %p from both

Floats are compared as the integers of their bits, in the order of `sort`: NaN first, zeros of both signs equal. A place carries the sign of
its element in its last bit, so that a zero is given as it was found. An element and its place are one integer of 64 bits, of which no two of
a row are equal; elements that have 64 bits themselves take a second reduction for the place:

        %m0 = compute[i: M] max(j: N) { x[i, j] };   %p0 = compute[i: M] min(j: N) { select(x[i, j] == m0[i], j, N) }
        %m1 = compute[i: M] max(j: N) { select(x[i, j] < m0[i] or (x[i, j] == m0[i] and j > p0[i]), x[i, j], lowest) }

A few steps for each element and each that is kept, where ranks take one for each pair of elements; and each is a reduction along the row,
which what makes the row may join. What is left after a number of rounds hangs on the last of them alone.

A long row is read in parts: an element among the first few lies in a part that is among as many by its greatest, of equal ones the first. So
rounds over those, one a part, say which parts to look into, and rounds over what these hold give the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.ir.dtypes import BOOL, F32, F64, I32, I64, DType
from codesign.ir.index import Index, ceildiv, index
from codesign.ir.location import Location
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, bitcast, cast, select
from codesign.ir.tensor import Compute, Dim, Sort
from codesign.ir.tiling.monoids import highest, lowest

MOST = 16
"""Elements kept, beyond which a kernel would be too long."""

ROW = 1024
"""Elements of a row that a program can hold: 4 for each of 256 lanes, say."""

HELD = 2 * ROW
"""Elements of the parts of a long row that are looked into, of which a program holds no others."""


def suits_rounds(op: Sort) -> bool:
    """Whether rounds are for it: the greatest few of a row of moderate length, floats or integers."""
    few = _few_of(op)
    return few is not None and few[1] <= ROW


def suits_parts(op: Sort) -> bool:
    """Whether rounds over parts are for it: the greatest few of a long row, as long as a program holds what the parts found hold."""
    few = _few_of(op)
    return few is not None and few[1] > ROW and few[0] * part_length(few[1], few[0]) <= HELD


def _few_of(op: Sort) -> tuple[int, int] | None:
    """How many elements are kept of how many; None where they are not the greatest few of floats or integers."""
    along = op.source.shape[op.dim]
    keep = along if op.keep is None else op.keep
    if not (op.descending and keep.is_constant and along.is_constant) or op.source.type.dtype is BOOL:
        return None
    few = 0 < keep.constant <= MOST and 4 * keep.constant <= along.constant
    return (keep.constant, along.constant) if few else None


def part_length(size: int, keep: int) -> int:
    """Elements of a part of a row, a power of two: about as many parts as elements in those that are looked into, and as a program holds."""
    length = 1
    while length * length * keep < size or length * ROW < size:
        length *= 2
    return length


_LOW = (1 << 32) - 1


@dataclass(frozen=True)
class _Order:
    """Elements of a dtype as integers in the same order."""

    dtype: DType

    @property
    def wide(self) -> DType:
        """The float that has all values of the dtype and integers of its width."""
        return F64 if self.dtype is F64 else F32

    @property
    def integer(self) -> DType:
        return self.dtype if not self.dtype.is_float else I64 if self.dtype is F64 else I32

    def key(self, x: Scalar) -> Scalar:
        """What an element counts as."""
        if not self.dtype.is_float:
            return x
        x = cast(x, self.wide)
        zero = select(apply("eq", x, Literal(0.0, self.wide)), Literal(0, self.integer), self._flipped(self._bits(x)))
        return select(apply("isnan", x), highest(self.integer), zero)

    def place(self, x: Scalar, number: Scalar) -> Scalar:
        """Where an element is, twice, and its sign."""
        if not self.dtype.is_float:
            return apply("mul", number, Literal(2, I32))
        bits = self._bits(cast(x, self.wide))
        sign = apply("and", apply("shr", bits, Literal(self.integer.bits - 1, self.integer)), Literal(1, self.integer))
        return apply("add", apply("mul", number, Literal(2, I32)), cast(sign, I32))

    def element(self, key: Scalar, place: Scalar) -> Scalar:
        """The element that counts as `key` and is at `place`."""
        if not self.dtype.is_float:
            return key
        sign = apply("shl", cast(place, self.integer), Literal(self.integer.bits - 1, self.integer))
        bits = select(apply("eq", key, Literal(0, self.integer)), sign, self._flipped(key))
        return cast(bitcast(bits, self.wide), self.dtype)

    @property
    def packed(self) -> bool:
        """Whether an element and its place are one integer."""
        return self.integer.bits <= 32

    def both(self, key: Scalar, place: Scalar) -> Scalar:
        """What an element counts as and where it is: greater for those that come before others in order."""
        high = apply("shl", cast(key, I64), Literal(32, I64))
        return apply("add", high, apply("sub", Literal(_LOW, I64), cast(place, I64)))

    def parted(self, both: Scalar) -> tuple[Scalar, Scalar]:
        """What an element counts as, and its place, of both in one."""
        place = apply("sub", Literal(_LOW, I64), apply("and", both, Literal(_LOW, I64)))
        return cast(apply("shr", both, Literal(32, I64)), self.integer), cast(place, I32)

    def _bits(self, x: Scalar) -> Scalar:
        return bitcast(x, self.integer)

    def _flipped(self, bits: Scalar) -> Scalar:
        """All bits but the sign turned over where it is set: between the bits of a float and its place in order."""
        negative = apply("shr", bits, Literal(self.integer.bits - 1, self.integer))
        return apply("xor", bits, apply("and", negative, highest(self.integer)))


def in_rounds(op: Sort) -> list[Compute]:
    """The computes of a top-k of a short row, of which the last two are its results."""
    names = [f"i{k}" for k in range(len(op.source.shape))]
    dims = [Dim(name, size) for name, size in zip(names, op.source.shape, strict=True)]
    number = IndexValue(names[op.dim])
    return _rounds(op, dims, dims[op.dim], Read(op.source, names), number, dims[op.dim].extent)


def in_parts(op: Sort) -> list[Compute]:
    """The same of a long row: rounds over the greatest of each part of it, and rounds over what the parts found hold."""
    assert op.keep is not None
    size, own = op.source.shape[op.dim], f"i{op.dim}"
    length = part_length(size.constant, op.keep.constant)
    part, inner, held = Dim("part", ceildiv(size, length)), Dim("inner", index(length)), Dim("held", op.keep * length)
    names = [f"i{k}" for k in range(len(op.source.shape))]
    rest = [Dim(name, n) for name, n in zip(names, op.source.shape, strict=True) if name != own]
    order, least = _Order(op.source.type.dtype), lowest(op.source.type.dtype)

    def element(place: Index) -> Read:
        """An element of the row; beyond its end, what comes after all others."""
        return Read(op.source, [place if name == own else name for name in names], least)

    place = index(part.name) * length + inner.name
    label, where = op.results[0].name, op.location
    best = Compute(
        [*rest, part],
        order.key(element(place)),
        reductions=[inner],
        monoid="max",
        name=f"{label}_parts",
        location=where,
    )
    if order.packed:
        greatest = Read(best.result, [dim.name for dim in (*rest, part)])
        both = order.both(greatest, cast(IndexValue(part.name), I32))
        rounds, found = _greatest(both, [*rest, part], part, op.keep.constant, f"{label}_part", where)
        number = cast(order.parted(_by_number(found))[1], I64)
        made = [
            best,
            *rounds,
            Compute([*rest, Dim("kept", op.keep)], number, name=f"{label}_part_place", location=where),
        ]
    else:
        labels = (f"{label}_part", f"{label}_part_place")
        first = Sort(best.result, len(rest), descending=True, keep=op.keep, names=labels, location=where)
        made = [best, *in_rounds(first)]
    chosen = Read(made[-1].result, [*(dim.name for dim in rest), index(held.name) // length])
    place = chosen.as_index() * length + index(held.name) % length
    inside = _rounds(op, [*rest, held], held, element(place), IndexValue(place), part.extent * length)
    return [*made, *inside]


def _rounds(op: Sort, dims: Sequence[Dim], along: Dim, x: Scalar, number: IndexValue, beyond: Index) -> list[Compute]:
    """Rounds over the elements `x` of a domain, of which those `along` a dim are of one row and have a `number` in it, below `beyond`."""
    assert op.keep is not None
    where, label, order = op.location, op.results[0].name, _Order(op.source.type.dtype)
    rest = [dim for dim in dims if dim is not along]
    if order.packed:
        both = order.both(order.key(x), order.place(x, cast(number, I32)))
        made, found = _greatest(both, dims, along, op.keep.constant, label, where)
        chosen_key, chosen = order.parted(_by_number(found))
    else:
        made, pairs = _in_pairs(order, dims, along, x, number, beyond, op)
        chosen_key, chosen = (_by_number([pair[part] for pair in pairs]) for part in (0, 1))
    result = [*rest[: op.dim], Dim("kept", op.keep), *rest[op.dim :]]
    values = Compute(result, order.element(chosen_key, chosen), name=label, location=where)
    at_element = cast(apply("shr", chosen, Literal(1, I32)), I64)
    positions = Compute(result, at_element, name=op.results[1].name, location=where)
    return [*made, values, positions]


def _greatest(
    both: Scalar, dims: Sequence[Dim], along: Dim, keep: int, label: str, where: Location
) -> tuple[list[Compute], list[Read]]:
    """The greatest few along a dim of integers of which no two are equal: the computes that find them, and each of them."""
    rest = [dim for dim in dims if dim is not along]
    made, found = [Compute(dims, both, name=f"{label}_order", location=where)], list[Read]()
    x = Read(made[0].result, [dim.name for dim in dims])
    for count in range(keep):
        left: Scalar = x if not found else select(apply("lt", x, found[-1]), x, lowest(x.dtype))
        most = Compute(rest, left, reductions=[along], monoid="max", name=f"{label}_{count}", location=where)
        made.append(most)
        found.append(Read(most.result, [dim.name for dim in rest]))
    return made, found


def _in_pairs(
    order: _Order, dims: Sequence[Dim], along: Dim, x: Scalar, number: IndexValue, beyond: Index, op: Sort
) -> tuple[list[Compute], list[tuple[Read, Read]]]:
    """The same of elements and places that are two integers."""
    assert op.keep is not None
    where, label = op.location, op.results[0].name
    rest = [dim for dim in dims if dim is not along]
    row = [dim.name for dim in rest]
    keys = Compute(dims, order.key(x), name=f"{label}_order", location=where)
    key, place = Read(keys.result, [dim.name for dim in dims]), order.place(x, cast(number, I32))
    last = cast(IndexValue(beyond * 2), I32)
    made, found = [keys], list[tuple[Read, Read]]()
    for count in range(op.keep.constant):
        left: Scalar = key
        if found:
            after = apply("and", apply("eq", key, found[-1][0]), apply("gt", place, found[-1][1]))
            left = select(apply("or", apply("lt", key, found[-1][0]), after), key, lowest(key.dtype))
        name = f"{label}_{count}"
        most = Compute(rest, left, reductions=[along], monoid="max", name=name, location=where)
        own_key = Read(most.result, row)
        here = apply("eq", key, own_key)
        if found:
            less = apply("lt", own_key, found[-1][0])
            here = apply("and", here, apply("or", less, apply("gt", place, found[-1][1])))
        body = select(here, place, last)
        at = Compute(rest, body, reductions=[along], monoid="min", name=f"{name}_place", location=where)
        made += (most, at)
        found.append((own_key, Read(at.result, row)))
    return made, found


def _by_number(found: Sequence[Scalar]) -> Scalar:
    """What round number `kept` found."""
    chosen = found[-1]
    for number in reversed(range(len(found) - 1)):
        chosen = select(apply("eq", IndexValue("kept"), IndexValue(index(number))), found[number], chosen)
    return chosen


def equal(a: Scalar, b: Scalar) -> Scalar:
    """Whether neither of two values is before the other in order."""
    same = apply("eq", a, b)
    if not a.dtype.is_float:
        return same
    return apply("or", same, apply("and", apply("isnan", a), apply("isnan", b)))
