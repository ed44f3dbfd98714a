"""What generated code takes for functions beside what its text says: device functions for one operation, and what neighbours have alike once.

The exact remainder of floats is a loop over their digits (`division.py`); that of integers is a quotient in floats put right, four times as long
at 64 bits as at 32, and products and shifts where the divisor is a number; a quotient that decides a step is rounded once, where another is a
product with a reciprocal (`steps.py`); the words of a counter are worked out once for the two elements that take them (`paired.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from codesign.backends.triton.functions import compute_dtype
from codesign.backends.triton.generated.layout import Layout
from codesign.backends.triton.paired import is_dear, over_pairs
from codesign.backends.triton.steps import before_steps, is_step
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.program import Dims, Program
from codesign.costmodel.gpu.slots import slots_of
from codesign.costmodel.structures import Text
from codesign.ir.analysis import dependence, slot_of
from codesign.ir.core import Op
from codesign.ir.scalar import Apply, Literal
from codesign.ir.tensor import Fusion
from codesign.ir.tile import For, Kernel, Map, Reduce

Slots = Mapping[str, float]


def _slots(vector: float, integer: float, special: float, double: float = 0.0) -> Slots:
    slots = {"vector": vector, "integer": integer, "special": special, "double": double}
    return {name: count for name, count in slots.items() if count}


WHOLE: dict[tuple[str, str], Slots] = {
    ("fmod", "f32"): _slots(19, 136, 4),
    ("mod", "f32"): _slots(33, 130, 4),
    ("floordiv", "f32"): _slots(38, 149, 7),
    ("truncdiv", "f32"): _slots(10, 4, 3),
    ("fmod", "f64"): _slots(19, 145, 4, 3),
    ("mod", "f64"): _slots(33, 138, 4, 7),
    ("floordiv", "f64"): _slots(50, 170, 7, 31),
    ("truncdiv", "f64"): _slots(9, 9, 3, 8),
    ("div", "f64"): _slots(7, 8, 1, 7),
    ("reciprocal", "f64"): _slots(6, 6, 1, 7),
    ("fmod", "i32"): _slots(1, 19, 3),
    ("mod", "i32"): _slots(0, 25, 3),
    ("floordiv", "i32"): _slots(0, 29, 3),
    ("truncdiv", "i32"): _slots(0, 21, 3),
    ("fmod", "i64"): _slots(18, 95, 6),
    ("mod", "i64"): _slots(17, 90, 3),
    ("floordiv", "i64"): _slots(24, 103, 3),
    ("truncdiv", "i64"): _slots(20, 102, 6),
}
"""All slots of functions, as `benchmarks/issued_slots.py --target sm_90` counts them in ptxas 13's code; those that only issue, as branches and moves
of uniform registers do, among the vector's. Remainders of quotients below 2^39 (2^10 in float64), whose loop over digits has one step."""

BY_NUMBER: dict[tuple[str, str], Slots] = {
    ("fmod", "f32"): _slots(2, 65, 1),
    ("mod", "f32"): _slots(4, 65, 1),
    ("floordiv", "f32"): _slots(23, 76, 2),
    ("truncdiv", "f32"): _slots(11, 3, 2),
    ("fmod", "f64"): _slots(2, 70, 1, 2),
    ("mod", "f64"): _slots(8, 66, 1, 4),
    ("floordiv", "f64"): _slots(26, 93, 4, 27),
    ("truncdiv", "f64"): _slots(9, 11, 3, 8),
    ("div", "f64"): _slots(7, 7, 1, 7),
    ("fmod", "i32"): _slots(0, 4, 0),
    ("mod", "i32"): _slots(0, 12, 0),
    ("floordiv", "i32"): _slots(0, 6, 0),
    ("truncdiv", "i32"): _slots(0, 4, 0),
    ("fmod", "i64"): _slots(0, 18, 0),
    ("mod", "i64"): _slots(0, 29, 0),
    ("floordiv", "i64"): _slots(0, 20, 0),
    ("truncdiv", "i64"): _slots(0, 16, 0),
}
"""The same where the divisor is a number (7, of integers; by 10 it is one or two fewer): remainders of integers by it are products."""

BY_POWER: dict[tuple[str, str], Slots] = {
    ("fmod", "i32"): _slots(0, 4, 0),
    ("mod", "i32"): _slots(0, 1, 0),
    ("floordiv", "i32"): _slots(0, 6, 0),
    ("truncdiv", "i32"): _slots(0, 3, 0),
    ("fmod", "i64"): _slots(0, 4, 0),
    ("mod", "i64"): _slots(0, 1, 0),
    ("floordiv", "i64"): _slots(0, 8, 0),
    ("truncdiv", "i64"): _slots(0, 5, 0),
}
"""The same where it is a power of two."""

STEPPED: dict[tuple[str, bool], Slots] = {
    ("div", False): _slots(9, 4, 1),
    ("div", True): _slots(9, 4, 0),
    ("reciprocal", False): _slots(9, 3, 1),
}
"""Of quotients of float32 that are rounded once, by whether the divisor is a number; without the routine for subnormal ones."""


class Further(NamedTuple):
    """Slots of an element beyond what the models count for its text, fewer where they are negative, by the lanes that do them, at each point of
    some dims; where there are `pairs`, of every second point along that dim."""

    dims: Dims
    slots: Slots
    pairs: str = ""


def further(kernel: Kernel) -> dict[Op, tuple[Further, ...]]:
    """By operation of a kernel, or of a template's."""
    stepped = before_steps(kernel)
    even = {op.variable for op in kernel.body.walk() if isinstance(op, For)} | {*kernel.symbols}
    found: dict[Op, tuple[Further, ...]] = {}
    for op in kernel.body.walk():
        if isinstance(op, (Map, Reduce)):
            axes = op.axes if isinstance(op, Map) else (*op.axes, *op.reduced)
            names = [axis.name for axis in axes]
            exact = {node for node in op.body.walk() if id(node) in stepped}
            parts = tuple(
                Further(tuple(sorted(used)), slots, pairs)
                for node, used in dependence(op.body, {*names})
                if isinstance(node, Apply)
                for slots, pairs in _of_node(node, names, node in exact, even)
            )
            if parts:
                found[op] = parts
    return found


def _of_node(node: Apply, names: list[str], stepped: bool, even: set[str]) -> Iterator[tuple[Slots, str]]:
    dtype = compute_dtype(node.dtype).name
    unit, kind, cost = slot_of(node)
    name, cost = slots_of(unit, kind.name, cost)
    divisor = node.args[1] if len(node.args) > 1 else None
    by_number = isinstance(divisor, Literal)
    whole = (BY_NUMBER if by_number else WHOLE).get((node.function, dtype))
    if isinstance(divisor, Literal) and _is_power(divisor.value):
        whole = BY_POWER.get((node.function, dtype), whole)
    if stepped and dtype == "f32":
        whole = STEPPED.get((node.function, by_number), whole)
    if whole is not None:
        yield {**whole, name: whole.get(name, 0.0) - cost}, ""
    elif is_dear(node):
        for axis in reversed(names):
            if axis in node.variables() and over_pairs(node, axis, even) is not None:
                yield {name: -cost}, axis
                return


def _is_power(number: float) -> bool:
    """Whether a number is a power of two, and whole."""
    return number > 0 and math.frexp(number)[0] == 0.5 and float(number).is_integer()


def spares(group: Fusion) -> bool:
    """Whether the code of some schedule of a group takes fewer slots of floating-point lanes for functions of it than the text says."""
    nodes = [(node, compute) for compute in group.computes for node in compute.body.walk() if isinstance(node, Apply)]
    stepped = any(is_step(node) for node, _ in nodes)
    return any(
        slots < 0.0 and name != "integer"
        for node, compute in nodes
        for found, _ in _of_node(node, [dim.name for dim in compute.domain], stepped, set())
        for name, slots in found.items()
    )


_KNOWN: WeakKeyDictionary[Text, dict[Op, tuple[Further, ...]]] = WeakKeyDictionary()


def expanded(program: Program, layout: Layout) -> dict[str, Array]:
    """Slots that a block issues beyond those of its text, by the lanes that do them."""
    known = _KNOWN.get(program.text)
    if known is None:
        known = _KNOWN[program.text] = further(program.text.template.kernel)
    total: dict[str, Array] = {}
    if known:
        for op, elements in program.elements.items():
            for part in known.get(op, ()):
                points = layout.once(_points, part.dims, part.pairs) * layout.times(elements.around, part.dims)
                for name, slots in part.slots.items():
                    total[name] = total.get(name, 0.0) + points * slots
    return total


def _points(layout: Layout, dims: Dims, pairs: str) -> Array:
    """Lanes that issue for each point of a tile, or that are spared where each works for two points."""
    lanes = layout.lanes_of(dims)
    if not pairs:
        return lanes
    halves = np.maximum(layout.elements(dims) / 2.0, layout.threads)
    return np.where(np.greater(layout.g.tile[pairs], 1.0), lanes - halves, 0.0)
