"""`linalg.generic`: parallel loops are a compute, loops that reduce are one with a monoid that is read off the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from codesign.frontend.lowering.builder import read
from codesign.frontend.mlir.affine import affine
from codesign.frontend.mlir.monoids import Plain, combined, position_of_best
from codesign.frontend.mlir.reader import Held, Reader, Undefined
from codesign.frontend.mlir.scalars import dtype_of, plain
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F32, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Index, index
from codesign.ir.scalar import Apply, Literal, Read, Scalar, cast
from codesign.ir.tensor import Compute, Dim
from codesign.ir.tiling.monoids import combine
from codesign.ir.types import TensorType

_HINT = "leave --frontend torch-mlir out"

NARROW_SUMS = "torch-mlir adds 16-bit floats in 16 bits; they are added in float32, as PyTorch does"


@dataclass(frozen=True)
class Loops:
    """The loops of a `linalg.generic`: an index expression and a dim for each, and which of them reduce."""

    dims: tuple[Dim, ...]
    reduces: tuple[bool, ...]

    @property
    def points(self) -> list[Index]:
        return [index(dim.name) for dim in self.dims]

    @property
    def reductions(self) -> tuple[Dim, ...]:
        return tuple(dim for dim, reduces in zip(self.dims, self.reduces, strict=True) if reduces)


def generic(reader: Reader, op: Any) -> list[Held]:
    """The results of one `linalg.generic`."""
    segments = [int(n) for n in op.attributes["operandSegmentSizes"]]
    operands: list[Held] = [reader.env[value] for value in op.operands]
    maps = [attribute.value for attribute in op.attributes["indexing_maps"]]
    loops = _loops(reader, op, operands, maps)
    inputs, starts = operands[: segments[0]], operands[segments[0] :]
    own = maps[segments[0] :]
    given = [
        reader.element(held, _point(map, loops.points)) for held, map in zip(inputs, maps[: segments[0]], strict=True)
    ]
    kinds = [dtype_of(start.type.element_type) for start in list(op.operands)[segments[0] :]]
    if not loops.reductions:
        outs = [reader.element(held, _point(map, loops.points)) for held, map in zip(starts, own, strict=True)]
    else:
        outs = [Read(Value(TensorType(kind, ()), f"carried_{k}"), ()) for k, kind in enumerate(kinds)]
    extents = {dim.name: dim.extent for dim in loops.dims}
    values = reader.body(op.regions[0].blocks[0], [*given, *outs], loops.points, extents)
    if not loops.reductions:
        if any(dim.extent == 0 for dim in loops.dims):
            values = [Literal(0, kind) for kind in kinds]
        made = (_parallel(reader, value, kind, map, loops) for value, kind, map in zip(values, kinds, own, strict=True))
        return list(made)
    convolves = any("+" in str(map) for map in maps)
    return [_reduced(reader, k, values, outs, starts[k], kinds[k], own[k], loops, convolves) for k in range(len(kinds))]


def _loops(reader: Reader, op: Any, operands: Sequence[Held], maps: Sequence[Any]) -> Loops:
    """Extents from the shapes that are indexed by a loop alone; results first, whose sizes are given."""
    reduces = tuple("reduction" in str(kind) for kind in op.attributes["iterator_types"])
    extents: dict[int, Index] = {}
    for held, map in reversed(list(zip(operands, maps, strict=True))):
        for expression, size in zip(map.results, reader.shape_of(held), strict=True):
            position = _position(expression)
            if position is not None and (position not in extents or not extents[position].is_constant):
                extents[position] = size
    if len(extents) != len(reduces):
        raise UnsupportedError("a linalg.generic whose loops have no sizes", place=reader.b.location, hint=_HINT)
    dims = tuple(Dim(f"{'r' if r else 'i'}{k}", extents[k]) for k, r in enumerate(reduces))
    return Loops(dims, reduces)


def _position(expression: Any) -> int | None:
    return int(expression.position) if type(expression).__name__ == "AffineDimExpr" else None


def _point(map: Any, points: Sequence[Index]) -> list[Index]:
    """The results of an affine map at a point."""
    return [affine(expression, points) for expression in map.results]


def _dims_of(map: Any, loops: Loops, reader: Reader) -> tuple[Dim, ...]:
    """The dims of a result in its own order; a constant place is a dim of size 1."""
    dims = []
    for k, expression in enumerate(map.results):
        position = _position(expression)
        dims.append(Dim(f"o{k}", index(1)) if position is None else loops.dims[position])
    parallel = {dim.name for dim, reduces in zip(loops.dims, loops.reduces, strict=True) if not reduces}
    if parallel - {dim.name for dim in dims}:
        raise UnsupportedError("a linalg.generic that writes an element twice", place=reader.b.location, hint=_HINT)
    return tuple(dims)


def _parallel(reader: Reader, value: Scalar, kind: DType, map: Any, loops: Loops) -> Value:
    dims = _dims_of(map, loops, reader)
    return reader.b.add(Compute(dims, reader.stored(value, kind), dtype=kind, name=reader.b.name)).result


def _reduced(
    reader: Reader,
    k: int,
    values: Sequence[Scalar],
    carried: Sequence[Scalar],
    start: Held,
    kind: DType,
    map: Any,
    loops: Loops,
    convolves: bool,
) -> Value:
    """Result k of loops that reduce: its terms combined, then with what it starts from."""
    dims = _dims_of(map, loops, reader)
    own = carried[k]
    assert isinstance(own, Read)
    found = combined(values[k], own)
    if found is None or any(isinstance(c, Read) and c in found.term.reads() for c in carried):
        return _position_result(reader, k, values, carried, kind, dims, loops)
    term, sums = found.term, found.term.dtype
    if found.monoid in ("sum", "prod") and kind.is_float and kind.bits < 32:
        if term.dtype is kind:
            reader.b.warnings.append(NARROW_SUMS)
        sums = F32
    term = _multiplied(reader, cast(term, sums), convolves) if found.monoid == "sum" else cast(term, sums)
    if any(dim.extent == 0 for dim in loops.dims):
        term = Literal(0, term.dtype)
    joins = not _is_neutral(start, found.monoid)
    result = reader.b.add(
        Compute(
            dims,
            term,
            reductions=loops.reductions,
            monoid=found.monoid,
            accumulate=sums,
            dtype=sums if joins else kind,
            name=reader.b.name,
        )
    ).result
    if not joins:
        return result
    points = [index(dim.name) for dim in dims]
    first = cast(reader.element(start, points), sums)
    body = cast(combine(found.monoid, first, read(result, points)), kind)
    return reader.b.add(Compute(dims, body, dtype=kind, name=reader.b.name)).result


def _multiplied(reader: Reader, term: Scalar, convolves: bool) -> Scalar:
    """A product of float32 as precise as torch is told to make it."""
    if isinstance(term, Apply) and term.function == "mul" and all(a.reads() for a in term.args):
        x, y = term.args
        return reader.b.products.multiply(x, y, term.dtype, "convolution" if convolves else "matmul")
    return term


def _position_result(
    reader: Reader,
    k: int,
    values: Sequence[Scalar],
    carried: Sequence[Scalar],
    kind: DType,
    dims: tuple[Dim, ...],
    loops: Loops,
) -> Value:
    """The place of an extremum, found by the result beside it that is the extremum itself."""
    place = carried[k]
    for other, best in enumerate(carried):
        if other == k or not isinstance(best, Read) or not isinstance(place, Read):
            continue
        found = position_of_best(values[other], values[k], best, place)
        if found is None or len(loops.reductions) != 1:
            continue
        which, term, position = found
        inner = position.args[0] if isinstance(position, Apply) and position.function == "cast" else position
        at = plain(inner)
        if at is not None and at.variable == loops.reductions[0].name:
            op = Compute(dims, term, reductions=loops.reductions, monoid=which, dtype=kind, name=reader.b.name)
            return reader.b.add(op).result
    raise UnsupportedError(
        f"a reduction of torch-mlir that is no sum, product, extremum or place of one: {values[k]}"[:160],
        place=reader.b.location,
        hint=_HINT,
    )


def _is_neutral(start: Held, monoid: Plain) -> bool:
    """Whether a reduction starts from what changes nothing."""
    if isinstance(start, Undefined):
        return True
    value = start if isinstance(start, Scalar) else uniform(start)
    if not isinstance(value, Literal):
        return False
    number, dtype = value.value, value.dtype
    if monoid in ("sum", "prod"):
        return bool(number == (0 if monoid == "sum" else 1))
    if monoid in ("any", "all"):
        return bool(number) == (monoid == "all")
    lowest = -_largest(dtype) if dtype.is_float else -(2 ** (dtype.bits - 1))
    highest = _largest(dtype) if dtype.is_float else 2 ** (dtype.bits - 1) - 1
    return bool(number <= lowest if monoid == "max" else number >= highest)


def _largest(dtype: DType) -> float:
    """The largest finite number of a float."""
    exponent = {64: 1023, 32: 127, 16: 127 if dtype.mantissa == 7 else 15}.get(dtype.bits, 8)
    return float((2 - 2.0**-dtype.mantissa) * 2.0**exponent)


def uniform(value: Value) -> Scalar | None:
    """The number that all elements of a tensor are, where it was filled."""
    op = value.owner
    if isinstance(op, Compute) and not op.reductions and isinstance(op.body, Literal):
        return cast(op.body, tensor_type(value).dtype)
    return None
