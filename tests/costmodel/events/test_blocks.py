"""Both GPU models read the same work: a block's seconds of each resource, times the blocks, are the tile model's."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.events.blocks import PIPES
from codesign.costmodel.events.plan import plan
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.gpu.timing import busiest_sm, estimate
from codesign.costmodel.gpu.traffic import noted
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import Schedule, ScheduleBatch

TILED = Schedule({"m": 128, "n": 128, "k": 32}, pipeline=3, extras={"warps": 8})
FLASH = Schedule(
    {"i": 128, "j": 64, "d": 128, "e": 128}, reduce={"j": "fold", "d": "resident"}, pipeline=2, extras={"warps": 8}
)
HEADS = {"B": 8, "G": 8, "R": 4, "Q": 1024, "J": 1024, "D": 128, "E": 128}
CASES = {
    "gemm": (workloads.gemm(), TILED, {"M": 4096, "N": 4096, "K": 1000}),
    "attention": (workloads.attention(), FLASH, HEADS),
    "add": (workloads.add(), Schedule({"t": 1, "n": 1024}, extras={"warps": 8}), {"T": 8192, "N": 4096}),
    "gelu": (workloads.gelu(), Schedule({"t": 2, "n": 512}, extras={"warps": 8}), {"T": 8192, "N": 4096}),
    "rms_norm": (
        workloads.rms_norm(),
        Schedule({"t": 1}, reduce={"n": "resident"}, extras={"warps": 8}),
        {"T": 8192, "N": 4096},
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gpu", ["h100_sxm", "a100_sxm", "b200_sxm"])
def test_work_of_all_blocks_is_the_tile_models(name: str, gpu: str) -> None:
    kernel, schedule, sizes = CASES[name]
    machine = load_machine(gpu)
    p = load_calibration(machine).parameters
    columns = {k: np.asarray(v, dtype=float) for k, v in knob_columns(ScheduleBatch.of([schedule])).items()}
    found = estimate(kernel, machine, columns, {k: float(v) for k, v in sizes.items()}, p, schedule.order)
    seen = plan(kernel, machine, schedule, sizes, p)
    each = float(busiest_sm(np.float64(seen.grid), seen.chip.sms * _one(found.blocks_per_sm), seen.chip.sms, 1.0))
    total = dict(
        zip(PIPES, (sum(p) * each for p in zip(*(f.pipes for f in seen.block.phases), strict=True)), strict=True)
    )
    assert total["tensor"] == pytest.approx(_one(found.resources["tensor"]), rel=1e-6)
    assert total["requests"] == pytest.approx(_one(found.resources["requests"]), rel=1e-6)
    vector = max(total["vector"], total["special"])
    assert vector == pytest.approx(_one(found.resources["vector"]), rel=1e-6, abs=1e-12)
    shared = sum(phase.l2 for phase in seen.block.phases) * seen.grid
    loads = sum(phase.pipes[PIPES.index("port")] for phase in seen.block.phases[:2]) * each
    assert max(shared, loads) == pytest.approx(_one(found.resources["l2"]), rel=1e-6)
    assert seen.resident == _one(found.blocks_per_sm)
    assert seen.from_dram.total >= 0.999 * _cold(kernel, sizes, p.warm)


def _one(value: object) -> float:
    return float(np.max(np.asarray(value)))


def _cold(kernel: KernelSummary, sizes: dict[str, int], warm: float) -> float:
    """What must come from DRAM however warm the inputs are: nothing of what was written just before."""
    accesses = {access.tensor: access for nest in kernel.nests for access in nest.loads}
    values = {name: float(value) for name, value in sizes.items()}
    fresh = sum(
        access.dtype.bytes * float(np.prod([extent.evaluate(values) for extent in access.shape]))
        for access in accesses.values()
        if noted(kernel, "fresh", access)
    )
    cold = float(kernel.read_bytes.evaluate(sizes)) - fresh
    return cold * (1.0 - warm if kernel.notes.get("warm") else 1.0)
