"""Filters on the vector unit: what threads load of a window, banks of shared memory, and the tile that is staged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.library_work import product_work
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.gpu.threads import COPY_CLOCKS, TEXTURE_CLOCKS, WINDOW_CLOCKS
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import load_machine

KERNEL = workloads.filtered_image("f32")
SIZES = {"O": 1.0, "Y": 960.0, "X": 1024.0, "R": 5.0, "S": 7.0}


def schedule(threads: tuple[int, int], held: tuple[int, int], **more: float) -> dict[str, Any]:
    """Threads and results of a thread along x and y."""
    knobs: dict[str, float] = {"tile.o": 1.0, "tile.r": SIZES["R"], "tile.s": SIZES["S"], "pipeline": 1.0}
    knobs["warps"] = float(np.ceil(threads[0] * threads[1] / 32))
    for dim, count, each in zip("xy", threads, held, strict=True):
        knobs |= {f"tile.{dim}": count * each, f"inner.thread.{dim}": each, f"apart.{dim}": count}
    return {name: np.array([float(value)]) for name, value in (knobs | more).items()}


def block(knobs: dict[str, Any]) -> Work:
    return product_work(KERNEL, geometry(KERNEL, knobs, SIZES), 0.0, knobs["warps"])


def reads_of_a_thread(threads: tuple[int, int], held: tuple[int, int]) -> int:
    """Distinct pixels that thread 0 reads, by listing them."""
    return len(
        {
            (yi * threads[1] + i, xi * threads[0] + j)
            for yi in range(held[1])
            for xi in range(held[0])
            for i in range(int(SIZES["R"]))
            for j in range(int(SIZES["S"]))
        }
    )


@pytest.mark.parametrize(
    ("threads", "held"), [((32, 4), (1, 3)), ((64, 2), (2, 2)), ((4, 8), (3, 2)), ((32, 1), (1, 1))]
)
def test_windows_that_a_thread_joins_against_listing_them(threads: tuple[int, int], held: tuple[int, int]) -> None:
    found = block(schedule(threads, held, **{"staged.x": 0.0}))
    warps = np.ceil(threads[0] * threads[1] / 32)
    whole = SIZES["X"] % (threads[0] * held[0]) == 0 and SIZES["Y"] % (threads[1] * held[1]) == 0
    loads = reads_of_a_thread(threads, held) if whole else SIZES["R"] * SIZES["S"] * held[0] * held[1]
    assert found.operand_waits == pytest.approx(warps * loads)
    assert found.operand_clocks == pytest.approx(warps * loads * WINDOW_CLOCKS)
    texture = block(schedule(threads, held, **{"staged.x": 0.0, "read_only.x": 1.0}))
    assert texture.operand_clocks == pytest.approx(warps * loads * TEXTURE_CLOCKS)


def banks(row: int, pitch: int, threads: int) -> float:
    """Passes of a warp's access, on average over the warps of a block: the most lanes on one bank."""
    passes = []
    for first in range(0, threads, 32):
        lanes = np.arange(first, first + 32)
        words = lanes // row * pitch + lanes % row
        passes.append(np.bincount(np.unique(words) % 32).max())
    return float(np.mean(passes))


@pytest.mark.parametrize("row", [16, 32, 48, 80, 96, 112])
@pytest.mark.parametrize("border", [0, 6, 14])
def test_passes_of_shared_memory_against_counting_banks(row: int, border: int) -> None:
    pitch = row + border
    threads = (row, 64)
    knobs = schedule(threads, (1, 1), **{"staged.x": 1.0, "pitch.x": float(pitch)})
    found = block(knobs)
    passes = np.ceil((row + 6) / row) * np.ceil((64 + 4) / 64)
    shared = found.operand_clocks / knobs["warps"] - passes * COPY_CLOCKS
    assert shared / 35.0 == pytest.approx(banks(row, pitch, row * 64))


def test_a_staged_tile_has_its_border_and_the_pitch_of_its_rows() -> None:
    found = block(schedule((32, 4), (1, 3), **{"staged.x": 1.0, "pitch.x": 48.0}))
    assert found.static_bytes == pytest.approx((4 * 3 + 4) * 48 * 4)
    assert block(schedule((32, 4), (1, 3), **{"staged.x": 0.0})).static_bytes == 0.0


def test_idle_lanes_of_a_block_cost_like_busy_ones() -> None:
    narrow, whole = block(schedule((24, 1), (1, 1))), block(schedule((32, 1), (1, 1)))
    assert narrow.ieee == pytest.approx(whole.ieee)


def test_more_results_of_a_thread_load_less_until_windows_part() -> None:
    target = load_machine("a100_sxm")
    parameters = load_calibration(target).parameters
    sizes = SIZES | {"Y": 3840.0, "X": 4096.0}

    def seconds(held: int, rows: int) -> float:
        return float(estimate(KERNEL, target, schedule((32, rows), (1, held)), sizes, parameters, ("y", "x")).total[0])

    assert seconds(2, 2) < seconds(1, 2)  # rows of one thread lie two apart: windows of five share three
    assert seconds(2, 8) > 0.85 * seconds(1, 8)  # eight apart: nothing to share, only a smaller border
