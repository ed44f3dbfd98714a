"""Products of numbers that stand in blocks with a scale, found in the text of a kernel: narrow floats times powers of two, or times floats of 8 bits.

A matrix unit that multiplies such operands takes the narrow numbers and the exponents as they are, so that what a kernel computes of them before its
product need not be computed (OCP Microscaling Formats (MX) Specification 1.0, section 6: dot products of scaled blocks, in f32). What a last
step along the sum has too much is zeros then, which loads bring where their guards fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from codesign.ir.atoms import FloorDiv, Var, inside
from codesign.ir.core import Value
from codesign.ir.dtypes import F1E1M0, F4E2M1, F4X2, F8E8M0, DType
from codesign.ir.index import Index, index
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.microscaling import halves, scale_of
from codesign.ir.reuse import count_uses
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar
from codesign.ir.tile import Dot, For, Kernel, Load, Map
from codesign.ir.types import TileType

EVERY = np.arange(256, dtype=np.uint8)
"""What a byte may be."""
EXPONENTS = frozenset({F8E8M0.name})
NARROW = 8
"""Bits of the widest numbers that stand in blocks."""
BLOCK_OF_EXPONENTS, BLOCK_OF_FLOATS, BLOCK_OF_FIXED, PAIR = 32, 16, 16, 2
"""Numbers that have a scale in common: of the MX formats, whose scales are exponents; of NVFP4, whose are floats; of MX9 and MX6, whose numbers
have no exponents of their own, in a block and in a pair of it."""
_EXPONENTS = {F8E8M0: EVERY, F1E1M0: EVERY[:2]}
"""What exponents of a dtype may be."""


@dataclass(frozen=True)
class Factor:
    """An operand of a product: `elements`, times each of `scales`, or 2 to the power of it where it is an exponent; all read by the axes of a map.
    Without scales it is the elements alone, which a map widens.

    `half`: of elements that stand two in a byte, the one at each point (0: the lower bits).
    """

    elements: Read
    scales: tuple[Read, ...]
    half: Index | None = None

    @property
    def reads(self) -> tuple[Read, ...]:
        return (self.elements, *self.scales)

    @property
    def dtype(self) -> DType:
        """Of the elements, as the unit multiplies them."""
        return self.elements.dtype if self.half is None else F4E2M1

    @property
    def half_loaded(self) -> Index | None:
        """The half by the axes of the load that brings the pairs."""
        load = self.elements.source.owner
        if self.half is None or not isinstance(load, Load):
            return None
        return self.half.substitute(
            {
                str(place.variable): index(axis.name)
                for place, axis in zip(self.elements.indices, load.axes, strict=True)
            }
        )


def scaled_factors(
    kernel: Kernel, dtypes: Set[str], scales: Set[str] = EXPONENTS, mixed_bits: int = 0
) -> dict[Value, Factor]:
    """The operands of products that a unit which multiplies these dtypes takes as blocks with scales of some dtypes, by the value that the kernel
    has of them.

    Both operands are of one width then, or of no more than `mixed_bits`; what is used elsewhere too is left as it is.
    """
    uses = count_uses(kernel)
    loops = _loops(kernel)
    found: dict[Value, Factor] = {}
    for op in kernel.body.walk():
        if isinstance(op, Dot):
            sides = {value: _factor(value, summed, scales, loops) for value, summed in ((op.a, 1), (op.b, 0))}
            if any(sides.values()):
                sides = {value: factor or _unscaled(value) for value, factor in sides.items()}
            forms = [factor.dtype if factor else _dtype(v) for v, factor in sides.items()]
            bits, kinds = {form.bits for form in forms}, {form.name for form in forms}
            own = all(uses[value] == 1 for value, factor in sides.items() if factor)
            pairs = [factor.elements.source for factor in sides.values() if factor and factor.half is not None]
            own = own and all(uses[value] == 1 for value in pairs)
            together = len({form.is_fixed for form in forms}) == 1 and (len(bits) == 1 or max(bits) <= mixed_bits)
            if len(sides) == 2 and together and kinds <= dtypes and own:
                found.update({value: factor for value, factor in sides.items() if factor})
    return found


def _dtype(value: Value) -> DType:
    assert isinstance(value.type, TileType)
    return value.type.dtype


@dataclass(frozen=True)
class _Steps:
    """What a loop's variable goes through, or a size that is their step has."""

    lower: Index
    step: Index | None = None

    def within(self, size: int) -> bool:
        """Whether some steps may be within one block."""
        return self.step is not None and not (self.step.is_constant and self.step.constant % size == 0)


_Loops = Mapping[str, _Steps]


def _loops(kernel: Kernel) -> _Loops:
    found: dict[str, _Steps] = {}
    for op in kernel.body.walk():
        if isinstance(op, For):
            found.update(dict.fromkeys(op.step.variables(), _Steps(index(0))))
            found[op.variable] = _Steps(op.lower, op.step)
    return found


def _factor(value: Value, summed: int, scales: Set[str], loops: _Loops) -> Factor | None:
    """What a value is, where a map makes it of a number and a scale. `summed`: which of its axes is."""
    op = value.owner
    if not isinstance(op, Map):
        return None
    axis, (body, conditions) = op.axes[summed].name, _where_inside(_plain(op.body))
    parts = _multiplied(body)
    for n, number in enumerate(parts):
        others = [_scale(part) for part in (*parts[:n], *parts[n + 1 :])]
        found = tuple(scale for scale in others if scale is not None)
        if not found or len(found) < len(others) or not {scale.dtype.name for scale in found} <= scales:
            continue
        if len(found) > 1 and not (found := _block_and_pair(found)):
            continue
        exponents = all(scale.dtype in _EXPONENTS for scale in found)
        factor = (_of_numbers(number, found) if exponents else None) or _of_pairs(number, found)
        if factor is None or not all(
            _in_blocks(factor, scale, axis, _block(factor.dtype, scale.dtype), loops) for scale in found
        ):
            continue
        if all(_zero_unless(condition, read) for condition in conditions for read in factor.reads):
            return factor
    return None


def _multiplied(body: Scalar) -> tuple[Scalar, ...]:
    """The factors of a product of products."""
    body = _plain(body)
    if isinstance(body, Apply) and body.function == "mul":
        return tuple(part for side in body.args for part in _multiplied(side))
    return (body,)


def _scale(part: Scalar) -> Read | None:
    """What a factor reads, as it is or as an exponent; exponents that it does not raise 2 to are no scales."""
    read = _exponents(part)
    if read is None and isinstance(part, Read) and part.dtype not in _EXPONENTS:
        read = part
    return read if read is not None and _bare(read) else None


def _block_and_pair(scales: tuple[Read, ...]) -> tuple[Read, ...]:
    """A block's exponent and a pair's in this order, if two scales are these."""
    ordered = tuple(sorted(scales, key=lambda scale: scale.dtype is F1E1M0))
    return ordered if [scale.dtype for scale in ordered] == [F8E8M0, F1E1M0] else ()


def _block(element: DType, scale: DType) -> int:
    """Numbers of a dtype that have a scale in common."""
    if scale is F1E1M0:
        return PAIR
    if scale is not F8E8M0:
        return BLOCK_OF_FLOATS
    return BLOCK_OF_FIXED if element.is_fixed else BLOCK_OF_EXPONENTS


def _unscaled(value: Value) -> Factor | None:
    """Narrow numbers that a map does nothing to but widen."""
    op = value.owner
    if not isinstance(op, Map):
        return None
    body, conditions = _where_inside(_plain(op.body))
    number = _plain(body)
    if not isinstance(number, Read) or not number.dtype.is_float or number.dtype.bits > NARROW or not _bare(number):
        return None
    return Factor(number, ()) if all(_zero_unless(condition, number) for condition in conditions) else None


def _of_numbers(number: Scalar, scales: tuple[Read, ...]) -> Factor | None:
    if not isinstance(number, Read) or not _bare(number) or not number.dtype.is_float or number.dtype.bits > NARROW:
        return None
    in_pairs = any(scale.dtype is F1E1M0 for scale in scales)
    return Factor(number, scales) if number.dtype.is_fixed or not in_pairs else None


def _of_pairs(number: Scalar, scales: tuple[Read, ...]) -> Factor | None:
    pairs = _pairs(number) if len(scales) == 1 and scales[0].dtype is not F1E1M0 else None
    return Factor(pairs[0], scales, pairs[1]) if pairs is not None and _loaded(*pairs) else None


def _where_inside(body: Scalar) -> tuple[Scalar, tuple[Scalar, ...]]:
    """What a value is where some conditions hold; elsewhere it is zero."""
    if not isinstance(body, Apply) or body.function != "select":
        return body, ()
    condition, value, other = body.args
    if not isinstance(other, Literal) or other.value != 0:
        return body, ()
    inner, more = _where_inside(_plain(value))
    return inner, (*_all_of(condition), *more)


def _all_of(condition: Scalar) -> tuple[Scalar, ...]:
    if isinstance(condition, Apply) and condition.function == "and":
        return tuple(each for side in condition.args for each in _all_of(side))
    return (condition,)


def _zero_unless(condition: Scalar, read: Read) -> bool:
    """Whether a load brings zeros where a condition on positions does not hold, since it is one of the load's guards."""
    load = read.source.owner
    if not isinstance(load, Load) or load.otherwise.value != 0 or not isinstance(condition, Apply):
        return False
    sides = [side.index for side in condition.args if isinstance(side, IndexValue)]
    if len(sides) != 2:
        return False
    here = {there.name: place for there, place in zip(load.axes, read.indices, strict=True)}
    for guard in load.guards:
        value, low, high = (
            None if side is None else side.substitute(here) for side in (guard.value, guard.low, guard.high)
        )
        if condition.function == "lt" and high is not None and sides == [value, high]:
            return True
        if condition.function == "ge" and low is not None and sides == [value, low]:
            return True
    return False


def _in_blocks(factor: Factor, scale: Read, axis: str, size: int, loops: _Loops) -> bool:
    """Whether a load brings scales of which each is for so many numbers along an axis, or some times as many."""
    load, numbers = scale.source.owner, factor.elements.source.owner
    if not isinstance(load, Load):
        return False
    along = {axis}
    if isinstance(numbers, Load):  # and the loops along that axis
        own = _named(axis, factor.elements, numbers)
        beside = (place.variables() for place in numbers.indices if place.variables() & own)
        along.update(name for names in beside for name in names & loops.keys() if loops[name].within(size))
    along.update(_named(axis, scale, load))
    return all(_by_blocks(place, frozenset(along), size, loops) for place in load.indices)


def _named(axis: str, read: Read, load: Load) -> set[str]:
    """What a load calls an axis along which what it brings is read."""
    return {there.name for there, place in zip(load.axes, read.indices, strict=True) if place.variable == axis}


def _by_blocks(place: Index, along: Set[str], size: int, loops: _Loops) -> bool:
    """Whether a position is the same for all numbers of a block, of a tile that begins with a block or lies in one. `along`: the axis of the
    blocks, and the loops along it."""
    for atom in (atom for monomial, _ in place.terms for atom in monomial):
        if isinstance(atom, Var) and atom.name in along:
            return False
        if isinstance(atom, FloorDiv) and _rounded_down(atom, along, size, loops):
            continue
        if not all(_by_blocks(inner, along, size, loops) for inner in inside(atom)):
            return False
    return True


def _rounded_down(quotient: FloorDiv, along: Set[str], size: int, loops: _Loops) -> bool:
    """Whether `(c*axis + rest) // d` changes between blocks alone: `d` is some times `c * size`, and `rest` too, or the begin of a tile."""
    top, bottom = quotient.numerator, quotient.denominator
    names = sorted(along & top.variables(), key=lambda name: name in loops)
    step = top.coefficient(names[0]) if names else None
    if step is None or not step.is_constant or step.constant <= 0 or not bottom.is_constant:
        return False
    rest = top - index(names[0]) * step
    whole = bottom.constant % (step.constant * size) == 0
    return whole and names[0] not in rest.variables() and _begins(rest, step.constant, size, loops)


def _begins(place: Index, step: int, size: int, loops: _Loops) -> bool:
    """Whether a position, in steps, is where a block begins or a tile: tiles are powers of two, loops along them go in whole ones."""
    for monomial, coefficient in place.terms:
        tiles = any(isinstance(atom, Var) and atom.name in loops for atom in monomial)
        if coefficient % (step * size) and not (tiles and coefficient % step == 0):
            return False
    begun = [loops[name].lower for name in place.variables() & loops.keys()]
    sizes = {name: steps for name, steps in loops.items() if steps.lower == 0}
    return all(_begins(lower, 1, size, sizes) for lower in begun if lower != 0)


def _bare(read: Read) -> bool:
    return isinstance(read.source.type, TileType) and all(place.variable for place in read.indices)


def _loaded(pairs: Read, half: Index) -> bool:
    """Whether a load brings pairs as they are, at whose places the halves are known."""
    load = pairs.source.owner
    if not isinstance(load, Load) or not _bare(pairs):
        return False
    here = pairs.variables() | {name for place in load.indices for name in place.variables()}
    return half.variables() <= here and not half.data()


def _plain(node: Scalar) -> Scalar:
    """What is behind conversions to floats, which hold any narrow number and any power of two."""
    while isinstance(node, Apply) and node.function == "cast" and node.dtype.is_float and node.dtype.bits > NARROW:
        node = node.args[0]
    return node


@lru_cache(maxsize=256)
def _exponents(scale: Scalar) -> Read | None:
    """The exponents that an expression makes powers of two of, by all values that they have."""
    reads = {node for node in scale.walk() if isinstance(node, Read)}
    if len(reads) != 1:
        return None
    (read,) = reads
    every = _EXPONENTS.get(read.dtype)
    if every is None or not scale.variables() <= read.variables():
        return None
    stand_in = Read(Value(TileType(read.dtype, every.shape), "exponent"), [index("e")])
    found = Evaluator(Domain([Span("e", 0, len(every))], {}), {stand_in.source: every}).scalar(
        scale.rewrite(lambda node: stand_in if node == read else None)
    )
    expected = scale_of(every, read.dtype)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    return read if bool(np.all(same)) else None


@lru_cache(maxsize=256)
def _pairs(number: Scalar) -> tuple[Read, Index] | None:
    """The bytes of which an expression makes a number of e2m1, and which half of each, by all values that both have."""
    reads = {node for node in number.walk() if isinstance(node, Read)}
    positions = {node.index for node in number.walk() if isinstance(node, IndexValue)}
    if len(reads) != 1 or len(positions) != 1:
        return None
    (read,), (half,) = reads, positions
    if read.dtype is not F4X2 or half % 2 != half:
        return None
    stand_in = Read(Value(TileType(F4X2, (256,)), "pair"), [index("e")])

    def change(node: Scalar) -> Scalar | None:
        if isinstance(node, IndexValue):
            return IndexValue(index("h"), node.dtype)
        return stand_in if node == read else None

    domain = Domain([Span("e", 0, 256), Span("h", 0, 2)], {})
    found = Evaluator(domain, {stand_in.source: EVERY}).scalar(number.rewrite(change))
    same = found == halves(EVERY[:, None], np.arange(2))
    return (read, half) if bool(np.all(same)) else None


def packed(factors: Mapping[Value, Factor]) -> dict[Value, Index]:
    """What loads bring of numbers that stand two in a byte, and by the axes of each load which half it is."""
    loaded = {factor.elements.source: factor.half_loaded for factor in factors.values()}
    return {value: half for value, half in loaded.items() if half is not None}
