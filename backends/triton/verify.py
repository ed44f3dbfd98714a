"""Verification of Triton kernels, in Triton's interpreter or on a GPU."""

from __future__ import annotations

from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import run_kernel
from codesign.backends.verification import Verification, verify_on
from codesign.ir.index import Bounds
from codesign.ir.tile import Kernel
from codesign.passes.normalize import Normalized


def verify_kernel(
    group: Normalized,
    kernel: Kernel,
    *,
    bounds: Bounds | None = None,
    seed: int | None = None,
    device: str = "cpu",
) -> Verification:
    """Run a kernel on a device and compare with the meaning of its group; see `verify_on`."""
    ranges = bounds or Bounds()
    return verify_on(
        lambda made, arrays, sizes: run_kernel(made, arrays, sizes, device=device, emitted=emission(made, ranges)),
        group,
        kernel,
        bounds=ranges,
        seed=seed,
        device=device,
    )
