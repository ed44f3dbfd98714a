"""Both GPU models read the same work: a block's seconds of each resource, times the blocks, are the tile model's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.events.blocks import PIPES, Phase
from codesign.costmodel.events.plan import plan
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.gpu.parameters import Parameters, load_calibration
from codesign.costmodel.gpu.timing import busiest_sm, estimate
from codesign.costmodel.gpu.traffic import noted
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import KernelSummary, summarize
from codesign.ir.core import Block, Value
from codesign.ir.dtypes import F16, F32
from codesign.ir.index import index
from codesign.ir.scalar import Read, apply, cast
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.types import tensor
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")
TILED = Schedule({"m": 128, "n": 128, "k": 32}, pipeline=3, extras={"warps": 8})
FLASH = Schedule(
    {"i": 128, "j": 64, "d": 128, "e": 128}, reduce={"j": "fold", "d": "resident"}, pipeline=2, extras={"warps": 8}
)
HEADS = {"B": 8, "G": 8, "R": 4, "Q": 1024, "J": 1024, "D": 128, "E": 128}
CASES = {
    "gemm": (workloads.gemm(), TILED, {"M": 4096, "N": 4096, "K": 1000}),
    "f32 gemm": (
        workloads.gemm("f32"),
        Schedule({"m": 64, "n": 64, "k": 16}, pipeline=2, extras={"warps": 8}),
        {"M": 1024, "N": 1024, "K": 512},
    ),
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
    assert total["operands"] == pytest.approx(_one(found.parts.operand_seconds), rel=1e-6, abs=1e-12)
    assert total["requests"] == pytest.approx(_one(found.resources["requests"]), rel=1e-6)
    vector = max(total["vector"], total["special"])
    assert vector == pytest.approx(_one(found.resources["vector"]), rel=1e-6, abs=1e-12)
    shared = sum(phase.l2 for phase in seen.block.phases) * seen.grid
    reading = [phase for phase in seen.block.phases if phase.kind != "store"]
    loads = sum(phase.pipes[PIPES.index("port")] for phase in reading) * each
    assert sum(phase.reads for phase in seen.block.phases) == pytest.approx(1.0)
    assert max(shared, loads) == pytest.approx(_one(found.resources["l2"]), rel=1e-6)
    assert seen.resident == _one(found.blocks_per_sm)
    assert seen.from_dram.total >= 0.999 * _cold(kernel, sizes, p.warm)


def _phases(group: Fusion, schedule: Schedule, p: Parameters | None = None) -> tuple[Phase, ...]:
    return plan(summarize(group), H100, schedule, parameters=p).block.phases


def test_a_block_does_the_loops_of_its_text_one_after_the_other() -> None:
    """Of a softmax whose rows do not stay, each sweep is a loop that waits for its own loads; held whole, they are loaded once."""
    walking = Schedule({"i": 1, "j": 256}, reduce={"j": "looped"}, pipeline=2)
    sweeps = [phase for phase in _phases(groups.softmax(512, 8192), walking) if phase.kind == "main"]
    assert [phase.name for phase in sweeps] == ["main", "main 2", "main 3"]
    port = [phase.pipes[PIPES.index("port")] for phase in sweeps]
    assert port[0] == pytest.approx(port[1]) == pytest.approx(port[2])
    assert [phase.writes > 0.0 for phase in sweeps] == [False, False, False]
    held = _phases(groups.softmax(512, 8192), Schedule({"i": 1}, reduce={"j": "resident"}))
    assert [phase.name for phase in held if phase.pipes[PIPES.index("port")]] == ["fill", "store"]


def test_what_is_added_to_a_product_is_waited_for_after_its_loop() -> None:
    tiles = Schedule({"i": 128, "j": 128, "k": 64}, pipeline=3, extras={"warps": 8})
    slow = replace(load_calibration(H100).parameters, fill_latency=4.0)
    phases = {phase.name: phase for phase in _phases(_product_and_residual(1024, 1024, 1024), tiles, slow)}
    assert [*phases] == ["fill", "main", "fill 2", "main 2", "store"]
    latency = H100.need(H100.level("dram").latency_seconds, "levels.dram.latency_seconds")
    assert phases["fill"].floor == phases["fill 2"].floor == pytest.approx(4.0 * latency)
    residual = 2.0 * 128 * 128 / (2.0 * (128 + 128) * 1024 + 2.0 * 128 * 128)
    assert phases["fill 2"].reads + phases["main 2"].reads == pytest.approx(residual)


def _product_and_residual(m: int, n: int, k: int) -> Fusion:
    a, b, r = (Value(tensor(F16, *shape), name) for shape, name in (((m, k), "a"), ((k, n), "b"), ((m, n), "r")))
    body = apply("mul", cast(Read(a, ("i", "k")), F32), cast(Read(b, ("k", "j")), F32))
    dims, summed = (Dim("i", index(m)), Dim("j", index(n))), (Dim("k", index(k)),)
    product = Compute(dims, body, dtype=F32, reductions=summed, monoid="sum", name="c")
    total = apply("add", Read(product.result, ("i", "j")), cast(Read(r, ("i", "j")), F32))
    out = Compute(dims, cast(total, F16), dtype=F16, name="out")
    return Fusion(Block((), [product, out], [out.result]))


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
