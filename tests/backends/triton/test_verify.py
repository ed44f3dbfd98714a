"""Verification: right kernels pass under any schedule, wrong ones don't, big ones are verified small."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.backends.triton.verify import verify_kernel
from codesign.backends.verification import allowance_of, difference, shrink
from codesign.ir.core import Block, Value
from codesign.ir.dtypes import F16, F32, I64, DType
from codesign.ir.index import Datum, Index, index
from codesign.ir.scalar import Read, Scalar, apply, cast, literal
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.tile import Load, Map
from codesign.ir.types import tensor
from codesign.passes.normalize import Normalized, normalize
from codesign.passes.tile import lower


def dim(name: str, extent: int) -> Dim:
    return Dim(name, index(extent))


def softmax(rows: int, columns: int, dtype: DType = F32) -> Normalized:
    x = Value(tensor(dtype, rows, columns), "x")
    i, j = dim("i", rows), dim("j", columns)
    wide = Compute([i, j], cast(Read(x, ["i", "j"]), F32), name="wide")
    top = Compute([i], Read(wide.result, ["i", "j"]), reductions=[j], monoid="max", name="top")
    shifted = apply("sub", Read(wide.result, ["i", "j"]), Read(top.result, ["i"]))
    power = Compute([i, j], apply("exp", shifted), name="power")
    total = Compute([i], Read(power.result, ["i", "j"]), reductions=[j], monoid="sum", name="total")
    ratio = apply("div", Read(power.result, ["i", "j"]), Read(total.result, ["i"]))
    y = Compute([i, j], cast(ratio, dtype), name="y")
    return normalize(Fusion(Block([], [wide, top, power, total, y], [y.result]), label="softmax"))


def linear(m: int, n: int, k: int, dtype: DType = F16) -> Normalized:
    x, w, bias = Value(tensor(dtype, m, k), "x"), Value(tensor(dtype, n, k), "w"), Value(tensor(dtype, n), "bias")
    i, j, summed = dim("i", m), dim("j", n), dim("l", k)
    body = apply("mul", cast(Read(x, ["i", "l"]), F32), cast(Read(w, ["j", "l"]), F32))
    product = Compute([i, j], body, reductions=[summed], monoid="sum", name="product")
    total = apply("add", Read(product.result, ["i", "j"]), cast(Read(bias, ["j"]), F32))
    y = Compute([i, j], cast(apply("max", total, literal(0.0)), dtype), name="y")
    return normalize(Fusion(Block([], [product, y], [y.result]), label="linear"))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(2, 70),
    tile_rows=st.sampled_from([1, 2, 8, 16]),
    tile_columns=st.sampled_from([4, 16, 32]),
    mode=st.sampled_from(["looped", "resident"]),
)
def test_softmax_under_many_schedules(rows: int, columns: int, tile_rows: int, tile_columns: int, mode: str) -> None:
    group = softmax(rows, columns)
    dims = group.fusion.dims()
    tiles = {name: size for name, size in (("i", tile_rows), ("j", tile_columns)) if name in dims}
    kernel = lower(group.fusion, Schedule(tiles=tiles, reduce={"j": mode}), outputs=group.outputs)
    result = verify_kernel(group, kernel, seed=rows)
    assert result.ok, result


@settings(max_examples=15, deadline=None)
@given(
    m=st.integers(16, 70),
    n=st.integers(16, 70),
    k=st.integers(16, 90),
    tile=st.tuples(*[st.sampled_from([16, 32, 64])] * 3),
    group=st.integers(1, 3),
)
def test_linear_under_many_schedules(m: int, n: int, k: int, tile: tuple[int, int, int], group: int) -> None:
    problem = linear(m, n, k)
    schedule = Schedule(tiles=dict(zip(("i", "j", "l"), tile, strict=True)), pipeline=2, extras={"group": group})
    kernel = lower(problem.fusion, schedule, outputs=problem.outputs)
    result = verify_kernel(problem, kernel, seed=k)
    assert result.ok, result


def test_big_kernels_are_verified_at_shorter_extents() -> None:
    problem = linear(5000, 4096, 3072)
    schedule = Schedule(tiles={"i": 128, "j": 64, "l": 64}, pipeline=3)
    small = shrink(problem, schedule)
    assert small.changed == {"i": (5000, 128 + 5000 % 128), "j": (4096, 128), "l": (3072, 128)}
    shapes = [[int(s.constant) for s in value.shape] for value in small.group.fusion.uses()]
    assert shapes == [[136, 128], [128, 128], [128]]
    result = verify_kernel(problem, lower(problem.fusion, schedule, outputs=problem.outputs), seed=1)
    assert result.ok
    assert result.extents == small.changed


def test_a_wrong_scalar_is_found() -> None:
    problem = softmax(8, 32)
    kernel = lower(problem.fusion, Schedule(tiles={"i": 4}, reduce={"j": "resident"}), outputs=problem.outputs)
    (divide,) = [op for op in kernel.body.walk() if isinstance(op, Map) and "/" in str(op.body)]
    divide.body = apply("mul", divide.body, literal(1.0001))
    result = verify_kernel(problem, kernel, seed=3)
    assert not result.ok
    assert "got" in result.message
    assert result.max_error == pytest.approx(1e-4, rel=0.5)


def test_a_missing_guard_is_found() -> None:
    problem = softmax(8, 30)
    kernel = lower(problem.fusion, Schedule(tiles={"i": 4}, reduce={"j": "resident"}), outputs=problem.outputs)
    for op in kernel.body.walk():
        if isinstance(op, Load):
            op.guards = ()
            op.indices = (op.indices[0], op.indices[1] * 0)
    assert not verify_kernel(problem, kernel, seed=3).ok


def test_indices_stay_inside_what_they_index() -> None:
    """A gather through an integer that is itself gathered."""
    ids, order, table = (
        Value(tensor(I64, 20), "ids"),
        Value(tensor(I64, 9), "order"),
        Value(tensor(F32, 30, 8), "table"),
    )
    i, d = dim("i", 9), dim("d", 8)
    first = Compute([i], Read(ids, [Index.atom(Datum(Read(order, ["i"])))]), name="first")
    row = Index.atom(Datum(Read(first.result, ["i"])))
    y = Compute([i, d], Read(table, [row, "d"]), name="y")
    problem = normalize(Fusion(Block([], [first, y], [y.result])))
    tiles = dict.fromkeys(problem.fusion.dims(), 4)
    result = verify_kernel(problem, lower(problem.fusion, Schedule(tiles=tiles), outputs=problem.outputs), seed=5)
    assert result.ok, result
    assert result.max_error == 0.0


def test_negative_arguments_of_roots_do_not_hide_the_result() -> None:
    x = Value(tensor(F32, 64), "x")
    i = dim("i", 64)
    y = Compute([i], apply("sqrt", apply("sub", Read(x, ["i"]), literal(0.05))), name="y")
    problem = normalize(Fusion(Block([], [y], [y.result])))
    kernel = lower(problem.fusion, Schedule(tiles={"i": 64}), outputs=problem.outputs)
    broken = dataclasses.replace(kernel, body=kernel.body)
    assert verify_kernel(problem, kernel, seed=2).ok
    for op in broken.body.walk():
        if isinstance(op, Map):
            op.body = op.body.rewrite(lambda n: literal(0.06) if n == literal(0.05) else None)
    assert not verify_kernel(problem, broken, seed=2).ok


def test_difference_sees_nans_and_infinities() -> None:
    plain = np.array([1.0, 2.0, np.nan, np.inf])
    assert difference(plain, plain.copy())[0] == 0.0
    for position, value in ((0, np.nan), (1, np.inf), (2, 0.0), (3, -np.inf)):
        other = plain.copy()
        other[position] = value
        error, text = difference(plain, other)
        assert error == np.inf
        assert f"[{position}]" in text


def test_tolerance_formula() -> None:
    half = 2.0**-11
    single = 2.0**-24
    assert allowance_of(linear(64, 64, 256).fusion).base == pytest.approx(8 * half + 4 * 16 * single)
    assert allowance_of(softmax(8, 64).fusion).base == pytest.approx(8 * single + 4 * 8 * single), (
        "a maximum has no rounding error"
    )


def test_ill_conditioned_groups_get_the_error_of_their_reference() -> None:
    """The cosine of angles near a thousand: float32 has them to 6e-5 only. A kernel that is off by more still fails."""
    x = Value(tensor(F32, 64), "x")
    i = dim("i", 64)
    angle = apply("mul", apply("mul", Read(x, ["i"]), literal(1000.0)), literal(0.3))
    y = Compute([i], apply("cos", angle), name="y")
    problem = normalize(Fusion(Block([], [y], [y.result])))
    kernel = lower(problem.fusion, Schedule(tiles={"i": 64}), outputs=problem.outputs)
    (op,) = [op for op in kernel.body.walk() if isinstance(op, Map)]
    exact = op.body
    other = apply("mul", Read(_read_of(exact), ["i"]), literal(300.0))
    op.body = apply("cos", other)
    result = verify_kernel(problem, kernel, seed=4)
    assert result.ok
    assert result.max_error > allowance_of(problem.fusion).largest
    op.body = apply("cos", apply("add", other, literal(0.003)))
    assert not verify_kernel(problem, kernel, seed=4).ok


def _read_of(body: Scalar) -> Value:
    (read,) = body.reads()
    return read.source
