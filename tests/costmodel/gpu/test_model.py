"""The tile model: terms, reasons, metamorphic properties, and measured times kept with a tolerance, one for each
regime."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.gpu.energy import static_watts
from codesign.costmodel.gpu.habits import usual_start
from codesign.costmodel.gpu.library import library
from codesign.costmodel.gpu.model import TERM_NAMES, GpuTileModel, spread_of
from codesign.costmodel.gpu.parameters import FITTED, Parameters, calibration_like, load_calibration
from codesign.costmodel.information import UNITS
from codesign.costmodel.machine import load_machine, machine_names
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.roofline import TERM_NAMES as ROOFLINE_TERMS
from codesign.costmodel.roofline import roofline_bounds
from codesign.ir.errors import MachineError
from codesign.ir.schedule import Schedule, ScheduleBatch

SIZES = {"M": 4096, "N": 4096, "K": 4096}


def gemm(machine: str = "h100_sxm", sizes: dict[str, int] | None = None, **tiles: int) -> CostBatch:
    target = load_machine(machine)
    schedule = Schedule(tiles={"m": 128, "n": 128, "k": 64} | tiles, pipeline=3, extras={"warps": 8, "group": 8})
    return cost_model_for(target).predict(workloads.gemm(), target, ScheduleBatch.of([schedule]), sizes or SIZES)


def some_schedules(count: int = 400) -> ScheduleBatch:
    rng = np.random.default_rng(0)
    ranges = {"tile.m": (4, 9), "tile.n": (4, 9), "tile.k": (4, 8), "warps": (2, 4), "split.k": (0, 4)}
    columns = {name: 2 ** rng.integers(low, high, count) for name, (low, high) in ranges.items()}
    return ScheduleBatch({**columns, "pipeline": rng.integers(1, 6, count)})


def test_terms_sum_to_seconds_and_the_interval_holds_them() -> None:
    target = load_machine("a100_sxm")
    cost = cost_model_for(target).predict(workloads.gemm(), target, some_schedules(), SIZES)
    fits = cost.reason == ""
    assert fits.any()
    assert not fits.all()
    np.testing.assert_allclose(cost.terms[fits].sum(axis=1), cost.seconds[fits], rtol=1e-9)
    assert (cost.terms >= -1e-12).all()
    assert (cost.low[fits] < cost.seconds[fits]).all()
    assert (cost.seconds[fits] < cost.high[fits]).all()
    assert np.isinf(cost.seconds[~fits]).all()


def test_no_schedule_beats_the_roofline() -> None:
    kernels = [
        (workloads.gemm(), SIZES),
        (workloads.rms_norm(), {"T": 4096, "N": 8192}),
        (workloads.add(), {"T": 4096, "N": 8192}),
    ]
    for name in ("a100_sxm", "h100_sxm", "b200_sxm", "mi300x", "l40s"):
        target = load_machine(name)
        for kernel, sizes in kernels:
            rng = np.random.default_rng(1)
            columns = {f"tile.{dim}": 2 ** rng.integers(0, 9, 200) for dim in (*kernel.outer, *kernel.inner)}
            batch = ScheduleBatch(
                {**columns, "warps": 2 ** rng.integers(2, 4, 200), "pipeline": rng.integers(1, 5, 200)}
            )
            bound = cost_model_for(target, 0).predict(kernel, target, batch, sizes).seconds
            assert (cost_model_for(target, 1).predict(kernel, target, batch, sizes).seconds >= bound).all(), (
                name,
                kernel.name,
            )


def test_a_schedule_that_does_not_fit_says_by_how_much() -> None:
    cost = gemm(m=256, n=256, k=128)
    assert cost.reason[0] == "shared memory: needs 393,216 B, limit 232,448 B"
    assert np.isinf(cost.seconds[0])


def test_a_missing_size_is_named() -> None:
    with pytest.raises(MachineError, match="no value for size K"):
        gemm(sizes={"M": 1, "N": 1})


def test_the_transposed_problem_takes_the_same_time() -> None:
    one = gemm(sizes={"M": 8192, "N": 2048, "K": 4096}, m=128, n=256)
    other = gemm(sizes={"M": 2048, "N": 8192, "K": 4096}, m=256, n=128)
    assert one.seconds[0] == pytest.approx(other.seconds[0], rel=0.03)


@pytest.mark.parametrize(
    "figure", ["levels.dram.bandwidth", "levels.l2.bandwidth", "levels.l2.capacity_bytes", "units.tensor.clock_hz"]
)
def test_more_of_anything_is_never_slower(figure: str) -> None:
    target = load_machine("a100_sxm")
    value = {
        "levels.dram.bandwidth": 4e12,
        "levels.l2.bandwidth": 1.2e13,
        "levels.l2.capacity_bytes": 9e7,
        "units.tensor.clock_hz": 2e9,
    }
    better = target.with_figures({figure: value[figure]})
    batch = some_schedules()
    for sizes in (SIZES, {"M": 16, "N": 8192, "K": 8192}):
        before = cost_model_for(target).predict(workloads.gemm(), target, batch, sizes).seconds
        after = cost_model_for(better).predict(workloads.gemm(), better, batch, sizes).seconds
        fits = np.isfinite(before)
        assert (after[fits] <= before[fits] * (1 + 1e-5)).all()


def test_every_gpu_prices_a_gemm_and_a_norm() -> None:
    for name in machine_names():
        target = load_machine(name)
        if target.kind != "gpu":
            continue
        assert np.isfinite(gemm(name, m=64, n=64, k=32).seconds[0]), name
        schedule = Schedule(tiles={"t": 1}, reduce={"n": "resident"}, extras={"warps": 4})
        cost = cost_model_for(target).predict(
            workloads.rms_norm(), target, ScheduleBatch.of([schedule]), {"T": 512, "N": 4096}
        )
        assert np.isfinite(cost.seconds[0]), name


def test_at_most_sixteen_parameters_are_fitted() -> None:
    assert len(FITTED) <= 16
    for name in ("a100_sxm", "h100_sxm", "b300_sxm", "l40s"):
        found = load_calibration(load_machine(name))
        assert found.provenance["tables"]
        assert not found.transferred


@pytest.mark.parametrize(
    ("name", "donor"),
    [
        ("b200_sxm", "b300_sxm"),
        ("gb300", "b300_sxm"),
        ("h200_sxm", "h100_sxm"),
        ("a30", "a100_sxm"),
        ("l4", "l40s"),
        ("rtx_6000_ada", "l40s"),
        ("rtx_pro_6000", "l40s"),  # no tensor memory, one L2
        ("mi300x", "a100_sxm"),
    ],
)
def test_a_machine_takes_the_parameters_of_one_that_works_alike(name: str, donor: str) -> None:
    found = load_calibration(load_machine(name))
    assert found.transferred == donor
    own = load_calibration(load_machine(donor)).parameters
    usual, there = (usual_start(load_machine(machine).architecture) for machine in (donor, name))
    start = (own.launch_seconds + usual) * clock(donor) / clock(name)
    assert found.parameters.launch_seconds == pytest.approx(start - there)
    assert found.parameters.tile_overhead == own.tile_overhead


def clock(name: str) -> float:
    machine = load_machine(name)
    return machine.need(machine.unit("vector").clock_hz, "clock")


def test_launches_are_more_alike_in_clocks_than_in_seconds() -> None:
    """What lets a launch carry over by the clock: machines of three generations were each fitted to their own table."""
    names = ("a100_sxm", "h100_sxm", "l40s")
    machines = [load_machine(name) for name in names]
    starts = [usual_start(machine.architecture) for machine in machines]
    seconds = starts + np.array([load_calibration(machine).parameters.launch_seconds for machine in machines])
    clocks = seconds * np.array([clock(name) for name in names])
    assert clocks.max() / clocks.min() < 1.15
    assert seconds.max() / seconds.min() > 1.5


@pytest.mark.parametrize("donor", ["a100_sxm", "h100_sxm"])
def test_the_energy_of_an_operation_goes_with_the_square_of_the_clock(donor: str) -> None:
    """From 1.41 and 1.83 GHz to the 2.49 GHz of a machine that neither was fitted to."""
    there = load_machine("l40s")
    found, own = calibration_like(donor, there).parameters, load_calibration(there).parameters
    assert found.tensor_joules == pytest.approx(own.tensor_joules, rel=0.1)
    same = calibration_like("h100_sxm", load_machine("h200_sxm")).parameters  # of one clock and process
    assert same.tensor_joules == load_calibration(load_machine("h100_sxm")).parameters.tensor_joules


@pytest.mark.parametrize(
    ("donor", "launch", "joules"), [("a100_sxm", 0.1, 0.15), ("h100_sxm", 0.1, 0.15), ("l40s", 0.1, 0.15)]
)
def test_a_launch_goes_by_generation_and_energy_by_the_power_limit_where_tensor_memory_is_new(
    donor: str, launch: float, joules: float
) -> None:
    there = load_machine("b300_sxm")
    found, own = calibration_like(donor, there).parameters, load_calibration(there).parameters
    assert found.launch_seconds == pytest.approx(own.launch_seconds, rel=launch)
    assert found.tensor_joules == pytest.approx(own.tensor_joules, rel=joules)
    before = calibration_like("b300_sxm", load_machine("h100_sxm")).parameters  # and back
    assert before.launch_seconds == pytest.approx(
        load_calibration(load_machine("h100_sxm")).parameters.launch_seconds, rel=launch
    )


@pytest.mark.parametrize(("donor", "name"), [("a100_sxm", "l40s"), ("l40s", "a100_sxm")])
def test_a_loop_trip_of_fragments_goes_by_what_an_sm_multiplies(donor: str, name: str) -> None:
    found, own = (
        p.parameters.step_clocks
        for p in (calibration_like(donor, load_machine(name)), load_calibration(load_machine(name)))
    )
    assert found == pytest.approx(own, rel=0.2)
    before = load_calibration(load_machine(donor)).parameters.step_clocks
    assert (
        calibration_like(donor, load_machine("h100_sxm")).parameters.step_clocks == before
    )  # whose warp groups wait for none


@pytest.mark.parametrize(("name", "full"), [("l40", "l40s"), ("l20", "l40s"), ("rtx_3090", "a40")])
def test_a_part_of_an_architecture_at_a_lower_rate_has_no_longer_trips(name: str, full: str) -> None:
    found, there = (load_calibration(load_machine(each)).parameters.step_clocks for each in (name, full))
    assert found == there


@pytest.mark.parametrize(("name", "unchecked"), [("mi355x", True), ("mi300x", False), ("l20", False), ("a30", False)])
def test_trips_beyond_the_rates_that_were_measured_are_said_to_be(name: str, unchecked: bool) -> None:
    machine = load_machine(name)
    cost = cost_model_for(machine).predict(
        workloads.gemm(),
        machine,
        ScheduleBatch.of([Schedule({"m": 64, "n": 64, "k": 32})]),
        {"M": 512, "N": 512, "K": 512},
    )
    assert any("clocks of a loop trip" in remark for remark in cost.remarks) == unchecked
    assert not (unchecked and cost.in_domain.any())


# Medians of two labs (AIConfigurator silicon tables): machine, m, n, k, seconds. One row of each regime.
MEASURED = [
    ("h100_sxm", 4096, 5120, 16384, 886.7e-6),  # compute
    ("h100_sxm", 1, 4096, 16384, 49.3e-6),  # memory
    ("h100_sxm", 64, 128, 128, 2.8e-6),  # launch
    ("h100_sxm", 1024, 65536, 128, 63.6e-6),  # write
    ("a100_sxm", 4096, 12288, 1536, 637.2e-6),  # compute
    ("a100_sxm", 16, 4096, 16384, 88.7e-6),  # memory
    ("b300_sxm", 64, 64, 64, 1.82e-6),  # launch
    ("b300_sxm", 16, 65536, 16384, 330.0e-6),  # memory
    ("b300_sxm", 1024, 65536, 16384, 1256.9e-6),  # compute
    ("b300_sxm", 2304, 5120, 512, 10.49e-6),  # pairs of SMs on few tiles
    ("l40s", 64, 64, 64, 2.17e-6),  # launch
    ("l40s", 16, 65536, 16384, 2978.2e-6),  # memory
    ("l40s", 16384, 64, 64, 4.29e-6),  # faster than DRAM allows
    ("l40s", 513, 3072, 5120, 84.4e-6),  # compute
]


@pytest.mark.parametrize(("name", "m", "n", "k", "seconds"), MEASURED)
def test_library_mode_is_near_a_measured_time_in_each_regime(name: str, m: int, n: int, k: int, seconds: float) -> None:
    machine = load_machine(name)
    sizes = {"M": np.array([m]), "N": np.array([n]), "K": np.array([k])}
    found = library(workloads.gemm(rotated=True), machine, sizes, load_calibration(machine).parameters).seconds[0]
    assert found == pytest.approx(seconds, rel=0.2)


def test_attention_in_one_pass_costs_less_than_in_three() -> None:
    target = load_machine("h100_sxm")
    tiles = {"i": 128, "j": 64, "e": 128}
    schedules = [
        Schedule(tiles, reduce={"j": mode, "d": "resident"}, pipeline=2, extras={"warps": 8})
        for mode in ("fold", "looped")
    ]
    sizes = {"B": 4, "G": 8, "R": 4, "Q": 4096, "J": 4096}
    cost = cost_model_for(target).predict(workloads.attention(), target, ScheduleBatch.of(schedules), sizes)
    assert cost.seconds[0] < cost.seconds[1]


def test_an_unidentified_donor_is_an_error() -> None:
    with pytest.raises(MachineError, match="calibrated machines are"):
        calibration_like("l4", load_machine("h100_sxm"))


def test_what_transfers_follows_the_clock() -> None:
    """Launch and fill are work of the GPU's clock, a fill kept in latencies of DRAM; shares and clock counts stay."""
    here, there = load_machine("a100_sxm"), load_machine("h100_sxm")
    donor, found = load_calibration(here), calibration_like("a100_sxm", there)
    latency = [machine.level("dram").latency_seconds.value for machine in (here, there)]  # type: ignore[union-attr]
    scale = 1.41 / 1.98 * latency[0] / latency[1]  # type: ignore[operator]
    assert found.parameters.fill_latency == pytest.approx(donor.parameters.fill_latency * scale)
    start = donor.parameters.launch_seconds + usual_start("ampere")
    assert found.parameters.launch_seconds == pytest.approx(start * 1.41 / 1.98)
    assert found.parameters.step_clocks == donor.parameters.step_clocks
    assert found.parameters.dram_efficiency == donor.parameters.dram_efficiency
    assert found.transferred == "a100_sxm"


def test_power_bounds_long_products_of_a_hot_machine() -> None:
    """A large product on a machine with a tenth of the power takes about what its energy takes."""
    cold = load_machine("h100_sxm")
    hot = cold.with_figures({"power_watts": 70.0})
    schedules = ScheduleBatch.of([Schedule({"m": 128, "n": 256, "k": 64}, pipeline=3, extras={"warps": 8})])
    sizes = {"M": 8192, "N": 8192, "K": 8192}
    slow = GpuTileModel().predict(workloads.gemm(), hot, schedules, sizes)
    joules = 2.0 * 8192.0**3 * load_calibration(cold).parameters.tensor_joules
    assert slow.seconds[0] >= joules / (0.85 * 70.0)
    assert slow.seconds[0] == pytest.approx(joules / (0.85 * 70.0), rel=0.25)
    assert slow.terms[0, slow.term_names.index("power")] > 0.9 * slow.seconds[0]


@pytest.mark.parametrize("fidelity", [1, 2])
@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm", "b200_sxm", "mi355x", "rtx_3090", "l4"])
def test_a_machine_never_draws_more_than_its_power_limit_and_what_it_throttles_draws_it(
    name: str, fidelity: int
) -> None:
    """Joules over seconds, of products in several types, of vector code and of streams, at the machine's power and less."""
    target = load_machine(name)
    watts = target.need(target.power_watts, "power_watts")
    tiles = {"m": 128, "n": 128, "k": 32, "t": 1, "h": 8, "d": 32}
    schedule = ScheduleBatch.of([Schedule(tiles, pipeline=2, extras={"warps": 8})])
    bound = 0
    for share in (1.0, 0.4, 0.1):
        machine = target.with_figures({"power_watts": share * watts})
        for kernel in (*map(workloads.gemm, ("bf16", "f16", "f32", "i8")), workloads.rms_norm(), workloads.gelu()):
            for size in (256, 2048, 8192) if fidelity == 1 else (2048,):
                sizes = dict.fromkeys(kernel.symbols, size)
                cost = cost_model_for(machine, fidelity).predict(kernel, machine, schedule, sizes)
                if cost.reason[0]:
                    continue
                drawn = cost.joules[0] / cost.seconds[0] / (share * watts)
                assert 0.1 <= drawn <= 1.0 + 1e-9, (kernel.name, size, share)
                if cost.bound(0) == "power":
                    bound += 1
                    assert drawn >= 0.85, (kernel.name, size, share)
    assert bound >= 2 or fidelity == 2


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm", "b200_sxm", "mi300x", "l40s"])
def test_another_power_limit_is_no_other_chip(name: str) -> None:
    """What the work of a kernel takes does not follow the limit; where that does not bound, nothing changes at all."""
    machine = load_machine(name)
    watts = machine.need(machine.power_watts, "power_watts")
    schedule = ScheduleBatch.of([Schedule({"m": 64, "n": 64, "k": 32, "t": 1}, pipeline=2, extras={"warps": 4})])
    for kernel in (workloads.gemm(), workloads.gemm("f32"), workloads.gelu()):
        sizes = dict.fromkeys(kernel.symbols, 2048)
        found = []
        for factor in (0.3, 2.0, 4.0):
            changed = machine.with_figures({"power_watts": factor * watts})
            cost = GpuTileModel().predict(kernel, changed, schedule, sizes)
            found.append((cost.joules[0] - static_watts(changed) * cost.seconds[0], cost.seconds[0]))
        (capped, slow), (work, seconds), (free, same) = found
        assert work == pytest.approx(free, rel=1e-9)
        assert capped == pytest.approx(work, rel=1e-9)
        assert same == pytest.approx(seconds, rel=1e-3)
        assert slow >= seconds * (1.0 - 1e-9)


def test_twice_the_power_limit_is_felt_only_where_it_bounds() -> None:
    machine = load_machine("h100_sxm")
    schedule = ScheduleBatch.of([Schedule({"m": 128, "n": 256, "k": 64}, pipeline=4, extras={"warps": 8})])
    for watts, felt in ((700.0, False), (150.0, True)):
        low, high = (machine.with_figures({"power_watts": value}) for value in (watts, 2.0 * watts))
        slow, fast = (GpuTileModel().predict(workloads.gemm(), m, schedule, SIZES) for m in (low, high))
        assert (slow.bound(0) == "power") == felt
        assert (fast.seconds[0] < 0.7 * slow.seconds[0]) == felt


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm", "b200_sxm", "mi300x", "rtx_3090"])
@pytest.mark.parametrize(("dtype", "unit"), [("f32", "vector"), ("bf16", "tensor"), ("f16", "tensor")])
def test_a_price_and_its_roofline_are_of_one_unit(name: str, dtype: str, unit: str) -> None:
    """Products that keep all bits of f32 are the vector unit's: a well tiled one reaches more than half of its roofline."""
    target = load_machine(name)
    kernel = workloads.gemm(dtype)
    bounds = dict(zip(ROOFLINE_TERMS, roofline_bounds(kernel, target, SIZES), strict=True))
    assert max(bounds, key=lambda term: bounds[term]) == unit
    best = library(kernel, target, {k: np.array([v]) for k, v in SIZES.items()}, load_calibration(target).parameters)
    assert bounds[unit] <= best.seconds[0]
    if unit == "vector":
        assert bounds[unit] >= 0.5 * best.seconds[0]


@pytest.mark.parametrize("name", [name for name in machine_names() if load_machine(name).kind == "gpu"])
def test_an_interval_holds_its_own_point_for_every_kind_of_kernel(name: str) -> None:
    """Also where the rows of a cell all err to one side, and where the interval was measured on another machine."""
    target = load_machine(name)
    calibration = load_calibration(target)
    families = {key.split(":")[0] for key in calibration.spread} | {"reduction", "gather", "elementwise", "unheard of"}
    seconds = np.geomspace(1e-6, 1.0, 25)
    for family in families:
        for bound in range(len(TERM_NAMES)):
            terms = np.zeros((len(seconds), len(TERM_NAMES)))
            terms[:, bound] = seconds
            low, high = spread_of(calibration, terms, family)
            assert (low <= 1.0).all(), (family, TERM_NAMES[bound])
            assert (high >= 1.0).all(), (family, TERM_NAMES[bound])


def test_a_library_of_ada_splits_the_sums_of_larger_products_only() -> None:
    """4 x 64 results of 7168 terms take 31 us on an L40S, of 8192 terms 4.8."""
    target, kernel = load_machine("l40s"), workloads.gemm()
    p = load_calibration(target).parameters
    whole, parts = (
        library(kernel, target, {"M": np.array([4.0]), "N": np.array([64.0]), "K": np.array([k])}, p).seconds[0]
        for k in (7168.0, 8192.0)
    )
    assert whole > 3.0 * parts
    sizes = {"M": np.array([4.0]), "N": np.array([32.0]), "K": np.array([10240.0])}
    assert library(kernel, target, sizes, p).seconds[0] < whole / 3.0


def test_prices_at_several_points_of_parameters_are_those_at_each() -> None:
    machine, kernel = load_machine("h100_sxm"), workloads.gemm("bf16")
    sizes = {
        name: np.array(values) for name, values in {"M": [16.0, 4096.0], "N": [512.0] * 2, "K": [512.0] * 2}.items()
    }
    p = load_calibration(machine).parameters
    steps = np.array([0.5, 1.0, 20.0])
    several: dict[str, Any] = {"step_clocks": p.step_clocks * steps[:, None, None]}
    found = library(kernel, machine, sizes, replace(p, **several))
    for seconds, choice, step in zip(found.seconds, found.choice, steps, strict=True):
        one = library(kernel, machine, sizes, replace(p, step_clocks=p.step_clocks * float(step)))
        assert seconds == pytest.approx(one.seconds, rel=1e-6)
        assert choice.tolist() == one.choice.tolist()


def test_every_parameter_has_a_unit() -> None:
    assert sorted(UNITS) == sorted(entry.name for entry in fields(Parameters))
