"""Folds in parts: states in memory that are merged, for any number of parts, ragged ones and parts that are masked whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.ir.core import Block, Function, Module
from codesign.ir.fold import folds
from codesign.ir.interpreter import evaluate
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Fusion
from codesign.ir.verify import verify
from codesign.passes.normalize import normalize
from codesign.passes.tiling.split import split_reduction, splittable
from tests.passes.tiling import groups
from tests.passes.tiling.test_folding import ROWS, TOP, assert_as_near, group, rows
from tests.passes.tiling.test_folding_attention import VARIANTS, in_float64, inputs, names_of, variant

Array = Any
WITHOUT_ROWS = [name for name in ROWS if name not in ("softmax", "log softmax")]
"""Results that do not go along the reduced dim themselves."""


def in_parts(fusion: Fusion, parts: int, arrays: list[Array]) -> Array:
    """The result by two groups, each of them well formed."""
    where = splittable(fusion)
    assert where is not None
    assert where.fold is not None
    partial, combination = split_reduction(fusion, where, parts)
    body = Block(list(fusion.uses()), [partial, combination], combination.results)
    module = Module(functions={"main": Function("main", body)})
    verify(module)
    with np.errstate(all="ignore"):
        (found,) = evaluate(module, arrays)
    return found


@pytest.mark.parametrize("name", WITHOUT_ROWS)
def test_rows_in_any_number_of_parts(name: str) -> None:
    fusion = rows(name, "f32")
    for magnitude, offset in ((1.0, 0.0), (1e4, 0.0), (1.0, 1e4)):
        x = (np.random.default_rng(5).standard_normal((6, 75)) * magnitude + offset).astype(np.float32)
        wanted = ROWS[name][1](x.astype(np.float64))
        (written,) = groups.reference(fusion, [x])
        for parts in (2, 3, 5, 25):
            assert_as_near(in_parts(fusion, parts, [x]), written, wanted)


@pytest.mark.parametrize("name", WITHOUT_ROWS)
def test_parts_without_an_element_that_counts_change_nothing(name: str) -> None:
    """A part of minus infinities alone is the identity; infinities and NaN of one part are those of the whole."""
    fusion = rows(name, "f32")
    x = np.random.default_rng(3).standard_normal((6, 75)).astype(np.float32)
    x[0, :40], x[1], x[2, 30], x[3, 74], x[4, 20:] = -np.inf, -np.inf, np.inf, np.nan, -np.inf
    with np.errstate(all="ignore"):
        (written,) = groups.reference(fusion, [x])
    for parts in (3, 5):
        np.testing.assert_allclose(in_parts(fusion, parts, [x]), written, rtol=2e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_in_parts(name: str) -> None:
    text, score = VARIANTS[name]
    fusion = variant(text, "f16", group_size=2)
    arrays = inputs(fusion, "f16", 1.0)
    wanted = in_float64(score, arrays, names_of(fusion))
    for parts in (2, 5):
        found = in_parts(fusion, parts, arrays)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3 * np.nanmax(np.abs(wanted)), equal_nan=True)


def test_each_part_is_a_fold_itself_and_runs_as_a_loop() -> None:
    fusion = variant(VARIANTS["causal"][0], "f32")
    where = splittable(fusion)
    assert where is not None
    partial, _ = split_reduction(fusion, where, 2)
    form = normalize(partial)
    (found,) = folds(form.fusion)
    assert len(found.parts) == 3
    tiles = dict.fromkeys(form.fusion.dims(), 16)
    groups.check(partial, Schedule(tiles, reduce={found.dims[0]: "fold"}))


def test_what_needs_a_result_along_the_dim_is_not_split() -> None:
    """A part of the elements does not know the maximum of all."""
    fusion = group("%x: f32[6, 75]", TOP.format(d="f32"), "%y = compute f32[i: 6] sum(j: 75) { sin(%x[i, j] - %m[i]) }")
    assert folds(fusion) == ()
    where = splittable(fusion)
    assert where is None or where.compute is fusion.computes[0]
