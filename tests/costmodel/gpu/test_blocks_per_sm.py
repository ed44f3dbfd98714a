"""How many blocks an SM holds, by NVIDIA's occupancy calculator worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.gpu.occupancy import occupancy
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import load_machine

H100 = load_machine("h100_sxm")


@pytest.mark.parametrize(
    ("staged", "blocks"), [(75 * 1024, 3.0), (76 * 1024, 2.0), (113 * 1024, 2.0), (114 * 1024, 1.0)]
)
def test_a_block_takes_a_kib_of_shared_memory_for_the_system(staged: int, blocks: float) -> None:
    """228 KiB an SM: three blocks of 76 KiB would fit, but for the KiB that each has reserved."""
    found = occupancy(Work(static_bytes=float(staged)), H100, np.array([4.0]), np.array([1.0]))
    assert float(np.ravel(found.blocks)[0]) == blocks


@pytest.mark.parametrize(("live", "registers"), [(0, 24.0), (24, 40.0), (25, 48.0), (32, 48.0), (33, 56.0)])
def test_registers_come_in_eights(live: int, registers: float) -> None:
    """16 for addresses and one for each live value of a thread, rounded up; 24 at the least."""
    threads = 128.0
    found = occupancy(Work(live_elements=live * threads), H100, np.array([4.0]), np.array([1.0]))
    assert float(np.ravel(found.registers)[0]) == registers
