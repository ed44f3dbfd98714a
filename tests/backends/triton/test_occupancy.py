"""What the cost model assumes that generated code holds, against what Triton's compiler says of it, on a small sweep."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from codesign.backends.triton.aot import compile_all
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.passes.tiling import groups

Pairs = npt.NDArray[np.float64]

MACHINES = {"sm_80": "a100_sxm", "sm_90": "h100_sxm", "sm_100": "b200_sxm"}
GEMM, NORM = groups.gemm(2048, 2048, 1024), groups.layer_norm(4096, 4096)


def _tiled(rows: int, columns: int, depth: int, warps: int, stages: int) -> Schedule:
    tiles, extras = {"i": rows, "j": columns, "k": depth}, {"warps": warps, "group": 8}
    return Schedule(tiles=tiles, reduce={"k": "looped"}, pipeline=stages, extras=extras)


def _streamed(rows: int, columns: int, warps: int, stages: int) -> Schedule:
    return Schedule(tiles={"i": rows, "j": columns}, reduce={"j": "looped"}, pipeline=stages, extras={"warps": warps})


PRODUCTS = [(128, 128, 64, 8, 3), (128, 64, 32, 4, 4), (64, 64, 64, 4, 2), (32, 64, 64, 4, 3), (128, 256, 32, 8, 3)]
STREAMS = [(8, 256, 4, 3), (4, 512, 4, 2), (32, 128, 8, 4), (1, 1024, 4, 3)]


def _compare(fusion: Fusion, schedules: list[Schedule], arch: str) -> tuple[Pairs, Pairs]:
    """Shared bytes and blocks per SM: [schedules, (assumed, compiled)]."""
    group = normalize(fusion)
    machine = load_machine(MACHINES[arch])
    cost = cost_model_for(machine).predict(summarize(group.fusion), machine, ScheduleBatch.of(schedules))
    kernels = [lower(group.fusion, schedule, outputs=group.outputs) for schedule in schedules]
    shared, blocks = [], []
    for row, found in enumerate(compile_all(kernels, arch)):
        room = machine.need(machine.level("shared").capacity_bytes, "") // (found.shared_bytes + 1024)
        warps = 65536 // (-(-found.registers // 8) * 8 * 32)
        resident = min(room, warps // found.warps, 2048 // (32 * found.warps), 32)
        shared.append((cost.details["shared_bytes"][row], found.shared_bytes))
        blocks.append((cost.details["blocks_per_sm"][row], resident))
    return np.array(shared), np.array(blocks)


@pytest.mark.parametrize("arch", MACHINES)
def test_products_take_the_shared_memory_and_have_the_blocks_of_the_compiled_code(arch: str) -> None:
    shared, blocks = _compare(GEMM, [_tiled(*sizes) for sizes in PRODUCTS], arch)
    np.testing.assert_array_equal(shared[:, 0], shared[:, 1])
    assert (blocks[:, 0] == blocks[:, 1]).mean() >= 0.8


def test_rows_are_staged_as_often_as_the_pipeline_is_deep() -> None:
    shared, blocks = _compare(NORM, [_streamed(*sizes) for sizes in STREAMS], "sm_90")
    np.testing.assert_allclose(shared[:, 0], shared[:, 1], rtol=0.02)
    assert (abs(blocks[:, 0] - blocks[:, 1]) <= 2.0).all()
