"""Products that warps work out alike, and what they are multiplied in: every matrix instruction of the compiled code is paid, and no more."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from codesign.backends.triton.aot import Compiled, compile_aot
from codesign.backends.triton.generated.issue import issued
from codesign.backends.triton.generated.layout import Layout
from codesign.costmodel.gpu.block import code_of
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.costmodel.groups import group

MACHINES = {"sm_80": "a100_sxm", "sm_89": "l40s", "sm_90": "h100_sxm", "gfx942": "mi300x", "gfx950": "mi355x"}


def chain(dtype: str) -> Fusion:
    """A product of a product."""
    return group(
        f"%x: {dtype}[64, 64], %w: {dtype}[64, 256], %v: {dtype}[256, 64]",
        "%p = compute f32[i: 64, j: 256] sum(k: 64) { f32(%x[i, k]) * f32(%w[k, j]) }",
        f"%c = compute {dtype}[i: 64, j: 256] {{ {dtype}(%p[i, j]) }}",
        "%q = compute f32[i: 64, l: 64] sum(j: 256) { f32(%c[i, j]) * f32(%v[j, l]) }",
    )


def scheduled(fusion: Fusion, rows: int, columns: int, warps: int) -> tuple[Fusion, Schedule]:
    """Straight code: one product after the other, with `rows` x `columns` of the last."""
    form = normalize(fusion).fusion
    last = form.computes[-1]
    sizes = dict(zip((dim.name for dim in last.dims), (rows, columns), strict=True))
    inner = {dim.name: dim.extent.constant for one in form.computes for dim in one.reductions}
    return form, Schedule({**sizes, **inner}, reduce=dict.fromkeys(inner, "resident"), extras={"warps": warps})


def paid(fusion: Fusion, schedule: Schedule, arch: str) -> dict[str, float]:
    """Multiply-adds of the matrix unit of one block, by the dtype in which they are done."""
    machine, kernel = load_machine(MACHINES[arch]), summarize(fusion)
    columns = {
        name: np.asarray(value, dtype=float) for name, value in knob_columns(ScheduleBatch.of([schedule])).items()
    }
    program, tiles = code_of(kernel, geometry(kernel, columns, {}), machine, columns)
    found = issued(program, Layout.of(tiles, machine, columns)).multiply_adds
    return {name: total for name, value in found.items() if (total := float(np.squeeze(value)))}


INSTRUCTION = re.compile(
    r"mma(?:\.sync|_async\.sync)\.aligned\.m(\d+)n(\d+)k(\d+)(?:\.row\.col)?\.f32\.(\w+)|v_mfma_f32_(\d+)x(\d+)x(\d+)_(\w+) "
)


def done(compiled: Compiled) -> dict[str, float]:
    """The same of compiled straight code: each warp does each of its instructions once, and four warps one of 64 rows together."""
    found: dict[str, float] = {}
    for match in INSTRUCTION.finditer(compiled.text("amdgcn" if compiled.arch.startswith("gfx") else "ptx")):
        *sides, dtype = (part for part in match.groups() if part is not None)
        name = dtype if dtype == "f16" else "f8"
        together = 4 if sides[0] == "64" else 1
        found[name] = found.get(name, 0.0) + compiled.warps / together * math.prod(map(int, sides))
    return found


@pytest.mark.parametrize(
    ("arch", "dtype", "rows", "columns", "warps"),
    [
        ("sm_80", "f16", 16, 16, 8),  # all warps along the rows, as the last product's are no fewer than its columns
        ("sm_80", "f16", 16, 64, 8),
        ("sm_90", "f8e4m3", 16, 32, 16),
        ("sm_90", "f8e4m3", 16, 16, 4),
        ("sm_89", "f8e4m3", 16, 32, 4),
        ("sm_90", "f16", 64, 64, 8),  # two warp groups with the same 64 rows of the first product
        ("sm_90", "f8e4m3", 64, 64, 4),
        ("gfx942", "f16", 16, 64, 8),
        ("gfx942", "f8e4m3", 16, 16, 4),
        ("gfx950", "f8e4m3", 64, 64, 4),
    ],
)
def test_every_instruction_of_the_matrix_unit_is_paid_in_its_dtype(
    arch: str, dtype: str, rows: int, columns: int, warps: int
) -> None:
    """Triton has warps of chained products repeat results of the first, and widens factors of 8 bits where only warp groups take them."""
    form, schedule = scheduled(chain(dtype), rows, columns, warps)
    compiled = compile_aot(lower(form, schedule), arch)
    assert paid(form, schedule, arch) == done(compiled)


def test_results_that_warps_repeat_take_their_registers_and_their_time() -> None:
    """16 x 256 results of a first product: all in each of 8 warps where the second product is square, in parts where it is wide."""
    machine, found = load_machine("h100_sxm"), []
    for columns in (16, 32):
        form, schedule = scheduled(chain("f8e4m3"), 16, columns, 8)
        cost = cost_model_for(machine).predict(summarize(form), machine, ScheduleBatch.of([schedule]))
        made = compile_aot(lower(form, schedule), "sm_90")
        tensor = float(cost.terms[0, cost.term_names.index("tensor")])
        found.append((float(cost.details["registers"][0]), made.registers, tensor))
    (square, square_made, square_seconds), (wide, wide_made, wide_seconds) = found
    assert square == pytest.approx(square_made, rel=0.2)
    assert square > 2.0 * wide
    assert square_made > 2.0 * wide_made
    assert square_seconds > 4.0 * wide_seconds
