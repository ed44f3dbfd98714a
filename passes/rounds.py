"""The first few of a row in order, one after the other: each is the greatest of those that are behind the one before it.

rewrite:
    %v, %p = sort %x dim 1 descending keep 2
    ->  %m0 = compute[i: M] max(j: N) { x[i, j] }
        %p0 = compute[i: M] min(j: N) { select(x[i, j] == m0[i], j, N) }
        %m1 = compute[i: M] max(j: N) { select(x[i, j] < m0[i] or (x[i, j] == m0[i] and j > p0[i]), x[i, j], -inf) }
        %p1 = compute[i: M] min(j: N) { select(x[i, j] == m1[i] and (m1[i] < m0[i] or j > p0[i]), j, N) };   %v, %p by both

Floats are compared as the integers of their bits, in the order of `sort`: NaN first, zeros of both signs equal. A place carries the sign of
its element in its last bit, so that a zero is given as it was found.

As many steps for each element as twice what is kept, where ranks take one for each pair of elements; and each is a reduction along the row,
which what makes the row may join. What is left after a number of rounds hangs on the last of them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.ir.dtypes import BOOL, F32, F64, I32, I64, DType
from codesign.ir.index import index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, bitcast, cast, select
from codesign.ir.tensor import Compute, Dim, Sort
from codesign.ir.tiling.monoids import highest, lowest

MOST = 16
"""Elements kept, beyond which a kernel would be too long."""

ROW = 1024
"""Elements of a row that a program can hold: 4 for each of 256 lanes, say."""


def suits_rounds(op: Sort) -> bool:
    """Whether rounds are for it: the greatest few of a row of moderate length, floats or integers."""
    along = op.source.shape[op.dim]
    keep = along if op.keep is None else op.keep
    if not (op.descending and keep.is_constant and along.is_constant) or op.source.type.dtype is BOOL:
        return False
    return 0 < keep.constant <= MOST and 4 * keep.constant <= along.constant <= ROW


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

    def _bits(self, x: Scalar) -> Scalar:
        return bitcast(x, self.integer)

    def _flipped(self, bits: Scalar) -> Scalar:
        """All bits but the sign turned over where it is set: between the bits of a float and its place in order."""
        negative = apply("shr", bits, Literal(self.integer.bits - 1, self.integer))
        return apply("xor", bits, apply("and", negative, highest(self.integer)))


def in_rounds(op: Sort) -> list[Compute]:
    """The computes of a top-k, of which the last two are its results."""
    assert op.keep is not None
    source, names, where = op.source, [f"i{k}" for k in range(len(op.source.shape))], op.location
    own, label, order = names[op.dim], op.results[0].name, _Order(op.source.type.dtype)
    along, x = Dim(own, source.shape[op.dim]), Read(source, names)
    dims = [Dim(name, size) for name, size in zip(names, source.shape, strict=True)]
    rest = [dim for dim in dims if dim.name != own]
    row = [dim.name for dim in rest]
    keys = Compute(dims, order.key(x), name=f"{label}_order", location=where)
    key, place = Read(keys.result, names), order.place(x, cast(IndexValue(own), I32))
    beyond = cast(IndexValue(along.extent * 2), I32)
    made, found = [keys], list[tuple[Read, Read]]()
    for number in range(op.keep.constant):
        left: Scalar = key
        if found:
            after = apply("and", apply("eq", key, found[-1][0]), apply("gt", place, found[-1][1]))
            left = select(apply("or", apply("lt", key, found[-1][0]), after), key, lowest(key.dtype))
        name = f"{label}_{number}"
        most = Compute(rest, left, reductions=[along], monoid="max", name=name, location=where)
        own_key = Read(most.result, row)
        here = apply("eq", key, own_key)
        if found:
            less = apply("lt", own_key, found[-1][0])
            here = apply("and", here, apply("or", less, apply("gt", place, found[-1][1])))
        body = select(here, place, beyond)
        at = Compute(rest, body, reductions=[along], monoid="min", name=f"{name}_place", location=where)
        made += (most, at)
        found.append((own_key, Read(at.result, row)))
    result = [Dim("kept", op.keep) if dim.name == own else dim for dim in dims]
    chosen_key, chosen = (_by_number([pair[part] for pair in found]) for part in (0, 1))
    values = Compute(result, order.element(chosen_key, chosen), name=label, location=where)
    at_element = cast(apply("shr", chosen, Literal(1, I32)), I64)
    positions = Compute(result, at_element, name=op.results[1].name, location=where)
    return [*made, values, positions]


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
