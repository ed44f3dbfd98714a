"""Which figures of a machine file the models of its kind read. A figure that none reads would be a lie: its file is refused.

A model that begins to read a figure adds its path here; `*` stands for one name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

from codesign.ir.dtypes import DTYPES

_ENERGY = ("energy.read_joules_per_byte", "energy.write_joules_per_byte")
_PRODUCTS = (*DTYPES, "f8", "f4", "tf32")
"""Types of products: those of tensors, and the families and formats of matrix units that a product may run in."""

_ALL = ("power_watts", "static_watts", "links.*.bandwidth", "links.*.latency_seconds", "launch.kernel_seconds")
_TENSOR = tuple(f"units.tensor.{table}.{dtype}" for table in ("rate", "peak") for dtype in _PRODUCTS)

GPU = (
    *_ALL,
    *_TENSOR,
    *(f"levels.dram.{name}" for name in ("capacity_bytes", "bandwidth", "latency_seconds", "line_bytes", *_ENERGY)),
    *(f"levels.l2.{name}" for name in ("capacity_bytes", "bandwidth", "latency_seconds", *_ENERGY)),
    *(f"levels.llc.{name}" for name in ("capacity_bytes", "bandwidth")),
    *(f"levels.shared.{name}" for name in ("capacity_bytes", "bandwidth", *_ENERGY)),
    "levels.registers.capacity_bytes",
    "units.tensor.clock_hz",
    "units.vector.clock_hz",
    *(f"units.vector.{table}.{dtype}" for table in ("rate", "peak") for dtype in ("f32", "f64", "i32")),
    "units.vector.energy_joules_per_operation.f32",
    "units.special.clock_hz",
    "units.special.rate.f32",
    "units.special.peak.f32",
    "limits.threads_per_block",
    "limits.threads_per_sm",
    "limits.blocks_per_sm",
    "limits.warp_size",
    "limits.registers_per_sm",
    "limits.registers_per_thread",
    "limits.shared_per_block_bytes",
    "limits.shared_reserved_per_block_bytes",
)

DATAFLOW = (
    *_ALL,
    *_TENSOR,
    *(f"levels.*.{name}" for name in ("capacity_bytes", "bandwidth", *_ENERGY)),
    *(f"levels.*.{name}" for name in ("latency_seconds", "write_bandwidth")),
    "levels.dram.line_bytes",
    "levels.dram.efficiency",
    "levels.*.holds.axes.*.link_bandwidth",
    "levels.*.holds.axes.*.link_joules_per_byte",
    *(f"levels.*.network.{name}" for name in ("link_bandwidth", "hop_seconds", "joules_per_byte")),
    *(f"units.tensor.array.{side}" for side in ("rows", "columns", "depth")),
    *(f"units.tensor.energy_joules_per_operation.{dtype}" for dtype in _PRODUCTS),
    "units.*.clock_hz",
    *(f"units.*.{table}.{dtype}" for table in ("rate", "peak", "energy_joules_per_operation") for dtype in DTYPES),
    "limits.semaphores_per_core",
    "limits.queue_depth",
    "limits.dma_descriptor_dims",
    "limits.dma_bytes_per_clock",
    "limits.dma_setup_clocks",
    "limits.issue_clocks",
    "limits.vector_startup_clocks",
    "limits.tensor_startup_clocks",
    *(
        f"limits.mapping_{name}"
        for name in ("request_bytes", "request", "store", "least_pass", "switch", "tile", "hidden")
    ),
)
"""Of the levels between DRAM and the cores all figures, of the scratchpad and the array a part: see `_inside`."""


def _inside(path: str, place: str) -> bool:
    """Whether a figure of a level of this place on an accelerator is read by nobody: a scratchpad's port takes both
    directions in turn and its latency is in the startup of the units, an array's registers never bound."""
    name = path.split(".")[2]
    if place == "core":
        return name in ("latency_seconds", "write_bandwidth")
    return place == "array" and name not in ("capacity_bytes", "holds")


def unread(kind: str, paths: Iterable[str], places: dict[str, str]) -> list[tuple[str, str]]:
    """The figures of a machine of this kind that no model reads, each with the nearest that one does; `places`: of levels."""
    return [
        (path, nearest(kind, path))
        for path in paths
        if not _read(kind, path)
        or (kind == "dataflow" and path.startswith("levels.") and _inside(path, places[path.split(".")[1]]))
    ]


def nearest(kind: str, path: str) -> str:
    """Figures that are read and spelled like this one, as text."""
    known = GPU if kind == "gpu" else DATAFLOW
    return ", ".join(difflib.get_close_matches(path, known, n=3, cutoff=0.5)) or "none is like it"


@lru_cache(maxsize=4096)
def _read(kind: str, path: str) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in (GPU if kind == "gpu" else DATAFLOW))
