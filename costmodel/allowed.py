"""What the figures of a machine may be: the range of each by its name, wide enough for any machine and narrow enough
that no model overflows or divides by zero.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowed:
    """Values from `least` to `most`, both of them allowed unless `least` is `open`; whole numbers only if `whole`."""

    least: float
    most: float
    whole: bool = False
    open: bool = False

    def wrong(self, value: float) -> str | None:
        """Why a value is not allowed, or None."""
        if not math.isfinite(value):
            return f"needs a finite number, got {value}"
        if value < self.least or (self.open and value == self.least):
            least = "more than" if self.open else "at least"
            return f"needs {least} {self.least:g}, got {value:g}"
        if value > self.most:
            return f"needs at most {self.most:g}, got {value:g}"
        if self.whole and value != math.floor(value):
            return f"needs a whole number, got {value:g}"
        return None


def _count(most: float) -> Allowed:
    return Allowed(1.0, most, whole=True)


_RATE = Allowed(0.0, 1e15, open=True)
_BYTES = Allowed(1.0, 1e18)
_JOULES = Allowed(0.0, 1.0)
_CLOCKS = Allowed(0.0, 1e9)
_SECONDS = Allowed(0.0, 3600.0)

LAUNCH = {"kernel_seconds": _SECONDS}
"""Figures under `[launch]`; a launch that takes no time is allowed."""

LIMITS = {
    "threads_per_block": _count(1e9),
    "threads_per_sm": _count(1e9),
    "blocks_per_sm": _count(1e9),
    "warp_size": _count(1024.0),
    "registers_per_sm": _count(1e12),
    "registers_per_thread": _count(1e6),
    "shared_per_block_bytes": _count(1e15),
    "shared_reserved_per_block_bytes": Allowed(0.0, 1e12, whole=True),
    "semaphores_per_core": _count(1e9),
    "queue_depth": _count(1e9),
    "dma_descriptor_dims": _count(64.0),
    "dma_bytes_per_clock": Allowed(0.0, 1e15, open=True),
    "dma_setup_clocks": _CLOCKS,
    "issue_clocks": _CLOCKS,
    "vector_startup_clocks": _CLOCKS,
    "tensor_startup_clocks": _CLOCKS,
    "mapping_request_bytes": _count(1e9),
    "mapping_request": _CLOCKS,
    "mapping_store": _CLOCKS,
    "mapping_least_pass": _CLOCKS,
    "mapping_switch": _CLOCKS,
    "mapping_tile": _CLOCKS,
    "mapping_hidden": Allowed(0.0, 1.0),
}
"""Figures under `[limits]`, all that a model reads."""

_FIELDS = {
    "capacity_bytes": _BYTES,
    "bandwidth": Allowed(1.0, 1e21),
    "write_bandwidth": Allowed(1.0, 1e21),
    "link_bandwidth": Allowed(1.0, 1e21),
    "efficiency": Allowed(0.0, 1.0, open=True),
    "latency_seconds": Allowed(0.0, 3600.0, open=True),
    "line_bytes": _count(1e9),
    "clock_hz": Allowed(1.0, 1e15),
    "power_watts": Allowed(0.0, 1e9, open=True),
    "static_watts": Allowed(0.0, 1e9),
    "read_joules_per_byte": _JOULES,
    "write_joules_per_byte": _JOULES,
    "link_joules_per_byte": _JOULES,
    "joules_per_byte": _JOULES,
    "hop_seconds": _SECONDS,
}
_ENTRIES = {
    "limits": LIMITS,
    "launch": LAUNCH,
}
_TABLES = {
    "rate": _RATE,
    "peak": Allowed(0.0, 1e30, open=True),
    "array": _count(65536.0),
    "energy_joules_per_operation": _JOULES,
}


def allowed(path: str) -> Allowed:
    """What the figure of a path (`levels.l2.bandwidth`) may be.

    Raises ValueError with the nearest names for a limit or launch figure that no model reads.
    """
    parts = path.split(".")
    table, name = parts[-2] if len(parts) > 1 else "", parts[-1]
    if len(parts) == 2 and table in _ENTRIES:
        known = _ENTRIES[table]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
            raise ValueError(f"no model reads a figure of this name; nearest: {', '.join(near)}")
        return known[name]
    return _TABLES[table] if parts[0] == "units" and table in _TABLES else _FIELDS[name]
