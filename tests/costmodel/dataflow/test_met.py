"""How often the core that has most to do meets the last tile of a dim, against programs that are dealt one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from codesign.costmodel.dataflow import target_of
from codesign.costmodel.dataflow.shape import Shape
from codesign.costmodel.dataflow.space import layout
from codesign.costmodel.machine import load_machine


def met(machine: str, grid: dict[str, int], dim: str, split: dict[str, int] | None = None) -> float:
    tiles = {name: np.array([float(count)]) for name, count in grid.items()}
    parts = {"core": {name: np.array([float(count)]) for name, count in (split or {}).items()}}
    laid = layout(target_of(load_machine(machine)), tiles, parts)
    total = np.prod(np.stack([*tiles.values()]), axis=0)
    one = np.ones(1)
    return float(Shape({}, {}, tiles, {}, {}, frozenset(), total, laid, one, one, {}, grid).met(dim)[0])


def dealt(cores: int, grid: dict[str, int], dim: str) -> float:
    """The least share among the cores that have most programs; the last dim goes fastest."""
    programs = list(product(*(range(count) for count in grid.values())))
    place, last = list(grid).index(dim), grid[dim] - 1
    hands = [programs[core::cores] for core in range(min(cores, len(programs)))]
    most = max(map(len, hands))
    return min(sum(one[place] == last for one in hand) / most for hand in hands if len(hand) == most)


@pytest.mark.parametrize("tiles", range(1, 14))
def test_along_one_dim_it_is_as_programs_are_dealt(tiles: int) -> None:
    assert met("tpu_v3", {"i": tiles}, "i") == pytest.approx(dealt(2, {"i": tiles}, "i"))
    assert met("trainium2", {"i": tiles}, "i") == pytest.approx(
        dealt(target_of(load_machine("trainium2")).cores, {"i": tiles}, "i")
    )


@pytest.mark.parametrize(
    "grid", [{"o": 2, "i": 4}, {"o": 3, "i": 4}, {"o": 4, "i": 2}, {"o": 2, "i": 2}, {"o": 5, "i": 6}]
)
def test_turns_of_cores_and_of_tiles_with_a_common_factor_part_them(grid: dict[str, int]) -> None:
    assert met("tpu_v3", grid, "i") == pytest.approx(dealt(2, grid, "i"))
    assert met("tpu_v3", grid, "o") == pytest.approx(dealt(2, grid, "o"), abs=1.0 / grid["o"] / grid["o"])


@pytest.mark.parametrize("tiles", range(2, 14))
def test_along_a_dim_split_over_the_cores_one_that_is_left_over_is_met(tiles: int) -> None:
    assert met("tpu_v3", {"i": tiles}, "i", {"i": 2}) == pytest.approx(dealt(2, {"i": tiles}, "i"))
