"""Figures of machine files are read by a model of their kind, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.allowed import allowed
from codesign.costmodel.external import external_seconds
from codesign.costmodel.gpu.model import GpuTileModel
from codesign.costmodel.launches import launch_seconds
from codesign.costmodel.machine import MACHINE_FOLDER, Machine, figures_of, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.ir.core import Value
from codesign.ir.dtypes import F32
from codesign.ir.errors import CodesignError, MachineError
from codesign.ir.index import index
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Collective
from codesign.ir.types import TensorType

ELSEWHERE = {
    "levels.dram.capacity_bytes",  # the command: does a model fit
    "limits.queue_depth",  # the simulator
    "limits.semaphores_per_core",  # the lowering
    "limits.dma_descriptor_dims",
    "levels.cluster.capacity_bytes",
    "levels.cmem.capacity_bytes",
    "links.pcie.bandwidth",  # the fastest link is taken
    "links.ethernet.bandwidth",
    "units.tensor.rate.tf32",  # products that no kernel has yet
    "units.tensor.rate.i8",
    "units.tensor.rate.f6e2m3",  # operands with the scales of their blocks
    "units.tensor.rate.f6e3m2",
    "units.tensor.rate.f4e2m1",
    "units.tensor.rate.f8e0m7",
    "units.tensor.rate.f5e0m4",
}
FACTORS = (0.5, 2.0, 0.01, 1000.0)
TILES = {"m": 128, "n": 128, "k": 32, "t": 1, "h": 8, "d": 32, "x": 16, "y": 16}


def _answers(machine: Machine) -> Iterator[float]:
    """What the models say of some kernels, of this compiler and of a library (which alone has products of a CDNA 3's own 8-bit floats):
    seconds, joules, and why not."""
    model = cost_model_for(machine)
    models = [model, replace(model, compiled=False)] if isinstance(model, GpuTileModel) else [model]
    products = ("bf16", "f16", "f32", "i8", "f8e4m3", "f8e5m2", *(["f64"] if machine.kind == "gpu" else []))
    kernels = [*map(workloads.gemm, products), workloads.rms_norm(), workloads.softmax(), workloads.gelu()]
    few, many = (Schedule(TILES, pipeline=stages, extras={"warps": 8}) for stages in (1, 3))
    wide = Schedule({**TILES, "m": 256, "n": 256}, pipeline=1, extras={"warps": 4})
    deep = Schedule({**TILES, "m": 256, "n": 256}, pipeline=4, extras={"warps": 16})
    full = Schedule(TILES, pipeline=2, extras={"warps": 32})
    small = Schedule(dict.fromkeys(TILES, 16), pipeline=1, extras={"warps": 1})
    for each, kernel in product(models, kernels):
        try:
            batch = ScheduleBatch.of([few, many, wide, deep, full, small])
            cost = each.predict(kernel, machine, batch, dict.fromkeys(kernel.symbols, 2048))
        except CodesignError:
            yield -1.0
            continue
        yield from np.nan_to_num(cost.seconds, posinf=-2.0).tolist()
        yield from np.nan_to_num(cost.joules, nan=-3.0, posinf=-2.0).tolist()
        yield from np.asarray(cost.details.get("scratch_bytes", ()), dtype=np.float64).tolist()
    if machine.links:
        yield external_seconds(_all_reduce(), machine).seconds


def _all_reduce() -> Collective:
    kind = TensorType(F32, (index(1 << 20),))
    return Collective("all_reduce", Value(kind, "x"), kind, devices=8)


@pytest.mark.parametrize("name", ["h100_sxm", "mi300x", "tpu_v4", "maia100"])
def test_every_figure_of_a_file_is_felt(name: str) -> None:
    machine = load_machine(name)
    usual = list(_answers(machine))
    for path, figure in figures_of(machine):
        behind = path == "levels.l2.capacity_bytes" and machine.has_level(
            "llc"
        )  # what is larger than both is felt alone
        if figure.value is None or ".peak." in path or path in ELSEWHERE or behind:
            continue
        assert any(_differs(machine, path, figure.value * factor or 4096.0, usual) for factor in FACTORS), path


def _differs(machine: Machine, path: str, value: float, usual: list[float]) -> bool:
    return allowed(path).wrong(value) is None and list(_answers(machine.with_figures({path: value}))) != usual


@pytest.mark.parametrize(
    ("name", "path", "near"),
    [
        ("h100_sxm", "levels.registers.bandwidth", "levels.shared.bandwidth"),
        ("mi300x", "levels.llc.latency_seconds", "l2.latency_seconds"),
        ("a100_sxm", "launch.host_seconds", "kernel_seconds"),
        ("l40s", "limits.queue_depth", "registers_per_thread"),
        ("b200_sxm", "levels.dram.write_bandwidth", "levels.dram.bandwidth"),
        ("maia100", "levels.core.latency_seconds", "latency_seconds"),
        ("tpu_v4", "limits.threads_per_sm", ""),
        ("systolic_16x16", "levels.array.bandwidth", "bandwidth"),
    ],
)
def test_a_figure_that_no_model_of_the_kind_reads_is_refused_by_name(
    name: str, path: str, near: str, tmp_path: Path
) -> None:
    *table, figure = path.split(".")
    text = (MACHINE_FOLDER / f"{name}.toml").read_text()
    source = next(iter(load_machine(name).sources))
    line = f'{figure} = {{ value = 1.0, source = "{source}" }}\n'
    place = f'name = "{table[1]}"\n' if table[0] == "levels" else f"[{table[0]}]\n"
    assert place in text
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace(place, place + line, 1))
    with pytest.raises(MachineError, match=figure) as caught:
        load_machine(str(mine))
    assert near in str(caught.value)
    assert "no model" in str(caught.value)


def test_writes_of_an_accelerator_go_at_their_own_bandwidth() -> None:
    """A store that must pass a hundredth of the bandwidth takes its time there."""
    machine = load_machine("tpu_v4")
    slow = machine.with_figures({"levels.cmem.write_bandwidth": 1.024e10})
    kernel = workloads.gelu()
    batch = ScheduleBatch.of([Schedule({"t": 8, "n": 1024}, pipeline=2)])
    sizes = dict.fromkeys(kernel.symbols, 4096)
    usual, late = (cost_model_for(m).predict(kernel, m, batch, sizes).seconds[0] for m in (machine, slow))
    assert late >= float(kernel.write_bytes.evaluate(sizes)) / 1.024e10
    assert late > 5.0 * usual


@pytest.mark.parametrize("name", ["h100_sxm", "l40s", "mi300x", "maia100"])
def test_one_cost_of_a_launch(name: str) -> None:
    """A kernel of no work, a library call and a collective start alike, at every fidelity, and as the file says."""
    machine = load_machine(name)
    for extra in (0.0, 5e-6):
        was = machine.launch["kernel_seconds"].value or 0.0
        here = machine.with_figures({"launch.kernel_seconds": was + extra})
        start = launch_seconds(here)
        assert start == pytest.approx(launch_seconds(machine) + extra)
        kernel = workloads.add()
        batch = ScheduleBatch.of([Schedule({"t": 1, "n": 16})])
        for fidelity in (1, 2) if machine.kind == "gpu" else (1,):
            cost = cost_model_for(here, fidelity).predict(kernel, here, batch, {"T": 1, "N": 16})
            assert cost.terms[0, cost.term_names.index("launch")] == pytest.approx(start)
        call = external_seconds(_all_reduce(), here).seconds - external_seconds(_all_reduce(), machine).seconds
        assert call == pytest.approx(extra, abs=1e-12)
