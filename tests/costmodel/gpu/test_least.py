"""What a kernel takes at the least: below the price of every schedule, and near the best where one resource takes all of the time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from codesign.costmodel.gpu.model import GpuTileModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import KernelSummary, summarize
from codesign.ir.dtypes import BF16, F32
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.knobs import Site, predict
from codesign.passes.knobs.tile import longest_tiles
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.schedule.tuner import Tuner
from tests.passes.tiling import groups


def repeated(function: str, times: int = 8) -> Fusion:
    """A function of a function of an element, and so on: its own work is what takes the time."""
    body = "%x[i, j]"
    for _ in range(times):
        body = function.format(body)
    module = parse(f"""func @main(%x: f32[2048, 4096], %z: f32[2048, 4096]) {{
        %f = fusion {{
            %y = compute f32[i: 2048, j: 4096] {{ {body} }}
            yield %y
        }}
        return %f }}""")
    (fusion,) = (op for op in module.main.body.ops if isinstance(op, Fusion))
    return fusion


def of(text: str) -> Fusion:
    """The group of a text."""
    (fusion,) = (op for op in parse(text).main.body.ops if isinstance(op, Fusion))
    return fusion


CHAIN = of("""func @main(%x: bf16[2048, 1024], %u: bf16[4096, 1024], %d: bf16[8192, 4096]) {
    %f = fusion {
        %h = compute bf16[i: 2048, h: 4096] sum(k: 1024) in f32 { f32(%x[i, k]) * f32(%u[h, k]) }
        %y = compute bf16[i: 2048, j: 8192] sum(h: 4096) in f32 { f32(%h[i, h]) * f32(%d[j, h]) }
        yield %y
    }
    return %f }""")
"""Each tile of the second product's columns has the first one done again."""

ROWS_KEPT = of("""func @main(%x: f32[4096, 64], %z: f32[4096, 65536]) {
    %s, %f = fusion {
        %e = compute f32[i: 4096] sum(k: 64) { exp(%x[i, k]) }
        %y = compute f32[i: 4096, j: 65536] { %z[i, j] / %e[i] }
        yield %e, %y
    }
    return %s, %f }""")
"""What is done for rows, and kept, in a grid over columns too."""

GROUPS = {
    "chain": CHAIN,
    "rows kept": ROWS_KEPT,
    "element-wise": groups.element_wise(4096, 4096),
    "few elements": groups.element_wise(8, 8),
    "sums": groups.reduction(512, 4096, "sum"),
    "one sum": groups.reduction(1, 64, "sum"),
    "softmax": groups.softmax(256, 1024),
    "product": groups.gemm(512, 1024, 2048, BF16),
    "small product": groups.gemm(16, 16, 32, BF16),
    "product in f32": groups.gemm(256, 256, 512, F32),
    "attention": groups.attention(4, 256, 256, 64),
    "masked attention": groups.attention(8, 2048, 2048, 64, groups.below()),
    "exact quotients": repeated("truncdiv({}, 0.3)"),
    "exact quotients by data": repeated("truncdiv({}, %z[i, j])"),
    "steps of quotients": repeated("floor({} / %z[i, j])"),
    "quotients of float64": repeated("f32(f64({}) / f64(%z[i, j]))"),
    "attention of narrow heads": groups.attention(64, 1024, 1024, 16),
}


@pytest.mark.parametrize("machine", ["h100_sxm", "a100_sxm", "b200_sxm", "l40s", "mi300x"])
@pytest.mark.parametrize("name", GROUPS)
def test_no_schedule_of_a_space_is_below(name: str, machine: str) -> None:
    target = load_machine(machine)
    least, seconds = prices(GROUPS[name], target.name)
    assert least > 0.0
    assert least <= float(seconds.min()) * (1.0 + 1e-9)


@pytest.mark.parametrize("name", ["element-wise", "few elements", "sums", "softmax"])
def test_what_memory_bounds_comes_near(name: str) -> None:
    least, seconds = prices(GROUPS[name], "h100_sxm")
    assert float(seconds.min()) <= 1.05 * least


def test_what_programs_do_again_is_in_what_a_chain_takes_at_the_least() -> None:
    """The first of two products, with an eighth of the second's work, is done for each tile of 2,048 of 8,192 columns, as no tile is longer."""
    target, summary = load_machine("h100_sxm"), summary_of(CHAIN)
    model = cost_model_for(target)
    assert isinstance(model, GpuTileModel)
    site = Site.of(summary, target)
    assert longest_tiles(site) == dict.fromkeys(summary.outer, 2048.0)
    once, again = (model.least_seconds(summary, target, {}, tiles) for tiles in (None, longest_tiles(site)))
    assert again / once == pytest.approx((4 + 8) / (1 + 8), rel=0.01)


def prices(group: Fusion, machine: str) -> tuple[float, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """What a group takes at the least with its launch, and the prices of many of its schedules."""
    target = load_machine(machine)
    model = cost_model_for(target)
    assert isinstance(model, GpuTileModel)
    summary = summary_of(group)
    some = space(summary, target, {})
    cost = predict(model, summary, target, some.batch(some.sample(2000, np.random.default_rng(0))), {})
    launch = model.parameters(target).parameters.launch_seconds
    tiles = longest_tiles(Site.of(summary, target))
    return launch + model.least_seconds(summary, target, {}, tiles), cost.seconds


def summary_of(group: Fusion) -> KernelSummary:
    normalized = normalize(group)
    places = [(where.type.shape, where.indices) for where in normalized.outputs]
    return summarize(normalized.fusion, places=places)


@pytest.mark.parametrize("machine", ["h100_sxm", "b300_sxm", "l40s", "mi300x"])
def test_a_sum_in_one_block_waits_for_its_data_however_it_is_taken(machine: str) -> None:
    """What a grid of one block goes over step by step nobody has loaded before it: twice the elements are not sooner summed."""
    seconds = [
        Tuner(load_machine(machine)).tune(groups.reduction(1, count, "sum")).seconds
        for count in (31, 62, 124, 700, 1400)
    ]
    assert all(more >= 0.999 * less for less, more in pairwise(seconds))
