"""What must hold of any machine and shape: more is never slower, and larger never faster, at the best schedule of a library."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.fitting import prepare
from codesign.costmodel.gpu.library import library, library_space
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.rows import Columns, Rows

SHAPES = [(16, 4096, 4096), (256, 1024, 8192), (1024, 5120, 640), (4096, 4096, 4096), (8192, 2048, 128)]


@lru_cache(maxsize=8)
def _space(name: str) -> Columns:
    """Schedules that are best for some of the shapes, or for others near them."""
    machine = load_machine(name)
    m, n, k = (np.array(sizes, dtype=np.float64) for sizes in zip(*SHAPES, strict=True))
    sizes = {"M": np.tile(m, 2), "N": np.concatenate([n, 2 * n]), "K": np.tile(k, 2)}
    rows = Rows("gemm", workloads.gemm(), sizes, np.ones(10), np.arange(10), np.zeros(10, dtype=np.int64))
    space = prepare(rows, machine, load_calibration(machine).parameters).space
    assert space is not None
    return space


def _best(name: str, machine: Machine, scale: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    m, n, k = (
        np.array(sizes, dtype=np.float64) * by for sizes, by in zip(zip(*SHAPES, strict=True), scale, strict=True)
    )
    parameters = load_calibration(load_machine(name)).parameters
    return library(workloads.gemm(), machine, {"M": m, "N": n, "K": k}, parameters, _space(name)).seconds


@pytest.mark.parametrize("name", ["l40s", "a100_sxm"])
@pytest.mark.parametrize(
    ("figure", "by"),
    [
        ("levels.dram.bandwidth", 1.5),
        ("levels.l2.bandwidth", 1.5),
        ("levels.l2.capacity_bytes", 1.5),
        ("levels.dram.latency_seconds", 0.7),
        ("levels.l2.latency_seconds", 0.7),
        ("units.tensor.clock_hz", 1.2),
    ],
)
def test_more_is_never_slower_at_the_best_schedule(name: str, figure: str, by: float) -> None:
    machine = load_machine(name)
    kind, part, field = figure.split(".")
    entry = machine.level(part) if kind == "levels" else machine.unit(part)
    better = machine.with_figures({figure: getattr(entry, field).value * by})
    assert (_best(name, better) <= _best(name, machine) * 1.001).all()


@pytest.mark.parametrize("name", ["l40s", "a100_sxm", "h100_sxm"])
@pytest.mark.parametrize("scale", [(2.0, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.0, 2.0)])
def test_twice_the_size_is_never_faster(name: str, scale: tuple[float, float, float]) -> None:
    """Nor where rows fill up a tile: a stage of its loop holds whole tiles, and no more bytes are in flight."""
    assert (_best(name, load_machine(name), scale) >= _best(name, load_machine(name)) * 0.999).all()


@pytest.mark.parametrize("name", ["b300_sxm", "gb300", "l40s"])
def test_more_rows_of_what_l2_holds_are_not_waited_for_less(name: str) -> None:
    """What a step waits for is the operand from DRAM, and the first block's data are waited for in every number of rounds."""
    machine = load_machine(name)
    p, space = load_calibration(machine).parameters, library_space(workloads.gemm(), machine)
    shapes = [(5, 2, 2900), (454, 236, 1), (1197, 2, 1)]
    m, n, k = (np.array(sizes, dtype=np.float64) for sizes in zip(*shapes, strict=True))
    one, two = (library(workloads.gemm(), machine, {"M": by * m, "N": n, "K": k}, p, space).seconds for by in (1, 2))
    assert (two >= 0.999 * one).all()
