"""The tile model and the simulation of events agree on what is best: streams, windows, convolutions, reductions."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.events import EventModel
from codesign.costmodel.machine import load_machine
from codesign.ir.schedule import ScheduleBatch
from codesign.ir.tensor import Fusion
from tests.costmodel.groups import best, convolution, group


def window(dims: int, taps: int, size: int, images: int, dtype: str) -> Fusion:
    letters = "yxz"[:dims]
    shape = ", ".join([str(size + taps - 1)] * dims)
    grid = ", ".join(f"{letter}: {size}" for letter in letters)
    reduced = ", ".join(f"r{letter}: {taps}" for letter in letters)
    at = ", ".join(f"{letter} + r{letter}" for letter in letters)
    return group(
        f"%x: {dtype}[{images}, {shape}]",
        f"%y = compute {dtype}[n: {images}, {grid}] max({reduced}) {{ %x[n, {at}] }}",
    )


def causal(channels: int, length: int) -> Fusion:
    """A short filter along each channel, whose results have rows of an odd length."""
    at = "n, c, x + r - 3"
    return group(
        f"%x: bf16[4, {channels}, {length}], %w: bf16[{channels}, 4]",
        f"%s = compute f32[n: 4, c: {channels}, x: {length + 3}] sum(r: 4) "
        f"{{ f32(%x[{at}] else 0.0:bf16) * f32(%w[c, r]) }}",
        f"%v = compute bf16[n: 4, c: {channels}, x: {length + 3}] {{ bf16(%s[n, c, x]) }}",
    )


GROUPS = {
    "stream": group("%x: bf16[8192, 8192]", "%y = compute bf16[i: 8192, j: 8192] { max(%x[i, j], 0.0:bf16) }"),
    "sum": group("%x: f32[4096, 8192]", "%y = compute f32[i: 4096] sum(j: 8192) { %x[i, j] }"),
    "window of 2": window(2, 2, 128, 1024, "f32"),
    "window in one dim": window(1, 16, 4096, 2048, "f32"),
    "causal": causal(4096, 4096),
    "convolution": convolution(128, 64, 128, (56, 56)),
    "convolution in one dim": convolution(64, 64, 128, (4096,)),
}


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm"])
def test_the_best_schedules_take_as_long_in_the_simulation(name: str) -> None:
    machine = load_machine(name)
    ratios = {}
    for kind, fusion in GROUPS.items():
        found = best(fusion, machine)
        simulated = EventModel().predict(found.summary, machine, ScheduleBatch.of([found.schedule])).seconds
        ratios[kind] = float(simulated[0]) / found.seconds
    off = np.abs(np.array(list(ratios.values())) - 1.0)
    assert np.median(off) <= 0.15, ratios
    assert off.max() <= 0.3, ratios
