"""Kernel summaries against closed forms; sizes are too large to allocate."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.features import features
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.library_work import product_work
from codesign.costmodel.machine import load_machine
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import footprint, summarize
from codesign.ir.core import Block, Value
from codesign.ir.dtypes import BF16, F8E4M3, F8E5M2, F16, F32, F64, I8, I16, I32, DType
from codesign.ir.index import index
from codesign.ir.precision import ARITHMETIC, Precision
from codesign.ir.scalar import Read, apply, cast
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.tile import Dot
from codesign.ir.types import tensor
from codesign.passes.tile import lower


def test_gemm_is_a_contraction_with_its_least_traffic() -> None:
    kernel = workloads.gemm()
    (nest,) = kernel.nests
    assert nest.contraction is not None
    assert (nest.contraction.m, nest.contraction.n, nest.contraction.k, nest.contraction.batch) == (
        ("m",),
        ("n",),
        ("k",),
        (),
    )
    assert nest.contraction.left is BF16
    assert nest.contraction.accumulate is F32
    assert not nest.operations  # conversions into the tensor unit are its own
    sizes = {"M": 100_000, "N": 300_000, "K": 70_000}
    assert kernel.read_bytes.evaluate(sizes) == 2 * (100_000 * 70_000 + 300_000 * 70_000)
    assert kernel.write_bytes.evaluate(sizes) == 2 * 100_000 * 300_000
    assert kernel.outer == ("m", "n")
    assert kernel.inner == ("k",)


def test_attention_has_two_contractions_and_a_softmax_between() -> None:
    kernel = workloads.attention(head=64)
    roles = {nest.name.split("#")[0]: nest.contraction for nest in kernel.nests}
    score, mixed = roles["score"], roles["mixed"]
    assert score is not None
    assert mixed is not None
    assert score.k == ("d",)
    assert set(score.batch) == {"b", "g"}
    assert set(score.m) == {"r", "i"}
    assert score.n == ("j",)
    assert mixed.k == ("j",)
    assert mixed.n == ("e",)
    assert mixed.left is BF16  # the weights reach the unit converted, though they are computed in f32
    exp = next(nest for nest in kernel.nests if nest.name.startswith("exp"))
    assert exp.operations["special", "f32"] == 1.0


def _product(left: DType, right: DType, body: DType, total: DType, function: str = "mul") -> Fusion:
    """The group of `sum_k left[m, k] * right[n, k]`, multiplied in a dtype and summed in another."""
    a, b = (Value(tensor(dtype, size, 4096), "ab"[i]) for i, (dtype, size) in enumerate(((left, 512), (right, 256))))
    dims = [Dim(name, index(size)) for name, size in (("m", 512), ("n", 256), ("k", 4096))]
    factors = (cast(Read(value, (name, "k")), body) for value, name in ((a, "m"), (b, "n")))
    multiply = cast(apply(function, *factors), total)
    c = Compute(dims[:2], multiply, reductions=dims[2:], monoid="sum", accumulate=total, dtype=total, name="c")
    return Fusion(Block((), [c], [c.result]))


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_products_that_are_rounded_before_the_sum_are_no_work_for_a_tensor_unit(dtype: DType) -> None:
    machine = load_machine("h100_sxm")
    group = _product(dtype, dtype, dtype, F32)
    exact, rounded = summarize(_product(dtype, dtype, F32, F32)), summarize(group)
    assert exact.nests[0].contraction is not None
    assert rounded.nests[0].contraction is None
    rate = machine.rate("vector", "f32")
    assert rate is not None
    additions = 512 * 256 * 4096 / (rate / 2)
    assert max(roofline_bounds(rounded, machine, {})) >= additions
    kernel = lower(group, Schedule({"m": 64, "n": 64, "k": 64}))
    assert not any(isinstance(op, Dot) for op in kernel.body.walk())


@pytest.mark.parametrize(
    ("left", "right", "total", "operand"),
    [
        (BF16, BF16, F32, BF16),
        (F16, BF16, F32, F32),
        (F8E4M3, F8E5M2, F32, F16),
        (F8E4M3, F8E4M3, F32, F8E4M3),
        (I8, I8, I32, I8),
        (I16, I16, I32, None),
        (F64, F64, F64, None),
    ],
)
def test_the_price_multiplies_in_the_dtype_that_the_kernel_does(
    left: DType, right: DType, total: DType, operand: DType | None
) -> None:
    group = _product(left, right, total, total)
    kernel = summarize(group)
    assert kernel.nests[0].contraction is not None
    assert kernel.nests[0].contraction.unit is operand
    done = product_work(
        kernel, geometry(kernel, {name: np.array([64.0]) for name in ("tile.m", "tile.n", "tile.k")}, {})
    )
    walked = features(lower(group, Schedule({"m": 64, "n": 64, "k": 64}))).at({}).products
    assert set(walked) == ({operand.name} if operand is not None else set())
    assert bool(done.tensor) == (operand is not None and operand is not F32)


@pytest.mark.parametrize(
    ("precision", "unit", "products"), [("tf32", "tf32", 1), ("tf32x3", "tf32", 3), ("bf16x3", "bf16", 3)]
)
def test_a_rounded_product_is_priced_bounded_and_written_on_the_same_unit(
    precision: Precision, unit: str, products: int
) -> None:
    group, machine = _product(F32, F32, F32, F32, ARITHMETIC[precision].function), load_machine("h100_sxm")
    kernel, points = summarize(group), 512 * 256 * 4096
    done = product_work(
        kernel, geometry(kernel, {name: np.array([64.0]) for name in ("tile.m", "tile.n", "tile.k")}, {})
    )
    assert {name: float(count[0]) for name, count in done.tensor.items()} == {unit: products * points / 32}
    assert not np.any(done.ieee)
    rate = machine.burst_rate("tensor", unit)
    assert rate is not None
    assert roofline_bounds(kernel, machine, {})[0] == pytest.approx(2 * points * products / rate)
    dots = [op for op in lower(group, Schedule({"m": 64, "n": 64, "k": 64})).body.walk() if isinstance(op, Dot)]
    assert [op.precision for op in dots] == [precision]


def test_what_depends_on_fewer_dims_is_hoisted() -> None:
    out = next(nest for nest in workloads.rms_norm().nests if nest.name.startswith("out"))
    hoisted = dict(out.hoisted)
    assert hoisted["t",]["special", "f32"] == 1.0  # one rsqrt a row, not one an element
    assert ("special", "f32") not in out.operations


def test_softmax_reads_its_input_once_at_least() -> None:
    kernel = workloads.softmax()
    assert kernel.read_bytes.evaluate({"T": 7, "N": 1000}) == 7 * 1000 * 2


def test_convolution_footprint_counts_the_halo_once() -> None:
    kernel = workloads.convolution()
    image = kernel.nests[0].loads[0]
    tile = {"tile:n": 1.0, "tile:c": 4.0, "tile:y": 8.0, "tile:x": 16.0, "tile:r": 3.0, "tile:s": 3.0}
    assert footprint(image, {**tile, "N": 1, "C": 64, "H": 56, "W": 56}) == 4 * 10 * 18


def test_embedding_touches_no_more_rows_than_ids() -> None:
    kernel = workloads.embedding()
    table = next(access for access in kernel.nests[0].loads if access.gather)
    sizes = {"T": 64, "N": 128, "V": 50_000, "tile:t": np.array([1.0, 8.0]), "tile:n": 128.0}
    assert footprint(table, sizes).tolist() == [128.0, 1024.0]


@pytest.mark.parametrize(
    "make", [workloads.gelu, workloads.silu_and_multiply, workloads.rope, workloads.add, workloads.grouped_gemm]
)
def test_every_workload_summarises(make: object) -> None:
    kernel = make()  # type: ignore[operator]
    assert kernel.nests
    assert kernel.outer
