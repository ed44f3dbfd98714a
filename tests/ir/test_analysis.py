"""Contractions, structural hashes, operation counts, order of ops."""

from __future__ import annotations

import pytest

from codesign.ir.analysis import (
    contraction,
    is_exact_cast,
    operation_counts,
    slot_of,
    structural_hash,
    topological_order,
    users,
)
from codesign.ir.core import Module
from codesign.ir.dtypes import BF16, BOOL, F8E4M3, F16, F32, F64, I8, I16, I32, I64, U8, DType
from codesign.ir.scalar import Apply, apply, literal
from codesign.ir.tensor import Compute
from codesign.ir.text import parse


def compute(text: str, args: str = "%x: f16[8, 64], %w: f16[16, 64]") -> Compute:
    op = parse(f"func @main({args}) {{ %y = compute {text} return %y }}").main.body.ops[0]
    assert isinstance(op, Compute)
    return op


def test_a_matmul_is_a_contraction_of_what_it_reads() -> None:
    form = contraction(compute("f16[i: 8, j: 16] sum(k: 64) { f32(%x[i, k]) * f32(%w[j, k]) }"))
    assert form is not None
    assert (form.m, form.n, form.k, form.batch) == (("i",), ("j",), ("k",), ())
    assert (form.left.dtype, form.right.dtype, form.accumulate) == (F16, F16, F32)


def test_a_convolution_is_a_contraction() -> None:
    body = "%im[n, c, y + r, x + s] * %wt[o, c, r, s]"
    op = compute(
        f"f32[n: 2, o: 4, y: 6, x: 6] sum(c: 3, r: 3, s: 3) {{ {body} }}", "%im: f32[2, 3, 8, 8], %wt: f32[4, 3, 3, 3]"
    )
    form = contraction(op)
    assert form is not None
    assert (form.m, form.n, form.k, form.batch) == (("n", "y", "x"), ("o",), ("c", "r", "s"), ())


@pytest.mark.parametrize(
    "text",
    [
        "f16[i: 8, j: 16] max(k: 64) { f32(%x[i, k]) * f32(%w[j, k]) }",  # no sum
        "f16[i: 8, j: 16] sum(k: 64) { f32(%x[i, k]) + f32(%w[j, k]) }",  # no product
        "f16[i: 8, j: 16] sum(k: 64) in f32 { %x[i, k] * %w[j, k] }",  # the product is rounded to f16
        "f16[i: 8] sum(k: 64) { f32(%x[i, k]) * f32(%x[i, k]) }",  # a sum of squares
        "f16[i: 8, j: 16] sum(k: 64) { f32(%x[i, k]) * f32(%w[j, 0]) }",  # the right factor lacks k
        "f16[i: 8, j: 16, z: 2] sum(k: 64) { f32(%x[i, k]) * f32(%w[j, k]) }",  # neither has z
        "f16[i: 8] sum(k: 64) { f32(%x[i, k]) * f32(%w[0, k]) }",  # a vector
    ],
)
def test_what_is_no_contraction(text: str) -> None:
    assert contraction(compute(text)) is None


def test_matrix_times_vector_when_asked() -> None:
    form = contraction(compute("f16[i: 8] sum(k: 64) { f32(%x[i, k]) * f32(%w[0, k]) }"), vector=True)
    assert form is not None
    assert (form.m, form.n) == (("i",), ())


@pytest.mark.parametrize(
    ("source", "target", "exact"),
    [
        (F16, F32, True), (BF16, F32, True), (F16, BF16, False), (BF16, F16, False), (F8E4M3, BF16, True), (F32, F64, True),
        (I8, I32, True), (U8, I8, False), (U8, I16, True), (I8, U8, False), (BOOL, F16, True), (I16, F32, True),
        (I32, F32, False), (I32, F64, True), (I64, F64, False), (F32, I64, False), (U8, BF16, True), (I16, F16, False),
    ],
)  # fmt: skip
def test_exact_casts(source: DType, target: DType, exact: bool) -> None:
    assert is_exact_cast(source, target) is exact


SOFTMAX = """module @m
symbol M: 1 to inf
func @main(%INPUT: f32[M, 64]) {
  %OUT = fusion "LABEL" {
    %mx = compute f32[ROW: M] max(COLUMN: 64) { %INPUT[ROW, COLUMN] }
    %ex = compute f32[ROW: M, COLUMN: 64] { exp(%INPUT[ROW, COLUMN] - %mx[ROW]) } loc("a.py":LINE)
    yield %ex
  }
  return %OUT
}"""


def variant(**names: str) -> str:
    text = SOFTMAX
    for key in ("INPUT", "OUT", "LABEL", "ROW", "COLUMN", "LINE"):
        text = text.replace(key, names.get(key, {"LINE": "3"}.get(key, key.lower())))
    return text


def fusion_hash(text: str) -> str:
    return structural_hash(parse(text).main.body.ops[0])


def test_hashes_ignore_names_and_places() -> None:
    base = fusion_hash(variant())
    assert fusion_hash(variant(INPUT="q", OUT="r", ROW="zz", COLUMN="aa", LABEL="other", LINE="99")) == base


@pytest.mark.parametrize(
    "change",
    [("f32[M, 64]", "f32[M, 65]"), ("max(", "min("), ("exp(", "exp2("), ("f32", "f64"), ("%mx[row]", "%mx[row // 2]")],
)
def test_hashes_see_what_matters(change: tuple[str, str]) -> None:
    text = variant().replace("column: 64", "column: 65") if "65" in change[1] else variant()
    assert fusion_hash(text.replace(*change)) != fusion_hash(variant())


def test_hashes_of_renamed_dims_whose_order_in_text_differs() -> None:
    a = compute("f16[a: 8, b: 16] sum(c: 64) { f32(%x[(a + b) % 8, c]) * f32(%w[b, c]) }")
    b = compute("f16[z: 8, b: 16] sum(a: 64) { f32(%x[(z + b) % 8, a]) * f32(%w[b, a]) }")
    assert structural_hash(a) == structural_hash(b)


def test_operation_counts_are_per_distinct_node() -> None:
    body = "{ let t = exp(%x[i, 0]); t * t + t / %x[i, 1] }"
    assert operation_counts(compute(f"f16[i: 8] {body}").body) == {
        ("special", F16): 1.0 + 3.0,
        ("fma", F16): 2.0,
    }
    twice = operation_counts(compute("f16[i: 8] { exp(%x[i, 0]) * exp(%x[i, 0]) + exp(%x[i, 0]) / %x[i, 1] }").body)
    assert twice == {("special", F16): 1.0 + 3.0, ("fma", F16): 2.0}  # as it is with a name for what is written thrice
    by_a_constant = operation_counts(compute("f16[i: 8] { %x[i, 0] / 3.0:f16 }").body)
    assert by_a_constant == {("fma", F16): 1.0}  # a multiplication by its reciprocal
    masked = operation_counts(compute("f16[i: 8] { select(i < 3, %x[i, 0], 0.0:f16) }").body)
    assert masked == {("alu", I64): 1.0, ("alu", F16): 1.0}


CHAIN = """func @main(%x: f32[4]) {
  %a = compute f32[i: 4] { exp(%x[i]) }
  %b = compute f32[i: 4] { exp(%a[i]) }
  %c = compute f32[i: 4] { %a[i] + %b[i] }
  return %c
}"""


def test_topological_order() -> None:
    block = parse(CHAIN).main.body
    a, b, c = block.ops
    assert topological_order(block) == [a, b, c]
    block.ops = [c, b, a]
    assert topological_order(block) == [a, b, c]
    a.replace({block.args[0]: c.result})
    with pytest.raises(ValueError, match="depends on its own result"):
        topological_order(block)


def test_users() -> None:
    module: Module = parse(CHAIN)
    a, b, c = module.main.body.ops
    assert users(module.main.body)[a.result] == [b, c]


def test_places_read_from_data_tell_writes_apart() -> None:
    """Though all else is alike: a kernel that writes by row 0 of a table of places is none that writes by row 1."""

    def hashed(row: int) -> str:
        return fusion_hash(f"""module @m
func @main(%base: f32[50], %new: f32[9], %at: i64[3, 9]) {{
  %y = fusion {{
    %v = compute f32[i: 9] {{ exp(%new[i]) }}
    yield %v
  }} writes (0: %base at [%at[{row}, i]])
  return %y
}}""")

    assert hashed(1) == hashed(1)
    assert hashed(0) != hashed(1)


@pytest.mark.parametrize(
    ("exponent", "unit", "slots"),
    [
        (1.0, "fma", 1.0),
        (2.0, "fma", 1.0),
        (4.0, "fma", 3.0),
        (0.5, "special", 1.0),
        (-0.5, "special", 1.0),
        (5.0, "special", 10.0),
        (1.5, "special", 10.0),
    ],
)
def test_a_power_by_a_small_whole_number_is_products(exponent: float, unit: str, slots: float) -> None:
    power = apply("pow", literal(3.0, F32), literal(exponent, F32))
    assert isinstance(power, Apply)
    assert slot_of(power) == (unit, F32, slots)
