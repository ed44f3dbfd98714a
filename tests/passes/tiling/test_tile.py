"""Every legal schedule of every group gives a kernel that computes what the tensor level says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign.ir.core import Block, Value
from codesign.ir.dtypes import BF16, F16, F32, I32, I64
from codesign.ir.errors import ScheduleError
from codesign.ir.fold import folds
from codesign.ir.index import Bounds, index
from codesign.ir.scalar import Read, apply, literal
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Fusion, Monoid
from codesign.ir.tile import Dot, For, Kernel, Load, Reduce, Store
from codesign.ir.types import tensor
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from codesign.passes.tiling.split import splittable
from tests.passes.tiling import groups

SIZES = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 33, 37])
SMALL = st.integers(1, 5)


def count(kernel: Kernel, kind: type) -> int:
    return sum(isinstance(op, kind) for op in kernel.body.walk())


@st.composite
def any_group(draw: st.DrawFn) -> Fusion:
    a, b, c = draw(SIZES), draw(SIZES), draw(SIZES)
    flag, other = draw(st.booleans()), draw(st.booleans())
    makers: list[Callable[[], Fusion]] = [
        lambda: groups.gemm(a, b, c, draw(st.sampled_from([F16, BF16, F32])), transposed=flag, swapped=other),
        lambda: groups.gemm(a, b, c, batch=draw(SMALL), transposed=flag),
        lambda: groups.softmax(a, b, causal=flag),
        lambda: groups.layer_norm(a, b, draw(st.sampled_from([F16, F32]))),
        lambda: groups.reduction(
            a, b, draw(st.sampled_from(["sum", "max", "min", "any", "all", "argmax", "argmin"])),
            draw(st.sampled_from([F32, I32, F16])), over_rows=flag,
        ),
        lambda: groups.reduction(a, draw(SMALL), "prod", I64),
        lambda: groups.convolution(
            draw(SMALL), draw(SMALL), draw(st.integers(5, 9)), a, draw(st.sampled_from([1, 3])), draw(st.integers(1, 2)), int(flag)
        ),
        lambda: groups.max_pool(draw(SMALL), draw(SMALL), draw(st.integers(4, 9)), draw(st.integers(1, 3)), draw(st.integers(1, 2))),
        lambda: groups.element_wise(a, b, permuted=flag, shared=other),
        lambda: groups.element_wise(draw(SMALL), a, draw(SMALL), permuted=flag, shared=other),
        lambda: groups.embedding(a, 3 + b, c),
        lambda: groups.padded(a, b, draw(SMALL)),
        lambda: groups.attention(draw(st.integers(1, 2)), a, b, draw(st.sampled_from([4, 16, 20]))),
        lambda: groups.integer_product(a, b, c),
    ]  # fmt: skip
    return draw(st.sampled_from(makers))()


@st.composite
def any_schedule(draw: st.DrawFn, fusion: Fusion) -> Schedule:
    inner = fusion.inner_dims()
    tiles = {name: draw(st.sampled_from([1, 2, 4, 16, 32])) for name in fusion.dims()}
    for name in tiles:  # keep the interpreter's work small: no single-lane walks over long dims
        extent = fusion.dims()[name].constant
        if extent > 16:
            tiles[name] = max(tiles[name], 4)
    folding = {name for fold in folds(fusion) for name in fold.dims}
    modes = {name: ["looped", "resident", *(["fold"] if name in folding else [])] for name in inner}
    reduce = {name: draw(st.sampled_from(modes[name])) for name in inner}
    order = tuple(draw(st.permutations(fusion.outer_dims())))
    return Schedule(tiles, order=order, reduce=reduce, extras={"partial": draw(st.integers(0, 1))})


@given(st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_any_schedule_of_any_group_computes_the_group(data: st.DataObject) -> None:
    fusion = data.draw(any_group())
    normal = data.draw(st.booleans())
    schedule = data.draw(any_schedule(normalize(fusion).fusion if normal else fusion))
    groups.check(fusion, schedule, normal=normal)


def test_a_big_enough_product_becomes_a_dot_in_a_pipelined_loop() -> None:
    kernel = groups.check(groups.gemm(64, 48, 96), Schedule({"i": 32, "j": 16, "k": 32}, pipeline=3))
    (loop,) = [op for op in kernel.body.ops if isinstance(op, For)]
    (dot,) = [op for op in loop.body.ops if isinstance(op, Dot)]
    assert loop.pipeline == 3
    assert dot.a.type.shape == (32, 32)
    assert dot.b.type.shape == (32, 16)
    assert dot.a.type.dtype is F16, "the factors go in as they are in memory, without the widening casts"
    assert dot.accumulator.type.dtype is F32


def test_a_thin_product_is_multiplied_and_reduced() -> None:
    kernel = groups.check(groups.gemm(4, 48, 96), Schedule({"i": 4, "j": 16, "k": 32}))
    assert count(kernel, Dot) == 0
    assert count(kernel, Reduce) == 1


def test_guards_only_where_a_tile_does_not_divide() -> None:
    even = groups.check(groups.gemm(64, 48, 96), Schedule({"i": 32, "j": 16, "k": 32}))
    assert not any(op.guards for op in even.body.walk() if isinstance(op, Load))
    odd = groups.check(groups.gemm(64, 48, 90), Schedule({"i": 32, "j": 16, "k": 32}))
    guarded = [op for op in odd.body.walk() if isinstance(op, Load) and op.guards]
    assert [str(g.high) for op in guarded for g in op.guards] == ["90", "90"]


def test_one_program_stores_what_others_compute_too() -> None:
    """A sum of each row, and the row's products with 40 factors: the sum is stored where the factors' tiles begin."""
    x, w = Value(tensor(F32, 8, 16), "x"), Value(tensor(F32, 40), "w")
    total = Compute(groups.dims(i=8), Read(x, ["i", "j"]), reductions=groups.dims(j=16), monoid="sum")
    scaled = Compute(groups.dims(i=8, c=40), apply("mul", Read(total.result, ["i"]), Read(w, ["c"])))
    kernel = groups.check(
        groups.group([total, scaled], [total, scaled]), Schedule({"i": 4, "c": 16, "j": 16}), normal=False
    )
    assert [dim.extent for dim in kernel.grid] == [2, 3]

    def programs(store: Store) -> int:
        """Those in which no guard that depends on the program alone forbids the store."""
        names = {dim.name for dim in kernel.grid}
        alone = [guard for guard in store.guards if guard.value.variables() <= names]
        places = [dict(zip((d.name for d in kernel.grid), at, strict=True)) for at in np.ndindex(2, 3)]
        highs = [(guard.value, index(1 << 30) if guard.high is None else guard.high) for guard in alone]
        return sum(all(value.evaluate(place) < high.evaluate(place) for value, high in highs) for place in places)

    stores = {op.buffer: op for op in kernel.body.walk() if isinstance(op, Store)}
    first, second = kernel.results
    assert programs(stores[first]) == 2
    assert programs(stores[second]) == 6


@pytest.mark.parametrize("monoid", ["sum", "max", "argmax", "argmin"])
def test_positions_are_not_found_in_parts(monoid: Monoid) -> None:
    """Parts of an arg-reduction would each count from their own start, and lose the values that they were chosen by."""
    x = Value(tensor(F32, 4, 4096), "x")
    only = Compute(groups.dims(i=4), Read(x, ["i", "j"]), reductions=groups.dims(j=4096), monoid=monoid)
    found = splittable(groups.group([only], [only]))
    assert (found is None) == (monoid in ("argmax", "argmin"))


def test_reductions_that_do_not_depend_on_each_other_share_a_loop() -> None:
    kernel = groups.check(groups.reduction(8, 100, "sum"), Schedule({"i": 4, "j": 16}))
    assert count(kernel, For) == 1
    assert count(kernel, Load) == 1


def test_softmax_over_a_long_row_loops_three_times_and_resident_loads_once() -> None:
    looped = groups.check(groups.softmax(8, 100), Schedule({"i": 4, "j": 16}))
    assert count(looped, For) == 3
    resident = groups.check(groups.softmax(8, 100), Schedule({"i": 4}, reduce={"j": "resident"}))
    assert count(resident, For) == 0
    assert count(resident, Load) == 1
    assert next(op for op in resident.body.walk() if isinstance(op, Load)).axes[-1].size == 128


def test_a_stored_value_of_the_first_loop_is_stored_there() -> None:
    kernel = groups.check(groups.layer_norm(8, 100), Schedule({"i": 4, "j": 16}))
    assert count(kernel, For) == 3, "residual and its sum; squares; result"


def test_gather_loads_indices_first() -> None:
    kernel = groups.check(groups.embedding(20, 9, 33), Schedule({"i": 8, "d": 16}))
    loads = [op for op in kernel.body.walk() if isinstance(op, Load)]
    assert loads[0].buffer.name == "ids"
    assert any(i.data() for i in loads[1].indices)


def test_symbolic_sizes_become_symbols_of_the_kernel() -> None:
    rows = index("N")
    x = Value(tensor(F32, rows, 24), "x")
    total = Compute(groups.dims(i=rows), Read(x, ["i", "j"]), reductions=groups.dims(j=24), monoid="sum", name="total")
    out = Compute(groups.dims(i=rows, j=24), apply("sub", Read(x, ["i", "j"]), Read(total.result, ["i"])), name="out")
    fusion = Fusion(Block([], [total, out], [out.result]))
    kernel = lower(fusion, Schedule({"i": 8, "j": 16}), bounds=Bounds({}, {"N": (1, None)}))
    assert kernel.symbols == ("N",)
    for size in (1, 8, 21):
        arrays = groups.random_inputs(fusion, sizes={"N": size})
        (found,) = groups.run_tiles(kernel, arrays, {"N": size})
        np.testing.assert_allclose(found, arrays[0] - arrays[0].sum(1, keepdims=True), rtol=1e-5, atol=1e-5)


def test_first_position_and_nan_of_arg_reductions_over_steps() -> None:
    fusion = groups.reduction(4, 40, "argmax")
    x = np.zeros((4, 40), np.float32)
    x[0, [7, 33]] = 1.0
    x[1, [20, 5]] = np.nan
    x[2] = -np.inf
    kernel = lower(fusion, Schedule({"i": 2, "j": 8}))
    found = groups.run_tiles(kernel, [x])[0]
    assert found.tolist() == [7, 5, 0, 0]


def test_an_output_without_an_outer_dim_is_written_by_one_program() -> None:
    x, y = Value(tensor(F32, 20), "x"), Value(tensor(F32, 30), "y")
    a = Compute(groups.dims(i=20), apply("mul", Read(x, ["i"]), literal(2.0)), name="a")
    b = Compute(groups.dims(i=20, j=30), apply("add", Read(a.result, ["i"]), Read(y, ["j"])), name="b")
    kernel = groups.check(groups.group([a, b], [a, b]), Schedule({"i": 8, "j": 8}))
    guards = [str(g.value) for op in kernel.body.ops if op.opcode == "store" for g in getattr(op, "guards", ())]
    assert "pj" in guards


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule({"q": 8}), "tiles.q: the kernel has no such dim; dims: i, j, k"),
        (Schedule({"i": 12}), "tiles.i: needs a power of two, got 12"),
        (Schedule({"i": 8}, order=("k",)), "order: 'k' is not an outer dim"),
        (Schedule({"k": 8}, reduce={"k": "fold"}), "reduce.k: fold"),
    ],
)
def test_a_schedule_that_does_not_apply_says_why(schedule: Schedule, message: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        lower(groups.gemm(8, 8, 8), schedule)
    assert message in str(caught.value)


def test_sums_of_sums_along_two_dims_in_turn_hold_them_whole() -> None:
    """Each loop would lie in the one before, and the text would double with each round: such a schedule is refused, a whole one is not."""
    kernel = groups.check(
        groups.balanced(12, 4, 5, rounds=6), Schedule({"b": 4}, reduce={"i": "resident", "j": "resident"})
    )
    assert not any(op.opcode == "for" for op in kernel.body.walk())
    with pytest.raises(ScheduleError, match=r"reduce\.[ij]: sums of sums along it .*; reduce\.[ij]=resident"):
        lower(groups.balanced(12, 4, 5, rounds=30), Schedule({"b": 4, "i": 1, "j": 1}))
