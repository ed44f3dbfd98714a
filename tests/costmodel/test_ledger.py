"""The ledger: terms, formula values, what-if questions and the runner-up, against the model that it explains."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from codesign.costmodel import workloads
from codesign.costmodel.gpu.model import GpuTileModel
from codesign.costmodel.ledger import Ledger, explain
from codesign.costmodel.ledger_tree import quantity, seconds
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.whatif import changes
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule, ScheduleBatch

H100, A100 = load_machine("h100_sxm"), load_machine("a100_sxm")
GEMM = workloads.gemm("bf16")
SQUARE = {"M": 4096, "N": 4096, "K": 4096}
STREAM = {"T": 65536, "N": 4096}


def tiled(m: int, n: int, k: int = 64, stages: int = 3) -> Schedule:
    return Schedule({"m": m, "n": n, "k": k}, order=("m", "n"), pipeline=stages, extras={"warps": 8, "group": 8})


TILES = ScheduleBatch.of([tiled(128, 256), tiled(128, 128), tiled(64, 64), tiled(256, 256, 128, 5)])
ROWS = ScheduleBatch.of([Schedule({"t": 1, "n": n}, extras={"warps": 4}) for n in (256, 1024)])


def ledger_of(machine: Machine = H100, fidelity: int = 1, row: int = 0) -> Ledger:
    return explain(GEMM, machine, TILES, row, cost_model_for(machine, fidelity), SQUARE)


@pytest.mark.parametrize("fidelity", [0, 1, 2])
def test_terms_sum_to_the_prediction(fidelity: int) -> None:
    found = ledger_of(fidelity=fidelity)
    predicted = cost_model_for(H100, fidelity).predict(GEMM, H100, TILES, SQUARE)
    assert found.seconds == predicted.seconds[0]
    assert sum(term.seconds for term in found.terms) == pytest.approx(found.seconds, rel=1e-9)
    assert sum(term.share for term in found.terms) == pytest.approx(1.0)
    assert [term.seconds for term in found.terms] == sorted((term.seconds for term in found.terms), reverse=True)
    assert found.bound == found.terms[0].name


def test_formula_values_give_the_time_of_the_tensor_unit() -> None:
    tensor = next(term for term in ledger_of().terms if term.name == "tensor")
    values = tensor.values
    assert values["useful_operations"] == 2 * 4096**3
    work = values["operations_on_padded_tiles"] / (values["peak_operations_per_second"] * values["efficiency"])
    assert tensor.alone is not None
    # 512 tiles on 132 SMs: the busiest SM has up to 4, the mean is 3.88
    assert work <= tensor.alone <= work * 4 / (512 / 132) * (1 + 1e-9)


CHAIN = workloads.attention()
CHAIN_SIZES = {"B": 2, "G": 8, "R": 4, "Q": 1024, "J": 1024}
FOLD = Schedule(
    {"i": 128, "j": 64, "e": 128},
    reduce={"j": "fold", "d": "resident"},
    pipeline=2,
    extras={"warps": 8},
)


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm", "b200_sxm", "mi300x", "l40s"])
@pytest.mark.parametrize("kind", ["product", "wide product", "chain", "split", "stream", "reduction"])
def test_the_values_of_each_term_make_its_seconds(name: str, kind: str) -> None:
    """What a ledger shows is what the time was computed from: every resource's seconds follow from its values."""
    machine = load_machine(name)
    small = {"m": 64, "n": 64, "k": 32}
    kernel, schedule, sizes = {
        "product": (GEMM, Schedule(small, pipeline=2, extras={"warps": 4}), SQUARE),
        "wide product": (workloads.gemm("f32"), Schedule(small, extras={"warps": 4}), SQUARE),
        "split": (GEMM, Schedule(small, split={"k": 8}, extras={"warps": 4}), {"M": 192, "N": 100, "K": 65536}),
        "chain": (CHAIN, FOLD, CHAIN_SIZES),
        "stream": (workloads.gelu(), Schedule({"t": 1, "n": 512}, extras={"warps": 4}), STREAM),
        "reduction": (workloads.rms_norm(), Schedule({"t": 1, "n": 512}, extras={"warps": 4}), STREAM),
    }[kind]
    given = {symbol: sizes.get(symbol, 4096) for symbol in kernel.symbols}
    cost = GpuTileModel().predict(kernel, machine, ScheduleBatch.of([schedule]), given)
    if cost.reason[0]:
        pytest.skip(str(cost.reason[0]))
    found = explain(kernel, machine, ScheduleBatch.of([schedule]), 0, GpuTileModel(), given)
    terms = {term.name: term for term in found.terms}
    launch = terms["launch"].values
    started = launch["launch_seconds"] + launch["further_launches"] * launch["further_launch_seconds"]
    assert terms["launch"].seconds == pytest.approx(started)
    tensor = terms["tensor"]
    if "operations_on_padded_tiles" in tensor.values:
        busy = tensor.values["operations_on_padded_tiles"] / tensor.values["peak_operations_per_second"]
        assert tensor.alone == pytest.approx(busy / tensor.values["efficiency"] * tensor.values["busiest_sm_over_mean"])
    else:
        assert not tensor.alone
    l2, requests, power = (terms[name] for name in ("l2", "requests", "power"))
    through = l2.values["as_long_as_bytes"] / (l2.values["bandwidth_bytes_per_second"] * l2.values["efficiency"])
    assert l2.alone == pytest.approx(max(through, l2.values["busiest_sm_bytes"] / l2.values["port_bytes_per_second"]))
    assert requests.alone == pytest.approx(requests.values["busiest_sm_clocks"] / requests.values["clocks_per_second"])
    left = power.values["limit_watts"] - power.values["static_watts"]
    assert power.alone == pytest.approx(power.values["work_joules"] / left)
    for term in (terms["dram"], terms["store"]):
        rate = term.values["bandwidth_bytes_per_second"] * term.values["efficiency"]
        assert term.alone is not None
        assert term.alone >= term.values["as_long_as_bytes"] / rate * (1.0 - 1e-9)


def test_formula_values_give_the_time_of_dram() -> None:
    found = explain(workloads.add(), H100, ROWS, 1, GpuTileModel(), STREAM)
    dram = next(term for term in found.terms if term.name == "dram")
    assert dram.values["read_bytes"] == pytest.approx(2 * 65536 * 4096 * 2, rel=1e-6)
    stream = dram.values["read_bytes"] / (dram.values["bandwidth_bytes_per_second"] * dram.values["efficiency"])
    assert dram.alone == pytest.approx(stream, rel=0.2)
    assert found.facts["waves"] == pytest.approx(65536 * 4 / (132 * found.facts["blocks_per_sm"]))


@pytest.mark.parametrize("fidelity", [1, 2])
def test_counterfactuals_are_the_model_asked_again(fidelity: int) -> None:
    model = cost_model_for(H100, fidelity)
    found = ledger_of(fidelity=fidelity)
    entries = {entry.label: entry for entry in found.counterfactuals}
    rates = {f"units.tensor.rate.{name}": 2.0 * (f.value or 0.0) for name, f in H100.unit("tensor").rate.items()}
    again = model.predict(GEMM, H100.with_figures(rates), TILES.take([0]), SQUARE).seconds[0]
    entry = entries["twice the tensor rate"]
    assert entry.seconds == pytest.approx(again)
    assert entry.change == pytest.approx(again / found.seconds - 1.0)
    assert entry.change is not None
    assert entry.change < -0.03
    assert entry.best_change is not None
    assert entry.best_change <= entry.change + 1e-12
    assert {"twice the sms", "twice the l2 bandwidth", "twice the dram bandwidth", "a clock 10 % faster"} <= set(
        entries
    )
    assert {"twice the shared capacity", "twice the shared bandwidth", "half the dram latency"} <= set(entries)


def test_a_stream_asks_for_dram_and_a_gemm_for_multiply_adds() -> None:
    def most(found: Ledger) -> str:
        return min(
            (e for e in found.counterfactuals if e.change is not None and "sms" not in e.label),
            key=lambda e: e.change or 0.0,
        ).label

    assert most(ledger_of(A100)) == "twice the tensor rate"
    stream = explain(workloads.add(), H100, ROWS, 1, GpuTileModel(), STREAM)
    assert most(stream) == "twice the dram bandwidth"
    double = next(entry for entry in stream.counterfactuals if entry.label == "twice the dram bandwidth")
    assert double.change is not None
    assert -0.5 <= double.change < -0.3


def test_twice_the_sms_is_a_machine_with_twice_the_sms() -> None:
    change = next(entry for entry in changes(H100) if entry.label == "twice the sms")
    twice = change.apply(H100)
    assert twice.instances("shared") == 264
    assert twice.rate("tensor", "bf16") == pytest.approx(2.0 * (H100.rate("tensor", "bf16") or 0.0))
    assert H100.instances("shared") == 132


def test_the_runner_up_is_the_best_other_and_its_losses_add_up() -> None:
    costs = GpuTileModel().predict(GEMM, H100, TILES, SQUARE)
    order = np.argsort(costs.seconds)
    found = ledger_of(row=int(order[0]))
    assert (found.rank, found.schedules, found.refused) == (1, 3, 1)
    other = found.runner_up
    assert other is not None
    assert other.seconds == costs.seconds[order[1]]
    assert other.loses == pytest.approx(costs.seconds[order[1]] / costs.seconds[order[0]] - 1.0)
    assert sum(other.terms.values()) == pytest.approx(other.seconds - found.seconds)
    mine, rival = TILES.row(int(order[0])), TILES.row(int(order[1]))
    differing = {f"tiles.{dim}" for dim in ("m", "n", "k") if mine.tiles[dim] != rival.tiles[dim]}
    assert set(other.knobs) == differing
    slower = ledger_of(row=int(order[1]))
    assert slower.rank == 2
    assert slower.runner_up is not None
    assert slower.runner_up.loses < 0.0


def test_a_schedule_that_costs_the_same_is_runner_up_only_when_all_do() -> None:
    same = replace(tiled(128, 128), extras={"warps": 8, "group": 8, "nothing": 3})
    alone = explain(GEMM, H100, ScheduleBatch.of([tiled(128, 128), same]), 0, GpuTileModel(), SQUARE).runner_up
    assert alone is not None
    assert (alone.loses, alone.knobs) == (0.0, {"nothing": (1, 3)})
    batch = ScheduleBatch.of([tiled(128, 128), same, tiled(64, 64)])
    other = explain(GEMM, H100, batch, 0, GpuTileModel(), SQUARE).runner_up
    assert other is not None
    assert other.knobs["tiles.m"] == (128, 64)
    assert explain(GEMM, H100, ScheduleBatch.of([same]), 0, GpuTileModel(), SQUARE).runner_up is None


@pytest.mark.parametrize("fidelity", [0, 1, 2])
def test_it_is_shown_as_a_tree_and_written_as_json(fidelity: int) -> None:
    found = ledger_of(fidelity=fidelity)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert sum(term["seconds"] for term in document["terms"]) == pytest.approx(document["seconds"])
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found.to_tree())
    text = console.export_text()
    assert "gemm on h100_sxm" in text
    assert "roofline: 128.4 us" in text
    if fidelity:
        assert "with twice the tensor rate: -" in text
        assert "of 3 schedules" in text
        assert "(1 more do not fit)" in text


def test_it_says_what_its_interval_is_made_of() -> None:
    found = explain(workloads.gemm("f8e4m3"), load_machine("h200_sxm"), TILES, 0, GpuTileModel(), SQUARE)
    assert {*found.interval} == {"residual contraction", "machine", "dtype f8e4m3"}
    for side, end in (("low", found.low), ("high", found.high)):
        squares = sum(math.log(getattr(part, side)) ** 2 for part in found.interval.values())
        assert math.log(end / found.seconds) ** 2 == pytest.approx(squares)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found.to_tree())
    wide = found.interval["dtype f8e4m3"]
    assert f"dtype f8e4m3: {wide.low - 1:+.1%} to {wide.high - 1:+.1%}" in console.export_text()


def test_accelerators_have_ledgers_too() -> None:
    machine = load_machine("maia100")
    schedules = ScheduleBatch.of([tiled(128, 128, 128, 2), tiled(64, 64, 64, 2)])
    found = explain(GEMM, machine, schedules, 0, cost_model_for(machine, 1), {"M": 1024, "N": 1024, "K": 1024})
    assert sum(term.seconds for term in found.terms) == pytest.approx(found.seconds, rel=1e-9)
    assert any(entry.change is not None and entry.change < -0.05 for entry in found.counterfactuals)
    assert found.runner_up is not None


def test_errors_name_the_schedule() -> None:
    with pytest.raises(ScheduleError, match="shared memory"):
        ledger_of(row=3)
    with pytest.raises(ScheduleError, match="the batch has 4"):
        ledger_of(row=4)


@pytest.mark.parametrize(
    ("value", "text"), [(1.5, "1.5 s"), (2e-3, "2 ms"), (3.456e-6, "3.456 us"), (1.2e-8, "12 ns"), (0.0, "0 ns")]
)
def test_times_have_units_that_suit_them(value: float, text: str) -> None:
    assert seconds(value) == text


def test_quantities_take_their_unit_from_their_name() -> None:
    assert quantity("read_bytes", 67108864.0) == "read bytes: 67.11 MB"
    assert quantity("bandwidth_bytes_per_second", 3.35e12) == "bandwidth: 3.35 TB/s"
    assert quantity("peak_operations_per_second", 9.9e14) == "peak operations: 990 T/s"
    assert quantity("dram_latency_seconds", 3.7e-7) == "dram latency: 370 ns"
    assert quantity("waves", 3.25) == "waves: 3.25"
