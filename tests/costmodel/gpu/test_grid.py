"""A batch whose schedules are points of a grid costs what they cost each by itself, in whatever order and however often they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.gpu import grid
from codesign.costmodel.gpu.grid import Grid
from codesign.costmodel.gpu.traffic import undivided
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.build import space

SIZES = {"M": 512, "N": 384, "K": 1000}
KERNELS = {
    "gemm": (workloads.gemm("f16"), SIZES),
    "attention": (workloads.attention("f16", "f16"), {"B": 4, "G": 8, "R": 4, "Q": 2048, "J": 2048}),
}
"""Of the attention blocks in any order read the same, and one point stands for all orders."""


def knobs_of(batch: ScheduleBatch) -> dict[str, np.ndarray]:
    return {name: np.asarray(column, dtype=np.float32) for name, column in batch.columns.items()}


@pytest.mark.parametrize("machine", ["h100_sxm", "mi300x"])
@pytest.mark.parametrize("kept", [1.0, 0.8, 0.1])
@pytest.mark.parametrize("kind", KERNELS)
def test_a_grid_costs_what_its_schedules_cost(
    machine: str, kind: str, kept: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, (kernel, sizes) = load_machine(machine), KERNELS[kind]
    offered = space(kernel, target, sizes)
    codes = offered.sample(8000, np.random.default_rng(1))
    codes = codes[np.random.default_rng(2).integers(len(codes), size=int(kept * len(codes)))]
    model, batch = cost_model_for(target), offered.batch(codes)

    def priced() -> CostBatch:
        return model.predict(kernel, target, batch, sizes)

    found = priced()
    monkeypatch.setattr(grid, "FEWEST", len(batch) + 1)
    alone = priced()
    for name in ("seconds", "terms", "low", "high", "joules", "dram_bytes", "reason"):
        np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))
    for name, column in alone.details.items():
        np.testing.assert_array_equal(found.details[name], column)


@pytest.mark.parametrize("machine", ["h100_sxm", "a100_sxm", "b200_sxm"])
@pytest.mark.parametrize(
    ("kernel", "sizes"),
    [
        (workloads.layer_norm(), {"T": 64, "N": 1024}),
        (workloads.softmax(), {"T": 64, "N": 1024}),
        (workloads.attention("f16", "f16"), {"B": 1, "G": 8, "R": 4, "Q": 96, "J": 1000}),
    ],
    ids=["layer_norm", "softmax", "attention"],
)
def test_a_schedule_costs_the_same_alone_and_among_others_of_other_texts(
    kernel: KernelSummary, sizes: dict[str, int], machine: str
) -> None:
    """Where registers spill, too, and to the last digit: else which of two schedules is better would depend on what they are asked with."""
    target = load_machine(machine)
    offered = space(kernel, target, sizes)
    batch = offered.batch(next(offered.enumerate()))
    model = cost_model_for(target)
    whole = model.predict(kernel, target, batch, sizes)
    rng, fits = np.random.default_rng(5), np.isfinite(whole.seconds)
    spills = np.asarray(whole.details["spilled_bytes"], dtype=np.float64) > 0
    for row in np.concatenate([rng.choice(np.flatnonzero(fits & kind), 8) for kind in (spills, ~spills)]):
        alone = model.predict(kernel, target, batch.take(np.array([row])), sizes)
        for name in ("seconds", "terms", "low", "high", "joules", "dram_bytes"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[row])


PARTS: list[list[tuple[int, ...]]] = [
    [(2, 3, 2, 6)],
    [(1, 3, 2, 6)],
    [(2, 3, 2, 4), (2, 3, 2, 2)],
    [(2, 3, 2, 1), (1, 3, 1, 3), (1, 1, 1, 2)],
]
"""Shapes in which the points of a grid of 2 x 3 x 2 x 6 may come."""


def _piece(found: Grid, name: str, shape: tuple[int, ...], start: int) -> np.ndarray:
    """A knob's values at the points of one part."""
    whole = np.broadcast_to(found.knobs[name], (*found.axes, found.rest))
    return whole[(*(slice(size) for size in shape[:-1]), slice(start, start + shape[-1]))].ravel()


def test_every_schedule_is_at_its_place_of_the_grid() -> None:
    rng = np.random.default_rng(3)
    axes = {"group": [1, 8], "tile.m": [16, 32, 64], "pipeline": [1, 2, 3], "warps": [4, 8], "split.k": [1, 2]}
    every = np.stack([axis.ravel() for axis in np.meshgrid(*axes.values(), indexing="ij")])
    columns = dict(zip(axes, every[:, rng.integers(every.shape[1], size=3000)], strict=True))
    found = Grid.of(knobs_of(ScheduleBatch(columns)), 3000)
    assert found.axes == (2, 3, 2)
    assert found.rest == 6
    for parts in PARTS:
        places = found.places(parts)
        assert places is not None
        starts = np.cumsum([0, *(shape[-1] for shape in parts)])
        part_of = np.repeat(np.arange(len(parts)), np.diff(starts))[found.ranks[-1]]
        for name in columns:
            pieces = [_piece(found, name, shape, start) for shape, start in zip(parts, starts, strict=False)]
            axis = grid.AXES.index(name) if name in grid.AXES else -1
            said = np.array([axis < 0 or shape[axis] > 1 for shape in parts])[part_of]  # else one point stands for all
            assert said.any() or len(parts) == 1
            np.testing.assert_array_equal(np.concatenate(pieces)[places][said], columns[name][said])


def test_schedules_that_are_few_of_a_grids_points_are_no_grid() -> None:
    rng = np.random.default_rng(4)
    columns = {name: rng.integers(1000, size=2000) for name in ("group", "pipeline", "warps", "tile.m")}
    found = Grid.of(knobs_of(ScheduleBatch(columns)), 2000)
    assert found.places([(2000,)]) is None
    assert found.points == 2000


def test_an_axis_along_which_nothing_differs_has_one_point() -> None:
    group = np.array([1.0, 8.0]).reshape(2, 1, 1)
    same, other = np.broadcast_to(np.arange(6.0).reshape(3, 2), (2, 3, 2)), np.arange(12.0).reshape(2, 3, 2)
    found = undivided([same, np.arange(2.0), 5.0], group)
    assert [np.shape(value) for value in found] == [(1, 3, 2), (2,), ()]
    assert undivided([same, other], group)[0] is same
    assert undivided([same], 8.0)[0] is same
