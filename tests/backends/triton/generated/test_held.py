"""What generated code holds: shared memory of pipelined loops in closed form, and registers that grow with what lives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.gpu.block import block_work, code_of
from codesign.costmodel.gpu.generator import Held
from codesign.costmodel.gpu.geometry import Geometry, geometry
from codesign.costmodel.gpu.phases import phases_of
from codesign.costmodel.gpu.runs import aligned_run
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import KernelSummary, summarize
from codesign.ir.dtypes import BF16, F8E4M3, F16, F32, DType
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.schedule.tuner import tune
from tests.costmodel.groups import convolution, group
from tests.passes.tiling import groups

SIZES: dict[str, Any] = {"M": 4096.0, "N": 4096.0, "K": 4096.0}
FRAGMENTS, WARP_GROUPS, TENSOR_MEMORY = (load_machine(name) for name in ("a100_sxm", "h100_sxm", "b200_sxm"))


def generated(kernel: KernelSummary, g: Geometry, machine: Machine, knobs: dict[str, Any]) -> Held:
    _, held = block_work(kernel, g, machine, knobs)
    assert held is not None
    return held


def gemm(
    machine: Machine,
    m: float = 128,
    n: float = 128,
    k: float = 64,
    warps: float = 8,
    stages: float = 3,
    dtype: str = "bf16",
) -> Held:
    kernel = workloads.gemm(dtype)
    knobs = {"tile.m": m, "tile.n": n, "tile.k": k, "warps": np.float64(warps), "pipeline": np.float64(stages)}
    return generated(kernel, geometry(kernel, knobs, SIZES), machine, knobs)


def shared(*arguments: Any, **options: Any) -> float:
    return float(gemm(*arguments, **options).shared_bytes)


def registers(*arguments: Any, **options: Any) -> float:
    return float(gemm(*arguments, **options).registers)


def test_warps_hold_the_last_stage_in_registers_and_wide_units_read_it_from_shared_memory() -> None:
    stage = (128 + 128) * 64 * 2
    assert shared(FRAGMENTS) == 2 * stage
    assert shared(WARP_GROUPS) == 3 * stage
    assert shared(TENSOR_MEMORY) == 3 * stage + 16  # and two barriers


@pytest.mark.parametrize(
    ("m", "warps", "wide"),
    [(32, 8, WARP_GROUPS), (128, 2, WARP_GROUPS), (32, 8, TENSOR_MEMORY), (128, 16, TENSOR_MEMORY)],
)
def test_small_tiles_and_other_numbers_of_warps_use_fragments(m: int, warps: int, wide: Machine) -> None:
    assert shared(wide, m=m, warps=warps) == shared(FRAGMENTS, m=m, warps=warps)


def test_what_is_stored_goes_through_the_memory_of_the_loop() -> None:
    assert shared(FRAGMENTS, k=16, stages=2) == 128 * 128 * 2 > (128 + 128) * 16 * 2
    assert shared(FRAGMENTS, k=16, stages=2, warps=1) == (128 + 128) * 16 * 2  # one warp needs no exchange


def test_loads_too_narrow_to_be_copied_have_one_buffer() -> None:
    """Of 16 x 16 values each of 512 threads has one half: less than a copy can move."""
    assert shared(FRAGMENTS, m=16, n=64, k=16, warps=16, stages=4) == 3 * 64 * 16 * 2 + 16 * 16 * 2


def test_registers_grow_with_the_tile_and_accumulators_outside_of_registers_take_fewer() -> None:
    small, large = (registers(FRAGMENTS, m=size, warps=4) for size in (64, 128))
    assert large - small >= 64 * 128 / 128  # a register for each further result
    assert registers(TENSOR_MEMORY) < registers(WARP_GROUPS) < registers(FRAGMENTS)


def test_rows_are_staged_once_in_each_loop_and_loops_share_their_memory() -> None:
    kernel = workloads.rms_norm()
    knobs: dict[str, Any] = {"tile.t": 8.0, "tile.n": 512.0, "reduce.n": 0.0, "warps": np.float64(4.0)}
    knobs["pipeline"] = np.float64(3.0)
    g = geometry(kernel, knobs, {"T": 4096.0, "N": 8192.0})
    program, _ = code_of(kernel, g, FRAGMENTS, knobs)
    assert [sorted(phase.along) for phase in phases_of(program) if phase.loop] == [["n"], ["n"]]
    held = generated(kernel, g, FRAGMENTS, knobs)
    rows = 2 * 8 * 512 * 2  # two stages of the tile
    assert rows <= float(held.shared_bytes) <= rows + 2 * 512 * 2  # and of the weights


def test_a_run_ends_where_the_address_is_not_aligned() -> None:
    (product,) = (nest for nest in workloads.gemm("bf16").nests if nest.contraction)
    left, _ = product.loads
    dim, run = aligned_run(left)
    assert dim == "k"
    assert run == 16


def test_one_block_may_have_all_registers_of_an_sm_and_no_more() -> None:
    machine = load_machine("a100_sxm")
    schedule = Schedule({"m": 256, "n": 256, "k": 32}, pipeline=2, extras={"warps": 16})
    sizes = {name: int(size) for name, size in SIZES.items()}
    cost = cost_model_for(machine).predict(workloads.gemm(), machine, ScheduleBatch.of([schedule]), sizes)
    assert cost.details["registers"][0] == 65536 / 512
    assert cost.details["spilled_bytes"][0] > 0
    assert cost.details["blocks_per_sm"][0] == 1


def product(
    machine: str, tile: tuple[int, int, int], warps: int, stages: int, dtype: DType = F16, transposed: bool = False
) -> Held:
    """What a product of 2,048 x 2,048 x 2,048 holds; `transposed`: its weights lie along k."""
    kernel = summarize(normalize(groups.gemm(2048, 2048, 2048, dtype, transposed=transposed)).fusion)
    knobs: dict[str, Any] = {f"tile.{dim}": np.float32(size) for dim, size in zip("ijk", tile, strict=True)}
    knobs |= {"reduce.k": np.float32(0.0), "warps": np.float32(warps), "pipeline": np.float32(stages)}
    return generated(kernel, geometry(kernel, knobs, {}), load_machine(machine), knobs)


@pytest.mark.parametrize(
    ("tile", "warps", "stages", "dtype", "transposed", "compiled"),
    [
        ((128, 128, 64), 4, 2, F16, False, 68_016),
        ((128, 128, 64), 4, 3, F16, False, 102_064),
        ((64, 32, 32), 8, 5, BF16, True, 31_024),  # gaps of 16 bytes between the rows; columns too few to be staggered
        ((32, 32, 16), 2, 6, BF16, True, 12_288),  # both too few
        ((64, 16, 128), 1, 2, BF16, False, 42_176),  # instructions of 16 x 16
        ((16, 64, 64), 1, 6, BF16, False, 62_944),
        ((32, 64, 128), 16, 3, BF16, False, 76_736),
        ((128, 64, 128), 4, 2, F8E4M3, True, 49_888),
        ((16, 64, 32), 2, 3, F8E4M3, True, 7_728),  # k too short for the wider instruction
    ],
)
def test_stages_are_all_kept_with_gaps_between_rows_where_those_can_be_staggered(
    tile: tuple[int, int, int], warps: int, stages: int, dtype: DType, transposed: bool, compiled: int
) -> None:
    """As Triton 3.9.0 compiles products for gfx950."""
    held = product("mi355x", tile, warps, stages, dtype, transposed)
    assert float(held.shared_bytes) == compiled


EXCHANGED = [  # norms' and softmaxes' tiles, stages, warps and shared memory as Triton 3.9.0 compiles them
    (
        "b200_sxm",
        groups.layer_norm,
        (8, 1024),
        "fold",
        1,
        8,
        1024 * 2,
    ),  # the gain, which lies by other threads than what it scales
    ("a100_sxm", groups.layer_norm, (2, 512), "looped", 1, 8, 512 * 2),
    ("a100_sxm", groups.layer_norm, (16, 32), "fold", 1, 1, 32 * 4),  # of one element a thread as a float
    ("a100_sxm", groups.layer_norm, (64, 128), "looped", 6, 4, 5 * 2 * 64 * 128 * 2 + 128 * 4),
    (
        "h100_sxm",
        groups.layer_norm,
        (8, 64),
        "fold",
        5,
        8,
        4 * (2 * 8 * 64 + 64) * 2,
    ),  # fewer elements than threads: copied
    ("h100_sxm", groups.layer_norm, (1, 128), "looped", 5, 8, 4 * 4),  # sums of four warps
    ("a100_sxm", groups.softmax, (8, 2048), "resident", 5, 16, 8 * 16 * 4 // 2),  # more sums than lanes: in two turns
    ("h100_sxm", groups.softmax, (32, 256), "fold", 3, 4, 2 * 32 * 256 * 4 + 32 * 2 * 4),
    ("b200_sxm", groups.softmax, (1, 2048), "resident", 1, 8, 8 * 4),
]


@pytest.mark.parametrize(("name", "made", "tile", "reduce", "stages", "warps", "compiled"), EXCHANGED)
def test_what_warps_exchange_goes_through_as_much_memory_as_is_compiled(
    name: str, made: Any, tile: tuple[int, int], reduce: Any, stages: int, warps: int, compiled: int
) -> None:
    kernel, machine = (
        summarize(normalize(made(4096, 4096 if made is groups.layer_norm else 2048)).fusion),
        load_machine(name),
    )
    schedule = Schedule({"i": tile[0], "j": tile[1]}, reduce={"j": reduce}, pipeline=stages, extras={"warps": warps})
    cost = cost_model_for(machine).predict(kernel, machine, ScheduleBatch.of([schedule]))
    assert cost.details["shared_bytes"][0] == compiled


SCALED = group(
    "%x: bf16[4096, 768], %g: bf16[768], %w: bf16[768, 3072]",
    "%n = compute bf16[i: 4096, k: 768] { bf16(f32(%x[i, k]) * f32(%g[k])) }",
    "%p = compute f32[i: 4096, j: 3072] sum(k: 768) { f32(%n[i, k]) * f32(%w[k, j]) }",
    "%y = compute bf16[i: 4096, j: 3072] { bf16(%p[i, j]) }",
)


@pytest.mark.parametrize(
    ("name", "tile", "stages", "warps", "compiled"),
    [
        ("a100_sxm", (64, 64, 64), 2, 4, 16_512),
        ("a100_sxm", (128, 64, 32), 3, 8, 24_704),
        ("h100_sxm", (128, 32, 32), 1, 4, 8_192),
        ("h100_sxm", (128, 32, 32), 2, 4, 12_352),
        ("h100_sxm", (64, 64, 64), 2, 4, 24_704),
        ("b200_sxm", (128, 64, 64), 3, 8, 57_616),
    ],
)
def test_rows_made_of_copies_are_made_where_the_unit_takes_them(
    name: str, tile: tuple[int, int, int], stages: int, warps: int, compiled: int
) -> None:
    """By Triton 3.9.0: from shared memory in the operand's own layout, with nothing to change after; without copies there are no such rows."""
    kernel, machine = summarize(normalize(SCALED).fusion), load_machine(name)
    tiles, extras = dict(zip("ijk", tile, strict=True)), {"warps": warps}
    schedule = Schedule(tiles, reduce={"k": "looped"}, pipeline=stages, extras=extras)
    cost = cost_model_for(machine).predict(kernel, machine, ScheduleBatch.of([schedule]))
    assert cost.details["shared_bytes"][0] == compiled


SPECIALISED = [  # tile m, n, k, stages, warps; threads, registers and shared memory as Triton 3.9.0 compiles it
    ("h100_sxm", (128, 128, 64), 3, 4, 384, 168, 115_168),
    ("h100_sxm", (64, 64, 64), 4, 4, 384, 168, 82_216),
    ("h100_sxm", (128, 64, 32), 2, 4, 384, 168, 41_272),
    ("h100_sxm", (128, 256, 64), 3, 8, 256, None, 147_480),
    ("b200_sxm", (128, 128, 64), 3, 4, 256, 255, 98_524),
    ("b200_sxm", (128, 256, 64), 3, 8, 384, 168, 147_676),
    ("b200_sxm", (64, 64, 64), 4, 4, 256, 255, 65_740),
    ("rtx_pro_6000", (128, 64, 32), 2, 4, 256, 255, 24_772),
    ("a100_sxm", (128, 64, 32), 2, 4, 128, None, 16_384),
]


@pytest.mark.parametrize(("name", "tile", "stages", "warps", "threads", "registers", "shared_bytes"), SPECIALISED)
def test_what_a_specialised_loop_launches_is_what_is_priced(
    name: str,
    tile: tuple[int, int, int],
    stages: int,
    warps: int,
    threads: int,
    registers: int | None,
    shared_bytes: int,
) -> None:
    """Warps that load are launched beside those of the schedule, and take their registers and shared memory."""
    machine = load_machine(name)
    extras = {"warps": warps, "tma": 1, "warp_specialize": 1}
    schedule = Schedule(dict(zip("mnk", tile, strict=True)), pipeline=stages, extras=extras)
    kernel, sizes = workloads.gemm(), {key: int(size) for key, size in SIZES.items()}
    (cost, plain) = (
        cost_model_for(machine).predict(kernel, machine, ScheduleBatch.of([one]), sizes)
        for one in (schedule, replace(schedule, extras={**extras, "warp_specialize": 0}))
    )
    assert cost.details["threads"][0] == threads
    assert cost.details["shared_bytes"][0] == pytest.approx(shared_bytes, abs=512)
    if registers is None:  # the code generator leaves the loop as it is
        assert cost.seconds[0] == plain.seconds[0]
    else:
        assert cost.details["registers"][0] == registers
        assert cost.details["blocks_per_sm"][0] == 65536 // (threads * registers)


@pytest.mark.parametrize("name", ["b200_sxm", "rtx_pro_6000"])
def test_too_few_warps_to_specialise_are_refused_as_the_compiler_does(name: str) -> None:
    machine = load_machine(name)
    schedule = Schedule({"m": 64, "n": 64, "k": 64}, pipeline=3, extras={"warps": 2, "tma": 1, "warp_specialize": 1})
    sizes = {key: int(size) for key, size in SIZES.items()}
    cost = cost_model_for(machine).predict(workloads.gemm(), machine, ScheduleBatch.of([schedule]), sizes)
    assert cost.reason[0] == "warp_specialize: needs 2 warps more"
    assert np.isinf(cost.seconds[0])


def test_a_warp_has_as_many_lanes_as_its_machine() -> None:
    """Warps of 64 lanes launch as many threads as twice as many of 32, and hold less each."""
    machine = load_machine("mi300x")
    kernel, sizes = workloads.gelu(), {"T": 4096, "H": 4096, "N": 4096}
    schedules = ScheduleBatch.of([Schedule({"t": 8, "n": 1024}, extras={"warps": warps}) for warps in (4, 8)])
    given = {symbol: sizes[symbol] for symbol in kernel.symbols}
    narrow = machine.with_figures({"limits.warp_size": 32})
    wide, other = (cost_model_for(m).predict(kernel, m, schedules, given).details for m in (machine, narrow))
    assert wide["threads"].tolist() == [256, 512]
    assert other["threads"].tolist() == [128, 256]
    assert wide["registers"][1] < wide["registers"][0]
    assert other["registers"][1] < other["registers"][0]


@pytest.mark.parametrize(("elements", "warps", "compiled"), [(8192, 4, 107), (8192, 8, 55), (2048, 4, 29)])
def test_element_wise_work_of_wide_warps_holds_what_it_was_compiled_to(
    elements: int, warps: int, compiled: int
) -> None:
    """A GELU in bf16 for gfx942, by Triton 3.9.0."""
    half = "f32(%x[i, j]) * 0.5 * (1.0 + erf(f32(%x[i, j]) * 0.70710678))"
    gelu = group(
        "%x: bf16[4096, 4096]",
        f"%y = compute bf16[i: 4096, j: 4096] {{ bf16({half}) }}",
    )
    kernel, machine = summarize(normalize(gelu).fusion), load_machine("mi300x")
    schedule = Schedule({kernel.outer[0]: elements}, extras={"warps": warps})
    cost = cost_model_for(machine).predict(kernel, machine, ScheduleBatch.of([schedule]))
    assert cost.details["registers"][0] == pytest.approx(compiled, rel=0.12)


def holds(fusion: Fusion, machine: str, tiles: dict[str, int], warps: int, stages: int = 1) -> Held:
    """What the code of a group holds; what it reduces over is looped over."""
    kernel = summarize(normalize(fusion).fusion)
    knobs: dict[str, Any] = {f"tile.{dim}": np.float32(size) for dim, size in tiles.items()}
    knobs |= {f"reduce.{dim}": np.float32(0.0) for nest in kernel.nests for dim in nest.reductions}
    knobs |= {"warps": np.float32(warps), "pipeline": np.float32(stages)}
    return generated(kernel, geometry(kernel, knobs, {}), load_machine(machine), knobs)


@pytest.mark.parametrize(
    ("machine", "dtype", "rows", "columns", "tile", "warps", "compiled"),
    [
        ("h100_sxm", "f16", 4096, 8192, (8, 1024), 4, 157),
        ("a100_sxm", "f16", 4096, 8192, (256, 32), 4, 156),
        ("b200_sxm", "bf16", 2048, 12288, (1, 2048), 1, 180),
        ("h100_sxm", "bf16", 2048, 12288, (4, 64), 2, 31),
    ],
)
def test_straight_code_has_all_its_elements_in_work(
    machine: str, dtype: str, rows: int, columns: int, tile: tuple[int, int], warps: int, compiled: int
) -> None:
    """A GELU of a biased row, by Triton 3.9.0."""
    tanh = "tanh(0.79788 * (a + 0.044715 * a * a * a))"
    biased = f"let a = f32(%x[i, j]) + f32(%b[j]); {dtype}(a * 0.5 * (1.0 + {tanh}))"
    gelu = group(
        f"%x: {dtype}[{rows}, {columns}], %b: {dtype}[{columns}]",
        f"%y = compute {dtype}[i: {rows}, j: {columns}] {{ {biased} }}",
    )
    held = holds(gelu, machine, dict(zip("ij", tile, strict=True)), warps)
    assert float(held.registers) == pytest.approx(compiled, rel=0.12)


@pytest.mark.parametrize(
    ("machine", "dtype", "tile", "warps", "compiled"),
    [
        ("a100_sxm", "f16", (256, 16), 2, 4096),  # ldmatrix: one bit that stays takes part in it
        ("h100_sxm", "f16", (256, 16), 2, 2048),  # stmatrix, transposing: none does
        ("a100_sxm", "f32", (32, 256), 4, 32_768),  # neither: the bit that stays is one of the instruction's
        ("h100_sxm", "f32", (32, 256), 4, 16_384),
        ("a100_sxm", "f32", (4, 512), 1, 2048),
        ("b200_sxm", "f16", (128, 8), 2, 2048),
        ("h100_sxm", "f16", (1024, 8), 1, 512),  # five bits stay
        ("b200_sxm", "f32", (32, 8), 16, 0),  # fewer elements than threads: stored as they lie
        ("a100_sxm", "f32", (8, 8), 1, 0),  # a warp exchanges one bit among its lanes
    ],
)
def test_turned_tiles_go_through_shared_memory_in_rounds(
    machine: str, dtype: str, tile: tuple[int, int], warps: int, compiled: int
) -> None:
    """A transposed matrix added to itself, by Triton 3.9.0: what stays a register's bit is done in rounds."""
    turned = group(f"%x: {dtype}[4096, 4096]", f"%y = compute {dtype}[i: 4096, j: 4096] {{ add(%x[j, i], %x[j, i]) }}")
    assert float(holds(turned, machine, dict(zip("ij", tile, strict=True)), warps).shared_bytes) == compiled


@pytest.mark.parametrize(
    ("machine", "tile", "warps", "compiled"),
    [("mi300x", (16, 512), 2, 32_768), ("mi300x", (256, 16), 1, 16_384), ("mi355x", (512, 128), 16, 262_144)],
)
def test_warps_of_64_turn_a_whole_tile_at_once(machine: str, tile: tuple[int, int], warps: int, compiled: int) -> None:
    """A matrix added to another's transposed, in float32, by Triton 3.9.0."""
    turned = group(
        "%x: f32[8192, 2048], %z: f32[2048, 8192]", "%y = compute f32[i: 2048, j: 8192] { %x[j, i] + %z[i, j] }"
    )
    assert float(holds(turned, machine, dict(zip("ij", tile, strict=True)), warps).shared_bytes) == compiled


@pytest.mark.parametrize(
    ("machine", "sizes", "tile", "warps", "stages", "compiled"),
    [
        ("h100_sxm", (32, 128, 128, (14, 14)), (32, 32, 128), 4, 4, 96),
        ("b200_sxm", (16, 64, 64, (56, 56)), (16, 32, 64), 2, 2, 55),
        ("b200_sxm", (32, 128, 128, (14, 14)), (32, 64, 256), 4, 4, 126),
    ],
)
def test_operands_that_come_value_by_value_are_put_together_by_twos(
    machine: str, sizes: Any, tile: tuple[int, int, int], warps: int, stages: int, compiled: int
) -> None:
    """Convolutions in bf16, whose pixels come alone, by Triton 3.9.0."""
    tiles = dict(zip(("nyx", "o", "ry_rx_c"), tile, strict=True))
    held = holds(convolution(*sizes), machine, tiles, warps, stages)
    assert float(held.registers) == pytest.approx(compiled, rel=0.2)


MATRIX_CORES = [  # tile m, n, k, stages, warps; registers and shared memory as Triton 3.9.0 compiles f16 products
    ("mi355x", (128, 128, 128), 2, 8, 140, 136_112),
    ("mi355x", (128, 128, 64), 4, 4, 144, 136_112),
    ("mi355x", (256, 128, 64), 2, 8, 140, 101_296),
    ("mi355x", (64, 128, 64), 3, 4, 118, 77_104),
    ("mi300x", (128, 128, 128), 2, 8, 206, 65_536),
    ("mi300x", (128, 128, 64), 4, 4, 253, 98_304),
    ("mi300x", (256, 128, 64), 2, 8, 188, 49_152),
    ("mi300x", (64, 128, 64), 3, 4, 140, 49_152),
    ("mi300x", (64, 64, 128), 1, 1, 284, 16_384),  # operands outside of a pipeline take turns
    ("mi300x", (128, 64, 32), 1, 4, 84, 8_192),
    ("mi300x", (256, 64, 16), 2, 4, 110, 10_240),  # and results are stored from where they are
]


@pytest.mark.parametrize(("name", "tile", "stages", "warps", "compiled", "shared_bytes"), MATRIX_CORES)
def test_products_of_matrix_cores_hold_what_they_were_compiled_to(
    name: str, tile: tuple[int, int, int], stages: int, warps: int, compiled: int, shared_bytes: int
) -> None:
    """And a block's shared memory is never less than what the compiler takes, so that none is over the limit unseen."""
    held = product(name, tile, warps, stages)
    assert float(held.registers) == pytest.approx(compiled, rel=0.2)
    assert shared_bytes <= float(held.shared_bytes) <= 1.02 * shared_bytes


def test_what_feeds_no_product_waits_in_registers_on_matrix_cores() -> None:
    """A row of a norm in a pipelined loop has no buffer in shared memory (gfx942: 2,048 B of scratch where sm_90 has two stages of 32 KiB)."""
    kernel, knobs = workloads.rms_norm(), {"warps": np.float64(8.0), "pipeline": np.float64(3.0)}
    sizes = {"T": 4096.0, "N": 4096.0}
    tiles = {f"tile.{dim}": size for dim, size in zip(kernel.extents, (32, 512), strict=True)}
    looped = {f"reduce.{dim}": 0 for dim in kernel.inner}
    for machine, staged in ((WARP_GROUPS, True), (load_machine("mi300x"), False)):
        columns = {**{name: np.float64(size) for name, size in {**tiles, **looped}.items()}, **knobs}
        held = generated(kernel, geometry(kernel, columns, sizes), machine, columns)
        assert (float(np.max(held.shared_bytes)) >= 2 * 32 * 512 * 2) == staged


@pytest.mark.parametrize(
    ("m", "n", "k", "warps", "stages", "registers"),
    [
        (32, 32, 16, 4, 3, 59),
        (32, 32, 64, 4, 3, 64),
        (64, 64, 16, 4, 3, 128),
        (64, 64, 64, 4, 3, 128),
        (128, 128, 16, 8, 3, 222),
        (64, 256, 32, 8, 3, 220),
        (128, 128, 64, 8, 2, 254),
    ],
)
def test_operands_of_a_product_element_by_element_are_in_registers(
    m: int, n: int, k: int, warps: int, stages: int, registers: int
) -> None:
    """Registers of float32 products as Triton 3.9.0 and its ptxas compile them for sm_90; none of these spills."""
    found = float32_product(m, n, k, warps, stages)
    assert found.details["registers"][0] == pytest.approx(registers, rel=0.2, abs=12)
    assert found.details["spilled_bytes"][0] == 0.0


@pytest.mark.parametrize(
    ("m", "n", "k", "warps"), [(64, 256, 128, 8), (64, 128, 128, 4), (32, 64, 256, 4), (64, 128, 128, 8)]
)
def test_a_step_whose_operands_do_not_fit_registers_is_refused(m: int, n: int, k: int, warps: int) -> None:
    """The compiler spills hundreds of bytes to kilobytes a thread there."""
    assert float32_product(m, n, k, warps, 2).reason[0].startswith("registers: ")


@pytest.mark.parametrize("machine", ["h100_sxm", "a100_sxm", "rtx_3090"])
@pytest.mark.parametrize("rows", [128, 1024])
def test_the_chosen_float32_product_keeps_its_operands_in_registers(machine: str, rows: int) -> None:
    found = tune(groups.gemm(rows, 4096, 4096, F32), load_machine(machine))
    assert found.details["spilled_bytes"] <= 256.0
    results = found.schedule.tiles["i"] * found.schedule.tiles["j"] / (32.0 * found.schedule.extra("warps", 4))
    assert 2.0 * results**0.5 * found.schedule.tiles["k"] <= 1024.0 or results * found.schedule.tiles["k"] < 4096.0


def float32_product(m: int, n: int, k: int, warps: int, stages: int) -> CostBatch:
    """What is predicted of a float32 product of 4096 cubed on an h100_sxm under a schedule."""
    tiles, extras = {"i": m, "j": n, "k": k}, {"warps": warps, "group": 8}
    schedule = Schedule(tiles, order=("i", "j"), reduce={"k": "looped"}, pipeline=stages, extras=extras)
    machine = load_machine("h100_sxm")
    summary = summarize(groups.gemm(4096, 4096, 4096, F32))
    return cost_model_for(machine).predict(summary, machine, ScheduleBatch.of([schedule]))


@pytest.mark.parametrize(
    ("sizes", "tile", "warps", "stages", "compiled"),
    [
        ((16, 64, 64, (56, 56)), (256, 16, 64), 16, 5, 174_080),
        ((16, 128, 128, (28, 28)), (256, 64, 256), 4, 5, 819_200),
        ((32, 128, 128, (14, 14)), (64, 32, 1024), 4, 5, 983_040),
    ],
)
def test_operands_that_come_value_by_value_have_a_buffer_for_each_stage_too(
    sizes: Any, tile: tuple[int, int, int], warps: int, stages: int, compiled: int
) -> None:
    """Convolutions in bf16 for gfx950, by Triton 3.9.0: what no copy brings has no gaps."""
    tiles = dict(zip(("nyx", "o", "ry_rx_c"), tile, strict=True))
    assert float(holds(convolution(*sizes), "mi355x", tiles, warps, stages).shared_bytes) == compiled


def square_sums(dtype: str, rows: int, columns: int) -> Fusion:
    return group(
        f"%x: {dtype}[{rows}, {columns}], %w: {dtype}[{columns}]",
        f"%s = compute f32[i: {rows}] sum(j: {columns}) {{ f32(%x[i, j]) * f32(%x[i, j]) }}",
        f"%y = compute {dtype}[i: {rows}, j: {columns}] "
        f"{{ {dtype}(f32(%x[i, j]) * rsqrt(%s[i] / {columns}.0 + 0.00001) * f32(%w[j])) }}",
    )


def column_sums(dtype: str, rows: int, columns: int) -> Fusion:
    return group(
        f"%x: {dtype}[{rows}, {columns}]", f"%s = compute f32[j: {columns}] sum(i: {rows}) {{ f32(%x[i, j]) }}"
    )


@pytest.mark.parametrize(
    ("fusion", "machine", "tile", "warps", "stages", "compiled"),
    [
        (square_sums("f16", 8192, 3072), "mi300x", {"i": 1, "j": 2048}, 2, 4, 60),
        (column_sums("bf16", 16384, 2048), "mi300x", {"j": 2, "i": 4096}, 4, 3, 123),
        (groups.softmax(4096, 2048), "mi355x", {"i": 16, "j": 1024}, 4, 2, 192),
    ],
)
def test_no_step_of_a_loop_that_is_unrolled_whole_waits_for_another(
    fusion: Fusion, machine: str, tile: dict[str, int], warps: int, stages: int, compiled: int
) -> None:
    """Loops of two to four steps, by Triton 3.9.0: a loop of many steps with as many elements would take up to twice as many registers."""
    held = holds(fusion, machine, tile, warps, stages)
    assert float(held.registers) == pytest.approx(compiled, rel=0.25)
