"""Tiling: a fused group and the structure that a schedule gives it become a template of tile-level kernels.

The grid walks the outer dims; each program makes its blocks of the outputs, pulling what they need. Every schedule that names the
group's dims with power-of-two tiles gives a right kernel: lanes beyond an extent are guarded and take a reduction's identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from codesign.ir.core import Block, Op, Value, tensor_type
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, index
from codesign.ir.reach import Reach
from codesign.ir.schedule import Schedule
from codesign.ir.template import Template
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.tile import Band, GridDim, Kernel
from codesign.ir.tiling.domain import Domain, check_names, grid_order
from codesign.ir.tiling.outputs import OutputMap, output_maps
from codesign.ir.tiling.program import Output, Program
from codesign.ir.tiling.strands import restricted, strands
from codesign.ir.types import BufferType, TensorType


def template(
    fusion: Fusion,
    schedule: Schedule,
    *,
    name: str = "kernel",
    bounds: Bounds | None = None,
    outputs: Sequence[OutputMap] | None = None,
    reach: Mapping[str, Reach] | None = None,
) -> tuple[Template, dict[str, int]]:
    """The template of all kernels that have the structure which a schedule gives, and the numbers of this schedule.

    Its buffers are `fusion.uses()`, then the results. `bounds`: ranges of the size symbols. `outputs`: the shapes that the results have
    in memory when the group was normalised (default: their own). `reach`: of the group under these
    bounds, where it is known. Raises ScheduleError for a schedule that does not apply.
    """
    ranges = bounds or Bounds.of({}, {})
    for op in fusion.body.ops:
        if not isinstance(op, Compute):
            raise UnsupportedError(f"a {op.opcode} cannot be part of a fused kernel", place=op.location)
    maps = outputs or output_maps(fusion)
    inputs = fusion.uses()
    taken: set[str] = set()
    buffers = {value: _buffer(tensor_type(value), value.name, taken) for value in inputs}
    results = [
        _buffer(where.type, value.name or "out", taken) for value, where in zip(fusion.results, maps, strict=True)
    ]
    params = [*buffers.values(), *results]
    places = tuple((buffer, where.indices) for buffer, where in zip(results, maps, strict=True))
    check_names(schedule, fusion.dims())
    nests = _nests(fusion, schedule, ranges, buffers, places, reach)
    grid, body = _side_by_side(nests) if len(nests) > 1 else (nests[0][0].grid, Block(ops=nests[0][1]))
    sizes = {symbol: size for domain, _ in nests for symbol, size in domain.sizes.items()}
    kernel = Kernel(
        name=name,
        params=params,
        outputs=len(results),
        grid=grid,
        body=body,
        schedule=Schedule(),
        symbols=(*_symbols(fusion, params), *sizes),
        location=fusion.location,
        overwrites={k: inputs.index(write.base) for k, write in fusion.writes.items()},
    )
    along = {name: dim for domain, _ in nests for name, dim in domain.along.items()}
    tiles = {dim: symbol for domain, _ in nests for dim, symbol in domain.tiles.items()}
    first = nests[0][0]
    structure = first.structure if len(nests) == 1 else tuple(domain.structure for domain, _ in nests)
    parted = {name: stretch for domain, _ in nests for name, stretch in domain.stretches.items()}
    return Template(kernel, tiles, first.depth, ranges, along, structure, parted), sizes


def _nests(
    fusion: Fusion,
    schedule: Schedule,
    bounds: Bounds,
    buffers: Mapping[Value, Value],
    places: Sequence[Output],
    reach: Mapping[str, Reach] | None,
) -> list[tuple[Domain, list[Op]]]:
    """The loop nests of a group, one for each of its strands: their domains and what a program of each does."""
    found: list[tuple[Domain, list[Op]]] = []
    parts = strands(fusion)
    if len(parts) > 1:
        grid_order(fusion, schedule)  # that it names no others
    for strand in parts:
        own = restricted(schedule, strand.fusion) if len(parts) > 1 else schedule
        known = reach if strand.fusion is fusion else None
        domain = Domain(strand.fusion, own, bounds, found[0][0] if found else None, known)
        outputs = tuple(places[k] for k in strand.results)
        yields = strand.fusion.body.yields
        program = Program(domain, buffers, strand.fusion.computes, yields, outputs, strand.fusion.writes)
        found.append((domain, program.run().ops))
    return found


def _side_by_side(nests: Sequence[tuple[Domain, list[Op]]]) -> tuple[tuple[GridDim, ...], Block]:
    """A grid of the programs of all nests one after the other, and a band of it for each."""
    variable, first = nests[0][0].fresh("number"), index(0)
    bands: list[Op] = []
    for domain, ops in nests:
        band = Band(variable, first, domain.grid, Block(ops=ops))
        bands.append(band)
        first = band.end
    return (GridDim(variable, first),), Block(ops=bands)


def _buffer(type: TensorType, name: str, taken: set[str]) -> Value:
    base = candidate = name or "x"
    count = 1
    while candidate in taken:
        count += 1
        candidate = f"{base}_{count}"
    taken.add(candidate)
    return Value(BufferType(type.dtype, type.shape), candidate)


def _symbols(fusion: Fusion, params: Iterable[Value]) -> tuple[str, ...]:
    dims = set(fusion.dims())
    names: dict[str, None] = {}
    sizes = [*fusion.dims().values(), *(size for value in params for size in value.shape)]
    for compute in fusion.computes:
        names.update(dict.fromkeys(sorted(compute.body.variables() - dims)))
    for size in sizes:
        names.update(dict.fromkeys(sorted(size.variables())))
    return tuple(name for name in names if name not in dims)
