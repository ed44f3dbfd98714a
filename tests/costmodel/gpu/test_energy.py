"""The energy account by hand: what a machine draws anyway, what its units draw at their peaks, and what bytes take."""

from __future__ import annotations

import pytest

from codesign.costmodel.gpu.energy import power_seconds, slot_joules, static_watts, total_joules, work_joules
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import load_machine

H100 = load_machine("h100_sxm")
P = load_calibration(H100).parameters
WATTS = 700.0


def joules(work: Work, read: float = 0.0, write: float = 0.0) -> float:
    return float(work_joules(work, 1.0, read, write, H100, P))


def test_a_machine_that_does_nothing_draws_its_static_share_of_the_limit() -> None:
    """Its file has no figure of static power: 0.15 of the limit is assumed."""
    assert static_watts(H100) == pytest.approx(0.15 * WATTS)
    assert float(total_joules(0.0, 2.0, H100)) == pytest.approx(2.0 * 105.0)


def test_vector_code_at_its_peak_draws_three_quarters_of_the_limit() -> None:
    """Its own share of 0.6, beside the 0.15 of what is drawn anyway: it isn't throttled, as the tensor unit is."""
    slots = (H100.rate("vector", "f32") or 0.0) / 2.0  # multiply-adds of a second
    work = joules(Work(vector=slots))
    assert work == pytest.approx(0.6 * WATTS, rel=1e-5)
    assert float(total_joules(work, 1.0, H100)) == pytest.approx(0.75 * WATTS, rel=1e-5)
    assert float(power_seconds(work, H100)) == pytest.approx(0.6 / 0.85, rel=1e-5)


def test_a_vector_unit_without_a_figure_draws_six_tenths_of_the_limit_at_its_peak() -> None:
    bare = H100.unit("vector").model_copy(update={"energy_joules_per_operation": {}})
    units = [bare if unit.name == "vector" else unit for unit in H100.units]
    machine = H100.model_copy(update={"units": units})
    assert slot_joules(machine) * (machine.rate("vector", "f32") or 0.0) / 2.0 == pytest.approx(0.6 * WATTS)


@pytest.mark.parametrize(
    ("unit", "slots"), [("vector", 1.0), ("ieee", 1.0), ("integer", 1.0), ("special", 1.0), ("double", 2.0)]
)
def test_each_slot_takes_the_energy_of_its_width(unit: str, slots: float) -> None:
    work = Work()
    setattr(work, unit, 1e9)
    assert joules(work) == pytest.approx(slots * 1e9 * slot_joules(H100))


@pytest.mark.parametrize(("dtype", "share"), [("bf16", 1.0), ("f8", 0.5), ("i8", 0.5), ("tf32", 2.0)])
def test_operations_of_the_tensor_unit_follow_the_width_of_their_operands(dtype: str, share: float) -> None:
    assert joules(Work(tensor={dtype: 1e9})) == pytest.approx(share * 2e9 * P.tensor_joules)


def test_bytes_of_dram_take_their_figures() -> None:
    energy = H100.level("dram").energy
    assert energy is not None
    reads, writes = energy.read_joules_per_byte.value, energy.write_joules_per_byte.value
    assert reads is not None
    assert writes is not None
    assert joules(Work(), read=1e9) == pytest.approx(1e9 * reads)
    assert joules(Work(), write=1e9) == pytest.approx(1e9 * writes)
