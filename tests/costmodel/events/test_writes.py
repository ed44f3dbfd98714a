"""Results wait in L2 for DRAM, up to half of it: a kernel that only writes."""

from __future__ import annotations

import pytest

from codesign.costmodel.events import Timeline, simulate
from codesign.costmodel.gpu.chip import cache_bytes
from codesign.costmodel.machine import load_machine
from codesign.ir.schedule import Schedule
from tests.costmodel.groups import best, group

H100 = load_machine("h100_sxm")


def fill(share: float) -> tuple[Timeline, float]:
    """A fill of this share of L2, and the seconds that DRAM takes for it."""
    rows = int(share * cache_bytes(H100) / 4096)
    found = best(group("", f"%y = compute f32[i: {rows}, j: 1024] {{ 1.0:f32 }}"))
    (dim,) = found.summary.outer
    seen = simulate(found.summary, H100, Schedule({dim: 1024}, extras={"warps": 8}))
    return seen, rows * 4096 / H100.need(H100.level("dram").bandwidth, "dram")


@pytest.mark.parametrize("share", [0.3, 0.45])
def test_results_of_less_than_half_of_l2_do_not_wait_for_dram(share: float) -> None:
    seen, dram = fill(share)
    assert seen.seconds - seen.terms["launch"] < 0.75 * dram


@pytest.mark.parametrize("share", [0.95, 3.0])
def test_larger_results_found_l2_full_of_what_the_last_launch_wrote(share: float) -> None:
    seen, dram = fill(share)
    assert seen.seconds - seen.terms["launch"] > 0.9 * dram
