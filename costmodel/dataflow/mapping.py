"""Layers under a given mapping: loop nests as mapping tools write them, priced as they are and not searched.

`L3[WIO] K6 - L2[WI] N1 K16X - L1[O] K8 C48 P4 C16X - L0[W] P32`: memories from the outermost in, what each keeps, its loops from the
outermost in, and `X` where a factor is spread over the array. The outermost memory's loops run over tiles that the others hold. Per tile the
stationary operand changes for each block of the array, output rows pass it in groups of the array's side, and transfers go in requests; the
longer of computing and moving decides, less perfectly than if they hid each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.machine import Machine
from codesign.ir.errors import ScheduleError

DIMS = ("N", "P", "Q", "K", "C", "R", "S")
"""Batch, output pixels along the contiguous axis and the other, output and input channels, window."""
_LEVEL = re.compile(r"\s*L\d+\[\w*\]((?:\s+[A-Z]\d+X?)*)\s*")
_LOOP = re.compile(r"([A-Z])(\d+)(X?)")

Loops = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class LoopNest:
    """A mapping: loops of the outermost memory, slowest first, and the size of the tile inside along each dim."""

    outer: Loops
    tile: Mapping[str, int]

    @property
    def tiles(self) -> int:
        return prod(count for _, count in self.outer)

    def loads(self, dims: str) -> int:
        """How often a tile that depends on some dims changes, when it stays through the loops inside of the last of them."""
        last = max((i for i, (dim, _) in enumerate(self.outer) if dim in dims), default=-1)
        return prod(count for _, count in self.outer[: last + 1])


def parse_mapping(text: str) -> LoopNest:
    """A mapping from its text; ScheduleError for anything else."""
    levels: list[list[tuple[str, int]]] = []
    for part in text.split(" - "):
        found = _LEVEL.fullmatch(part)
        loops = [(dim, int(count)) for dim, count, _ in _LOOP.findall(found[1])] if found else []
        if not found or any(dim not in DIMS or count < 1 for dim, count in loops):
            raise ScheduleError(
                f"mapping: cannot read {part[:60]!r}", hint=f"L3[WIO] K6 - L2[WI] K16X ..., over {', '.join(DIMS)}"
            )
        levels.append(loops)
    tile = dict.fromkeys(DIMS, 1)
    for loops in levels[1:]:
        for dim, count in loops:
            tile[dim] *= count
    return LoopNest(tuple((dim, count) for dim, count in levels[0] if count > 1), tile)


@dataclass(frozen=True)
class Figures:
    """What a machine file says of requests and passes, in clocks; where it says nothing, they cost nothing of their own.

    `request`: start of a transfer's request of `request_bytes` at most; `store`: of one that stores; `least_pass`: of rows through the array;
    `switch`: of the stationary operand; `tile`: of the next tile; `hidden`: share of the shorter of computing and moving that the
    longer one hides.
    """

    request_bytes: float = 64.0
    request: float = 0.0
    store: float = 0.0
    least_pass: float = 1.0
    switch: float = 0.0
    tile: float = 0.0
    hidden: float = 1.0

    @staticmethod
    def of(machine: Machine) -> Figures:
        named = {field: f"mapping_{field}" for field in Figures.__dataclass_fields__}
        return Figures(**{field: machine.limit(name) for field, name in named.items() if name in machine.limits})


@dataclass(frozen=True)
class Layer:
    """A layer's sizes by dim, its stride and the bytes of a value."""

    sizes: Mapping[str, int]
    stride: int = 1
    width: float = 1.0


def mapping_seconds(machine: Machine, nest: LoopNest, layer: Layer) -> float:
    """Seconds of a layer under a mapping, as the machine's figures have it."""
    target = target_of(machine)
    return float(target.launch_seconds + mapping_clocks(target, Figures.of(machine), nest, layer) / target.clock_hz)


def mapping_clocks(target: Target, figures: Figures, nest: LoopNest, layer: Layer) -> float:
    """Clocks of a layer under a mapping, its start aside."""
    sizes, tile, width = layer.sizes, nest.tile, layer.width
    flat = sizes["R"] * sizes["S"] * sizes["Q"] == 1  # a product keeps what stays; a convolution loads each tile anew
    compute = _compute_clocks(tile, target.array.rows, target.array.columns, figures) * nest.tiles

    def load(runs: float, run: float) -> float:
        return float(runs * (ceil(run / figures.request_bytes) * figures.request + run / target.dma_bytes_per_clock))

    rows, columns = ((tile[a] - 1) * layer.stride + tile[b] for a, b in ("PR", "QS"))
    weights = load(tile["C"] * tile["R"] * tile["S"], tile["K"] * width)
    inputs = load(tile["N"] * rows * columns, tile["C"] * width)
    outputs = tile["N"] * tile["P"] * tile["Q"] * ceil(tile["K"] * width / figures.request_bytes) * figures.store
    steps = prod(ceil(sizes[dim] / tile[dim]) for dim in "CRS")
    moving = outputs * nest.tiles / steps
    moving += weights * (nest.loads("CKRS") if flat else nest.tiles)
    moving += inputs * (nest.loads("NPQCRS") if flat else nest.tiles)
    return max(compute, moving) + (1.0 - figures.hidden) * min(compute, moving) + figures.tile * nest.tiles


def _compute_clocks(tile: Mapping[str, int], rows: int, columns: int, figures: Figures) -> float:
    """Clocks of the array for one tile: each stationary block takes in the rows of the tile, in groups along the contiguous axis."""
    blocks = ceil(tile["C"] / rows) * ceil(tile["K"] / columns) * tile["R"] * tile["S"]
    whole, rest = divmod(tile["P"], rows)
    passes = whole * max(rows, figures.least_pass) + (max(rest, figures.least_pass) if rest else 0.0)
    return blocks * (figures.switch + tile["N"] * tile["Q"] * passes)
