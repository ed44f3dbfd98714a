"""Verification of one kernel on whatever runs kernels: against the meaning of its fused group, on random inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from codesign.backends.verification.compare import Verification, compare
from codesign.backends.verification.shrink import shrink
from codesign.ir.index import Bounds
from codesign.ir.tile import Kernel
from codesign.passes.normalize import Normalized
from codesign.passes.tile import lower

Array = npt.NDArray[Any]

Runner = Callable[[Kernel, list[Array], Mapping[str, int]], list[Array]]
"""Runs a kernel on arrays at values of its size symbols."""


def verify_on(
    runner: Runner,
    group: Normalized,
    kernel: Kernel,
    *,
    bounds: Bounds | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int | None = None,
    device: str = "cpu",
) -> Verification:
    """Run a kernel, or its lowering at shorter extents where it is big, and compare with the group's meaning in the IR's interpreter.

    `group`: the normalised group that the kernel was lowered from. `sizes`: of its symbols (two tiles and a bit by default). `seed`: of
    the random inputs (fresh ones by default). `device`: where the comparison says that it ran.
    """
    ranges = bounds or Bounds()
    small = shrink(group, kernel.schedule)
    if small.changed:
        normal = small.group
        kernel = lower(normal.fusion, kernel.schedule, name=kernel.name, bounds=ranges, outputs=normal.outputs)

    def run(arrays: list[Array], values: Mapping[str, int]) -> list[Array]:
        return runner(kernel, arrays, values)

    values = sizes if sizes is not None else sizes_of_tiles(kernel, ranges)
    return compare(small.group, run, sizes=values, seed=seed, extents=small.changed, device=device)


def sizes_of_tiles(kernel: Kernel, bounds: Bounds) -> dict[str, int]:
    """A size for each symbol: two tiles and a bit, within its range."""
    widest = max(kernel.schedule.tiles.values(), default=16)
    sizes = {}
    for name in kernel.symbols:
        low, high = bounds.symbols.get(name, (1, None))
        wish = min(2 * widest + 3, 259)
        sizes[name] = max(low, wish if high is None else min(wish, high))
    return sizes
