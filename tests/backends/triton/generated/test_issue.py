"""What is issued is paid: taps of windows, guards, lanes without a value, and blocks that follow each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codesign.costmodel.events import EventModel
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.runs import lines_of_a_request
from codesign.costmodel.gpu.streaming import REQUEST_CLOCKS
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.schedule.tuner import Tuned
from tests.costmodel.groups import GPUS, best, group

IMAGES, PIXELS = 256, 128


def pooling(taps: int, dtype: str = "f32", padded: bool = False, images: int = IMAGES) -> Fusion:
    """The largest of taps x taps neighbours; at the borders of a padded one the rest is minus infinity."""
    size = PIXELS if padded else PIXELS - taps + 1
    at = f"y + r - {taps // 2}, x + s - {taps // 2}" if padded else "y + r, x + s"
    otherwise = f" else -inf:{dtype}" if padded else ""
    return group(
        f"%x: {dtype}[{images}, {PIXELS}, {PIXELS}]",
        f"%y = compute {dtype}[n: {images}, y: {size}, x: {size}] max(r: {taps}, s: {taps}) {{ %x[n, {at}]{otherwise} }}",
    )


def requests_seconds(loads: float, machine: Machine) -> float:
    """Least seconds of so many loads of single values: a warp's request takes a clock and a half."""
    clock = machine.need(machine.unit("vector").clock_hz, "clock")
    return loads / machine.limit("warp_size") * REQUEST_CLOCKS / clock / machine.instances("shared")


def simulated(found: Tuned, machine: Machine) -> float:
    return float(EventModel().predict(found.summary, machine, ScheduleBatch.of([found.schedule])).seconds[0])


@pytest.mark.parametrize(
    ("name", "dtype", "ratio"), [("h100_sxm", "f32", 1.5), ("a100_sxm", "bf16", 1.5), ("l40s", "f32", 1.0)]
)
def test_every_tap_of_a_window_is_a_load(name: str, dtype: str, ratio: float) -> None:
    machine = load_machine(name)
    seconds = []
    for taps in (2, 4, 8):
        found = best(pooling(taps, dtype), machine)
        results = IMAGES * (PIXELS - taps + 1) ** 2
        least = requests_seconds(results * taps**2, machine)
        assert found.seconds >= least
        assert simulated(found, machine) >= least
        seconds.append(found.seconds)
    assert 0.97 * seconds[0] < seconds[1] < seconds[2]  # the larger window has fewer results
    assert seconds[2] >= ratio * seconds[0]


def test_windows_that_do_not_overlap_are_read_at_the_pace_of_memory() -> None:
    machine = load_machine("h100_sxm")
    fusion = group(
        "%x: f32[1024, 256, 256]",
        "%y = compute f32[n: 1024, y: 128, x: 128] max(r: 2, s: 2) { %x[n, 2 * y + r, 2 * x + s] }",
    )
    assert best(fusion, machine).seconds <= 1.5 * (1024 * 256 * 256 * 4 * 1.25 / 3.35e12) + 5e-6


def test_a_border_costs_its_guards() -> None:
    inside, border = (best(pooling(7, padded=padded, images=64)) for padded in (False, True))
    assert border.seconds > inside.seconds * (PIXELS / (PIXELS - 6)) ** 2


def depthwise(taps: int, channels: int = 128, pixels: int = 64) -> Fusion:
    half = taps // 2
    return group(
        f"%x: bf16[32, {channels}, {pixels}, {pixels}], %w: bf16[{channels}, {taps}, {taps}]",
        f"%s = compute f32[n: 32, c: {channels}, y: {pixels}, x: {pixels}] sum(r: {taps}, s: {taps}) "
        f"{{ f32(%x[n, c, y + r - {half}, x + s - {half}] else 0.0:bf16) * f32(%w[c, r, s]) }}",
        f"%v = compute bf16[n: 32, c: {channels}, y: {pixels}, x: {pixels}] {{ bf16(%s[n, c, y, x]) }}",
    )


def test_taps_of_a_depthwise_convolution_are_loads() -> None:
    machine = load_machine("h100_sxm")
    for taps in (3, 7):
        assert best(depthwise(taps), machine).seconds >= requests_seconds(32 * 128 * 64 * 64 * taps**2, machine)


def test_a_pool_fused_into_a_convolution_pays_the_convolution_for_each_of_its_taps() -> None:
    """A 2 x 2 pool with stride 1 reads four results of the convolution each: done within, that is four times the work."""
    conv = "sum(c: 16, r: 3, s: 3) { f32(%x[n, c, AT] else 0.0:bf16) * f32(%w[o, c, r, s]) }"
    sizes = "n: 8, o: 16, y: 64, x: 64"
    tensors = "%x: bf16[8, 16, 64, 64], %w: bf16[16, 16, 3, 3]"
    alone = group(tensors, f"%v = compute f32[{sizes}] " + conv.replace("AT", "y + r - 1, x + s - 1"))
    within = group(
        tensors,
        f"%v = compute f32[{sizes}, u: 4, v: 4] " + conv.replace("AT", "y + r + u - 1, x + s + v - 1"),
        f"%p = compute f32[{sizes}] max(u: 4, v: 4) {{ %v[n, o, y, x, u, v] }}",
    )
    assert best(within).seconds - 3e-6 >= 4.0 * (best(alone).seconds - 3e-6)


@pytest.mark.parametrize(
    ("tiles", "lines"),
    [
        ({"i": 1, "j": 32}, 1),
        ({"i": 1, "j": 128}, 4),
        ({"i": 32, "j": 1}, 32),
        ({"i": 8, "j": 8}, 4),
        ({"i": 1, "j": 8}, 1),
    ],
)
def test_a_request_touches_the_lines_that_its_lanes_lie_in(tiles: dict[str, int], lines: int) -> None:
    """Of a tile of four-byte values with a lane each, or four where they are neighbours and enough."""
    summary = summarize(group("%x: f32[4096, 8192]", "%y = compute f32[i: 4096, j: 4096] { %x[i, j] }"))
    (access,) = summary.nests[0].loads
    g = geometry(summary, {f"tile.{dim}": np.array([float(size)]) for dim, size in tiles.items()}, {})
    each = 16.0 if tiles["j"] == 128 else 4.0
    assert float(lines_of_a_request(access, g, each, 32.0)[0]) == lines


def test_lanes_of_a_window_go_along_memory() -> None:
    found = best(pooling(3, images=64))
    stores = [access for nest in found.summary.nests for access in nest.stores]
    assert found.schedule.tiles[stores[0].dims[-1]] >= 16


STREAMS = {
    "gelu": ("%x: f16[100, 200]", "%y = compute f16[i: 100, j: 200] { f16(erf(f32(%x[i, j])) * f32(%x[i, j])) }"),
    "copy": ("%x: i8[333]", "%y = compute i8[i: 333] { %x[i] }"),
    "transpose": ("%x: f32[96, 160]", "%y = compute f32[i: 160, j: 96] { %x[j, i] }"),
    "broadcast": ("%x: f64[70], %y: f64[90]", "%z = compute f64[i: 70, j: 90] { %x[i] + %y[j] }"),
    "small": ("%x: bf16[100]", "%y = compute bf16[i: 100] { max(%x[i], 0.0:bf16) }"),
}


@pytest.mark.parametrize("name", GPUS)
def test_a_block_of_one_element_is_never_best(name: str) -> None:
    machine = load_machine(name)
    for arguments, compute in STREAMS.values():
        found = best(group(arguments, compute), machine)
        assert math.prod(found.schedule.tiles.values()) >= machine.limit("warp_size"), found.schedule


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm", "mi300x", "l4"])
def test_blocks_of_one_element_take_longer_and_the_simulation_says_so_too(name: str) -> None:
    machine = load_machine(name)
    summary = best(group(*STREAMS["gelu"]), machine).summary
    (dim,) = summary.outer
    batch = ScheduleBatch.of([Schedule(tiles={dim: 1 << k}, extras={"warps": 1}) for k in (0, 2, 5, 7, 9)])
    model, events = (m.predict(summary, machine, batch).seconds for m in (cost_model_for(machine), EventModel()))
    for seconds in (model, events):
        assert (np.diff(seconds[:3]) < 0.0).all()
        assert seconds[0] >= 1.3 * seconds.min()
    assert events[int(np.argmin(model))] <= 1.05 * events.min()


def test_as_few_values_as_there_are_need_no_full_warp() -> None:
    assert math.prod(best(group("%x: f32[5]", "%y = compute f32[i: 5] { %x[i] }")).schedule.tiles.values()) == 8
