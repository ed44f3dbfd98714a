"""The normal form of a group: which dims become one, and that it computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Block, Value
from codesign.ir.dtypes import F32
from codesign.ir.index import Bounds, index
from codesign.ir.scalar import IndexValue, Read, apply, cast, literal, select
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.tile import Load, Store
from codesign.ir.types import row_major, tensor
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.passes.tiling import groups
from tests.passes.tiling.test_folding import group


def dims_of(fusion: Fusion) -> dict[str, str]:
    return {name: str(extent) for name, extent in normalize(fusion).fusion.dims().items()}


def test_dims_that_travel_together_become_one() -> None:
    assert dims_of(groups.element_wise(4, 6, 10)) == {"d0_d1_d2": "240"}
    assert dims_of(groups.element_wise(4, 6, 10, shared=True)) == {"d0_d1": "24", "d2": "10"}
    assert dims_of(groups.element_wise(4, 6, permuted=True)) == {"d0": "4", "d1": "6"}


def test_dims_of_extent_one_go() -> None:
    assert dims_of(groups.gemm(1, 24, 32)) == {"j": "24", "k": "32"}
    assert dims_of(groups.gemm(16, 24, 1)) == {"i": "16", "j": "24"}
    for fusion in (groups.gemm(16, 24, 1), groups.reduction(5, 1, "argmax"), groups.reduction(5, 1, "any")):
        groups.check(fusion, Schedule({"i": 4}))


def test_a_convolution_becomes_a_matrix_product() -> None:
    form = normalize(groups.convolution(2, 5, 9, 20, 3, 2, 1))
    assert {name: str(extent) for name, extent in form.fusion.dims().items()} == {"nyx": "50", "o": "20", "rsc": "45"}
    assert form.merged["rsc"] == ("r", "s", "c")
    groups.check(groups.convolution(2, 5, 9, 20, 3, 2, 1), Schedule({"nyx": 16, "o": 16, "rsc": 16}))


def test_a_tile_of_channels_meets_one_tap_of_the_window() -> None:
    fusion = groups.convolution(1, 32, 7, 16, 3, 1, 1)
    form = normalize(fusion)
    kernel = lower(form.fusion, Schedule({"yx": 16, "o": 16, "rsc": 16}), outputs=form.outputs)
    (weight,) = [op for op in kernel.body.walk() if isinstance(op, Load) and op.buffer.name == "weight"]
    channel, row, column = (str(i) for i in weight.indices[1:])
    assert "rsc" not in row.replace("krsc", ""), "the row of the window is the same for all lanes"
    assert "rsc" not in column.replace("krsc", "")
    assert "rsc" in channel.replace("krsc", "")


def test_dims_whose_single_values_matter_stay_apart() -> None:
    x = Value(tensor(F32, 6, 10), "x")
    below = apply("le", IndexValue("j"), IndexValue("i"))
    mask = Compute(groups.dims(i=6, j=10), select(below, Read(x, ["i", "j"]), literal(0.0)), name="mask")
    assert dims_of(groups.group([mask], [mask])) == {"i": "6", "j": "10"}
    assert set(dims_of(groups.padded(6, 10, 2))) == {"i", "j"}


def test_dims_of_different_roles_stay_apart() -> None:
    x = Value(tensor(F32, 6, 10), "x")
    rows = Compute(groups.dims(i=6), Read(x, ["i", "j"]), reductions=groups.dims(j=10), monoid="sum", name="rows")
    assert set(dims_of(groups.group([rows], [rows]))) == {"i", "j"}
    everything = Compute([], Read(x, ["i", "j"]), reductions=groups.dims(i=6, j=10), monoid="sum", name="all")
    assert dims_of(groups.group([everything], [everything])) == {"ij": "60"}


def test_symbolic_dims_collapse_too() -> None:
    rows = index("B")
    x = Value(tensor(F32, rows, 12, 8), "x")
    out = Compute(groups.dims(b=rows, s=12, d=8), apply("mul", Read(x, ["b", "s", "d"]), literal(2.0)), name="out")
    fusion = Fusion(Block([], [out], [out.result]))
    bounds = Bounds({}, {"B": (1, 64)})
    form = normalize(fusion, bounds)
    assert {name: str(extent) for name, extent in form.fusion.dims().items()} == {"bsd": "B*96"}
    kernel = lower(form.fusion, Schedule({"bsd": 64}), outputs=form.outputs, bounds=bounds)
    for size in (1, 5):
        arrays = groups.random_inputs(fusion, sizes={"B": size})
        (found,) = groups.run_tiles(kernel, arrays, {"B": size})
        np.testing.assert_array_equal(found, arrays[0] * 2)


def test_the_address_of_a_collapsed_access_is_the_collapsed_index() -> None:
    form = normalize(groups.element_wise(4, 6, 10))
    (name,) = form.fusion.dims()
    kernel = lower(form.fusion, Schedule({name: 64}), outputs=form.outputs)
    for op in kernel.body.walk():
        if isinstance(op, (Load, Store)):
            address = index(0)
            for place, stride in zip(op.indices, row_major(op.buffer.shape), strict=True):
                address = address + place * stride
            assert address == index(f"p{name}") * 64 + name


def test_the_given_group_is_left_as_it_is() -> None:
    fusion = groups.convolution(2, 5, 9, 20, 3, 2, 1)
    before = [(compute.dims, compute.reductions, compute.body) for compute in fusion.computes]
    normalize(fusion)
    assert before == [(compute.dims, compute.reductions, compute.body) for compute in fusion.computes]


def test_heads_that_are_written_apart_are_one_side_of_the_product() -> None:
    x, w = Value(tensor(F32, 20, 32), "x"), Value(tensor(F32, 48, 32), "w")
    split = Compute(
        groups.dims(h=3, i=20, d=16),
        apply("mul", Read(x, ["i", "k"]), Read(w, [index("h") * 16 + "d", "k"])),
        reductions=groups.dims(k=32),
        monoid="sum",
        name="split",
    )
    out = Compute(groups.dims(h=3, i=20, d=16), cast(Read(split.result, ["h", "i", "d"]), F32), name="out")
    fusion = groups.group([split, out], [out])
    assert dims_of(fusion) == {"hd": "48", "i": "20", "k": "32"}
    groups.check(fusion, Schedule({"hd": 32, "i": 16, "k": 16}))


def heads(keys: str, *, rows: int = 128) -> Fusion:
    """A product for each of six heads, of queries and of the `keys` of some of them."""
    return group(
        f"%q: f32[{rows}, 6, 16], %k: f32[6, 6, 40, 16]",
        f"%o = compute f32[h: 6, i: {rows}, j: 40] sum(d: 16) {{ %q[i, h, d] * %k[{keys}, j, d] }}",
    )


@pytest.mark.parametrize(
    ("keys", "shared"),
    [("0, h // 3", {"h_0": "2", "h_1": "3"}), ("h // 2, 0", {"h_0": "3", "h_1": "2"}), ("0, h % 3", {"h_0": "2", "h_1": "3"})],
)  # fmt: skip
def test_a_dim_of_which_keys_follow_a_digit_becomes_its_digits(keys: str, shared: dict[str, str]) -> None:
    fusion = heads(keys)
    assert dims_of(fusion) == {**shared, "i": "128", "j": "40", "d": "16"}
    groups.check(fusion, Schedule({"i": 32, "j": 16, "d": 16}))


def test_query_heads_of_one_key_head_are_rows_of_its_product() -> None:
    fusion = heads("0, h // 3", rows=5)
    assert dims_of(fusion) == {"h_0": "2", "h_1_i": "15", "j": "40", "d": "16"}
    groups.check(fusion, Schedule({"h_1_i": 16, "j": 16, "d": 16}))


@pytest.mark.parametrize(
    "keys", ["0, h", "0, h // 4", "0, (h + 1) // 3", "h // 3, h % 3", "h // 2, h // 3", "0, h // 3 + (h // 2) % 2"]
)
def test_a_dim_whose_digits_nobody_shares_stays_whole(keys: str) -> None:
    """Where all of it is read anyway, where they do not divide it, or where they would not stand alone."""
    fusion = heads(keys)
    assert dims_of(fusion)["h"] == "6"
    groups.check(fusion, Schedule({"i": 32, "j": 16, "d": 16}))


def test_a_dim_along_memory_stays_whole() -> None:
    fusion = group(
        "%q: f32[128, 16, 6], %k: f32[40, 16, 2]",
        "%o = compute f32[h: 6, i: 128, j: 40] sum(d: 16) { %q[i, d, h] * %k[j, d, h // 3] }",
    )
    assert dims_of(fusion)["h"] == "6"


def test_one_value_a_head_cuts_as_well() -> None:
    fusion = group(
        "%q: f32[128, 6, 16], %k: f32[2, 40, 16], %c: f32[6]",
        "%p = compute f32[h: 6, i: 128, j: 40] sum(d: 16) { %q[i, h, d] * %k[h // 3, j, d] }",
        "%o = compute f32[h: 6, i: 128, j: 40] { %p[h, i, j] * %c[h] }",
    )
    assert dims_of(fusion) == {"h_0": "2", "h_1": "3", "i": "128", "j": "40", "d": "16"}
    groups.check(fusion, Schedule({"i": 32, "j": 16, "d": 16}))


def test_names_of_digits_are_new() -> None:
    fusion = group(
        "%q: f32[128, 6, 5, 16], %k: f32[2, 5, 40, 16]",
        "%o = compute f32[h: 6, h_1: 5, i: 128, j: 40] sum(d: 16) { %q[i, h, h_1, d] * %k[h // 3, h_1, j, d] }",
    )
    assert dims_of(fusion) == {"h_0": "2", "h_12": "3", "h_1": "5", "i": "128", "j": "40", "d": "16"}
    groups.check(fusion, Schedule({"i": 32, "j": 16, "d": 16}))
