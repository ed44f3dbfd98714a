"""Products of the vector unit as single threads hold them: loads of their operands, the windows that they slide over, registers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.costmodel.gpu.geometry import Array, Geometry
from codesign.costmodel.summary import Access, Nest


def thread_requests(rows: str, columns: str, g: Geometry, m: Array, n: Array, warps: Array) -> Array:
    """Clocks of the load path that one warp takes for its operands of one element of k, when threads of the vector
    unit hold part of the tile.

    A thread holds tm x tn results and loads its `rows` and `columns` (the dims along m and n) in vectors. Lanes along m read
    different words, those along n repeat them. A thread's elements lie together, so lanes are tm words apart and collide in the banks
    of shared memory unless one vector takes them all.
    """
    even = np.sqrt(np.maximum(m * n / (warps * 32.0), 1.0))
    clocks: Array = 0.0
    lanes_m = np.clip(m / g.thread.get(f"inner.thread.{rows}", even), 1.0, 32.0)
    for side, size, lanes in ((rows, m, lanes_m), (columns, n, 32.0 / lanes_m)):
        held = g.thread.get(f"inner.thread.{side}", even)
        vector = np.minimum(g.thread.get(f"vector.{side}", 4.0), np.minimum(held, 4.0))  # words of one request
        staged = np.greater(g.thread.get(f"staged.{side}", 1.0), 0.0)
        shared = np.maximum(lanes * held / 32.0, 1.0)  # lanes a run apart use one bank in `held`, whatever the vector
        lines = np.maximum(lanes * held * 4.0 / 128.0, 1.0)  # lines of L1 that one request touches
        clocks = clocks + held / vector * np.where(staged, shared, 1.0 + lines)
        if f"loaders.{side}" in g.thread:  # threads along the side that copy the tile to shared memory, a run each
            loaders = g.thread[f"loaders.{side}"]
            run = np.maximum(size / loaders, 1.0)
            words = np.minimum(g.thread.get(f"vector.{side}", 4.0), np.minimum(run, 4.0))
            requests = size / (32.0 * words * warps)  # of one warp, for one element of k
            touched = np.maximum(np.minimum(loaders, 32.0) * run * 4.0 / 128.0, 1.0) * 32.0 / np.minimum(loaders, 32.0)
            stored = np.maximum(words, 1.0) * np.clip(run / words, 1.0, 32.0)
            clocks = clocks + np.where(staged, requests * (2.0 * touched + stored), 0.0)
    return clocks


@dataclass(frozen=True)
class Window:
    """An operand of a contraction that neighbouring results share in part: `slides` maps an outer dim of its index to
    the reduced dim that is added to it, in the order of the tensor's dims."""

    access: Access
    slides: dict[str, str]


def window_of(nest: Nest) -> Window | None:
    """The sliding window that a contraction reads, as a filter or a convolution does; None when it reads none."""
    found = nest.contraction
    assert found is not None
    for access in nest.loads:
        slides = {}
        for expression in access.index:
            names = expression.variables()
            for dim in found.m:
                inner = [name for name in found.k if name in names]
                if dim in names and inner:
                    slides[dim] = inner[0]
        if slides:
            return Window(access, slides)
    return None


def threads_held(window: Window, g: Geometry) -> Array:
    """Results that one thread holds."""
    held: Array = 1.0
    for dim in window.slides:
        held = held * g.thread.get(f"inner.thread.{dim}", 1.0)
    return held


def _window_extent(window: Window, g: Geometry, dim: str) -> Array:
    """Elements along a dim that the tile of a block reads, with the border that neighbouring blocks read too."""
    return g.tile[dim] + g.tile[window.slides[dim]] - 1.0


def window_clocks(window: Window, g: Geometry, warps: Array) -> tuple[Array, Array]:
    """Clocks of the load path for a window's operands of one block and for the copy of its tile to shared memory, and
    how many loads warps wait for.

    A thread's results lie `apart` elements from each other, so that lanes read neighbours. What several of its results
    read is loaded once: windows that overlap are joined. Reads that must be guarded, where tiles stick out of the
    tensor, are not joined. A warp whose lanes lie in two rows of shared memory collides in its banks unless the pitch
    of the rows sets them beside each other.
    """
    fast = list(window.slides)[-1]
    staged = np.greater(g.thread.get(f"staged.{fast}", 1.0), 0.0)
    joined: Array = 1.0
    single: Array = 1.0
    whole: Array = True
    passes: Array = 1.0
    for dim, inner in window.slides.items():
        size, held = g.tile[inner], g.thread.get(f"inner.thread.{dim}", 1.0)
        apart = g.thread.get(f"apart.{dim}", 1.0)
        joined = joined * (size + (held - 1.0) * np.minimum(apart, size))
        single = single * size * held
        whole = np.logical_and(whole, np.equal(np.mod(g.extents[dim], g.tile[dim]), 0.0))
        passes = passes * np.ceil(_window_extent(window, g, dim) / g.thread.get(f"loaders.{dim}", apart))
    row = g.thread.get(f"apart.{fast}", 32.0)
    pitch = g.thread.get(f"pitch.{fast}", _window_extent(window, g, fast))
    read_only = np.greater(g.thread.get(f"read_only.{fast}", 0.0), 0.0)
    direct = np.where(whole, joined, single)
    clocks = np.where(
        staged,
        joined * _row_passes(row, pitch) + passes * COPY_CLOCKS,
        direct * np.where(read_only, TEXTURE_CLOCKS, WINDOW_CLOCKS),
    )
    return warps * clocks, warps * np.where(staged, joined, direct)


COPY_CLOCKS = 5.0
"""Clocks of the load path for one word a lane from global to shared memory: request, line, and store."""

WINDOW_CLOCKS = 1.5
"""Clocks of one word a lane through L1 where the lanes' words begin anywhere in a line."""

TEXTURE_CLOCKS = 4.0
"""Clocks of one word a lane through the texture path, which read-only loads take: 16 words and half a line a clock."""


def _row_passes(row: Array, pitch: Array) -> Array:
    """Passes of one access of shared memory by a warp whose lanes read rows of `row` words, `pitch` words apart, on
    average over the warps of a block: two where a warp crosses the end of a row and the rows share banks."""
    together = np.lcm(np.asarray(row, dtype=np.int64), 32)
    crossing = (together / row - 1.0) / (together / 32.0)
    return 1.0 + np.where(np.equal(np.mod(pitch - row, 32.0), 0.0), 0.0, crossing)


def window_bytes(window: Window, g: Geometry) -> Array:
    """Shared memory of a window's tile, where it is staged."""
    fast = list(window.slides)[-1]
    pitch: Array = g.thread.get(f"pitch.{fast}", _window_extent(window, g, fast))
    size: Array = pitch * float(window.access.dtype.bytes)
    for dim in window.slides:
        if dim != fast:
            size = size * _window_extent(window, g, dim)
    return np.where(np.greater(g.thread.get(f"staged.{fast}", 1.0), 0.0), size, 0.0)


def thread_registers(nest: Nest, g: Geometry) -> Array:
    """Registers of a thread for its operands of one element of k and for the vectors in flight; 0 when threads are
    not scheduled."""
    found = nest.contraction
    assert found is not None
    total: Array = 0.0
    for side in (found.m[-1], found.n[-1]):
        if f"inner.thread.{side}" in g.thread:
            total = total + g.thread[f"inner.thread.{side}"] + 2.0 * g.thread.get(f"vector.{side}", 4.0)
    return total
