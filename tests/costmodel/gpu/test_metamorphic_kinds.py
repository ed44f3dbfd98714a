"""The same as `test_metamorphic` for kernels without a product, over all GPUs and sizes: more of a machine is never slower, a larger tensor
never faster, and one more element no jump."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.costmodel import workloads
from codesign.costmodel.events.model import EventModel
from codesign.costmodel.gpu.library import library, library_space
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import Machine, load_machine, machine_names
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import Schedule, ScheduleBatch

GPUS = [name for name in machine_names() if load_machine(name).kind == "gpu"]
KINDS = {
    "add": workloads.add("f16"),
    "gelu": workloads.gelu("bf16"),
    "silu": workloads.silu_and_multiply("f16"),
    "softmax": workloads.softmax("f32"),
    "rms_norm": workloads.rms_norm("bf16"),
    "layer_norm": workloads.layer_norm("f32"),
    "embedding": workloads.embedding("f16"),
}
FIGURES = {
    "levels.dram.bandwidth": 1.5,
    "levels.l2.bandwidth": 1.5,
    "levels.l2.capacity_bytes": 1.5,
    "levels.dram.latency_seconds": 0.7,
    "levels.l2.latency_seconds": 0.7,
    "units.vector.clock_hz": 1.2,
}
SIZES = st.tuples(st.integers(1, 16384), st.integers(1, 16384))
EDGE = 64
"""Sizes of tiles are multiples of this."""


@lru_cache(maxsize=64)
def _machine(name: str, figure: str = "") -> Machine:
    machine = load_machine(name)
    if not figure:
        return machine
    kind, part, field = figure.split(".")
    value = getattr(machine.level(part) if kind == "levels" else machine.unit(part), field).value
    return machine.with_figures({figure: value * FIGURES[figure]})


def _best(kernel: KernelSummary, machine: Machine, sizes: list[tuple[int, int]]) -> np.ndarray:
    """Seconds of the best schedule for rows and columns."""
    rows, columns = np.array(sizes, dtype=np.float64).T
    values = {"T": rows, "N": columns, "V": np.full(len(rows), 32000.0)}
    p = load_calibration(_machine(machine.name)).parameters
    return library(kernel, machine, values, p, library_space(kernel, machine)).seconds


@settings(max_examples=12)
@given(st.sampled_from(GPUS), st.sampled_from(sorted(KINDS)), SIZES)
def test_more_of_a_machine_is_never_slower(name: str, kind: str, size: tuple[int, int]) -> None:
    base = _best(KINDS[kind], _machine(name), [size])
    for figure in FIGURES:
        assert _best(KINDS[kind], _machine(name, figure), [size]) <= base * 1.001, figure


@settings(max_examples=30)
@given(st.sampled_from(GPUS), st.sampled_from(sorted(KINDS)), SIZES)
def test_a_larger_tensor_is_never_faster_and_one_more_element_no_jump(
    name: str, kind: str, size: tuple[int, int]
) -> None:
    rows, columns = size
    around = [size, (2 * rows, columns), (rows, 2 * columns), (rows + 1, columns), (rows, columns + 1)]
    base, *larger = _best(KINDS[kind], _machine(name), around)
    assert min(larger[:2]) >= 0.999 * base
    assert min(larger[2:]) >= 0.9 * base
    for extent, time in zip(size, larger[2:], strict=True):
        if extent > EDGE and extent % EDGE:
            assert time <= 1.3 * base


@settings(max_examples=15)
@given(
    st.sampled_from(GPUS),
    st.sampled_from(["add", "gelu", "softmax", "rms_norm"]),
    st.integers(1, 512),
    st.integers(1, 4096),
)
def test_a_simulation_of_events_is_never_below_the_roofline(name: str, kind: str, rows: int, columns: int) -> None:
    kernel, machine, sizes = KINDS[kind], _machine(name), {"T": rows, "N": columns}
    schedule = Schedule({"t": 4, "n": 512}, extras={"warps": 4})
    found = EventModel().predict(kernel, machine, ScheduleBatch.of([schedule]), sizes)
    if found.reason[0]:
        pytest.skip(found.reason[0])
    assert found.seconds[0] >= max(roofline_bounds(kernel, machine, sizes))
