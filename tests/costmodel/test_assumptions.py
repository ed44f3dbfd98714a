"""What assumed figures of a machine leave open: which move a time, how far, and that what is public moves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.costmodel.assumptions import Assumption, assumptions, spread
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.dataflow.several import side_by_side
from codesign.costmodel.ledger import explain
from codesign.costmodel.machine import MACHINE_FOLDER, Machine, figures_of, load_machine, machine_names
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.passes.normalize import normalize
from tests.passes.tiling import groups

PRODUCT = summarize(normalize(groups.gemm(1024, 1024, 512)).fusion)
SCHEDULE = Schedule(
    {"i": 128, "j": 128, "k": 128},
    {"cluster": AtLevel({"i": 4, "j": 4}), "core": AtLevel({"i": 2, "j": 2})},
    reduce={"k": "looped"},
    pipeline=3,
)


def found(machine: Machine) -> dict[str, Assumption]:
    return {one.figure: one for one in assumptions(DataflowModel(), PRODUCT, machine, SCHEDULE, {})}


def with_range(folder: Path, old: str, new: str) -> Machine:
    text = (MACHINE_FOLDER / "maia100.toml").read_text()
    assert old in text
    path = folder / "other.toml"
    path.write_text(text.replace(old, new).replace('name = "maia100"', 'name = "other"', 1))
    return load_machine(str(path))


def test_what_moves_a_time_is_ranked_and_what_is_public_is_not_asked() -> None:
    moved = found(load_machine("maia100"))
    effects = [one.moves for one in moved.values()]
    assert effects == sorted(effects, reverse=True)
    assert {"limits.dma_bytes_per_clock", "levels.dram.latency_seconds", "launch.kernel_seconds"} <= moved.keys()
    assert not moved.keys() & {"levels.dram.bandwidth", "units.tensor.rate.bf16"}
    assert not any("capacity" in figure or "energy" in figure for figure in moved)
    latency = moved["levels.dram.latency_seconds"]
    assert latency.range == (3e-7, 1e-6)
    assert latency.at[0] < 1.0 < latency.at[1]


def test_a_wider_range_makes_a_wider_interval(tmp_path: Path) -> None:
    plain = spread(tuple(found(load_machine("maia100")).values()))
    wide = with_range(tmp_path, "range = [3e-7, 1e-6], assumption", "range = [1e-7, 9e-6], assumption")
    low, high = spread(tuple(found(wide).values()))
    assert low < plain[0] < 1.0 < plain[1] < high


def test_effects_of_independent_figures_add_in_squares() -> None:
    one, other = Assumption("a", (1.0, 2.0), (0.5, 2.0)), Assumption("b", (1.0, 2.0), (2.0, 1.0))
    assert spread(()) == (1.0, 1.0)
    assert spread((one,)) == pytest.approx((0.5, 2.0))
    assert spread((one, other)) == pytest.approx((0.5, 2.0 ** (2.0**0.5)))


def test_a_clock_moves_no_peak_that_is_public() -> None:
    """A product that the arrays bound takes as long at another clock, as far as its peak is public."""
    kernel = summarize(normalize(groups.gemm(4096, 4096, 4096)).fusion)
    schedule = Schedule({"i": 256, "j": 128, "k": 512}, SCHEDULE.levels, reduce={"k": "looped"}, pipeline=3)
    maia200 = load_machine("maia200")
    clock = {one.figure: one for one in assumptions(DataflowModel(), kernel, maia200, schedule, {})}
    assert max(clock["units.tensor.clock_hz"].at) < 1.3, "its range is a factor of two"
    assert max(clock["units.tensor.rate.f16"].at) > 1.6, "which nothing public bounds"


@pytest.mark.parametrize("name", sorted(name for name in machine_names() if load_machine(name).kind == "dataflow"))
def test_machines_side_by_side_take_what_each_takes_alone(name: str) -> None:
    """Rates, latencies, lines and clocks at both ends of all ranges, and other numbers of cores, which go by themselves."""
    machine = load_machine(name)
    ends = [
        (path, end)
        for path, figure in figures_of(machine)
        if figure.range and "array." not in path
        for end in figure.range
    ]
    others = [machine.with_figures({path: end}) for path, end in ends if "energy" not in path]
    machines = (machine, *others, load_machine("maia100"), load_machine("maia200"))
    model, kernel = DataflowModel(), summarize(normalize(groups.gemm(512, 384, 256)).fusion)
    for reduce in ("looped", "resident"):
        schedule = Schedule({"i": 32, "j": 64, "k": 64}, reduce={"k": reduce}, pipeline=3)
        alone = [model.predict(kernel, one, ScheduleBatch.of([schedule])).seconds[0] for one in machines]
        assert model.seconds_on(kernel, machines, schedule, {}).tolist() == alone
    together = max(len(numbers) for numbers, _ in side_by_side(machines))
    assert together > len(machines) / 2 or not others


def test_nothing_is_assumed_of_machines_that_were_measured() -> None:
    schedule = Schedule({"i": 64, "j": 64, "k": 64}, reduce={"k": "looped"})
    h100 = load_machine("h100_sxm")
    assert assumptions(cost_model_for(h100), PRODUCT, h100, schedule, {}) == ()


def test_the_ledger_names_them_and_its_interval_holds_them() -> None:
    batch, maia = ScheduleBatch.of([SCHEDULE]), load_machine("maia100")
    cost = DataflowModel().predict(PRODUCT, maia, batch)
    ledger = explain(PRODUCT, maia, batch, 0, DataflowModel())
    low, high = spread(ledger.assumptions)
    assert (ledger.low, ledger.high) == pytest.approx((cost.low[0] * low, cost.high[0] * high))
    assert ledger.to_json()["assumptions"][0]["figure"] == ledger.assumptions[0].figure
    assert "assumed figures" in "".join(str(branch.label) for branch in ledger.to_tree().children)
