"""Sizes that data decides: captured with a bound, bound when the call that makes them has run, costed at the most they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from codesign.frontend import capture
from codesign.frontend.externals import externals
from codesign.ir.data_sizes import made_sizes
from codesign.ir.errors import VerificationError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call
from codesign.ir.verify import verify
from codesign.passes import optimize
from codesign.passes.planning import sizes_of
from tests.frontend.checks import Of, assert_close, check, run

X = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
ROWS, CELLS = X[:, 0, 0] > 0, X[:, :, 0] > 0.3


def put(x: torch.Tensor, mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    result = x.clone()
    result[mask] = values
    return result


def added(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return x.index_put((mask,), x[mask] * 2, accumulate=True)


Function = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any]
READ: tuple[Function, ...] = (
    lambda x, m, c: x.nonzero(),
    lambda x, m, c: torch.where(x > 0),
    lambda x, m, c: x[m] * 2,
    lambda x, m, c: x[m].sum((1, 2)).cumsum(0),
    lambda x, m, c: x[c].relu(),
    lambda x, m, c: x[:, m[:5]].mean(1),
    lambda x, m, c: x[m[:6], torch.tensor([1])],
    lambda x, m, c: x[m, :, torch.tensor([2])],
    lambda x, m, c: torch.masked_select(x, x > 0).exp(),
    lambda x, m, c: torch.masked_select(x, c[..., None]),
    lambda x, m, c: torch.unique((x * 2).long()),
    lambda x, m, c: torch.ones(x[m].shape[0] + 1),
    lambda x, m, c: (x[m].sum(0), x[~m].sum(0)),
)
WRITTEN: tuple[Function, ...] = (
    lambda x, m, c: put(x, c, x[c] + 1),
    lambda x, m, c: put(x, m, torch.arange(4.0)),
    lambda x, m, c: put(x, m, torch.tensor(3.0)),
    lambda x, m, c: added(x, c),
)


@pytest.mark.parametrize("functions", [READ, WRITTEN], ids=["read", "written"])
def test_values_for_the_example_and_for_other_data(functions: tuple[Function, ...]) -> None:
    model = Of(lambda *given: [function(*given) for function in functions])
    captured = check(model, X, ROWS, CELLS)
    assert made_sizes(captured.module.main)
    for other in (X.flip(0), -X, X.abs()):
        given = (other, other[:, 0, 0] > 0, other[:, :, 0] > 0.3)
        assert_close(run(captured, given), model(*given))


def test_nothing_may_be_chosen() -> None:
    captured = capture(Of(lambda x: (x[x > 0] + 1, x[x > 0].sum())), (X,))
    values, total = run(captured, (-X.abs(),))
    assert values.shape == (0,)
    assert total == 0


def test_one_mask_is_looked_through_once_and_what_only_gives_a_size_stays() -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result = x.clone()
        result[x > 0] = x[x > 0] * 2
        return result, torch.zeros(x[x < -1].shape[0])

    module = optimize(capture(Of(model), (X,)).module)
    calls = [op for op in module.main.body.walk() if isinstance(op, Call)]
    assert [op.target for op in calls] == ["aten.nonzero.default"] * 2
    found, zeros = evaluate(module, [X.numpy()], externals=externals(module))
    np.testing.assert_array_equal(found, model(X)[0])
    assert zeros.shape == (int((X < -1).sum()),)


def test_the_cost_is_that_of_the_bound_or_of_a_given_size() -> None:
    module = capture(Of(lambda x, m: x[m] * 2), (X, ROWS)).module
    (name,) = made_sizes(module.main)
    assert sizes_of(module, {}) == {name: 6}
    assert sizes_of(module, {name: 3}) == {name: 3}


def test_a_batch_of_unknown_size_bounds_what_is_chosen_of_it() -> None:
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {"args": ({0: batch},)}
    module = capture(Of(lambda *args: args[0][args[0] > 0]), (X[:4, 0],), dynamic_shapes=shapes).module
    (name,) = made_sizes(module.main)
    assert sizes_of(module, {"batch": 10})[name] == 40


def test_a_size_is_not_used_before_it_is_made() -> None:
    module = capture(Of(lambda x: torch.ones(x[x > 0].shape[0])), (X[0, 0],)).module
    ops = module.main.body.ops
    ones = next(op for op in ops if not op.operands() and any(size.variables() for size in op.results[0].shape))
    verify(module)
    ops.remove(ones)
    ops.insert(0, ones)
    with pytest.raises(VerificationError, match="before the call that makes it"):
        verify(module)
