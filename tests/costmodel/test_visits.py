"""What masks take off the price: steps that loops make in the mean, work, bytes and seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from codesign.costmodel.features import features
from codesign.costmodel.gpu.block import block_work
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.library_work import product_work
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.roofline import kernel_flops
from codesign.costmodel.summary import summarize
from codesign.costmodel.visits import Deal, shares_left, visited
from codesign.ir.dtypes import BF16
from codesign.ir.index import index, maximum
from codesign.ir.reach import Reach
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.ir.tiling.templates import template
from tests.passes.tiling import groups
from tests.passes.tiling.test_bounds import window

CAUSAL = Reach(index(0), index("i") + 1)
WINDOW = Reach(maximum(index("i") - 99, 0), index("i") + 1, once=True)


@pytest.mark.parametrize("reach", [CAUSAL, WINDOW], ids=["causal", "window"])
def test_steps_are_those_of_each_program(reach: Reach) -> None:
    rows, steps = np.array([16.0, 64.0, 64.0]), np.array([32.0, 32.0, 128.0])
    blocks = {"i": np.ceil(500 / rows)}
    mean, most, _ = visited(reach, "k", {"i": rows, "k": steps}, blocks, {"i": 500.0, "k": 500.0}, {}).all
    for at, (row, step) in enumerate(zip(rows.astype(int), steps.astype(int), strict=True)):
        made = []
        for first in range(0, 500, row):
            lower = int(reach.low.evaluate({"i": first})) // step * step
            made.append(math.ceil((min(first + row, 500) - lower) / step))
        assert (mean[at], most[at]) == (np.mean(made), max(made))


def test_a_dim_that_one_program_has_is_not_cut() -> None:
    assert visited(CAUSAL, "k", {"i": 512.0, "k": 64.0}, {"i": 1.0}, {"i": 512.0, "k": 512.0}, {}).all[:2] == (8.0, 8.0)


def test_the_share_of_a_triangle() -> None:
    assert shares_left({"k": CAUSAL}, {"i": 64.0, "k": 64.0}, {})["k"] == pytest.approx(65 / 128)


def test_work_and_bytes_are_those_of_the_kernel() -> None:
    """Of one warp: several work out the same parts of the first of two products, which the price counts."""
    for group in (
        groups.attention(2, 256, 256, 32, window(64)),
        groups.masked_product(256, 64, 256, groups.below("k")),
    ):
        tiles = {"i": 32, "j": 32, "k": 32, "d": 32, "e": 32}
        used = {dim: size for dim, size in tiles.items() if dim in group.dims()}
        schedule = Schedule(used, reduce={"d": "resident"} if "d" in used else {}, extras={"warps": 1})
        made, sizes = template(group, schedule)
        found, summary = features(made.kernel).at(sizes), summarize(group)
        knobs = {k: np.asarray(v, dtype=np.float64) for k, v in ScheduleBatch.of([schedule]).columns.items()}
        predicted, _ = block_work(summary, geometry(summary, knobs, {}), load_machine("a100_sxm"), knobs)
        assert float(np.squeeze(predicted.load_bytes)) == pytest.approx(found.load_bytes, rel=0.01)
        products = sum(float(np.squeeze(v)) for v in predicted.tensor.values()) + float(np.squeeze(predicted.ieee))
        assert products == pytest.approx(sum(found.products.values()), rel=0.01)


@pytest.mark.parametrize(("rows", "steps"), [(32, 32), (64, 16), (16, 64)])
def test_a_mask_is_paid_in_tiles_at_its_border(rows: int, steps: int) -> None:
    """Those are few of a triangle's; of the others the comparison and the choice of each lane are gone."""
    summary = summarize(groups.attention(1, 256, 256, 16, groups.below()))
    (masked,) = [nest for nest in summary.nests if nest.spared]
    spared = [(dtype, cost) for _, counts in masked.spared for (_, dtype), cost in counts.items()]
    hoisted = sum(cost for _, counts in masked.hoisted for cost in counts.values())
    assert sum(cost for _, cost in spared) == sum(masked.operations.values()) + hoisted > 0
    schedule = Schedule({"i": rows, "j": steps, "d": 16, "e": 16}, reduce={"d": "resident"})
    knobs = {k: np.asarray(v, dtype=np.float64) for k, v in ScheduleBatch.of([schedule]).columns.items()}
    shape = geometry(summary, knobs, {})
    whole = [(first + 1) // steps for first in range(0, 256, rows)]
    every = [-(-(first + rows) // steps) for first in range(0, 256, rows)]
    assert float(np.squeeze(shape.whole)) == pytest.approx(sum(whole) / sum(every))
    shape_of_all = replace(shape, whole=0.0)
    less = product_work(summary, shape_of_all).vector - product_work(summary, shape).vector
    less = less + product_work(summary, shape_of_all).integer - product_work(summary, shape).integer
    per_lane = sum(cost * (2.0 if dtype == "i64" else 1.0) for dtype, cost in spared)
    assert float(np.squeeze(less)) == pytest.approx(per_lane * rows * steps * np.mean(whole))


ROWS_SLOWEST = ("i", "h", "e")
"""With rows fastest, each core would have the same rows of every head: the last rows take as long as without a mask."""


def seconds(group: Fusion, machine: str) -> float:
    tiles = {"i": 128, "j": 64, "d": 64, "e": 64, "k": 64}
    used = {dim: size for dim, size in tiles.items() if dim in group.dims()}
    schedule = Schedule(used, reduce={"d": "resident"}, order=ROWS_SLOWEST if "h" in group.dims() else ())
    if "j" in group.outer_dims():
        schedule = Schedule({"i": 128, "j": 128, "k": 32}, pipeline=2, extras={"warps": 8})
    target = load_machine(machine)
    return float(cost_model_for(target).predict(summarize(group), target, ScheduleBatch.of([schedule])).seconds[0])


@pytest.mark.parametrize("machine", ["h100_sxm", "a100_sxm", "maia100"])
def test_what_a_mask_empties_is_not_paid(machine: str) -> None:
    whole, half, few = (
        seconds(groups.attention(64, 4096, 4096, 64, m), machine) for m in (None, groups.below(), window(256))
    )
    assert half < 0.65 * whole
    assert few < 0.3 * whole
    wide, narrow = (seconds(groups.masked_product(8192, 8192, 8192, m, BF16), machine) for m in MASKS)
    assert narrow < 0.65 * wide


MASKS = (groups.below("k", offset=1 << 20), groups.below("k"))


def test_least_work_and_bytes_are_those_that_masks_leave() -> None:
    whole, half = (summarize(groups.masked_product(1024, 512, 1024, mask)) for mask in MASKS)
    assert kernel_flops(half, {}) == pytest.approx(kernel_flops(whole, {}) * 1025 / 2048)
    assert whole.read_bytes.constant == 4 * (1024 * 1024 + 1024 * 512)
    assert half.read_bytes.constant == pytest.approx(4 * (1024 * 1025 / 2 + 1024 * 512), rel=1e-5)


def test_one_wave_takes_as_long_as_its_longest_program() -> None:
    alone, whole = (seconds(groups.attention(1, 4096, 4096, 64, mask), "h100_sxm") for mask in (groups.below(), None))
    assert alone > 0.8 * whole


@pytest.mark.parametrize(("parts", "steps"), [(1, 4.5), (2, 5.0), (8, 8.0), (4, 6.0)])
def test_the_slowest_of_cores_that_take_turns_at_a_triangle(parts: int, steps: float) -> None:
    """Eight blocks of rows make 1 to 8 steps; of `parts` cores the last takes every `parts`-th block."""
    sizes = {"i": 512.0, "k": 512.0}
    deal = Deal([("i", 8 // parts, 1)], {"i": parts}, 1)
    assert visited(CAUSAL, "k", {"i": 64.0, "k": 64.0}, {"i": 8.0}, sizes, {}, deal).all.slowest == steps


def dealt(turns: Sequence[tuple[str, int, int]], whole: dict[str, int], gangs: int) -> list[tuple[float, ...]]:
    """Of each core, all its steps of a loop under a triangle along i + n, those that are whole, in the mean over its gang's most rounds."""
    blocks = list(product(*(range(count) for _, count, _ in turns)))
    rounds = -(-len(blocks) // gangs)
    cores: list[tuple[float, ...]] = []
    for gang in range(min(gangs, len(blocks))):
        for place in product(*(range(many) for many in whole.values())):
            made = np.zeros(2)
            for digits in blocks[gang::gangs]:
                at = dict.fromkeys(whole, 0)
                for (dim, _, below), digit in zip(turns, digits, strict=True):
                    at[dim] += digit * below
                i, n, _ = (at[dim] * whole[dim] + own for dim, own in zip(whole, place, strict=True))
                if i < 7 and n < 3:
                    first, last = i * 32 + n, i * 32 + 31 + n
                    made += np.array([min(last, 299) // 32 + 1, min((first + 1) // 32, 10)])
            cores.append(tuple(made / rounds))
    return cores


@pytest.mark.parametrize("seed", range(12))
def test_the_slowest_core_of_a_deal_is_that_of_programs_dealt_one_by_one(seed: int) -> None:
    """Blocks in any order of their dims, one of them cut in two turns, to any number of gangs."""
    rng = np.random.default_rng(seed)
    whole = {"i": int(rng.integers(1, 4)), "n": int(rng.integers(1, 3)), "h": int(rng.integers(1, 3))}
    counts = {"i": -(-7 // whole["i"]), "n": -(-3 // whole["n"]), "h": int(rng.choice([1, 4, 6]))}
    turns = [(dim, counts[dim], 1) for dim in rng.permutation([*counts])]
    if counts["i"] % 2 == 0:
        turns = [("i", 2, counts["i"] // 2), *((dim, n // 2 if dim == "i" else n, 1) for dim, n, _ in turns)]
    gangs = int(rng.integers(1, min(9, math.prod(counts.values()) + 1)))
    reach = Reach(index(0), index("i") + index("n") + 1)
    tiles, blocks = {"i": 32.0, "n": 1.0, "k": 32.0}, {"i": 7.0, "n": 3.0, "h": float(counts["h"] * whole["h"])}
    seen = visited(reach, "k", tiles, blocks, {"i": 224.0, "n": 3.0, "k": 300.0}, {}, Deal(turns, whole, gangs))
    cores = dealt(turns, whole, gangs)
    assert seen.all.slowest == pytest.approx(max(every for every, _ in cores))
    slowest = [inside for every, inside in cores if every == pytest.approx(seen.all.slowest)]
    assert any(seen.parted["whole"].slowest == pytest.approx(inside) for inside in slowest)


@pytest.mark.parametrize(("length", "whole", "after"), [(100, 3.0, 1.0), (96, 3.0, 0.0), (20, 0.0, 1.0)])
def test_a_ragged_loop_has_whole_steps_and_one_that_sticks_out(length: int, whole: float, after: float) -> None:
    shape = geometry(summarize(groups.softmax(4, length)), {"tile.i": 1.0, "tile.j": 32.0}, {})
    assert (float(shape.parted["j", "whole"]), float(shape.parted["j", "after"])) == (whole, after)
