"""Loops over what masks leave: tiles that a mask empties are not visited, and results stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.core import Module
from codesign.ir.dtypes import F16
from codesign.ir.index import index
from codesign.ir.scalar import IndexValue, Scalar, apply
from codesign.ir.schedule import Schedule
from codesign.ir.text import parse, print_module
from codesign.ir.tile import For, Kernel
from codesign.passes.tile import lower
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


def test_the_lowest_finite_number_masks_as_minus_infinity_does() -> None:
    group = groups.attention(1, 40, 40, 16, window(9), floor=float(np.finfo(np.float32).min))
    schedule = Schedule({"i": 8, "j": 8, "d": 16, "e": 16}, reduce={"d": "resident"})
    assert any(loop.lower != 0 for loop in loops(groups.check(group, schedule, normal=False)))


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
    assert {(str(loop.lower), str(loop.upper)) for loop in loops(causal) if loop.step == 32} == {("0", "pi*64 + 64")}
    upper = lower(
        groups.masked_product(256, 32, 256, apply("ge", IndexValue(DEPTH), IndexValue(ROW))),
        Schedule({"i": 64, "k": 64}),
    )
    (loop,) = loops(upper)
    assert (str(loop.lower), str(loop.upper)) == ("pi*64", "256")


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
