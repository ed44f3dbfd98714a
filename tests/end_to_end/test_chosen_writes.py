"""Writes of one element, or few, of each row at places that data choose: selects in the kernels around them, with torch's values and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codesign.frontend import capture
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Launch, Scatter
from codesign.passes import CLEAN_UP, optimize
from tests.end_to_end.test_combining_writes import Model, atomics, check

X, ROWS = torch.randn(6, 9), torch.tensor([[3], [0], [8], [8], [2], [5]])


def launches(module: Module) -> int:
    return sum(isinstance(op, Launch) for op in module.main.body.ops)


def cleaned(function: Callable[..., Any], *inputs: Tensor) -> Module:
    return optimize(capture(Model(function), inputs).module, pipeline=CLEAN_UP)


def scatters(module: Module) -> int:
    return sum(isinstance(op, Scatter) for op in module.main.body.ops)


def to_a_number(x: Tensor, rows: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter(1, rows, 2.0) * x + x.gather(1, rows)


def from_a_tensor(x: Tensor, rows: Tensor) -> Tensor:
    return (x.relu().scatter(1, rows, x[:, 3:4]) - x.gather(1, rows)).exp()


def added(x: Tensor, rows: Tensor) -> Tensor:
    return x.relu().scatter_add(1, rows, x.gather(1, rows)).tanh()


def multiplied(x: Tensor, rows: Tensor) -> Tensor:
    return x.sigmoid().scatter_reduce(1, rows, x.gather(1, rows), "prod")


def first_rows_only(x: Tensor, rows: Tensor) -> Tensor:
    return torch.full_like(x, 4.0).scatter(1, rows[:4], -1.0) * x + x[:4].gather(1, rows[:4]).sum()


def in_a_middle_dim(x: Tensor, rows: Tensor) -> Tensor:
    x = x.view(2, 9, 3)
    rows = rows.view(2, 1, 3)
    return torch.zeros_like(x).scatter(1, rows, 1.0) - x.gather(1, rows).sigmoid()


def two_places(x: Tensor, rows: Tensor) -> Tensor:
    x = x.reshape(3, 2, 9)
    at = (torch.arange(3), rows[:3, 0] // 8, rows[3:, 0])
    return torch.zeros_like(x).index_put(at, x[at]) + x


@pytest.mark.parametrize("machine", ["h100_sxm", "maia100"])
@pytest.mark.parametrize(
    "function", [to_a_number, from_a_tensor, added, multiplied, first_rows_only, in_a_middle_dim, two_places]
)
def test_one_of_each_row(function: Callable[..., Tensor], machine: str) -> None:
    tiled = check(function, X, ROWS, machine=machine)
    assert not atomics(tiled)
    assert scatters(cleaned(function, X, ROWS)) == 0


@pytest.mark.parametrize("largest", [True, False])
def test_the_few_that_were_found_make_a_mask(largest: bool) -> None:
    def masked(x: Tensor) -> Tensor:
        best = x.topk(3, largest=largest).indices
        chosen = torch.zeros_like(x).scatter(1, best, 1.0)
        return x.masked_fill(chosen == 0, float("-inf")).softmax(-1)

    check(masked, X)
    assert scatters(cleaned(masked, X)) == 0


def test_of_equal_places_the_last_is_written_and_all_are_added() -> None:
    places, new = torch.tensor([[1, 1, 4], [2, 0, 2]]), torch.tensor([[1.0, 2, 3], [4, 5, 6]])

    def both(x: Tensor, places: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        checked = x.gather(1, places).sum()
        return torch.zeros_like(x).scatter(1, places, new) + checked, torch.zeros_like(x).scatter_add(1, places, new)

    check(both, X[:2, :5], places, new)
    assert scatters(cleaned(both, X[:2, :5], places, new)) == 0


def test_many_of_a_row_and_few_of_a_tensor_of_values_stay_writes() -> None:
    def many(x: Tensor, places: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter(1, places, 1.0) + x.gather(1, places).sum()

    def few(x: Tensor, places: Tensor) -> Tensor:
        return x.scatter(1, places, 1.0) + x.gather(1, places).sum()

    x = torch.randn(2, 40)
    assert scatters(cleaned(many, x, torch.randint(0, 40, (2, 17)))) == 1
    assert scatters(cleaned(few, x, torch.randint(0, 40, (2, 2)))) == 1


def test_a_place_outside_stays_an_error() -> None:
    """Where nothing else looks at the place, the write does; where a read goes there, that does."""
    outside = ROWS.clone()
    outside[2, 0] = 9

    def unseen(x: Tensor, rows: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter(1, rows, 2.0) * x

    def of_a_larger_one(x: Tensor, rows: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter(1, rows, 2.0) + torch.cat([x, x], 1).gather(1, rows)

    def of_other_rows(x: Tensor, rows: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter(1, rows, 2.0) + x[:1].gather(1, rows[:1])

    for function, left in ((unseen, 1), (of_a_larger_one, 1), (of_other_rows, 1), (to_a_number, 0)):
        module = cleaned(function, X, ROWS)
        assert scatters(module) == left, function.__name__
        with pytest.raises(CodesignError, match=r"outside|reaches"):
            evaluate(module, [X.numpy(), outside.numpy()])


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"ignore_index": 2}, {"reduction": "sum"}],
    ids=lambda o: "".join(o) or "plain",
)
def test_the_gradient_of_cross_entropy_fuses(options: dict[str, Any]) -> None:
    """Of probabilities and chosen classes: what is one at the class and zero elsewhere is never in memory."""
    x, classes = torch.randn(6, 9), torch.tensor([3, 0, 8, 8, 2, 5])

    def gradient(x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.grad_and_value(lambda x: F.cross_entropy(x, classes, **options))(x)

    assert scatters(cleaned(gradient, x, classes)) == 0
    assert launches(check(gradient, x, classes)) <= 2
