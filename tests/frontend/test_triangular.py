"""Triangular systems as products: values against torch in float64, from either side and of either triangle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from codesign.frontend import capture
from codesign.frontend.lowering.triangular import LARGEST
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call


class Solve(nn.Module):
    def __init__(self, upper: bool, left: bool, unit: bool) -> None:
        super().__init__()
        self.upper, self.left, self.unit = upper, left, unit

    def forward(self, a: Tensor, x: Tensor) -> Tensor:
        solution: Tensor = torch.linalg.solve_triangular(
            a, x, upper=self.upper, left=self.left, unitriangular=self.unit
        )
        return solution


def _system(rows: int, left: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Two triangles of one system each, broadcast to three right sides; the other triangle and, where it is not read, the diagonal hold
    numbers too."""
    a = torch.randn(2, 1, rows, rows, dtype=dtype) / rows**0.5 + torch.eye(rows, dtype=dtype) * 2
    return a, torch.randn(3, rows, 4, dtype=dtype) if left else torch.randn(3, 4, rows, dtype=dtype)


@pytest.mark.parametrize(
    ("upper", "left", "unit", "rows", "dtype"),
    [
        (False, True, True, 64, torch.float32),
        (True, True, False, 5, torch.float32),
        (False, False, False, 7, torch.float64),
        (True, False, True, 6, torch.float32),
        (False, True, False, 1, torch.float32),
        (True, True, False, 33, torch.float32),
        (False, False, True, LARGEST, torch.float32),
        (True, False, False, 50, torch.float64),
    ],
)
def test_values(upper: bool, left: bool, unit: bool, rows: int, dtype: torch.dtype) -> None:
    model, given = Solve(upper, left, unit), _system(rows, left, dtype)
    captured = capture(model, given)
    assert not any(isinstance(op, Call) for op in captured.module.main.body.walk())
    (found,) = evaluate(captured.module, captured.flatten_inputs(given))
    expected = model(*(x.double() for x in given))
    error = (torch.from_numpy(found).double() - expected).abs().max() / expected.abs().max()
    assert error < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kind", ["twos", "normal"])
def test_as_near_as_substitution_where_the_inverse_is_huge(kind: str) -> None:
    """Solutions of ones, by inverses of up to 3^127: each row's residual is some roundings of what it adds up."""
    a = (torch.ones(LARGEST, LARGEST) * -2 if kind == "twos" else torch.randn(LARGEST, LARGEST)).tril(-1)
    x = (a.double().sum(-1) + 1).float()[:, None].expand(-1, 3).contiguous()
    captured = capture(Solve(False, True, True), (a, x))
    found = torch.from_numpy(evaluate(captured.module, captured.flatten_inputs((a, x)))[0]).double()
    whole = a.double() + torch.eye(LARGEST)
    residual = (whole @ found - x).abs() / (whole.abs() @ found.abs() + x.abs())
    assert residual.max() < 32 * torch.finfo(torch.float32).eps
    if kind == "twos":
        assert (found == 1).all()


def test_rows_before_an_infinity_do_not_hear_of_it() -> None:
    a, x = _system(20, True)
    x[:, 13] = torch.inf
    captured = capture(Solve(False, True, True), (a, x))
    (found,) = evaluate(captured.module, captured.flatten_inputs((a, x)))
    expected = torch.linalg.solve_triangular(a, x, upper=False, unitriangular=True)
    torch.testing.assert_close(torch.from_numpy(found)[:, :, :13], expected[:, :, :13])
    assert not torch.from_numpy(found)[:, :, 13:].isfinite().any()


@pytest.mark.parametrize(
    ("rows", "singular", "upper", "left"),
    [(6, 2, False, True), (20, 5, True, True), (40, 20, False, False), (33, 32, False, True), (20, 19, True, False)],
)
@pytest.mark.parametrize("element", [0.0, 1e-45])
def test_solutions_up_to_a_row_without_a_pivot_are_those_of_substitution(
    rows: int, singular: int, upper: bool, left: bool, element: float
) -> None:
    """In the row itself an infinity of the right sign, or NaN for 0 / 0; after it nothing that is finite."""
    torch.manual_seed(rows)
    a = torch.randn(rows, rows) / rows**0.5 + torch.eye(rows) * 2
    place = singular if upper is not left else rows - 1 - singular  # counted in the order that rows are solved in
    a[place, place] = element
    x = torch.randn(rows, 8)
    x[:, 7] = 0  # 0 / 0
    model, given = Solve(upper, left, False), (a, x if left else x.T.contiguous())
    captured = capture(model, given)
    found = torch.from_numpy(evaluate(captured.module, captured.flatten_inputs(given))[0])
    expected = model(*given)
    if not left:
        found, expected = found.T, expected.T
    if upper is left:
        found, expected = found.flip(0), expected.flip(0)
    torch.testing.assert_close(found[: singular + 1], expected[: singular + 1], equal_nan=True)
    if element == 0:
        assert expected[singular].isinf().sum() == 7
        assert expected[singular, 7].isnan()
        assert not found[singular:].isfinite().any()


def test_elements_that_a_triangle_does_not_have_are_not_read() -> None:
    a, x = _system(6, True)
    a = a + torch.full((6, 6), torch.nan).triu()  # on the diagonal too
    captured = capture(Solve(False, True, True), (a, x))
    (found,) = evaluate(captured.module, captured.flatten_inputs((a, x)))
    expected = torch.linalg.solve_triangular(a.nan_to_num(), x, upper=False, unitriangular=True)
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_a_large_system_stays_a_routine_s() -> None:
    captured = capture(Solve(False, True, True), _system(LARGEST + 1, True))
    assert [op.target for op in captured.module.main.body.walk() if isinstance(op, Call)] == [
        "aten.linalg_solve_triangular.default"
    ]
