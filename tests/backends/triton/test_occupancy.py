"""What the cost model assumes that generated code holds, against what Triton's compiler says of it, on a small sweep."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest

from codesign.backends.triton.aot import Compiled, compile_all
from codesign.backends.triton.generated.layout import Layout, products_of
from codesign.costmodel.gpu.block import code_of
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.performed import performed
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.costmodel.groups import group
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


GATED = group(
    "%x: f16[4096, 1024], %g: f16[2816, 1024], %u: f16[2816, 1024]",
    "%p = compute f32[i: 4096, j: 2816] sum(k: 1024) { f32(%x[i, k]) * f32(%g[j, k]) }",
    "%q = compute f32[i: 4096, j: 2816] sum(k: 1024) { f32(%x[i, k]) * f32(%u[j, k]) }",
    "%y = compute f16[i: 4096, j: 2816] { f16(%p[i, j] * %q[i, j]) }",
)


def _folded(rows: int, keys: int, warps: int) -> Schedule:
    tiles, modes = {"h": 1, "i": rows, "j": keys, "d": 64, "e": 64}, {"j": "fold", "d": "resident"}
    return Schedule(tiles=tiles, reduce=modes, pipeline=2, extras={"warps": warps})


def _compiled_parts(compiled: Compiled) -> set[tuple[float, float]]:
    """Rows and columns that a warp has of each product, 16 and 8 at the least."""
    text = compiled.text("ttgir")
    places = dict(re.findall(r"(#mma\d*) = #ttg.nvidia_mma<.*?warpsPerCTA = \[([\d, ]+)\]", text))
    found = set()
    for rows, columns, name in re.findall(r"(?:tt\.dot|warp_group_dot) .*-> tensor<(\d+)x(\d+)xf32, (#mma\d*)>", text):
        down, across = (int(count) for count in places[name].split(","))
        found.add((max(int(rows) / down, 16.0), max(int(columns) / across, 8.0)))
    return found


@pytest.mark.parametrize(
    ("fusion", "schedule", "arch"),
    [
        (GATED, _tiled(64, 64, 32, 4, 2), "sm_80"),
        (GATED, _tiled(32, 128, 32, 4, 2), "sm_80"),
        (GATED, _tiled(64, 64, 32, 8, 2), "sm_90"),
        (groups.attention(8, 1024, 1024, 64), _folded(64, 32, 8), "sm_80"),
        (groups.attention(8, 1024, 1024, 64), _folded(64, 32, 8), "sm_90"),
        (groups.attention(8, 1024, 1024, 64), _folded(16, 128, 4), "sm_90"),
    ],
)
def test_warps_have_the_parts_of_several_products_that_they_are_compiled_to(
    fusion: Fusion, schedule: Schedule, arch: str
) -> None:
    """Two products of one operand, and one of what the other makes: warps go along one side, or have the same results."""
    normal = normalize(fusion)
    machine = load_machine(MACHINES[arch])
    which, plain = performed(summarize(normal.fusion), schedule)
    columns = {name: np.asarray(value, dtype=float) for name, value in knob_columns(ScheduleBatch.of([plain])).items()}
    program, tiles = code_of(which, geometry(which, columns, {}), machine, columns)
    products = products_of(program, Layout.of(tiles, machine, columns)).values()
    (compiled,) = compile_all([lower(normal.fusion, schedule, outputs=normal.outputs)], arch)
    assert {tuple(float(np.squeeze(side)) for side in found.part) for found in products} == _compiled_parts(compiled)
