"""Convolutions of growing batches: work and bytes grow in proportion, so time does, whatever dims are wide enough to tile."""

from __future__ import annotations

import pytest

from codesign.costmodel.machine import load_machine
from tests.costmodel.groups import best, convolution


@pytest.mark.parametrize("machine", ["h100_sxm", "a100_sxm", "l40s", "mi300x", "b200_sxm", "maia100", "tpu_v4"])
@pytest.mark.parametrize(("image", "inside"), [((56, 56), 64), ((28, 28), 32), ((300,), 64)])
def test_twice_the_images_take_about_twice_the_time(machine: str, image: tuple[int, ...], inside: int) -> None:
    few, many, more = (best(convolution(n, inside, 128, image), machine).seconds for n in (64, 128, 129))
    launch = 2e-6 if load_machine(machine).kind == "gpu" else 0.0
    assert 1.5 * (few - launch) <= many <= 2.5 * few
    assert many * 0.85 <= more <= 1.15 * many


def test_an_image_a_bit_wider_than_whole_tiles_is_no_cliff() -> None:
    exact, more = (best(convolution(64, 64, 128, (8, width))).seconds for width in (128, 136))
    assert more <= 1.3 * exact


def test_runs_of_memory_are_tiled_and_not_the_widest_dim() -> None:
    """Channels of 512 images with 8 pixels: a tile of images alone would store single values."""
    found = best(convolution(512, 64, 64, (8,)))
    stores = [access for nest in found.summary.nests for access in nest.stores]
    assert {dim for access in stores for dim in access.dims if found.schedule.tiles.get(dim, 1) >= 16} >= {"ny"}
