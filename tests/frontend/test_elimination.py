"""Small systems, inverses and determinants as expressions: against torch, from either side, with exchanges, zeros, batches and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from codesign.frontend import Captured, capture
from codesign.frontend.lowering.elimination import LARGEST
from codesign.ir.tensor import Call
from tests.frontend.checks import Of, check, run

SIZES = (1, 3, LARGEST)


def without_calls(captured: Captured) -> None:
    assert not [op.target for op in captured.module.main.body.walk() if isinstance(op, Call)]


def matrices(rows: int, *batch: int) -> Tensor:
    torch.manual_seed(rows)
    return torch.randn(*batch, rows, rows)


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize(
    "function",
    [
        torch.linalg.inv_ex,
        torch.linalg.inv,
        torch.linalg.lu_factor_ex,
        lambda a: torch.linalg.lu_factor_ex(a.mT + a.sum()),
        torch.ops.aten._linalg_det,
        lambda a: torch.ops.aten._linalg_det(a.mT),
        torch.linalg.slogdet,
    ],
    ids=["inv_ex", "inv", "lu_factor", "lu_factor of another", "det", "det of a transpose", "slogdet"],
)
def test_of_one_matrix(function: Callable[[Tensor], Any], rows: int) -> None:
    without_calls(check(Of(function), matrices(rows, 7), rtol=2e-4, atol=2e-5))


def test_factors_without_exchanges() -> None:
    """Which torch has on other devices only: their product is the matrix."""
    a = matrices(3, 2) + 3 * torch.eye(3)
    captured = capture(Of(lambda a: torch.linalg.lu_factor_ex(a, pivot=False)), (a,))
    without_calls(captured)
    factors, pivots, info = run(captured, (a,))
    lower, upper = factors.tril(-1) + torch.eye(3), factors.triu()
    torch.testing.assert_close(lower @ upper, a)
    assert pivots.tolist() == [[1, 2, 3]] * 2
    assert info.tolist() == [0, 0]


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("left", [True, False])
def test_solutions(rows: int, left: bool) -> None:
    """Of systems that share right sides, and right sides that share a system."""
    shape = (rows, 2) if left else (2, rows)

    def function(a: Tensor, x: Tensor) -> Tensor:
        result: Tensor = torch.linalg.solve(a, x, left=left)
        return result

    without_calls(check(Of(function), matrices(rows, 5), torch.randn(shape), rtol=2e-4, atol=2e-4))
    without_calls(check(Of(function), matrices(rows), torch.randn(4, *shape), rtol=2e-4, atol=2e-4))


def test_solutions_for_vectors() -> None:
    """A batch of vectors for as many systems, and one for one."""
    without_calls(check(Of(torch.linalg.solve), matrices(3, 6), torch.randn(6, 3), rtol=2e-4, atol=2e-4))
    without_calls(check(Of(torch.linalg.solve), matrices(3), torch.randn(3), rtol=2e-4, atol=2e-4))


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("adjoint", [True, False])
def test_solutions_by_factors(left: bool, adjoint: bool) -> None:
    def function(a: Tensor, x: Tensor) -> Tensor:
        factors, pivots, _ = torch.linalg.lu_factor_ex(a)
        result: Tensor = torch.linalg.lu_solve(factors, pivots, x, left=left, adjoint=adjoint)
        return result

    without_calls(check(Of(function), matrices(4, 3), torch.randn(3, 4, 4), rtol=1e-3, atol=1e-4))


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.0, 1.0], [1.0, 0.0]],
        [[1.0, 2.0], [2.0, 4.0]],
        [[0.0, 0.0], [0.0, 0.0]],
        [[0.0, 2.0, 1.0], [0.0, 1.0, 3.0], [0.0, 4.0, 1.0]],
        [[1e-8, 1.0], [1.0, 1.0]],
    ],
    ids=["exchange", "singular", "zeros", "a column of zeros", "a small pivot"],
)
def test_what_has_zeros_on_the_way(matrix: list[list[float]]) -> None:
    """Factors and the number of the first zero are LAPACK's; determinants of singular matrices are 0."""
    a = torch.tensor(matrix)
    without_calls(check(Of(torch.linalg.lu_factor_ex), a))
    without_calls(check(Of(torch.linalg.det), a))


def test_gradients() -> None:
    """Of a solution, a logarithm of a determinant and an inverse, through the factors that the forward kept."""

    def function(a: Tensor, x: Tensor) -> Tensor:
        def loss(a: Tensor, x: Tensor) -> Tensor:
            logs = torch.linalg.slogdet(a)[1]
            total: Tensor = torch.linalg.solve(a, x).sum((-1, -2)) + logs + torch.linalg.inv(a).sum((-1, -2))
            return total.sum()

        gradient: Tensor = torch.func.grad(loss)(a, x)
        return gradient

    eye = torch.eye(3) * 3
    without_calls(check(Of(function), matrices(3, 4) + eye, torch.randn(4, 3, 2), rtol=1e-3, atol=1e-4))


def test_a_larger_one_stays_a_call() -> None:
    captured = check(Of(torch.linalg.inv), matrices(LARGEST + 1), rtol=1e-3, atol=1e-4)
    assert any(isinstance(op, Call) for op in captured.module.main.body.walk())
