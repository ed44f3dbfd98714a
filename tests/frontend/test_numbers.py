"""Arithmetic on the numbers of tensors (`x.item()`, `int(x)`) is what Python does with them, at other numbers than the example's too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from codesign.frontend import capture
from codesign.ir.errors import CodesignError
from tests.frontend.checks import Of, assert_close, run

OF_INTEGERS: dict[str, Callable[[Any], Any]] = {
    "and": lambda k: k & 6,
    "or": lambda k: k | 8,
    "floordiv": lambda k: k // 3,
    "mod": lambda k: k % 3,
    "trunc": lambda k: torch.sym_int(k / 2),  # type: ignore[no-untyped-call]
    "shift": lambda k: (k << 2) + (k >> 1),
    "round to tens": lambda k: round(k, -1),
    "round to thousands": lambda k: round(k, -3) + round(k, 2),
}
OF_FLOATS: dict[str, Callable[[Any], Any]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "round": round,
    "int": int,
    "floordiv": lambda k: k // 0.75,
}


def check_at(function: Callable[..., Any], *numbers: Tensor) -> None:
    """The values of a model of a vector and a number, captured at the first number, at all of them."""
    model, x = Of(function), torch.arange(6.0)
    captured = capture(model, (x, numbers[0]))
    for number in numbers:
        assert_close(run(captured, (x, number)), model(x, number), rtol=0, atol=0)


@pytest.mark.parametrize("name", OF_INTEGERS)
def test_of_an_integer(name: str) -> None:
    function = OF_INTEGERS[name]
    check_at(lambda x, n: x * function(n.item()), *map(torch.tensor, (5, -7, 0, 1000003, 15, -25, -1500, 2500, 1499)))


@pytest.mark.parametrize("name", OF_FLOATS)
def test_of_a_float(name: str) -> None:
    """Half-way numbers go to the even one; below zero, `floor` and `trunc` differ."""
    function = OF_FLOATS[name]
    check_at(lambda x, n: x * function(n.item()), *map(torch.tensor, (2.5, 3.5, -2.5, -0.25, 7.0)))


def test_truth_values() -> None:
    check_at(lambda x, n: x * ((n > 3).item() & (n < 9).item()), *map(torch.tensor, (5, 3, 11)))


def test_integers_stay_integers() -> None:
    """Of numbers that no float has."""
    check_at(
        lambda x, n: torch.full((2,), n.item() // 3 + (n.item() & 1)), torch.tensor(2**62 + 1), torch.tensor(-(2**61))
    )


def _integers(x: Tensor, n: Tensor) -> Tensor:
    def inner() -> int:
        return int(n)

    result: Tensor = (lambda k: x * int(k))(n) + inner()
    return result


def _floats(x: Tensor, n: Tensor) -> Tensor:
    def inner() -> float:
        return float(n)

    result: Tensor = (lambda k: x * float(k))(n) + inner()
    return result


@pytest.mark.parametrize("function", [_integers, _floats])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32, torch.float16])
def test_python_s_conversions_in_functions_made_in_forward(function: Any, dtype: torch.dtype) -> None:
    """In a lambda, and in a function that closes over the tensor."""
    check_at(function, *(torch.tensor(number).to(dtype) for number in (2.75, 0.0, -3.25)))


HINTS: dict[str, tuple[Callable[[Any], Any], Tensor, str]] = {
    "math": (lambda k: math.exp(k * 0.5), torch.tensor(2), "torch.exp(x) of the tensor for math.exp"),
    "exclusive or": (lambda k: k ^ 3, torch.tensor(5), "torch.bitwise_xor"),
    "not": (lambda k: ~k, torch.tensor(5), "-n - 1"),
    "divmod": (lambda k: divmod(k, 3)[1], torch.tensor(5), "n // d and n % d"),
    "digits": (lambda k: round(k, 1), torch.tensor(1.26), "torch.round(x, decimals=n)"),
}


@pytest.mark.parametrize("name", HINTS)
def test_what_to_write_instead_is_said(name: str) -> None:
    function, number, hint = HINTS[name]
    with pytest.raises(CodesignError) as caught:
        capture(Of(lambda x, n: x * function(n.item())), (torch.arange(6.0), number))
    assert hint in (caught.value.hint or "")
