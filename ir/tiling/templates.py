"""Tiling: a fused group and the structure that a schedule gives it become a template of tile-level kernels.

The grid walks the outer dims; each program makes its blocks of the outputs, pulling what they need. Every schedule that names the
group's dims with power-of-two tiles gives a right kernel: lanes beyond an extent are guarded and take a reduction's identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codesign.ir.core import Block, Value, tensor_type
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds
from codesign.ir.schedule import Schedule
from codesign.ir.template import Template
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.tile import Kernel
from codesign.ir.tiling.domain import Domain
from codesign.ir.tiling.outputs import OutputMap, output_maps
from codesign.ir.tiling.program import Program
from codesign.ir.types import BufferType, TensorType


def template(
    fusion: Fusion,
    schedule: Schedule,
    *,
    name: str = "kernel",
    bounds: Bounds | None = None,
    outputs: Sequence[OutputMap] | None = None,
) -> tuple[Template, dict[str, int]]:
    """The template of all kernels that have the structure which a schedule gives, and the numbers of this schedule.

    Its buffers are `fusion.uses()`, then the results. `bounds`: ranges of the size symbols. `outputs`: the shapes that the results have
    in memory when the group was normalised (default: their own). Raises ScheduleError for a schedule that does not apply.
    """
    ranges = bounds or Bounds()
    for op in fusion.body.ops:
        if not isinstance(op, Compute):
            raise UnsupportedError(f"a {op.opcode} cannot be part of a fused kernel", place=op.location)
    yields = fusion.body.yields
    maps = outputs or output_maps(fusion)
    inputs = fusion.uses()
    taken: set[str] = set()
    buffers = {value: _buffer(tensor_type(value), value.name, taken) for value in inputs}
    results = [
        _buffer(where.type, value.name or "out", taken) for value, where in zip(fusion.results, maps, strict=True)
    ]
    domain = Domain(fusion, schedule, ranges)
    places = tuple((buffer, where.indices) for buffer, where in zip(results, maps, strict=True))
    program = Program(domain, buffers, fusion.computes, yields, places, fusion.writes)
    scope = program.run()
    params = [*buffers.values(), *results]
    kernel = Kernel(
        name=name,
        params=params,
        outputs=len(results),
        grid=domain.grid,
        body=Block(ops=scope.ops),
        schedule=Schedule(),
        symbols=(*_symbols(fusion, params), *domain.sizes),
        location=fusion.location,
        overwrites={k: inputs.index(write.base) for k, write in fusion.writes.items()},
    )
    return Template(kernel, domain.tiles, domain.depth, ranges, domain.along, domain.structure), domain.sizes


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
