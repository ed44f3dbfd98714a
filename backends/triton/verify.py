"""Verification of Triton kernels: each against the meaning of its fused group, on fresh random inputs."""

from __future__ import annotations

from collections.abc import Mapping

from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import Array, run_kernel
from codesign.backends.verification import Verification, compare, shrink
from codesign.ir.index import Bounds
from codesign.ir.tile import Kernel
from codesign.passes.normalize import Normalized
from codesign.passes.tile import lower


def verify_kernel(
    group: Normalized,
    kernel: Kernel,
    *,
    bounds: Bounds | None = None,
    seed: int | None = None,
    device: str = "cpu",
) -> Verification:
    """Run a kernel, or its lowering at shorter extents where it is big, and compare with the group's meaning in the IR's interpreter.

    `group`: the normalised group that the kernel was lowered from. `seed`: of the random inputs (fresh ones by default).
    """
    ranges = bounds or Bounds()
    small = shrink(group, kernel.schedule)
    if small.changed:
        normal = small.group
        kernel = lower(normal.fusion, kernel.schedule, name=kernel.name, bounds=ranges, outputs=normal.outputs)

    def run(arrays: list[Array], sizes: Mapping[str, int]) -> list[Array]:
        return run_kernel(kernel, arrays, sizes, device=device, emitted=emission(kernel, ranges))

    return compare(small.group, run, sizes=_sizes(kernel, ranges), seed=seed, extents=small.changed, device=device)


def _sizes(kernel: Kernel, bounds: Bounds) -> dict[str, int]:
    """A size for each symbol: two tiles and a bit, within its range."""
    widest = max(kernel.schedule.tiles.values(), default=16)
    sizes = {}
    for name in kernel.symbols:
        low, high = bounds.symbols.get(name, (1, None))
        wish = min(2 * widest + 3, 259)
        sizes[name] = max(low, wish if high is None else min(wish, high))
    return sizes
