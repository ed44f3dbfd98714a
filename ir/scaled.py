"""Products of numbers that stand in blocks with a scale, found in the text of a kernel: narrow floats times powers of two, or times floats of 8 bits.

A matrix unit that multiplies such operands takes the narrow numbers and the exponents as they are, so that what a kernel computes of them before its
product need not be computed (OCP Microscaling Formats (MX) Specification 1.0, section 6: dot products of scaled blocks, in f32).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from codesign.ir.atoms import FloorDiv, Var, inside
from codesign.ir.core import Value
from codesign.ir.dtypes import F4E2M1, F4X2, F8E8M0, DType
from codesign.ir.index import Index, index
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.microscaling import halves, power_of_two
from codesign.ir.reuse import count_uses
from codesign.ir.scalar import Apply, IndexValue, Read, Scalar
from codesign.ir.tile import Dot, Kernel, Load, Map
from codesign.ir.types import TileType

EVERY = np.arange(256, dtype=np.uint8)
"""What a byte may be."""
EXPONENTS = frozenset({F8E8M0.name})
NARROW = 8
"""Bits of the widest numbers that stand in blocks."""


@dataclass(frozen=True)
class Factor:
    """An operand of a product: `elements`, times `scales`, or 2 to the power of them where they are exponents; both read by the axes of a map.

    `half`: of elements that stand two in a byte, the one at each point (0: the lower bits).
    """

    elements: Read
    scales: Read
    half: Index | None = None

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


def scaled_factors(kernel: Kernel, dtypes: Set[str], scales: Set[str] = EXPONENTS) -> dict[Value, Factor]:
    """The operands of products that a unit which multiplies these dtypes takes as blocks with scales of some dtypes, by the value that the kernel
    has of them.

    Both operands are of one width then; what is used elsewhere too is left as it is.
    """
    uses = count_uses(kernel)
    found: dict[Value, Factor] = {}
    for op in kernel.body.walk():
        if isinstance(op, Dot):
            sides = {value: _factor(value, summed, scales) for value, summed in ((op.a, 1), (op.b, 0))}
            forms = [factor.dtype if factor else _dtype(v) for v, factor in sides.items()]
            bits, kinds = {form.bits for form in forms}, {form.name for form in forms}
            own = all(uses[value] == 1 for value, factor in sides.items() if factor)
            pairs = [factor.elements.source for factor in sides.values() if factor and factor.half is not None]
            own = own and all(uses[value] == 1 for value in pairs)
            if len(sides) == 2 and len(bits) == 1 and kinds <= dtypes and own:
                found.update({value: factor for value, factor in sides.items() if factor})
    return found


def _dtype(value: Value) -> DType:
    assert isinstance(value.type, TileType)
    return value.type.dtype


def _factor(value: Value, summed: int, scales: Set[str]) -> Factor | None:
    """What a value is, where a map makes it of a number and a scale. `summed`: which of its axes is."""
    op = value.owner
    if not isinstance(op, Map):
        return None
    body = _plain(op.body)
    if not isinstance(body, Apply) or body.function != "mul":
        return None
    for elements, scale in (body.args, body.args[::-1]):
        number, scale = _plain(elements), _plain(scale)
        exponents = _exponents(scale)
        if exponents is not None and isinstance(number, Read) and number.dtype.is_float and number.dtype.bits <= NARROW:
            return Factor(number, exponents) if _bare(number) and _bare(exponents) else None
        found = scale if exponents is None else exponents
        pairs = _pairs(number)
        if pairs is None or not _loaded(*pairs) or not isinstance(found, Read) or found.dtype.name not in scales:
            continue
        if _bare(found) and _in_blocks(found, op.axes[summed].name, 32 if exponents is not None else 16):
            return Factor(pairs[0], found, pairs[1])
    return None


def _in_blocks(scale: Read, axis: str, size: int) -> bool:
    """Whether a load brings scales of which each is for so many numbers along an axis, or some times as many."""
    load = scale.source.owner
    if not isinstance(load, Load):
        return False
    places = [there.name for there, place in zip(load.axes, scale.indices, strict=True) if place.variable == axis]
    return all(_by_blocks(place, name, size) for name in places for place in load.indices)


def _by_blocks(place: Index, axis: str, size: int) -> bool:
    for atom in (atom for monomial, _ in place.terms for atom in monomial):
        if isinstance(atom, Var) and atom.name == axis:
            return False
        whole = isinstance(atom, FloorDiv) and atom.denominator.is_constant and atom.denominator.constant % size == 0
        if not whole and not all(_by_blocks(inner, axis, size) for inner in inside(atom)):
            return False
    return True


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
    if read.dtype is not F8E8M0 or not scale.variables() <= read.variables():
        return None
    stand_in = Read(Value(TileType(F8E8M0, (256,)), "exponent"), [index("e")])
    found = Evaluator(Domain([Span("e", 0, 256)], {}), {stand_in.source: EVERY}).scalar(
        scale.rewrite(lambda node: stand_in if node == read else None)
    )
    expected = power_of_two(EVERY)
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
