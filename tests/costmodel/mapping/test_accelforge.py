"""The mapper against AccelForge 1.0.467 (MIT), on its machines and under its counting."""

from pathlib import Path

import numpy as np
import pytest

from codesign.costmodel.machine import load_machine
from codesign.costmodel.mapping import (
    ACCELFORGE,
    Hierarchy,
    Problem,
    batched,
    gemm,
    hierarchy_of,
    parse_problem,
    search,
)
from codesign.costmodel.mapping.accelforge import read_mapping, read_result
from codesign.costmodel.mapping.given import mapping_of, schedule_of
from codesign.costmodel.mapping.machines import described
from codesign.costmodel.mapping.search import costs_of, pricing_rate
from codesign.ir.errors import CodesignError, ScheduleError
from codesign.ir.schedule import Schedule


def hierarchy(name: str, dtype: str = "i8") -> Hierarchy:
    return hierarchy_of(load_machine(str(described()[f"accelforge_{name}"])), dtype)


# What AccelForge finds best, run on its own examples: joules and seconds.
RESULTS = [
    ("nvdla", gemm(1024, 1024, 1024), "energy", 1.0062470533369848e-3, 3.549866669345647e-4),
    ("simba", gemm(1024, 1024, 1024), "energy", 1.2213951360574406e-3, 3.2499998807907104e-2),
    ("simba", gemm(1024, 1024, 1024), "latency", 1.4850890738254798e-3, 3.2499998807907104e-2),
    ("eyeriss", gemm(1000, 1536, 1536), "latency", 4.1885079804151765e-2, 9.830400347709656e-2),
]


@pytest.mark.parametrize(("machine", "problem", "objective", "joules", "seconds"), RESULTS)
def test_the_best_mapping_is_as_good_as_theirs(
    machine: str, problem: Problem, objective: str, joules: float, seconds: float
) -> None:
    costs = search(problem, hierarchy(machine), ACCELFORGE, objective).costs
    if objective == "energy":
        assert joules * 0.97 <= costs.joules.item() <= joules * (1 + 1e-5)
    else:
        assert costs.seconds.item() <= seconds * (1 + 1e-5)
        assert costs.joules.item() <= joules * (1 + 1e-5)


@pytest.mark.slow
def test_sizes_that_are_no_powers_of_two_and_batches() -> None:
    odd = search(gemm(1000, 3000, 3000), hierarchy("tpu_v4i"), ACCELFORGE, "energy").costs
    assert odd.joules.item() == pytest.approx(2.3204640308817845e-3, rel=1e-6)
    batch = search(batched(16, 512, 4096, 128), hierarchy("tpu_v4i", "bf16"), ACCELFORGE, "latency").costs
    assert batch.seconds.item() <= 1.400378387188539e-4 * (1 + 1e-6)
    assert batch.joules.item() <= 1.1439075106010646e-2 * (1 + 1e-6)


# As AccelForge prints the mapping of least energy of 4096 x 4096 x 4096 on its TPU v4i, all but the fields that it repeats of the machine.
PRINTED = (
    "nodes=[Storage(tensors=['W0', 'T1', 'T0'], component='MainMemory', x), Reservation(['W0', 'T1', 'T0'], MainMemory, False), "
    "Storage(tensors=['T0', 'W0'], component='GlobalBuffer', x), Temporal(rank_variable='m', tile_shape=2048, initial_tile_shape=None), "
    "Spatial(n1, in [0..2) shape=2048, Z, LocalBuffer), Spatial(m, in [0..2) shape=1024, Z, LocalBuffer), "
    "Storage(tensors=['T1'], component='LocalBuffer', x), Temporal(rank_variable='n0', tile_shape=128, initial_tile_shape=None), "
    "Storage(tensors=['T0'], component='LocalBuffer', x), Temporal(rank_variable='n1', tile_shape=128, initial_tile_shape=None), "
    "Spatial(n0, in [0..128) shape=1, reuse_output, ProcessingElement), Spatial(n1, in [0..128) shape=1, reuse_input, ProcessingElement), "
    "Storage(tensors=['W0'], component='Register', x), Temporal(rank_variable='m', tile_shape=1, initial_tile_shape=None), "
    "Compute(einsum='Matmul0')]"
)
# The bits that it counts for it.
BITS = {
    ("local", "T0", "read"): 4294967296,
    ("local", "T0", "write"): 268435456,
    ("global", "T0", "read"): 268435456,
    ("global", "T0", "write"): 134217728,
    ("main", "T0", "read"): 134217728,
    ("local", "T1", "read"): 4294967296,
    ("local", "T1", "write"): 4294967296,
    ("main", "T1", "read"): 0,
    ("main", "T1", "write"): 134217728,
    ("register", "W0", "read"): 549755813888,
    ("register", "W0", "write"): 536870912,
    ("global", "W0", "read"): 536870912,
    ("global", "W0", "write"): 134217728,
    ("main", "W0", "read"): 134217728,
}


def test_a_printed_mapping_is_priced_as_given() -> None:
    machine = hierarchy("tpu_v4i")
    problem = parse_problem("T1[m, n1] = T0[m, n0] * W0[n0, n1]", {"m": 4096, "n0": 4096, "n1": 4096}, "i8", 1.0)
    schedule = read_mapping(PRINTED, problem, machine)
    costs = costs_of(*mapping_of(schedule, problem, machine), ACCELFORGE)
    names = [store.name for store in machine.stores]
    for (store, operand, what), bits in BITS.items():
        found = costs.reads if what == "read" else costs.writes
        assert found[names.index(store), operand].item() * 8 == bits, (store, operand, what)
    assert costs.joules.item() == pytest.approx(0.01422654236111437, rel=1e-6)
    assert costs.seconds.item() == pytest.approx(0.0009986438089981675, rel=1e-6)
    assert costs.fit.item()
    assert costs.held[names.index("local")].item() / (1 << 22) == 0.53125
    assert costs.held[names.index("global")].item() / (1 << 27) == 0.25


def test_a_printed_mapping_that_is_cut_off_is_refused() -> None:
    problem = parse_problem("T1[m, n1] = T0[m, n0] * W0[n0, n1]", {"m": 64, "n0": 64, "n1": 64}, "i8", 1.0)
    with pytest.raises(ScheduleError, match="cut off"):
        read_mapping(PRINTED[:700], problem, hierarchy("tpu_v4i"))


def test_a_found_mapping_survives_as_a_schedule() -> None:
    machine, problem = hierarchy("eyeriss"), gemm(384, 96, 240)
    found = search(problem, machine, ACCELFORGE, "energy")
    schedule = Schedule.from_json(schedule_of(found.nest, found.factors, ACCELFORGE).to_json())
    again = costs_of(*mapping_of(schedule, problem, machine), ACCELFORGE)
    assert again.joules.item() == pytest.approx(found.costs.joules.item(), rel=1e-12)
    assert again.seconds.item() == pytest.approx(found.costs.seconds.item(), rel=1e-12)


def test_goldens_beside_the_checkout(shared_dir: Path) -> None:
    files = sorted((shared_dir / "goldens" / "accelforge").glob("eyeriss*.json"))
    assert files
    for path in files:
        result = read_result(path)
        costs = search(result.problem, hierarchy(result.machine), ACCELFORGE, result.objective).costs
        assert costs.joules.item() <= result.joules * (1 + 1e-5)
        assert costs.seconds.item() <= result.seconds * (1 + 1e-5)
        if result.objective == "energy":
            assert costs.joules.item() == pytest.approx(result.joules, rel=1e-4)


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"arch": "tpu_v4i"}')
    with pytest.raises(CodesignError, match="no AccelForge result"):
        read_result(path)


def test_many_mappings_are_priced_a_second() -> None:
    count, seconds = pricing_rate(gemm(4096, 4096, 4096), hierarchy("tpu_v4i"), ACCELFORGE, 200_000)
    assert count >= 200_000
    assert np.isfinite(seconds)
    assert seconds < 10.0
