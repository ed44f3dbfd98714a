"""Arithmetic goes by the rates of its dtype: FP64 by the machine file, on the vector unit, its functions in software."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.events import EventModel
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.roofline import roofline_bounds
from codesign.ir.errors import UnsupportedError
from codesign.ir.schedule import ScheduleBatch
from tests.costmodel.groups import GPUS, best, group, polynomial

SIZE, TERMS = 1 << 24, 80
F64 = "units.vector.rate.f64"


def rate(machine: Machine, dtype: str) -> float:
    """Operations per second, a multiply-add as one."""
    found = machine.rate("vector", dtype)
    assert found is not None, f"{machine.name} says nothing of {dtype}"
    return found / 2.0


@pytest.mark.parametrize("name", GPUS)
def test_fp64_arithmetic_takes_its_operations_over_the_rate_of_the_machine(name: str) -> None:
    machine = load_machine(name)
    found = best(polynomial("f64", SIZE, TERMS), machine)
    least = 2.0 * TERMS * SIZE / rate(machine, "f64")
    assert least <= found.seconds <= 1.5 * least + 2.0 * roofline_bounds(found.summary, machine, {})[3] + 40e-6


@pytest.mark.parametrize(("name", "ratio"), [("h100_sxm", 2), ("a100_sxm", 2), ("b300_sxm", 64), ("gb300", 64)])
def test_a_long_polynomial_in_fp64_against_f32(name: str, ratio: float) -> None:
    wide, narrow = (best(polynomial(dtype, SIZE, TERMS), name).seconds for dtype in ("f64", "f32"))
    assert wide / narrow == pytest.approx(ratio, rel=0.35 if ratio == 2 else 0.15)


def test_the_rate_is_a_figure_like_any_other() -> None:
    machine = load_machine("l40s")
    one, two = (best(polynomial("f64", SIZE, TERMS), machine.with_figures({F64: lanes})).seconds for lanes in (2, 4))
    assert one == pytest.approx(2.0 * two, rel=0.02)
    units = [
        unit.model_copy(update={"rate": {k: v for k, v in unit.rate.items() if k != "f64"}}) for unit in machine.units
    ]
    without = machine.model_copy(update={"units": units})
    assert np.isfinite(best(polynomial("f32", SIZE, TERMS), without).seconds)
    with pytest.raises(UnsupportedError, match="no rate for f64 on the vector unit"):
        best(polynomial("f64", SIZE, TERMS), without)


def test_products_sums_and_functions_in_fp64() -> None:
    """A product takes a slot a multiply-add, an exponential a polynomial; the simulation and the bound know it too."""
    product = group(
        "%a: f64[2048, 2048], %b: f64[2048, 2048]",
        "%c = compute f64[i: 2048, j: 2048] sum(k: 2048) { %a[i, k] * %b[k, j] }",
    )
    exponential = group("%x: f64[16777216]", "%y = compute f64[i: 16777216] { exp(%x[i]) }")
    for name in ("h100_sxm", "l40s"):
        machine = load_machine(name)
        for fusion, slots in ((product, 2048**3), (exponential, 15 * SIZE)):
            found = best(fusion, machine)
            batch = ScheduleBatch.of([found.schedule])
            least = slots / rate(machine, "f64")
            simulated = EventModel().predict(found.summary, machine, batch).seconds[0]
            assert found.seconds >= least
            assert simulated >= least
            assert simulated == pytest.approx(found.seconds, rel=0.25)
        assert roofline_bounds(best(product, machine).summary, machine, {})[1] == pytest.approx(
            2048**3 / rate(machine, "f64")
        )


def test_an_fp64_operation_draws_twice_the_energy_of_one_in_f32() -> None:
    machine = load_machine("h100_sxm")
    model = cost_model_for(machine)
    joules = []
    for dtype in ("f32", "f64"):
        found = best(polynomial(dtype, SIZE, TERMS), machine)
        cost = model.predict(found.summary, machine, ScheduleBatch.of([found.schedule]))
        joules.append(float(cost.joules[0]) - 0.15 * 700 * float(cost.seconds[0]))  # beside what it draws anyway
    assert joules[1] == pytest.approx(2.0 * joules[0], rel=0.1)


def test_integers_go_by_their_own_lanes_and_those_of_64_bits_in_halves() -> None:
    machine = load_machine("h100_sxm")
    floats, narrow, wide = (best(polynomial(dtype, SIZE, TERMS), machine).seconds for dtype in ("f32", "i32", "i64"))
    least = 2.0 * TERMS * SIZE / rate(machine, "i32")
    assert least <= narrow <= 1.5 * least
    assert narrow == pytest.approx(2.0 * floats, rel=0.25)  # 64 lanes against 128
    assert wide == pytest.approx(2.0 * narrow, rel=0.15)
