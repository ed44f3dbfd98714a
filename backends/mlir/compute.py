"""A compute as `linalg.generic`: reads at plain dims are its operands, all others are taken in its body by `tensor.extract`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from codesign.backends.mlir.writer import element, tensor
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, I64, DType
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Read, Scalar, cast
from codesign.ir.tensor import Compute, Dim
from codesign.ir.tiling.monoids import FUNCTIONS, identity
from codesign.ir.types import TensorType

if TYPE_CHECKING:
    from codesign.backends.mlir.module import Emitter
    from codesign.backends.mlir.scalars import Scalars


def compute(e: Emitter, op: Compute) -> None:
    """One or two `linalg.generic`: what is reduced in a dtype of its own is converted in the second."""
    if not op.reductions:
        start = e.empty(op.result.type)
        (e.values[op.result],) = _generic(e, op, cast(op.body, op.dtype), [(start, op.dtype)], None)
        return
    places = op.monoid in ("argmax", "argmin")
    sums = BOOL if op.monoid in ("any", "all") else op.body.dtype if places else op.accumulate
    kind = TensorType(sums, op.result.shape)
    assert op.monoid is not None
    starts = [(_filled(e, kind, identity(op.monoid, sums).value), sums)]
    if places:
        starts.append((_filled(e, TensorType(I64, op.result.shape), 0), I64))
    found = _generic(e, op, cast(op.body, sums), starts, op.monoid)
    reduced = Value(TensorType(starts[-1][1], op.result.shape), op.result.name)
    e.values[reduced] = found[-1]
    if reduced.type == op.result.type:
        e.values[op.result] = found[-1]
        return
    point = [index(dim.name) for dim in op.dims]
    compute(e, second := Compute(op.dims, cast(Read(reduced, point), op.dtype), dtype=op.dtype, location=op.location))
    e.values[op.result] = e.values[second.result]


def _filled(e: Emitter, kind: TensorType, value: float) -> str:
    empty = e.empty(kind)
    first = e.w.constant(value, kind.dtype)
    return e.w.value(
        f"linalg.fill ins({first} : {element(kind.dtype)}) outs({empty} : {tensor(kind)}) -> {tensor(kind)}"
    )


def _operands(body: Scalar, extents: dict[str, Index]) -> list[Read]:
    """Reads whose every index is a dim of its own, over the whole of the tensor."""
    found = []
    for read in body.reads():
        names = [i.variable for i in read.indices]
        sizes = tensor_type(read.source).shape
        plain = all(name in extents for name in names) and len(set(names)) == len(names)
        if plain and all(extents[str(name)] == size for name, size in zip(names, sizes, strict=True)):
            found.append(read)
    return found


def _map(dims: Sequence[Dim], places: Sequence[str | None]) -> str:
    positions = {dim.name: f"d{k}" for k, dim in enumerate(dims)}
    inner = ", ".join(positions[str(name)] for name in places)
    return f"affine_map<({', '.join(positions.values())}) -> ({inner})>"


def _generic(e: Emitter, op: Compute, body: Scalar, starts: list[tuple[str, DType]], monoid: str | None) -> list[str]:
    """The operation; the names of its results."""
    dims = op.domain
    extents = op.extents()
    reads = _operands(body, extents)
    maps = [_map(dims, [i.variable for i in read.indices]) for read in reads]
    given = [e.values[read.source] for read in reads]
    kinds = [tensor(read.source.type) for read in reads]
    covered = {i.variable for read in reads for i in read.indices}
    lacking = [dim for dim in op.reductions if dim.name not in covered]
    if lacking:  # only shapes the loops
        shape = TensorType(BOOL, tuple(dim.extent for dim in lacking))
        given.append(e.empty(shape))
        kinds.append(tensor(shape))
        maps.append(_map(dims, [dim.name for dim in lacking]))
    outs = [TensorType(dtype, op.result.shape) for _, dtype in starts]
    maps += [_map(dims, [dim.name for dim in op.dims])] * len(outs)
    iterators = ", ".join('"parallel"' if k < len(op.dims) else '"reduction"' for k in range(len(dims)))
    results = [e.w.fresh() for _ in outs]
    named = ", ".join(tensor(kind) for kind in outs)
    ins = f" ins({', '.join(given)} : {', '.join(kinds)})" if given else ""
    opening = (
        f"{', '.join(results)} = linalg.generic {{indexing_maps = [{', '.join(maps)}], iterator_types = [{iterators}]}}"
        f"{ins} outs({', '.join(name for name, _ in starts)} : {named}) {{"
    )
    closing = f"}} -> {named}" if len(outs) == 1 else f"}} -> ({named})"
    with e.w.block(opening, closing):
        _body(e, op, body, reads, outs, bool(lacking), monoid)
    return results


def _body(
    e: Emitter,
    op: Compute,
    body: Scalar,
    reads: list[Read],
    outs: list[TensorType],
    shaped: bool,
    monoid: str | None,
) -> None:
    """The region: operands, then what was reduced before."""
    inputs = [e.w.fresh("in") for _ in reads]
    before = [e.w.fresh("out") for _ in outs]
    arguments = [f"{name}: {element(read.dtype)}" for name, read in zip(inputs, reads, strict=True)]
    arguments += [f"{e.w.fresh('in')}: i1"] if shaped else []
    arguments += [f"{name}: {element(kind.dtype)}" for name, kind in zip(before, outs, strict=True)]
    e.w.line(f"^bb0({', '.join(arguments)}):")
    apart = [node for node in body.walk() if node not in reads]
    used = {name for node in apart for i in node.index_expressions() for name in i.variables()}
    used |= {dim.name for dim in op.reductions if monoid in ("argmax", "argmin")}
    places = [(k, dim.name) for k, dim in enumerate(op.domain) if dim.name in used]
    names = {name: e.w.value(f"linalg.index {k} : index") for k, name in places}
    scalars = e.scalars(names, op.bounds(e.bounds))
    scalars.known.update(zip(reads, inputs, strict=True))
    term = scalars.scalar(body)
    if monoid in ("argmax", "argmin"):
        yielded = _better(scalars, op, monoid, term, before, outs[0].dtype)
    else:
        yielded = [term if monoid is None else scalars.apply(FUNCTIONS[monoid], [before[0], term], outs[0].dtype)]
    e.w.line(f"linalg.yield {', '.join(yielded)} : {', '.join(element(kind.dtype) for kind in outs)}")


def _better(scalars: Scalars, op: Compute, monoid: str, term: str, before: list[str], dtype: DType) -> list[str]:
    """The extremum and its place: the first of equals, and of NaN."""
    best, place = before
    wins = scalars.apply("gt" if monoid == "argmax" else "lt", [term, best], dtype)
    if dtype.is_float:
        known = scalars.apply("not", [scalars.apply("isnan", [best], dtype)], BOOL)
        first = scalars.apply("and", [scalars.apply("isnan", [term], dtype), known], BOOL)
        wins = scalars.apply("or", [wins, first], BOOL)
    here = scalars.scalar(IndexValue(index(op.reductions[0].name)))
    return [scalars.apply("select", [wins, term, best], dtype), scalars.apply("select", [wins, here, place], I64)]
