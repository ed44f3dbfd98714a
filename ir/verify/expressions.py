"""Checks of scalar and index expressions: dtypes, names in scope, ranks, and reads that fall outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from codesign.ir.core import Op, Value
from codesign.ir.dtypes import BOOL, DType
from codesign.ir.errors import VerificationError
from codesign.ir.functions import result_dtype
from codesign.ir.index import Bounds, Index
from codesign.ir.location import Location
from codesign.ir.numerics import Array
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar

POINTS_TRIED = 1 << 16
"""How many points are looked at for one that falls outside, when no proof says that there is none."""

Condition = Callable[[Mapping[str, Array]], Array]
"""Which of many points count, given the values of the variables there."""


@dataclass(frozen=True)
class Site:
    """What is being checked where it is no op of a block: its name for messages, and its place in the model."""

    name: str
    location: Location


Checked = Op | Site


def fail(op: Checked, message: str, hint: str | None = None) -> NoReturn:
    """Raise a VerificationError that names the op, its results, and its place in the model."""
    if isinstance(op, Site):
        raise VerificationError(f"{op.name}: {message}", place=op.location, hint=hint)
    names = ", ".join(f"%{value.name}" for value in op.results)
    raise VerificationError(f"{op.opcode} {names}".rstrip() + f": {message}", place=op.location, hint=hint)


def check_scalar(op: Checked, scalar: Scalar, names: Iterable[str], read: Callable[[Read], None]) -> None:
    """Every node well-typed, and every variable one of the names; `read` checks the reads (their indices too)."""
    known = frozenset(names)
    for node in scalar.walk():
        if isinstance(node, Apply):
            _check_apply(op, node)
        elif isinstance(node, IndexValue):
            check_index(op, node.index, known)
            if node.dtype is BOOL:
                fail(op, f"an index as a value has a number's dtype, not {node.dtype}")
        elif isinstance(node, Read):
            for expression in node.indices:
                check_index(op, expression, known)
            if node.otherwise is not None and node.otherwise.dtype is not node.dtype:
                fail(op, f"%{node.source.name} holds {node.dtype} but else gives {node.otherwise.dtype}")
            read(node)
        elif not isinstance(node, Literal):
            fail(op, f"unknown scalar {type(node).__name__}")


def _check_apply(op: Checked, node: Apply) -> None:
    if node.function == "cast":
        if len(node.args) != 1:
            fail(op, f"cast takes one argument, got {len(node.args)}")
        return
    if node.function == "bitcast":
        if len(node.args) != 1 or node.args[0].dtype.bits != node.dtype.bits:
            fail(op, f"bitcast to {node.dtype} takes one argument of {node.dtype.bits} bits")
        return
    try:
        expected = result_dtype(node.function, tuple(arg.dtype for arg in node.args))
    except VerificationError as error:
        fail(op, error.message)
    if expected is not node.dtype:
        fail(op, f"{node.function} gives {expected}, not {node.dtype}")


def check_index(op: Checked, expression: Index, names: frozenset[str]) -> None:
    """Variables in scope; data in it integers."""
    unknown = sorted(expression.variables() - names)
    if unknown:
        fail(op, f"index {expression} uses {unknown[0]!r}, which is no dimension or size symbol here")
    for scalar in expression.data():
        if not scalar.dtype.is_integer:
            fail(op, f"index {expression} reads {scalar}, which is {scalar.dtype} and not an integer")


def check_inside(
    op: Checked,
    what: str,
    indices: Sequence[Index],
    sizes: Sequence[Index],
    ranges: Mapping[str, Sequence[int]],
    bounds: Bounds,
    condition: Condition | None = None,
) -> None:
    """No index falls outside its size at any point that meets the condition.

    Only what is certain is refused: where no proof says that all is inside, points are tried, and one that falls
    outside is shown. Indices over size symbols without a range here, and indices that depend on data, are the user's
    promise.
    """
    for position, (expression, size) in enumerate(zip(indices, sizes, strict=True)):
        if expression.data() or not size.is_constant:
            continue
        names = sorted(expression.variables())
        if any(name not in ranges for name in names):
            continue
        if condition is None and expression.proves_at_least(0, bounds) and expression.proves_less(size, bounds):
            continue
        witness = _witness(expression, size.constant, ranges, condition)
        if witness is not None:
            value, point = witness
            where = ", ".join(f"{name}={v}" for name, v in point.items() if name in names)
            fail(
                op,
                f"index {position} of {what} is {value}{' at ' + where if where else ''}, outside of size {size}",
                hint="give the read an else, or guard it",
            )


def _witness(
    expression: Index, size: int, ranges: Mapping[str, Sequence[int]], condition: Condition | None
) -> tuple[int, dict[str, int]] | None:
    """A point where the expression is outside `0 <= value < size`, with its value there; None when none was found."""
    names = sorted(ranges if condition is not None else expression.variables())
    if not all(ranges[name] for name in names):
        return None
    each = max(2, int(POINTS_TRIED ** (1 / max(len(names), 1))))
    axes = [_ends(ranges[name], each) for name in names]
    if _beyond(expression):
        axes = [axis.astype(object) for axis in axes]  # Python's integers, which do not wrap
    grids = dict(zip(names, np.meshgrid(*axes, indexing="ij"), strict=True))
    values = np.asarray(expression.evaluate(grids))
    outside = (values < 0) | (values >= size)
    if condition is not None:
        outside = outside & condition(grids)
    outside = np.broadcast_to(outside, tuple(axis.size for axis in axes))
    if not outside.any():
        return None
    first = tuple(int(i) for i in np.argwhere(outside)[0])
    point = {name: int(axis[i]) for name, axis, i in zip(names, axes, first, strict=True)}
    return int(expression.evaluate(point)), point


def _beyond(expression: Index) -> bool:
    """Whether a number of the expression is so large that products of it may leave 64 bits."""
    numbers = [c for _, c in expression.terms]
    for atom in expression.atoms():
        for inner in (getattr(atom, "numerator", None), getattr(atom, "denominator", None), *getattr(atom, "args", ())):
            if isinstance(inner, Index) and _beyond(inner):
                return True
    return any(abs(c) >= 1 << 31 for c in numbers)


def _ends(values: Sequence[int], count: int) -> Array:
    """All values if they are no more than `count`, else so many at both ends, where indices go wrong; integers that are
    too large for arrays stay Python's."""
    half = count // 2
    some = [*values] if not values[count:] else [*values[: count - half], *values[-half:]]
    return np.asarray(some, dtype=np.int64 if max(map(abs, some)) < 1 << 31 else object)


def check_extents(op: Checked, dims: Iterable[tuple[str, Index]], symbols: frozenset[str]) -> None:
    """Dimensions of different names, none of them a symbol's, with extents over symbols only."""
    seen: set[str] = set()
    for name, extent in dims:
        if name in seen:
            fail(op, f"dimension {name!r} appears twice")
        if name in symbols:
            fail(op, f"dimension {name!r} has the name of a size symbol")
        seen.add(name)
        check_index(op, extent, symbols)
        if extent.is_constant and extent.constant < 0:
            fail(op, f"dimension {name!r} has extent {extent}")


def check_dtype(op: Checked, what: str, found: DType, wanted: DType) -> None:
    """Two dtypes that must agree."""
    if found is not wanted:
        fail(op, f"{what} is {found}, must be {wanted}")


def same_types(op: Checked, what: str, found: Sequence[Value], wanted: Sequence[Value]) -> None:
    """Two lists of values that must have the same types."""
    if len(found) != len(wanted):
        fail(op, f"{what}: {len(found)} values, must be {len(wanted)}")
    for a, b in zip(found, wanted, strict=True):
        if a.type != b.type:
            fail(op, f"{what}: %{a.name} is {a.type}, must be {b.type} like %{b.name}")


def points(dims: Iterable[tuple[str, Index]]) -> dict[str, Sequence[int]]:
    """Ranges of the dims whose extents are integers."""
    return {name: range(extent.constant) for name, extent in dims if extent.is_constant}
