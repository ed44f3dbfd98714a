"""Calls and ops that stay whole: no time below that of their bytes or of their operations at the machine's peak."""

from __future__ import annotations

import math

import pytest

from codesign.costmodel.external import external_seconds
from codesign.costmodel.machine import load_machine
from codesign.costmodel.routines import FACTORISATIONS, Matrices, work_of
from codesign.ir.core import Op, Value
from codesign.ir.dtypes import F32, F64, DType
from codesign.ir.index import index
from codesign.ir.scalar import Read
from codesign.ir.tensor import Call, Dim, Scan, Sort
from codesign.ir.types import tensor

MACHINES = ["h100_sxm", "a100_sxm", "maia100"]


def call(target: str, *shapes: tuple[int, ...], dtype: DType = F32) -> Call:
    """A call that gives what is like its first operand."""
    inputs = [Value(tensor(dtype, *shape), f"x{k}") for k, shape in enumerate(shapes)]
    return Call(target, inputs, [tensor(dtype, *shapes[0])])


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(
    "target", ["linalg_cholesky_ex", "linalg_inv_ex", "_linalg_svd", "linalg_qr", "matrix_exp", "_linalg_eigh"]
)
def test_a_factorisation_takes_its_operations(target: str, name: str) -> None:
    """n to the third at the least, against n squared bytes; eight times the operations make a large one six to ten times as long."""
    machine = load_machine(name)
    small, large = (external_seconds(call(f"aten.{target}.default", (n, n)), machine) for n in (16384, 32768))
    units = [unit for unit in ("tensor", "vector") if machine.has_unit(unit)]
    peak = max(machine.rate(unit, "f32") or 0.0 for unit in units)
    assert small.operations >= 16384**3 / 3
    assert small.low >= 0.999 * small.operations / peak
    assert small.seconds >= small.operations / peak
    assert 6 < large.seconds / small.seconds < 10


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(
    "op",
    [
        call("aten.special_bessel_j0.default", (1 << 24,), dtype=F64),
        call("aten.unknown.default", (1 << 20, 16)),
        Sort(Value(tensor(F32, 1024, 1 << 14), "x"), 1),
        Sort(Value(tensor(F32, 1 << 14, 1024), "x"), 1, descending=True),
        Sort(Value(tensor(F32, 1024, 1 << 14), "x"), 1, keep=index(8)),
        Scan(
            [Dim("i", tensor(F32, 1 << 24).shape[0])],
            Read(Value(tensor(F32, 1 << 24), "x"), ["i"]),
            monoid="logsumexp",
            over="i",
        ),
    ],
    ids=lambda op: op.opcode if isinstance(op, Op) else str(op),
)
def test_no_time_below_bytes_or_operations(op: Op, name: str) -> None:
    machine = load_machine(name)
    found = external_seconds(op, machine)
    moved = sum(math.prod(s.constant for s in v.shape) * v.type.dtype.bytes for v in (*op.operands(), *op.results))
    bandwidth = machine.need(machine.levels[0].bandwidth, "bandwidth")
    vector = machine.rate("vector", "f32")
    assert vector is not None
    assert found.bytes >= moved
    assert found.operations > 0
    assert found.low >= moved / bandwidth * 0.999
    assert found.low >= found.operations / vector * 0.999
    assert found.low < found.seconds < found.high


def test_counts_of_the_book() -> None:
    square = Matrices(300.0, 300.0, 1.0, 5.0)
    assert FACTORISATIONS["lu_factor_ex"](square) == pytest.approx(2 * 300**3 / 3)
    assert FACTORISATIONS["qr"](square) == pytest.approx(2 * 4 * 300**3 / 3)
    assert FACTORISATIONS["solve_ex"](square) == pytest.approx(2 * 300**3 / 3 + 2 * 300**2 * 5)
    tall = Matrices(1000.0, 10.0, 1.0, 1.0)
    assert FACTORISATIONS["qr"](tall) == pytest.approx(4 * 10**2 * (1000 - 10 / 3))


def test_batches_and_right_hand_sides_count() -> None:
    one = work_of(call("aten._linalg_solve_ex.default", (64, 64), (64, 8)), {})
    many = work_of(call("aten._linalg_solve_ex.default", (7, 64, 64), (7, 64, 8)), {})
    triangle = work_of(call("aten.triangular_solve.default", (64, 8), (64, 64)), {})
    assert one is not None
    assert many is not None
    assert triangle is not None
    assert many.operations == 7 * one.operations
    assert triangle.operations == 64**2 * 8


def test_rows_of_few_keys_are_sorted_in_one_kernel() -> None:
    machine = load_machine("h100_sxm")
    short, long = (external_seconds(Sort(Value(tensor(F32, 4, n), "x"), 1), machine) for n in (4096, 8192))
    assert short.seconds < long.seconds / 3
