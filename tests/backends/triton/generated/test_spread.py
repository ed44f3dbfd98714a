"""Which part of a tile a thread and a warp have, and what lives in registers because of it and of where the text loads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.backends.triton.generated.layout import Layout, warp_tile
from codesign.backends.triton.generated.registers import alive
from codesign.backends.triton.generated.spread import Spread
from codesign.costmodel.gpu.block import code_of
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.program import Program
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.tensor import Fusion
from tests.costmodel.groups import group

H100 = load_machine("h100_sxm")


def laid_out(fusion: Fusion, tiles: dict[str, int], warps: int, stages: int = 1) -> tuple[Program, Layout]:
    summary = summarize(fusion)
    knobs: dict[str, Any] = {f"tile.{dim}": np.float64(size) for dim, size in tiles.items()}
    knobs |= {"warps": np.float64(warps), "pipeline": np.float64(stages)}
    program, found = code_of(summary, geometry(summary, knobs, {}), H100, knobs)
    return program, Layout.of(found, H100, knobs)


def norm(rows: int, columns: int) -> Fusion:
    return group(
        f"%x: bf16[{rows}, {columns}]",
        f"%s = compute f32[i: {rows}] sum(j: {columns}) {{ f32(%x[i, j]) * f32(%x[i, j]) }}",
        f"%y = compute bf16[i: {rows}, j: {columns}] {{ bf16(f32(%x[i, j]) * %s[i]) }}",
    )


@pytest.mark.parametrize(
    ("rows", "columns", "warps", "of_rows", "of_columns"),
    [
        (16, 256, 8, 2, 8),
        (2, 256, 2, 1, 8),
        (8, 1024, 8, 4, 8),
        (8, 1024, 4, 8, 8),
        (4, 4096, 1, 4, 128),
        (64, 32, 8, 1, 8),
    ],
)
def test_lanes_then_warps_go_along_what_lies_closest(
    rows: int, columns: int, warps: int, of_rows: int, of_columns: int
) -> None:
    """As `BlockedEncodingAttr` places them: 8 values of 16 bits a lane, then lanes and warps along the row before other rows."""
    program, layout = laid_out(norm(4096, 4096), {"i": rows, "j": columns}, warps)
    (access, *_) = [one.access for one in program.transfers.values() if len(one.access.dims) == 2]
    spread = Spread([access], [], layout)
    assert float(spread.held(("i",))) == of_rows
    assert float(spread.held(("j",))) == of_columns
    assert float(spread.held(("i", "j"))) == max(rows * columns / (32 * warps), 1)


def placed(rows: int, columns: int, warps: int) -> tuple[int, int]:
    """The loop of Triton's `warpsPerTileV2`."""
    down, across, count = max(rows // 16, 1), max(columns // 8, 1), 1
    while count < warps:
        if down >= across:
            down = max(down // 2, 1)
        else:
            across //= 2
        count *= 2
    return 16 * down, 8 * across


@pytest.mark.parametrize("warps", [1, 2, 4, 8, 16])
def test_warps_are_placed_as_triton_places_them(warps: int) -> None:
    _, layout = laid_out(norm(4096, 4096), {"i": 16, "j": 64}, warps)
    for rows in (16, 32, 64, 128, 512):
        for columns in (8, 16, 64, 256, 512):
            found = warp_tile(np.float64(rows), np.float64(columns), layout)
            assert tuple(int(size) for size in found) == placed(rows, columns, warps)


@pytest.mark.parametrize(("total", "early"), [("f32(%r[i, j]) + %p[i, j]", True), ("%p[i, j] + f32(%r[i, j])", False)])
def test_what_is_loaded_before_a_loop_lives_through_it(total: str, early: bool) -> None:
    """The residual of a product, 32 x 64 values of 16 bits in 64 threads: 16 words where the text loads it first."""
    fusion = group(
        "%a: bf16[4096, 4096], %b: bf16[4096, 4096], %r: bf16[4096, 4096]",
        "%p = compute f32[i: 4096, j: 4096] sum(k: 4096) { f32(%a[i, k]) * f32(%b[j, k]) }",
        f"%y = compute bf16[i: 4096, j: 4096] {{ bf16({total}) }}",
    )
    program, layout = laid_out(fusion, {"i": 32, "j": 64, "k": 16}, 2, 4)
    during, after = alive(program, layout)
    assert float(during.get("early", 0.0)) == (16.0 if early else 0.0)
    assert "early" not in after


def test_each_store_of_an_odd_width_has_its_address() -> None:
    """64 x 256 logits in 256 threads: rows of an odd length start anywhere, so that each of a thread's 64 values is stored alone."""
    for columns, stores in ((50257, 64), (50304, 8)):
        fusion = group(
            f"%a: bf16[1024, 768], %b: bf16[{columns}, 768]",
            f"%p = compute f32[i: 1024, j: {columns}] sum(k: 768) {{ f32(%a[i, k]) * f32(%b[j, k]) }}",
            f"%y = compute bf16[i: 1024, j: {columns}] {{ bf16(%p[i, j]) }}",
        )
        *_, last = alive(*laid_out(fusion, {"i": 64, "j": 256, "k": 32}, 8, 3))
        assert float(last["stores"]) == stores


def test_sums_of_a_loop_that_is_unrolled_whole_live_for_an_element_at_a_time() -> None:
    fusion = norm(4096, 4096)
    for rows, sums in ((1, 0), (8, 32)):
        first, *_ = alive(*laid_out(fusion, {"i": rows, "j": 2048}, 16))
        assert float(first["partial"]) == sums
