"""Loops over what masks leave: tiles that a mask empties are not visited, those that it fills are not masked, and results stay what they are."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from codesign.costmodel.summary import summarize
from codesign.costmodel.visits import visited
from codesign.ir.core import Module, Value
from codesign.ir.dtypes import F16, F32, I64
from codesign.ir.index import Bounds, index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute
from codesign.ir.text import parse, print_module
from codesign.ir.tile import For, Kernel, Map, Reduce
from codesign.ir.types import tensor
from codesign.passes.tile import lower
from codesign.passes.tiling.split import split_reduction, splittable
from tests.passes.tiling import groups

ROW, COLUMN, DEPTH = index("i"), index("j"), index("k")


def window(width: int) -> Scalar:
    return apply("and", groups.below(), apply("lt", IndexValue(ROW - COLUMN), IndexValue(index(width))))


def loops(kernel: Kernel) -> list[For]:
    return [op for op in kernel.body.walk() if isinstance(op, For)]


MASKS = {
    "causal": groups.below(),
    "shifted": groups.below(offset=-24),
    "window": window(9),
    "window of chunks": apply("eq", IndexValue(COLUMN // 12), IndexValue(ROW // 12)),
    "future": apply("gt", IndexValue(COLUMN), IndexValue(ROW)),
    "prefix": apply("or", groups.below(), apply("lt", IndexValue(COLUMN), IndexValue(index(20)))),
    "window and the first": apply(
        "and", groups.below(), apply("or", window(9), apply("lt", IndexValue(COLUMN), IndexValue(index(6))))
    ),
    "first, band and last": apply(
        "or",
        apply("le", apply("abs", IndexValue(ROW - COLUMN)), Literal(2, I64)),
        apply(
            "or",
            apply("ge", IndexValue(COLUMN), IndexValue(index(36))),
            apply("lt", IndexValue(COLUMN), IndexValue(index(4))),
        ),
    ),
    "a few rows": apply("and", groups.below(), apply("ge", IndexValue(ROW), IndexValue(index(17)))),
    "two windows": apply("or", window(3), apply("eq", IndexValue(COLUMN + 18), IndexValue(ROW))),
    "causal chunks": apply("and", groups.below(), apply("eq", IndexValue(COLUMN // 20), IndexValue(ROW // 20))),
}


@pytest.mark.parametrize("tile", [1, 16])
@pytest.mark.parametrize("name", MASKS)
def test_masked_attention_is_what_the_whole_square_gives(name: str, tile: int) -> None:
    """Rows that are masked whole (the first of a shifted mask, the last of the future) are NaN as the expression has it."""
    group = groups.attention(1, 40, 40, 16, MASKS[name])
    kernel = groups.check(
        group, Schedule({"i": 16, "j": tile, "d": 16, "e": 16}, reduce={"d": "resident"}), normal=False
    )
    assert all(loop.lower != 0 or loop.upper != 40 for loop in loops(kernel))


@st.composite
def union(draw: st.DrawFn) -> Scalar:
    """A window and a prefix, or another window farther off; cut by the diagonal, perhaps."""
    near, far = draw(st.integers(1, 20)), draw(st.integers(20, 50))
    distance = IndexValue(ROW - DEPTH)
    one = apply("le", apply("abs", distance), Literal(near, I64))
    other = draw(
        st.sampled_from(
            [
                apply("lt", IndexValue(DEPTH), IndexValue(index(draw(st.integers(1, 30))))),
                apply("and", apply("lt", distance, Literal(far + 9, I64)), apply("ge", distance, Literal(far, I64))),
            ]
        )
    )
    either = apply("or", *draw(st.permutations([one, other])))
    return apply("and", groups.below("k"), either) if draw(st.booleans()) else either


@given(union(), st.sampled_from([1, 4, 16]), st.sampled_from([4, 16, 32]))
@settings(max_examples=25, deadline=None, derandomize=True, phases=(Phase.generate,))
def test_of_a_union_the_tiles_that_all_its_parts_empty_are_not_visited(mask: Scalar, rows: int, step: int) -> None:
    """No tile twice, and as many as the price counts."""
    height, extent = 64, 72
    group = groups.masked_product(height, 8, extent, mask)
    kernel = groups.check(group, Schedule({"i": rows, "j": 8, "k": step}), normal=False)
    counts = Compute(groups.dims(i=height, k=extent), cast(mask, F32), name="counts")
    (left,) = groups.reference(groups.group([counts], [counts]), [])
    made = []
    for program in range(height // rows):
        ends = ((loop.lower.evaluate({"pi": program}), loop.upper.evaluate({"pi": program})) for loop in loops(kernel))
        steps = [first for lower, upper in ends for first in range(int(lower), int(upper), step)]
        block = left[program * rows : (program + 1) * rows]
        assert steps == [first for first in range(0, extent, step) if block[:, first : first + step].any()]
        made.append(len(steps))
    extents = {"i": float(height), "k": float(extent)}
    programs = {"i": np.ceil(height / rows)}
    counted = visited(summarize(group).reach["k"], "k", {"i": float(rows), "k": float(step)}, programs, extents, {}).all
    assert (counted.mean, counted.most) == (pytest.approx(np.mean(made)), max(made))


@st.composite
def several(draw: st.DrawFn) -> Scalar:
    """Some of first tokens, last ones, a block of them, a window and one farther off, perhaps of some rows alone or below the diagonal."""
    distance, place = IndexValue(ROW - DEPTH), IndexValue(DEPTH)
    near, far, begin, rows = (draw(st.integers(low, high)) for low, high in ((1, 20), (20, 50), (20, 50), (1, 60)))

    def between(value: Scalar, low: int, high: int) -> Scalar:
        return apply("and", apply("ge", value, Literal(low, I64)), apply("lt", value, Literal(high, I64)))

    parts = (
        apply("lt", place, Literal(draw(st.integers(1, 20)), I64)),
        apply("ge", place, Literal(draw(st.integers(50, 71)), I64)),
        between(place, begin, begin + draw(st.integers(1, 9))),
        between(distance, -near, near),
        between(distance, far, far + 9),
    )
    masks = draw(st.lists(st.sampled_from(parts), min_size=2, max_size=4, unique_by=id))
    mask = functools.reduce(lambda a, b: apply("or", a, b), masks)
    of_rows = apply(draw(st.sampled_from(["lt", "ge"])), IndexValue(ROW), Literal(rows, I64))
    mask = apply("and", mask, of_rows) if draw(st.booleans()) else mask
    return apply("and", groups.below("k"), mask) if draw(st.booleans()) else mask


@given(several(), st.sampled_from([1, 4, 16]), st.sampled_from([4, 16, 32]))
@settings(max_examples=60, deadline=None, derandomize=True, phases=(Phase.generate,))
def test_of_several_intervals_every_tile_that_counts_is_visited_once(mask: Scalar, rows: int, step: int) -> None:
    """And as many as the price counts; where loops go along the intervals by themselves, no other."""
    height, extent = 64, 72
    group = groups.masked_product(height, 8, extent, mask)
    kernel = groups.check(group, Schedule({"i": rows, "j": 8, "k": step}), normal=False)
    counts = Compute(groups.dims(i=height, k=extent), cast(mask, F32), name="counts")
    (left,) = groups.reference(groups.group([counts], [counts]), [])
    reach = summarize(group).reach.get("k")
    made = []
    for program in range(height // rows):
        ends = ((loop.lower.evaluate({"pi": program}), loop.upper.evaluate({"pi": program})) for loop in loops(kernel))
        steps = [first for lower, upper in ends for first in range(int(lower), int(upper), step)]
        block = left[program * rows : (program + 1) * rows]
        wanted = [first for first in range(0, extent, step) if block[:, first : first + step].any()]
        assert len(set(steps)) == len(steps)
        assert set(wanted) <= set(steps)
        made.append(len(steps))
    if reach is not None:
        extents, tiles = {"i": float(height), "k": float(extent)}, {"i": float(rows), "k": float(step)}
        counted = visited(reach, "k", tiles, {"i": np.ceil(height / rows)}, extents, {}).all
        assert (counted.mean, counted.most) == (pytest.approx(np.mean(made)), max(made))


@given(st.permutations(range(4)), st.sampled_from([1, 4, 16]), st.sampled_from([4, 16, 32]))
@settings(max_examples=12, deadline=None, derandomize=True, phases=(Phase.generate,))
def test_of_first_and_last_tokens_and_two_windows_no_other_tile_is_visited(
    order: list[int], rows: int, step: int
) -> None:
    distance, place = IndexValue(ROW - DEPTH), IndexValue(DEPTH)
    far = apply("and", apply("ge", distance, Literal(30, I64)), apply("lt", distance, Literal(34, I64)))
    parts = (
        apply("lt", place, Literal(3, I64)),
        apply("le", apply("abs", distance), Literal(2, I64)),
        apply("ge", place, Literal(70, I64)),
        far,
    )
    mask = functools.reduce(lambda a, b: apply("or", a, b), [parts[k] for k in order])
    height, extent = 64, 72
    group = groups.masked_product(height, 8, extent, mask)
    kernel = groups.check(group, Schedule({"i": rows, "j": 8, "k": step}), normal=False)
    counts = Compute(groups.dims(i=height, k=extent), cast(mask, F32), name="counts")
    (left,) = groups.reference(groups.group([counts], [counts]), [])
    for program in range(height // rows):
        ends = ((loop.lower.evaluate({"pi": program}), loop.upper.evaluate({"pi": program})) for loop in loops(kernel))
        steps = [first for lower, upper in ends for first in range(int(lower), int(upper), step)]
        block = left[program * rows : (program + 1) * rows]
        assert steps == [first for first in range(0, extent, step) if block[:, first : first + step].any()]


def test_the_lowest_finite_number_masks_as_minus_infinity_does() -> None:
    group = groups.attention(1, 40, 40, 16, window(9), floor=float(np.finfo(np.float32).min))
    schedule = Schedule({"i": 8, "j": 8, "d": 16, "e": 16}, reduce={"d": "resident"})
    assert any(loop.lower != 0 for loop in loops(groups.check(group, schedule, normal=False)))


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("prefix", ("0", "(max(pi*4 + 1, 20) // 4)*4")),
        ("causal chunks", ("(pi // 5)*20", "pi*4")),
        ("window of chunks", ("(pi // 3)*12", "(min((pi // 3)*12 + 12, 40) // 4)*4")),
    ],
)
def test_tiles_that_a_mask_fills_ask_for_nothing(name: str, whole: tuple[str, str]) -> None:
    """Also where it is one condition or another that fills them, and where a condition is on parts of the rows and columns."""
    schedule = Schedule({"i": 4, "j": 4, "d": 16, "e": 16}, reduce={"d": "resident", "j": "fold"})
    kernel = lower(groups.attention(1, 40, 40, 16, MASKS[name]), schedule)
    free = [loop for loop in loops(kernel) if not _asks(loop)]
    assert [(str(loop.lower), str(loop.upper)) for loop in free] == [whole]
    groups.check(groups.attention(1, 40, 40, 16, MASKS[name]), schedule, normal=False)


def _asks(loop: For) -> bool:
    """Whether a step of a loop asks where it is."""
    bodies = [op.body for op in loop.body.ops if isinstance(op, (Map, Reduce))]
    return any(isinstance(node, IndexValue) for body in bodies for node in body.walk())


@pytest.mark.parametrize("schedule", [{"i": 8, "j": 32, "k": 8}, {"i": 32, "j": 16, "k": 16}, {"i": 16, "j": 32}])
def test_triangular_products(schedule: dict[str, int]) -> None:
    for mask in (
        groups.below("k"),
        apply("ge", IndexValue(DEPTH), IndexValue(ROW + 24)),
        groups.below("k", offset=-30),
    ):
        kernel = groups.check(groups.masked_product(52, 33, 60, mask), Schedule(schedule), normal=False)
        assert any(loop.lower != 0 or loop.upper != 60 for loop in loops(kernel))


def test_bounds_are_steps_of_the_loop_and_nothing_more() -> None:
    causal = lower(groups.attention(2, 256, 256, 16, groups.below()), Schedule({"i": 64, "j": 32, "d": 16, "e": 16}))
    assert {(str(loop.lower), str(loop.upper)) for loop in loops(causal) if loop.step == 32} == {
        ("0", "pi*64"),
        ("pi*64", "pi*64 + 64"),
    }
    upper = lower(
        groups.masked_product(256, 32, 256, apply("ge", IndexValue(DEPTH), IndexValue(ROW))),
        Schedule({"i": 64, "k": 64}),
    )
    border, whole = loops(upper)
    assert (str(border.lower), str(border.upper)) == ("pi*64", "pi*64 + 64")
    assert (str(whole.lower), str(whole.upper)) == ("pi*64 + 64", "256")


def test_a_kernel_with_such_loops_is_text() -> None:
    kernel = lower(groups.attention(2, 100, 100, 16, MASKS["window"]), Schedule({"i": 16, "j": 16, "d": 16, "e": 16}))
    text = print_module(Module(kernels={kernel.name: kernel}))
    assert print_module(parse(text)) == text


def test_what_is_masked_is_not_read() -> None:
    """A NaN behind the mask in a tile that is not visited reaches no result."""
    kernel = lower(groups.masked_product(64, 16, 64, groups.below("k"), F16), Schedule({"i": 16, "j": 16, "k": 16}))
    a, b = np.ones((64, 64), np.float16), np.ones((64, 16), np.float16)
    a[:, 48:], b[48:] = np.nan, np.inf
    (found,) = groups.run_tiles(kernel, [a, b])
    np.testing.assert_array_equal(found[:48, 0], np.arange(1, 49))


@pytest.mark.parametrize("mask", [groups.below("k"), groups.below("i", "k")], ids=["lower", "upper"])
def test_parts_of_a_masked_reduction_are_cut_each(mask: Scalar) -> None:
    """Some programs have nothing to do at all: their loops end before they begin."""
    group = groups.masked_product(64, 32, 300, mask)
    where = splittable(group)
    assert where is not None
    partial, combination = split_reduction(group, where, 4)
    first = lower(partial, Schedule({"i": 16, "j": 16, "k": 16}))
    assert all({"pi", "pk_part"} <= (loop.lower.variables() | loop.upper.variables()) for loop in loops(first)[:2])
    arrays = groups.random_inputs(group, 0)
    parts = groups.run_tiles(first, arrays)
    (found,) = groups.run_tiles(lower(combination, Schedule({"i": 16, "j": 16})), parts)
    np.testing.assert_allclose(found, groups.reference(group, arrays)[0], atol=1e-3)


def test_open_sizes() -> None:
    a, b = Value(tensor(F32, "n", "n"), "a"), Value(tensor(F32, "n", 16), "b")
    left = select(groups.below("k"), Read(a, ["i", "k"]), Literal(0, F32))
    body = apply("mul", left, Read(b, ["k", "j"]))
    out = Compute(groups.dims(i="n", j=16), body, reductions=groups.dims(k="n"), monoid="sum", name="out")
    kernel = lower(
        groups.group([out], [out]), Schedule({"i": 16, "j": 16, "k": 16}), bounds=Bounds(symbols={"n": (1, 512)})
    )
    assert [str(loop.upper) for loop in loops(kernel)] == ["pi*16", "min(pi*16 + 16, n)"]
    x, y = np.random.default_rng(0).standard_normal((2, 50, 50)).astype(np.float32)
    (found,) = groups.run_tiles(kernel, [x, y[:, :16].copy()], {"n": 50})
    np.testing.assert_allclose(found, np.tril(x) @ y[:, :16], atol=1e-4)
