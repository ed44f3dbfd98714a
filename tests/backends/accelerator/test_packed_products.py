"""Products of 4-bit floats that stand two in a byte, in blocks with exponents: loads take them apart, the tensor unit multiplies them as they are."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.backends.accelerator import lower, simulate
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.dtypes import F8E4M3
from codesign.ir.errors import ParseError
from codesign.ir.microscaling import halves, power_of_two
from codesign.ir.numerics import round_to
from codesign.ir.program import Load, Matmul, Program, Stage, Vector
from codesign.ir.scaled import scaled_factors
from codesign.ir.schedule import AtLevel, Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.ir.text.program import parse_program, print_program
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower as tile

TABLE = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
MAIA = load_machine("maia200")


def group(m: int, n: int, k: int, *, swizzled: bool = True, largest: float = 6.0, floats: int = 0) -> Fusion:
    """x[m, k] @ w[n, k].T of pairs, in blocks of 32 along k, whose exponents may lie in the order of tensor cores; or with scales that are floats, of
    so many numbers each."""

    def number(name: str, row: str) -> str:
        pair = f"(u8(%{name}[{row}, (k // 2)]) >> u8(index((k % 2))) * 4:u8)"
        size = f"({pair} & 7:u8)"
        large = f"select({size} == 7:u8, {largest}:bf16, bf16({size}) - 2.0:bf16)"
        plain = f"select({size} > 4:u8, {large}, bf16({size}) * 0.5:bf16)"
        return f"select({pair} & 8:u8 != 0:u8, neg({plain}), {plain})"

    def scale(name: str, row: str) -> str:
        if floats:
            return f"bf16(%{name}[{row}, (k // {floats})])"
        across = -(-k // 128)
        place = f"({row} // 128)*{across * 512} + (k // 128)*512 + ({row} % 32)*16 + (({row} // 32) % 4)*4 + ((k // 32) % 4)"
        exponent = f"u32(%{name}[{place if swizzled else f'{row}, (k // 32)'}])"
        number = f"select({exponent} == 0:u32, 5.877471754111438e-39, bitcast_f32({exponent} << 23:u32))"
        return f"bf16(select({exponent} == 255:u32, nan, {number}))"

    shapes = [f"[{-(-rows // 128) * -(-k // 128) * 512}]" if swizzled else f"[{rows}, {k // 32}]" for rows in (m, n)]
    kind = "f8e4m3" if floats else "f8e8m0"
    shapes = [f"[{rows}, {k // floats}]" for rows in (m, n)] if floats else shapes
    text = f"""
func @f(%x: f4x2[{m}, {k // 2}], %a: {kind}{shapes[0]}, %w: f4x2[{n}, {k // 2}], %c: {kind}{shapes[1]}) {{
  %o = fusion {{
    %p = compute f32[i: {m}, j: {n}] sum(k: {k}) in f32 {{
      f32({number("x", "i")} * {scale("a", "i")}) * f32({number("w", "j")} * {scale("c", "j")})
    }}
    yield %p
  }}
  return %o
}}
"""
    (op,) = parse(text).main.body.ops
    assert isinstance(op, Fusion)
    return op


def operand(rows: int, k: int, swizzled: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, exponents as they are stored, and the numbers that both stand for."""
    pairs = rng.integers(0, 256, (rows, k // 2), dtype=np.uint8)
    exponents = rng.integers(120, 134, (rows, k // 32), dtype=np.uint8)
    bits = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(rows, k)
    numbers = np.where(bits > 7, -1.0, 1.0) * np.array(TABLE)[bits & 7]
    wanted = numbers * 2.0 ** (np.repeat(exponents, 32, axis=1).astype(np.float64) - 127)
    if not swizzled:
        return pairs, exponents, wanted
    whole = np.zeros((-(-rows // 128) * 128, -(-k // 128) * 4), np.uint8)
    whole[:rows, : k // 32] = exponents
    tiles = whole.reshape(-(-rows // 128), 4, 32, -(-k // 128), 4).transpose(0, 3, 2, 1, 4)
    return pairs, tiles.reshape(-1), wanted


def program(fusion: Fusion, schedule: Schedule, machine: str = "maia200") -> Program:
    form = normalize(fusion)
    return lower(tile(form.fusion, schedule, outputs=form.outputs), load_machine(machine))


PLAIN = Schedule({"i": 32, "j": 64, "k": 64}, reduce={"k": "looped"}, pipeline=2)


def staged(stage: dict[str, int]) -> Schedule:
    levels = {"cluster": AtLevel({"i": 4, "j": 4}, stage=stage), "core": AtLevel({"i": 2, "j": 2})}
    return Schedule({"i": 32, "j": 32, "k": 64}, levels, ("i", "j"), {"k": "looped"}, pipeline=2)


@pytest.mark.parametrize(
    ("shape", "schedule", "swizzled"),
    [
        ((128, 128, 256), PLAIN, True),
        ((70, 96, 192), PLAIN, True),
        ((64, 48, 128), PLAIN, False),
        ((512, 768, 128), staged({"in0": 1}), True),
        ((512, 768, 128), staged({"in0": 2, "in2": 2}), True),
    ],
    ids=["whole", "cut", "matrix", "kept", "ahead"],
)
def test_pairs_reach_the_tensor_unit_as_they_are(
    shape: tuple[int, int, int], schedule: Schedule, swizzled: bool
) -> None:
    (m, n, k), rng = shape, np.random.default_rng(0)
    x, a, left = operand(m, k, swizzled, rng)
    w, c, right = operand(n, k, swizzled, rng)
    fusion = group(m, n, k, swizzled=swizzled)
    lowered = program(fusion, schedule)
    (product,) = [op for op in lowered.instructions() if isinstance(op, Matmul)]
    assert (product.a.dtype.name, product.b.dtype.name) == ("f4e2m1", "f4e2m1")
    assert all(product.scales)
    assert not any(isinstance(op, Vector) for op in lowered.instructions())
    loads = [op for op in lowered.instructions() if isinstance(op, Load) and op.half is not None]
    assert {op.source.name for op in loads} == {"x", "w"}
    assert any(isinstance(op, Stage) for op in loads) == (2 in schedule.levels.get("cluster", AtLevel()).stage.values())
    named = {"x": x, "a": a, "w": w, "c": c}
    run = simulate(lowered, [named[value.name] for value in lowered.inputs], MAIA)
    assert np.all(np.abs(run.outputs[0] - left @ right.T) <= 1e-6 * (np.abs(left) @ np.abs(right).T))
    text = print_program(lowered)
    assert print_program(parse_program(text)) == text
    cost = DataflowModel().predict(summarize(normalize(fusion).fusion), MAIA, ScheduleBatch.of([schedule]))
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.1)
    assert cost.joules[0] == pytest.approx(run.joules, rel=0.1)
    assert cost.dram_bytes[0] == pytest.approx(run.dram_bytes, rel=0.02)
    ends = [-(-item.end // 64) * 64 for item in lowered.scratches if item.level == "core"]
    assert cost.details["scratch_bytes"][0] == max(ends)


@pytest.mark.parametrize("k", [160, 96, 36 * 32])
def test_of_a_last_step_that_is_cut_loads_bring_zeros(k: int) -> None:
    """Nothing of it is computed on vectors either, though what lies behind an operand's end has no value."""
    rng = np.random.default_rng(1)
    (x, a, left), (w, c, right) = (operand(rows, k, True, rng) for rows in (64, 48))
    fusion, schedule = (
        group(64, 48, k),
        Schedule({"i": 32, "j": 64, "k": 256 if k > 1000 else 64}, reduce={"k": "looped"}),
    )
    lowered = program(fusion, schedule)
    assert k % schedule.tiles["k"]
    assert {op.a.dtype.name for op in lowered.instructions() if isinstance(op, Matmul)} == {"f4e2m1"}
    assert not any(isinstance(op, Vector) for op in lowered.instructions())
    named = {"x": x, "a": a, "w": w, "c": c}
    run = simulate(lowered, [named[value.name] for value in lowered.inputs], MAIA)
    assert np.all(np.abs(run.outputs[0] - left @ right.T) <= 1e-6 * (np.abs(left) @ np.abs(right).T))
    cost = DataflowModel().predict(summarize(normalize(fusion).fusion), MAIA, ScheduleBatch.of([schedule]))
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.05)


@pytest.mark.parametrize("machine", ["maia200", "maia100", "gaudi3"])
@pytest.mark.parametrize(("k", "step"), [(96, 64), (96, 128), (128, 64)])
def test_what_takes_pairs_apart_on_vectors_costs_what_it_takes(machine: str, k: int, step: int) -> None:
    """A part that depends on fewer points than the rest, and stands in it many times, is worked out once."""
    schedule = Schedule({"i": 32, "j": 64, "k": step}, reduce={"k": "looped"}, pipeline=2)
    fusion = group(64, 64, k, swizzled=False)
    run = simulate(program(fusion, schedule, machine), None, load_machine(machine), values=False)
    kernel = summarize(normalize(fusion).fusion)
    cost = DataflowModel().predict(kernel, load_machine(machine), ScheduleBatch.of([schedule]))
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.02)


def test_where_the_unit_multiplies_no_blocks_vectors_take_pairs_apart() -> None:
    lowered = program(group(64, 48, 128), PLAIN, "gaudi3")
    (product,) = [op for op in lowered.instructions() if isinstance(op, Matmul)]
    assert product.a.dtype.name == "bf16"
    assert not any(isinstance(op, Load) and op.half is not None for op in lowered.instructions())


def test_another_table_of_numbers_is_no_product_of_pairs() -> None:
    for largest, found in ((6.0, 2), (5.0, 0)):
        form = normalize(group(64, 48, 128, largest=largest))
        kernel = tile(form.fusion, PLAIN, outputs=form.outputs)
        assert len(scaled_factors(kernel, {"f4e2m1"})) == found


def test_all_pairs_by_the_table() -> None:
    pairs = np.arange(256, dtype=np.uint8)
    for half in (0, 1):
        bits = (pairs >> (4 * half)) & 15
        assert halves(pairs, half).tolist() == [(-1.0 if b > 7 else 1.0) * TABLE[b & 7] for b in bits.tolist()]
    assert power_of_two(np.array([127], np.uint8)).tolist() == [1.0]


@pytest.mark.parametrize(("element", "half"), [("f4e2m1", ""), ("f4x2", " half (k % 2)"), ("f8e4m3", " half (k % 2)")])
def test_a_load_says_half_where_it_takes_pairs_apart(element: str, half: str) -> None:
    text = f"""
program @f(%x: f4x2[8, 8]) -> (%y: f4x2[8, 8]) on 1 cores {{
  scratch a: {element}[8, 16] at 0
  load a[m, k] [m: 8, k: 16] = %x[m, (k // 2)]{half}
}}"""
    with pytest.raises(ParseError, match="says `half` where it brings f4x2 into f4e2m1"):
        parse_program(text)


def test_scales_that_are_floats_of_blocks_of_16() -> None:
    """NVFP4, where the machine's unit takes it; a scale of its own for each number is no block's."""
    (m, n, k), rng = (64, 48, 128), np.random.default_rng(2)
    sides = []
    for rows in (m, n):
        pairs, _, _ = operand(rows, k, False, rng)
        bits = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(rows, k)
        scales = round_to(rng.uniform(0.1, 400.0, (rows, k // 16)).astype(np.float32), F8E4M3)
        numbers = np.where(bits > 7, -1.0, 1.0) * np.array(TABLE)[bits & 7]
        sides.append((pairs, scales, numbers * np.repeat(scales, 16, axis=1).astype(np.float64)))
    (x, a, left), (w, c, right) = sides
    fusion = group(m, n, k, floats=16)
    lowered = program(fusion, PLAIN)
    (product,) = [op for op in lowered.instructions() if isinstance(op, Matmul)]
    assert product.a.dtype.name == "f4e2m1"
    assert [scale.dtype.name for scales in product.scales for scale in scales] == ["f8e4m3", "f8e4m3"]
    named = {"x": x, "a": a, "w": w, "c": c}
    run = simulate(lowered, [named[value.name] for value in lowered.inputs], MAIA)
    assert np.all(np.abs(run.outputs[0] - left @ right.T) <= 1e-6 * (np.abs(left) @ np.abs(right).T))
    cost = DataflowModel().predict(summarize(normalize(fusion).fusion), MAIA, ScheduleBatch.of([PLAIN]))
    assert cost.seconds[0] == pytest.approx(run.seconds, rel=0.1)
    for machine, floats in (("maia100", 16), ("maia200", 1), ("maia200", 8)):
        without = program(group(m, n, k, floats=floats), PLAIN, machine)
        assert [op.a.dtype.name for op in without.instructions() if isinstance(op, Matmul)] == ["bf16"], (
            machine,
            floats,
        )
