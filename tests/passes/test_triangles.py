"""Masks of triangles that models keep as data become index arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.dtypes import BOOL, F32
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Constant
from codesign.passes import optimize
from tests.passes import models


def folded(data: np.ndarray, dtype=F32):  # type: ignore[no-untyped-def]
    b = models.Builder()
    names = b.names(data.ndim)
    value = b.constant(data, dtype)
    module = b.module(b.pointwise("not" if dtype is BOOL else "neg", value))
    del names
    clean = optimize(module, pipeline="constant-fold,fold-views,canonicalize,dce")
    np.testing.assert_array_equal(evaluate(clean, [])[0], evaluate(module, [])[0])
    return not any(isinstance(op, Constant) for op in clean.main.body.ops)


@pytest.mark.parametrize("offset", [-3, 0, 7])
def test_triangles_are_index_arithmetic(offset: int) -> None:
    ones = np.ones((1, 1, 80, 96), np.float32)
    assert folded(np.tril(ones, offset))
    assert folded(np.triu(ones, offset))
    assert folded(np.tril(ones, offset).astype(np.bool_), BOOL)
    assert folded(np.where(np.tril(ones, offset) > 0, 0, -np.inf).astype(np.float32))


def test_other_data_stays_data() -> None:
    ones = np.ones((80, 96), np.float32)
    spoilt = np.tril(ones)
    spoilt[40, 60] = 1
    for data in (
        spoilt,
        np.tril(ones) * 2 + np.triu(ones),
        np.tril(ones) - np.tril(ones, -5),
        np.arange(7680.0).reshape(80, 96),
    ):
        assert not folded(data.astype(np.float32))
