"""Attention of serving systems: what their launches choose, what stays in L2, and a few measured times."""

import tomllib
from dataclasses import astuple, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.attention import KERNELS, NO_SPLITS, Call, kernel_of, row_of, sources
from codesign.costmodel.calibration import GENERATED_FIT, IMPLEMENTATION_FIT, QUANTISED_FIT
from codesign.costmodel.events import plan_columns, simulate_plan
from codesign.costmodel.gpu.chains import launched
from codesign.costmodel.gpu.library import library
from codesign.costmodel.gpu.parameters import OF_MACHINE, TYPICAL, calibration_like, load_calibration
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.machine import load_machine
from codesign.costmodel.tables import kernels_of
from codesign.costmodel.validation import predictions

SIZES = {"B": 4.0, "G": 8.0, "R": 4.0, "Q": 1.0, "J": 8192.0, "keys": 8192.0}


def _knobs(source: str, call: Call) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    columns = kernel_of(source, call).columns(call.head)
    return {name: column[:1].astype(np.float64) for name, column in columns.items()}


def _launched(source: str, call: Call, **sizes: float) -> tuple[dict[str, float], float]:
    knobs, idle = launched(workloads.attention(), _knobs(source, call), {**SIZES, **sizes}, 132.0)
    return {name: float(np.max(value)) for name, value in knobs.items()}, float(np.max(idle))


GOLDEN = [line for line in (Path(__file__).parent / "attention_kernels.txt").read_text().splitlines() if line[0] != "#"]


@pytest.mark.parametrize("line", GOLDEN, ids=lambda line: line.split(":")[0].replace(" ", "-"))
def test_rows_of_the_file_are_the_published_kernels(line: str) -> None:
    """What each implementation runs for calls of all kinds, as it was when it was a chain of conditions."""
    asked, expected = line.split(": ", 1)
    source, *numbers = asked.split(" ")
    decode, head, group, bits, wanted, single, moved, window = map(int, numbers)
    call = Call(bool(decode), head, group, bits, wanted, bool(single), bool(moved), bool(window))
    kernel = kernel_of(source, call)
    tiles = "; ".join(" ".join(f"{float(value):g}" for value in astuple(tile)) for tile in kernel.tiles)
    splits = " ".join(f"{float(value):g}" for value in astuple(kernel.splits))
    rest = (kernel.launches, kernel.meet, kernel.converts, kernel.hidden, kernel.generated)
    found = f"{tiles} | {splits} | {' '.join(f'{float(value):g}' for value in rest)} {kernel.part}"
    assert found.rstrip() == expected
    assert kernel.assumed == (source not in sources())


def test_every_row_names_its_source_and_can_run() -> None:
    """A row that no call reaches would be a lie, as would one without a source."""
    data = tomllib.loads(KERNELS.read_text())
    assert {row["source"] for row in data["kernel"]} == set(data["sources"])
    calls = [
        Call(*values) for values in product((False, True), (64, 128, 256), (1, 8, 64), (8, 16), (16,), (False, True))
    ]
    calls += [replace(call, window=True) for call in calls]
    calls += [replace(call, sm=sm) for call in calls for sm in (89, 103)]
    reached = {id(row) for name in (*sources(), "made_up") for call in calls for row in [row_of(name, call)]}
    assert len(reached) == len(data["kernel"])


def test_an_implementation_of_another_generation_is_not_known() -> None:
    call = Call(head=128, group=8)
    assert kernel_of("trtllm_mha", call).assumed
    assert not kernel_of("trtllm_mha", replace(call, sm=100)).assumed
    assert kernel_of("torch_flow", replace(call, sm=100)).part.startswith("gen")
    assert kernel_of("torch_flow", replace(call, sm=90)).part == "fmha"


def test_grouped_decoding_splits_keys_until_eight_waves() -> None:
    call = Call(decode=True, group=4, single=True)
    assert _launched("torch_flow", call)[0]["split.j"] == 8 * 132 // (4 * 8)
    assert _launched("torch_flow", call, J=512.0, keys=512.0)[0]["split.j"] == 4  # of 128 keys or more
    assert _launched("torch_flow", call, B=512.0)[0]["split.j"] == 1


def test_a_window_leaves_parts_without_keys() -> None:
    knobs, idle = _launched("torch_flow", Call(decode=True, group=4, single=True), J=128.0)
    assert knobs["split.j"] == 1
    assert idle == 32  # of 33 parts, one sees keys
    assert _launched("fa3", Call(decode=True, group=4, single=True), J=128.0)[1] == 0


def test_flash_attention_2_splits_only_where_heads_share_keys() -> None:
    assert kernel_of("vllm_flash_attn", Call(decode=True, group=1, single=True)).splits == NO_SPLITS
    assert _launched("vllm_flash_attn", Call(decode=True, group=4, single=True))[0]["split.j"] > 1


def test_flash_attention_2_makes_no_queries_of_heads_where_a_window_slides() -> None:
    call = Call(decode=True, group=4, single=True, window=True)
    assert kernel_of("vllm_flash_attn_fa2", call).splits == NO_SPLITS
    assert not kernel_of("vllm_flash_attn_fa2", call).tiles[0].packed
    assert kernel_of("vllm_flash_attn_fa2", replace(call, window=False)).tiles[0].packed


@pytest.mark.parametrize(("head", "rows"), [(64, 256), (128, 256), (256, 128), (512, 128)])
def test_two_tiles_of_queries_share_keys_where_tensor_memory_holds_both(head: int, rows: int) -> None:
    kernel = kernel_of("trtllm_mha", Call(head=head, sm=100))
    assert [(tiles.rows, tiles.packed) for tiles in kernel.tiles] == [(rows, False)]


def test_a_prompt_of_one_token_is_still_a_prefill_where_the_call_says_so() -> None:
    one = Call(single=True, group=8, sm=103)
    assert kernel_of("trtllm_mha", one) == kernel_of("trtllm_mha", replace(one, single=False))
    assert kernel_of("trtllm_mha", replace(one, decode=True)).tiles[0].packed


@pytest.mark.parametrize(("group", "tensor"), [(1, False), (8, True), (64, False)])
def test_heads_of_their_own_multiply_on_the_vector_unit(group: int, tensor: bool) -> None:
    for sm in (89, 100):
        kernel = kernel_of("torch_flow", Call(decode=True, single=True, group=group, bits=8, sm=sm))
        grouped = group == 8 or (sm == 100 and group <= 32)
        assert (kernel.tiles[0].vector == 0.0) == (tensor or grouped)


def test_segments_that_find_keys_all_run_where_sequences_are_few() -> None:
    call = Call(decode=True, group=4, single=True)
    assert _launched("vllm_triton_attn", call, B=4.0, G=1.0)[0]["split.j"] == 16
    assert _launched("vllm_triton_attn", call, B=4.0, G=1.0, J=96.0, keys=96.0)[0]["split.j"] == 3  # of 32 keys each
    assert _launched("vllm_triton_attn", call, B=256.0, G=1.0)[0]["split.j"] == 1
    knobs, idle = _launched("vllm_triton_attn", call, B=4.0, G=1.0, J=128.0)  # a window: segments before it see none
    assert (knobs["split.j"], idle) == (4, 3)


def test_an_implementation_takes_the_constants_of_its_nearest_sizes() -> None:
    own = {"x decode 64 16": {"step_clocks": 1.0}, "x decode 256 16": {"step_clocks": 2.0}, "x extend 96": {}}
    calibration = replace(
        load_calibration(load_machine("h100_sxm")), implementations=own | {TYPICAL: {"step_clocks": 3.0}}
    )
    found = [calibration.of(f"x decode {head} 16").step_clocks for head in (64, 96, 192, 512)]
    assert found == [1.0, 1.0, 2.0, 2.0]
    assert calibration.of("y decode 64 16").step_clocks == 3.0


def test_heads_that_share_keys_fill_the_rows_of_a_tile() -> None:
    knobs, _ = _launched("fa3", Call(group=48), R=48.0, Q=256.0)
    assert knobs["tile.r"] * knobs["tile.i"] == pytest.approx(128)
    assert knobs["tile.r"] == 48


def test_an_unknown_implementation_runs_what_flash_attention_would() -> None:
    call = Call(decode=True, group=8, single=True)
    assert kernel_of("something_new", call).splits == kernel_of("fa3", call).splits
    calibration = load_calibration(load_machine("h100_sxm"))
    assert calibration.of("something_new") == calibration.of(TYPICAL)
    assert calibration.of("") == calibration.parameters


@pytest.mark.parametrize("phase", ["context", "generation"])
def test_the_interval_of_an_unknown_implementation_is_wider_than_any_known_ones(phase: str) -> None:
    table = pd.DataFrame(
        {
            "machine": "h100_sxm",
            "phase": phase,
            "kernel_source": source,
            "dtype": "bf16",
            "kv_dtype": "bf16",
            "batch": 4,
            "q_len": 1 if phase == "generation" else keys,
            "kv_len": keys,
            "heads": 32,
            "kv_heads": 8,
            "head_dim": 128,
            "window": 0,
            "seconds": 1e-3,
        }
        for source in ("made_up", "fa3", "vllm_flash_attn_fa3")
        for keys in (512, 4096, 32768)
    )
    found = predictions(table, load_machine("h100_sxm"))
    width = (found.high / found.low).groupby(found.op).mean()
    assert width[f"attention {phase} made_up"] > 1.2 * max(
        width[f"attention {phase} {n}"] for n in ("fa3", "vllm_flash_attn_fa3")
    )
    assert (found.low <= found.predicted).all()
    assert (found.predicted <= found.high).all()


@pytest.mark.parametrize("name", ["a100_sxm", "h100_sxm"])
def test_an_implementation_has_few_fitted_constants(name: str) -> None:
    assert len(IMPLEMENTATION_FIT) <= 6
    assert len(GENERATED_FIT) <= 4
    assert len(QUANTISED_FIT) <= 8  # of two kernels: the product's and its operands' quantisation
    for own in load_calibration(load_machine(name)).implementations.values():
        kept = () if "quantise_seconds" in own else OF_MACHINE  # what speaks of the machine is no constant of its own
        fitted = set(own) & {*IMPLEMENTATION_FIT, *GENERATED_FIT, *QUANTISED_FIT} - {*kept}
        assert len(fitted) <= (8 if "quantise_seconds" in own else 6)


def _read(keys: float, **more: bool) -> float:
    machine = load_machine("h100_sxm")
    kernel = workloads.attention(**more)
    knobs = _knobs("fa3", Call(decode=True, group=4, single=True))
    sizes = {**SIZES, "J": keys, "keys": keys}
    return float(np.max(estimate(kernel, machine, knobs, sizes, load_calibration(machine).parameters).dram_read))


def test_replayed_keys_stay_in_l2_as_far_as_they_fit() -> None:
    cache = {keys: 2 * 2 * 128 * 4 * 8 * keys for keys in (1024.0, 65536.0)}  # keys and values, bf16
    assert _read(1024.0, replayed=True) < 0.02 * cache[1024.0]
    assert _read(1024.0) == pytest.approx(cache[1024.0], rel=0.02)
    assert _read(65536.0, replayed=True) == pytest.approx(cache[65536.0], rel=0.02)


def test_keys_that_are_the_values_are_read_once() -> None:
    assert _read(65536.0, keys_only=True) == pytest.approx(_read(65536.0) / 2, rel=0.02)


def test_attention_is_never_faster_with_less_of_anything() -> None:
    machine = load_machine("h100_sxm")
    call = Call(decode=True, group=4, single=True)
    columns = kernel_of("fa3", call).columns(128)
    sizes = {name: np.array([value, value, value]) for name, value in SIZES.items()}
    sizes["J"] = sizes["keys"] = np.array([8192.0, 16384.0, 32768.0])
    parameters = load_calibration(machine).of("fa3")
    seconds = library(workloads.attention(), machine, sizes, parameters, columns).seconds
    assert np.all(np.diff(seconds) > 0)


MEASURED = [  # machine, phase, source, batch, queries, keys, heads, key heads, microseconds; bf16, head dim 128
    ("h100_sxm", "generation", "fa3", 1, 1, 2, 32, 8, 9.1),
    ("h100_sxm", "generation", "fa3", 8, 1, 65536, 32, 8, 705.5),
    ("h100_sxm", "generation", "fa3", 256, 1, 256, 32, 8, 115.3),
    ("h100_sxm", "generation", "torch_flow", 64, 1, 4096, 32, 8, 365.3),
    ("h100_sxm", "generation", "torch_flow", 1, 1, 1024, 32, 8, 12.6),
    ("h100_sxm", "generation", "torch_flow", 16, 1, 4096, 64, 1, 346.9),
    ("h100_sxm", "context", "fa3", 8, 8192, 8192, 32, 8, 7926.6),
    ("h100_sxm", "context", "vllm_flash_attn_fa3", 64, 512, 512, 32, 8, 642.8),
    ("h100_sxm", "context", "torch_flow", 1, 16, 16, 32, 8, 13.6),
    ("a100_sxm", "generation", "vllm_flash_attn", 8, 1, 4, 32, 8, 19.5),
    ("a100_sxm", "generation", "vllm_flash_attn", 64, 1, 4096, 32, 8, 681.6),
    ("a100_sxm", "generation", "torch_flow", 16, 1, 2048, 32, 32, 350.5),
]
"""Rows of AIConfigurator's silicon tables, Apache-2.0."""


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(map(str, row[:6])))
def test_measured_times_within_a_fifth(row: tuple[str, str, str, int, int, int, int, int, float]) -> None:
    name, phase, source, batch, queries, keys, heads, kv_heads, microseconds = row
    table = pd.DataFrame(
        {
            "machine": [name],
            "phase": phase,
            "kernel_source": source,
            "dtype": "bf16",
            "kv_dtype": "bf16",
            "batch": batch,
            "q_len": queries,
            "kv_len": keys,
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": 128,
            "window": 0,
            "seconds": microseconds * 1e-6,
        }
    )
    (rows,) = kernels_of(table)
    machine = load_machine(name)
    parameters = load_calibration(machine).of(rows.implementation)
    seconds = library(rows.kernel, machine, rows.sizes, parameters, rows.columns).seconds
    assert seconds[0] * 1e6 == pytest.approx(microseconds, rel=0.2)


@pytest.mark.parametrize("source", ["fa3", "vllm_flash_attn_fa3", "torch_flow", "triton"])
@pytest.mark.parametrize(("decode", "queries", "keys"), [(False, 1024, 1024), (True, 1, 4096)])
def test_the_event_simulation_follows_the_same_launch(source: str, decode: bool, queries: int, keys: int) -> None:
    """Both fidelities decide splits by the same rule, and agree on what a launch and its helpers take."""
    machine = load_machine("h100_sxm")
    row: dict[str, object] = {
        "machine": "h100_sxm",
        "phase": "generation" if decode else "context",
        "kernel_source": source,
    }
    row |= {"dtype": "bfloat16", "kv_dtype": "bfloat16", "batch": 8, "q_len": queries, "kv_len": keys, "heads": 32}
    row |= {"kv_heads": 8, "head_dim": 128, "window": 0, "isl": keys, "step": 0, "seconds": 1e-4}
    (rows,) = kernels_of(pd.DataFrame([row]))
    parameters = load_calibration(machine).of(rows.implementation)
    best = library(rows.kernel, machine, rows.sizes, parameters, rows.columns)
    assert rows.columns is not None
    knobs = {name: float(column[best.choice[0]]) for name, column in rows.columns.items()}
    sizes = {name: float(values[0]) for name, values in rows.sizes.items()}
    seen = simulate_plan(plan_columns(rows.kernel, machine, knobs, (), sizes, parameters, compiled=False))
    assert seen.seconds == pytest.approx(best.seconds[0], rel=0.25)


def test_a_kernel_measured_on_other_machines_only_takes_what_they_say_of_its_code() -> None:
    """FlashInfer's decoding never ran on an H100; a B300 and an L40S say what it waits for, and nothing of the H100 itself."""
    known = load_calibration(load_machine("h100_sxm"))
    name = "flashinfer decode 16"
    assert name not in known.implementations
    found, own = known.of(name), known.parameters
    there = load_calibration(load_machine("b300_sxm")).implementations[name]
    assert (found.fill_latency, found.step_clocks) == (there["fill_latency"], there["step_clocks"])
    assert (found.launch_seconds, found.tensor_joules) == (own.launch_seconds, own.tensor_joules)


def test_a_transferred_calibration_knows_nothing_of_its_own_machine() -> None:
    spec_sheet = calibration_like("b300_sxm", load_machine("l40s"))
    own = load_calibration(load_machine("l40s")).implementations
    assert "triton extend 64 16x16" in own
    assert not {*own} - {*calibration_like("b300_sxm", load_machine("a40")).elsewhere} <= {*spec_sheet.elsewhere}
    assert spec_sheet.of("triton extend 64 16x16") == spec_sheet.of("triton extend 192 16x16")


def test_compiled_attention_reaches_a_larger_share_of_a_smaller_tensor_unit() -> None:
    name = "triton extend 192 16x16"
    shares = [
        calibration_like("b300_sxm", load_machine(one)).of(name).tensor_efficiency for one in ("h100_sxm", "l40s")
    ]
    assert load_calibration(load_machine("b300_sxm")).of(name).tensor_efficiency < shares[0] < shares[1] <= 1.0
