"""The allowance of 8-bit floats: a step for few elements, never a share of all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from codesign.backends.verification import difference
from codesign.backends.verification.allowance import Allowance, allowance_of, together
from codesign.frontend import capture
from codesign.ir.precision import ARITHMETIC, PRECISIONS, Precision
from codesign.ir.tensor import Fusion
from codesign.passes import Context, optimize

FP8 = Allowance(base=1e-6, step=0.125)


def rounded(values: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(values.to(torch.float8_e4m3fn).double().numpy())


def refused(expected: torch.Tensor, actual: torch.Tensor) -> bool:
    e, a = rounded(expected), rounded(actual)
    return bool(FP8.refuses(e, a, difference(e, a)[0]))


def test_values_between_two_steps_may_fall_to_either_side() -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    assert not refused(x, x)
    assert not refused(x, x * (1 + 1e-4))


def test_a_factor_is_seen() -> None:
    x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    for factor in (1.25, 1.06, 0.95, 0.98):
        assert refused(x, x * factor), factor


def test_one_element_may_be_off_by_a_step_and_no_more() -> None:
    x = torch.ones(4096)
    near, far = x.clone(), x.clone()
    near[7], far[7] = 1.125, 1.5
    assert not refused(x, near)
    assert refused(x, far)


def test_without_floats_of_8_bits_nothing_is_added() -> None:
    both = together([(Allowance(3e-6), 1), (Allowance(1e-6), 16)])
    assert both.largest == both.typical == 5e-6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_product_is_allowed_what_its_unit_rounds(precision: Precision) -> None:
    module = capture(torch.nn.Linear(64, 32, bias=False), (torch.randn(16, 64),)).module
    passes = f"precision{{products={precision}}},fuse"
    (group,) = (op for op in optimize(module, Context(), pipeline=passes).main.body.ops if isinstance(op, Fusion))
    summed = 4 * 64**0.5 * 2.0**-24
    assert allowance_of(group).base == pytest.approx(8 * ARITHMETIC[precision].roundoff + summed)
