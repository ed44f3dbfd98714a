"""Products of numbers that stand in blocks with a scale, found in the text of a kernel: narrow floats times powers of two.

A matrix unit that multiplies such operands takes the narrow numbers and the exponents as they are, so that what a kernel computes of them before its
product need not be computed (OCP Microscaling Formats (MX) Specification 1.0, section 6: dot products of scaled blocks, in f32).
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from codesign.ir.core import Value
from codesign.ir.dtypes import F8E8M0, DType
from codesign.ir.index import index
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.microscaling import power_of_two
from codesign.ir.reuse import count_uses
from codesign.ir.scalar import Apply, Read, Scalar
from codesign.ir.tile import Dot, Kernel, Map
from codesign.ir.types import TileType

NARROW = 8
"""Bits of the widest numbers that stand in blocks."""


@dataclass(frozen=True)
class Factor:
    """An operand of a product: `elements`, times 2 to the power of `exponents` where there are some; both read by the axes of a map."""

    elements: Read
    exponents: Read


def scaled_factors(kernel: Kernel, dtypes: Set[str]) -> dict[Value, Factor]:
    """The operands of products that a unit which multiplies these dtypes takes as blocks with scales, by the value that the kernel has of them.

    Both operands are of one width then; what is used elsewhere too is left as it is.
    """
    uses = count_uses(kernel)
    found: dict[Value, Factor] = {}
    for op in kernel.body.walk():
        if isinstance(op, Dot):
            sides = {value: _factor(value) for value in (op.a, op.b)}
            bits = {factor.elements.dtype.bits if factor else _dtype(v).bits for v, factor in sides.items()}
            kinds = {factor.elements.dtype.name if factor else _dtype(v).name for v, factor in sides.items()}
            own = all(uses[value] == 1 for value, factor in sides.items() if factor)
            if len(sides) == 2 and len(bits) == 1 and kinds <= dtypes and own:
                found.update({value: factor for value, factor in sides.items() if factor})
    return found


def _dtype(value: Value) -> DType:
    assert isinstance(value.type, TileType)
    return value.type.dtype


def _factor(value: Value) -> Factor | None:
    """What a value is, where a map makes it of a number and a scale."""
    op = value.owner
    if not isinstance(op, Map):
        return None
    body = _plain(op.body)
    if not isinstance(body, Apply) or body.function != "mul":
        return None
    for elements, scale in (body.args, body.args[::-1]):
        number, exponents = _plain(elements), _exponents(_plain(scale))
        if isinstance(number, Read) and number.dtype.is_float and number.dtype.bits <= NARROW and exponents is not None:
            return Factor(number, exponents) if _bare(number) and _bare(exponents) else None
    return None


def _bare(read: Read) -> bool:
    return isinstance(read.source.type, TileType) and all(place.variable for place in read.indices)


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
    every = np.arange(256, dtype=np.uint8)
    found = Evaluator(Domain([Span("e", 0, 256)], {}), {stand_in.source: every}).scalar(
        scale.rewrite(lambda node: stand_in if node == read else None)
    )
    expected = power_of_two(every)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    return read if bool(np.all(same)) else None
