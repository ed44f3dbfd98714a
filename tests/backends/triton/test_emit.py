"""Emitted kernels: what they compute in Triton's interpreter, and what their source looks like."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

from codesign.backends.triton.emit import emission, emit
from codesign.backends.triton.interpret import run_interpreted
from codesign.ir.core import Block, Value
from codesign.ir.dtypes import BF16, BOOL, F8E4M3, F16, F32, I8, I32, I64, U8, DType
from codesign.ir.errors import CodesignError
from codesign.ir.index import Bounds, Datum, Index, index
from codesign.ir.interpreter import run_kernel
from codesign.ir.location import Location
from codesign.ir.scalar import IndexValue, Read, Scalar, apply, cast, literal, select
from codesign.ir.schedule import Schedule
from codesign.ir.tile import Axis, Dot, For, GridDim, Guard, Kernel, Load, Map, Reduce, Store
from tests.backends.triton.kernels import Array, buffer, gemm, gemm_expected, gemm_inputs, held, kernel, pointwise


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def agree(tested: Kernel, arrays: list[np.ndarray], tolerance: float = 0.0) -> None:
    """Triton's interpreter and the IR's give the same outputs."""
    expected = [np.zeros(tuple(s.constant for s in v.shape), v.type.dtype.numpy) for v in tested.results]
    run_kernel(tested, [*arrays, *expected])
    for want, got in zip(expected, run_interpreted(tested, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [F16, BF16, F32], ids=str)
@pytest.mark.parametrize("extras", [{}, {"group": 2}, {"persistent": 1}, {"group": 3, "persistent": 1}], ids=str)
def test_fused_gemm_with_remainders(dtype: DType, extras: dict[str, int]) -> None:
    arrays = gemm_inputs(rng(), 100, 90, 75, dtype)
    (got,) = run_interpreted(gemm(100, 90, 75, tile=(32, 32, 16), dtype=dtype, **extras), arrays)
    want = gemm_expected(*arrays)
    assert np.abs(got - want).max() <= np.abs(want).max() * (dtype.epsilon + 1e-6)


@pytest.mark.parametrize("batch", [1, 31, 32, 70])
def test_dynamic_rows(batch: int) -> None:
    arrays = gemm_inputs(rng(), batch, 96, 80, F32)
    (got,) = run_interpreted(gemm("batch"), [held(a, F16) for a in arrays])
    want = gemm_expected(*[held(a, F16) for a in arrays])
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize(
    ("monoid", "dtype"),
    [
        pytest.param(monoid, dtype, id=f"{monoid}-{dtype}")
        for monoid in ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")
        for dtype in (F32, F16, BF16, I64, I32, I8, U8, BOOL)
        if dtype is not BOOL or monoid not in ("sum", "prod")
    ],
)
@pytest.mark.parametrize("reduced", ["j", "i"])
def test_reductions(monoid: str, dtype: DType, reduced: str) -> None:
    i, j = Axis("i", 8), Axis("j", 32)
    x = buffer("x", dtype, 8, 32)
    load = Load(x, [i, j], ["i", "j"], name="t")
    kept, gone = (i, j) if reduced == "j" else (j, i)
    body: Scalar = Read(load.result, ["i", "j"])
    if monoid in ("any", "all"):
        body = cast(body, BOOL) if dtype is not BOOL else body
    reduce = Reduce([kept], [gone], monoid, body, name="r")  # type: ignore[arg-type]
    out = buffer("out", reduce.result.type.dtype, kept.size)
    tested = kernel("reduce", [x, out], 1, [load, reduce, Store(reduce.result, out, [kept], [kept.name])], {})
    generator = rng()
    values: Array
    if dtype.is_float:
        values = generator.integers(-2, 3, (8, 32)) / 2 + (monoid == "prod")
        values[2, 5] = np.nan if monoid != "sum" else 1.0
    else:
        values = generator.integers(0, 2, (8, 32))
    values[4] = 1
    agree(tested, [held(values, dtype)], 0 if not dtype.is_float else 1e-2 if dtype.bits == 16 else 1e-6)


def test_reduction_to_a_scalar_over_two_axes() -> None:
    i, j = Axis("i", 16), Axis("j", 4)
    x, out = buffer("x", F32, 16, 4), buffer("out", F32)
    load = Load(x, [i, j], ["i", "j"], name="t")
    total = Reduce([], [i, j], "sum", Read(load.result, ["i", "j"]), name="total")
    agree(
        kernel("total", [x, out], 1, [load, total, Store(total.result, out, [], [])], {}),
        [held(rng().random((16, 4)), F32)],
        1e-5,
    )


def test_transposed_reads_and_broadcasts() -> None:
    i, j, k = Axis("i", 4), Axis("j", 8), Axis("k", 2)
    x, b, out = buffer("x", F32, 8, 2, 4), buffer("b", F32, 8), buffer("out", F32, 4, 8, 2)
    tile, row = Load(x, [j, k, i], ["j", "k", "i"], name="tile"), Load(b, [j], ["j"], name="row")
    y = Map([i, j, k], apply("add", Read(tile.result, ["j", "k", "i"]), Read(row.result, ["j"])), name="y")
    tested = kernel("permute", [x, b, out], 1, [tile, row, y, Store(y.result, out, [i, j, k], ["i", "j", "k"])], {})
    generator = rng()
    agree(tested, [held(generator.random((8, 2, 4)), F32), held(generator.random(8), F32)])


def test_indices_that_may_be_negative_round_down() -> None:
    i = Axis("i", 32)
    out = buffer("out", I64, 32)
    shifted = index("i") - 16
    value = apply("add", apply("mul", IndexValue(shifted // 3), literal(100)), IndexValue(shifted % 3))
    y = Map([i], value, name="y")
    agree(kernel("down", [out], 1, [y, Store(y.result, out, [i], ["i"])], {}), [])


def test_flat_index_splits_without_needless_divisions() -> None:
    i = Axis("i", 64)
    x, out = buffer("x", F32, 16, 12), buffer("out", F32, 192)
    flat = index("pi") * 64 + "i"
    load = Load(x, [i], [flat // 12, flat % 12], name="t")
    ops = [load, Store(load.result, out, [i], [flat])]
    tested = kernel("flat", [x, out], 1, ops, {"pi": 3})
    assert "//" not in emission(tested).source.split("def launch")[0]
    agree(tested, [held(rng().random((16, 12)), F32)])


def test_gather_with_masked_border() -> None:
    i, d = Axis("i", 16), Axis("d", 8)
    ids, table, out = buffer("ids", I64, 13), buffer("table", F32, 50, 8), buffer("out", F32, 13, 8)
    guard = Guard(index("i"), None, index(13))
    picked = Load(ids, [i], ["i"], guards=[guard], name="picked")
    row = Index.atom(Datum(Read(picked.result, ["i"])))
    gathered = Load(table, [i, d], [row, "d"], guards=[guard], name="gathered")
    store = Store(gathered.result, out, [i, d], ["i", "d"], guards=[guard])
    tested = kernel("embedding", [ids, table, out], 1, [picked, gathered, store], {})
    generator = rng()
    agree(tested, [generator.integers(0, 50, 13), held(generator.random((50, 8)), F32)])


@pytest.mark.parametrize("combine", ["add", "mul", "max", "min"])
def test_atomics_start_from_the_identity(combine: str) -> None:
    i = Axis("i", 16)
    x, out = buffer("x", F32, 4, 16), buffer("out", F32, 16)
    load = Load(x, [i], ["p", "i"], name="t")
    store = Store(load.result, out, [i], ["i"], atomic=combine)  # type: ignore[arg-type]
    values = held(rng().standard_normal((4, 16)), F32)
    (got,) = run_interpreted(kernel("atomic", [x, out], 1, [load, store], {"p": 4}), [values])
    want = {
        "add": values.sum(axis=0),
        "mul": values.prod(axis=0),
        "max": values.max(axis=0),
        "min": values.min(axis=0),
    }[combine]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("combine", ["add", "mul", "max"])
def test_lanes_of_16_bits_that_share_an_element(dtype: DType, combine: str) -> None:
    """Whole numbers that the type holds, so that no order rounds; lanes that are not active touch nothing."""
    i = Axis("i", 16)
    x, out = buffer("x", dtype, 16), buffer("out", dtype, 4)
    load = Load(x, [i], ["i"], name="t")
    place, guard = index("i") % 4, Guard(index("i"), None, index(12))
    store = Store(load.result, out, [i], [place], guards=[guard], atomic=combine)  # type: ignore[arg-type]
    values = held(np.arange(1.0, 17.0).clip(max=7), dtype)
    (got,) = run_interpreted(kernel("sharing", [x, out], 1, [load, store], {"p": 1}), [values])
    rows = np.arange(1.0, 13.0).clip(max=7).reshape(3, 4)
    want = {"add": rows.sum(axis=0), "mul": rows.prod(axis=0), "max": rows.max(axis=0)}[combine]
    np.testing.assert_array_equal(np.asarray(got, np.float32), want)


def test_carried_values_that_change_places() -> None:
    """A Fibonacci loop: next pair is (b, a + b), and both must move at once."""
    i = Axis("i", 16)
    out = buffer("out", I32, 16)
    zero, one = Map([i], literal(0, I32), name="zero"), Map([i], literal(1, I32), name="one")
    a, b = Value(zero.result.type, "a"), Value(one.result.type, "b")
    total = Map([i], apply("add", Read(a, ["i"]), Read(b, ["i"])), name="total")
    loop = For("n", 0, 10, 1, [zero.result, one.result], Block([a, b], [total], [b, total.result]))
    store = Store(loop.results[0], out, [i], ["i"])
    tested = kernel("fibonacci", [out], 1, [zero, one, loop, store], {})
    (got,) = run_interpreted(tested, [])
    assert got.tolist() == [55] * 16


def test_one_start_for_two_loops_and_a_loop_in_a_loop() -> None:
    """The value that starts a loop is not written over when something else needs it again."""
    i = Axis("i", 16)
    out = buffer("out", F32, 16)
    start = Map([i], literal(1.0), name="start")

    def loop(variable: str, initial: Value, body_ops: list[For], value: Value | None = None) -> For:
        carried = Value(start.result.type, f"acc_{variable}")
        extra = Read(value, ["i"]) if value is not None else literal(1.0)
        grown = Map([i], apply("add", Read(carried, ["i"]), extra), name=f"grown_{variable}")
        return For(variable, 0, 3, 1, [initial], Block([carried], [*body_ops, grown], [grown.result]))

    inner = loop("b", start.result, [])
    outer = loop("a", start.result, [inner], inner.result)
    store = Store(outer.result, out, [i], ["i"])
    (got,) = run_interpreted(kernel("nested", [out], 1, [start, outer, store], {}), [])
    assert got.tolist() == [1.0 + 3 * 4.0] * 16


def test_causal_mask_compares_indices() -> None:
    i, j = Axis("i", 16), Axis("j", 16)
    x, out = buffer("x", F32, 64, 48), buffer("out", F32, 64, 48)
    row, column = index("pi") * 16 + "i", index("pj") * 16 + "j"
    load = Load(x, [i, j], [row, column], name="t")
    body = select(
        apply("le", IndexValue(column), IndexValue(row)), Read(load.result, ["i", "j"]), literal(float("-inf"))
    )
    y = Map([i, j], body, name="y")
    tested = kernel("causal", [x, out], 1, [load, y, Store(y.result, out, [i, j], [row, column])], {"pi": 4, "pj": 3})
    assert ".to(tl.int64)" not in emit(tested)
    agree(tested, [held(rng().random((64, 48)), F32)])


@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param(source, target, id=f"{source}-{target}")
        for source in (F32, F16, BF16, I64, U8, BOOL)
        for target in (F32, F16, BF16, F8E4M3, I64, I32, BOOL)
        if source is not target
    ],
)
def test_casts(source: DType, target: DType) -> None:
    values = (
        np.array([0, 1, 2, 3, 100, 200] + [0] * 10)
        if not source.is_float
        else np.r_[rng().standard_normal(15) * 20, 0.0]
    )
    tested = pointwise("cast_to", source, lambda x: cast(x, target), size=16)
    agree(tested, [held(values, source)])


def test_bfloat16_rounds_to_nearest_even() -> None:
    """Halfway cases, and a carry into the exponent: the interpreter alone would cut them off."""
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1.99999, -(1 + 2**-8), 3.3895314e38, 65504.0] + [1.0] * 10, np.float32)
    tested = pointwise("round", F32, lambda x: cast(x, BF16), size=16)
    (got,) = run_interpreted(tested, [values])
    assert got[:4].tolist() == [1.0, 1 + 2**-6, 2.0, -1.0]
    agree(tested, [values])


def test_powers_with_literals_need_no_general_power() -> None:
    tested = pointwise("cube", F32, lambda x: apply("pow", x, literal(3.0)), size=16)
    assert "_power" not in emit(tested)
    agree(tested, [held(rng().standard_normal(16), F32)], 1e-6)
    base = pointwise("base", F32, lambda x: apply("pow", literal(10000.0), x), size=16)
    assert "exp2" in emit(base)
    values = held(np.linspace(-2, 2, 16), F32)
    (got,) = run_interpreted(base, [values])
    np.testing.assert_allclose(got, 10000.0 ** values.astype(np.float64), rtol=2.5e-7)


def test_offsets_are_64_bits_only_where_a_buffer_is_that_large() -> None:
    assert "int64" not in emit(gemm(4096, 4096, 1024, tile=(64, 64, 32)))
    assert "int64" in emit(gemm(65536, 4096, 65536, tile=(64, 64, 32)))
    assert "int64" in emit(gemm("rows"))
    assert "int64" not in emit(gemm("rows"), Bounds({}, {"rows": (1, 4096)}))


def test_wide_offsets_compute_the_same() -> None:
    arrays = gemm_inputs(rng(), 100, 96, 80, F32)
    tested = gemm("batch", dtype=F32)
    assert emission(tested).wide
    (got,) = run_interpreted(tested, arrays)
    np.testing.assert_allclose(got, gemm_expected(*arrays), rtol=1e-4, atol=1e-4)


def test_source_reads_well() -> None:
    source = emit(gemm(group=4))
    tree = ast.parse(source)
    header = ast.get_docstring(tree)
    assert header is not None
    assert "model.py:3" in header
    assert "in net.0" in header
    assert "fused: linear, relu" in header
    (schedule,) = re.findall(r"^\s+(\{.*\})$", header, re.M)
    assert Schedule.from_json(json.loads(schedule)) == gemm(group=4).schedule
    loop = source.split("for kk in")[1].split("bias_tile =")[0]
    assert "arange" not in loop, "what the loop does not change is computed before it"
    assert "offs_i =" not in loop
    assert "import codesign" not in source
    assert source == emit(gemm(group=4))


def test_header_shows_the_models_line(tmp_path: Path) -> None:
    model = tmp_path / "mymodel.py"
    model.write_text('def forward(x):\n    return x.relu()  # """ tricky\n', encoding="utf-8")
    tested = pointwise("relu", F32, lambda x: apply("max", x, literal(0.0)))
    tested.location = Location(str(model), 2, "", "aten.relu.default")
    header = ast.get_docstring(ast.parse(emission(tested, None, tmp_path).source))
    assert header is not None
    assert "return x.relu()" in header


def test_names_that_python_reserves() -> None:
    i = Axis("lambda", 16)
    x, out = buffer("for", F32, 16), buffer("in", F32, 16)
    load = Load(x, [i], ["lambda"], name="class")
    tested = kernel("import", [x, out], 1, [load, Store(load.result, out, [i], ["lambda"])], {})
    values = held(rng().random(16), F32)
    (got,) = run_interpreted(tested, [values])
    assert (got == values).all()


def test_an_empty_grid_runs_nothing() -> None:
    i = Axis("i", 16)
    x, out = buffer("x", F32, "n"), buffer("out", F32, "n")
    guard = Guard(index("p") * 16 + "i", None, index("n"))
    load = Load(x, [i], [index("p") * 16 + "i"], guards=[guard], name="t")
    store = Store(load.result, out, [i], [index("p") * 16 + "i"], guards=[guard])
    grid = (GridDim("p", (index("n") + 15) // 16),)
    tested = Kernel("copy", [x, out], 1, grid, Block([], [load, store]), Schedule(), ("n",))
    assert run_interpreted(tested, [np.zeros(0, np.float32)])[0].shape == (0,)
    assert run_interpreted(tested, [np.arange(21, dtype=np.float32)])[0].tolist() == list(range(21))


def test_matmul_of_int8_accumulates_in_int32() -> None:
    i, j, k = Axis("i", 16), Axis("j", 16), Axis("k", 32)
    a, b, out = buffer("a", I8, 16, 32), buffer("b", I8, 32, 16), buffer("out", I32, 16, 16)
    left, right = Load(a, [i, k], ["i", "k"], name="left"), Load(b, [k, j], ["k", "j"], name="right")
    start = Map([i, j], literal(0, I32), name="start")
    dot = Dot(left.result, right.result, start.result, name="dot")
    tested = kernel("int8", [a, b, out], 1, [left, right, start, dot, Store(dot.result, out, [i, j], ["i", "j"])], {})
    generator = rng()
    agree(tested, [generator.integers(-128, 128, shape).astype(np.int8) for shape in ((16, 32), (32, 16))])


@pytest.mark.parametrize("dtype", [F16, BF16, F32], ids=str)
def test_descriptors_fetch_the_same_blocks(dtype: DType) -> None:
    """Masked rows and a masked remainder of k come from the descriptor's own bounds; the bias is no block and stays as it was."""
    arrays = gemm_inputs(rng(), 100, 96, 80, dtype)
    tested = gemm(100, 96, 80, tile=(32, 32, 32), dtype=dtype, tma=1)
    source = emit(tested)
    assert source.count("make_tensor_descriptor") == 2
    assert "tl.load(x_ptr" not in source
    assert "tl.load(bias_ptr" in source
    (got,) = run_interpreted(tested, arrays)
    want = gemm_expected(*arrays)
    assert np.abs(got - want).max() <= np.abs(want).max() * (dtype.epsilon + 1e-6)


def test_unaligned_rows_are_not_described() -> None:
    assert "make_tensor_descriptor" not in emit(gemm(100, 96, 75, tma=1))


@pytest.mark.parametrize("outside", [9, -1, 2**40, -(2**40)])
def test_an_index_outside_of_the_table_is_an_error_and_no_read(outside: int) -> None:
    axis = Axis("i", 16)
    ids, table, out = buffer("ids", I64, 16), buffer("table", F32, 6), buffer("out", F32, 16)
    read = Load(ids, [axis], ["i"], name="id")
    row = Index.atom(Datum(Read(read.result, ["i"])))
    load = Load(table, [axis], [row], name="row", location=Location("model.py", 12, origin="embedding"))
    tested = kernel("pick", [ids, table, out], 1, [read, load, Store(load.result, out, [axis], ["i"])], {})
    values = np.arange(6, dtype=np.float32)
    places = np.arange(16, dtype=np.int64) % 6
    agree(tested, [places, values])
    assert re.search(r"tl\.load\(table_ptr \+ .*, mask=.*< 6", emit(tested))
    places[7] = outside
    with pytest.raises(CodesignError, match=r"model\.py:12 \(embedding\): an index lies outside of table"):
        run_interpreted(tested, [places, values])
