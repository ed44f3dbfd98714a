"""Writes that are combined with what was there, at places read from data: kernels on every machine, with torch's values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from codesign.backend import backend_for
from codesign.costmodel.machine import load_machine
from codesign.frontend import capture
from codesign.frontend.arrays import to_torch
from codesign.ir.core import Module, tensor_type
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Launch, Scatter
from codesign.ir.text import parse, print_module
from codesign.ir.tile import Store
from codesign.passes.planning import Choices, plan_module

PLACES = torch.tensor([[0, 3, 1], [3, 3, 1], [0, 0, 4], [2, 3, 4]])


class Model(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def check(function: Callable[..., Any], *inputs: torch.Tensor, machine: str = "h100_sxm") -> Module:
    """The tiled module, whose kernels (in Triton's interpreter or on the simulated machine) have given torch's results."""
    model = Model(function)
    captured = capture(model, tuple(x.clone() for x in inputs))
    planned = plan_module(captured.module, load_machine(machine), Choices(budget=16))
    assert print_module(parse(print_module(planned.module))) == print_module(planned.module)
    launcher = backend_for(load_machine(machine), planned.module, {}, None).launcher()
    arrays = evaluate(planned.module, captured.flatten_inputs(inputs), launcher=launcher)
    wanted = model(*(x.clone() for x in inputs))
    for value, array, want in zip(
        planned.module.main.results, arrays, wanted if isinstance(wanted, tuple) else [wanted], strict=True
    ):
        got = to_torch(array, tensor_type(value).dtype)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert not any(isinstance(op, Scatter) for op in planned.module.main.body.ops)
    return planned.module


def atomics(module: Module) -> set[str]:
    stores = (op for kernel in module.kernels.values() for op in kernel.body.walk() if isinstance(op, Store))
    return {store.atomic for store in stores if store.atomic}


@pytest.mark.parametrize("machine", ["h100_sxm", "maia100"])
@pytest.mark.parametrize(("how", "atomic"), [("sum", "add"), ("prod", "mul"), ("amax", "max"), ("amin", "min")])
def test_every_combiner_is_a_kernel(how: str, atomic: str, machine: str) -> None:
    x, new = torch.randn(5, 3), torch.randn(4, 3)
    tiled = check(lambda x, i, new: x.scatter_reduce(0, i, new, how), x, PLACES, new, machine=machine)
    assert atomics(tiled) == {atomic}


@pytest.mark.parametrize("how", ["amax", "amin"])
def test_nan_is_the_extreme_wherever_it_comes_from(how: str) -> None:
    nan = torch.tensor(float("nan"))
    x, new = torch.randn(5, 3), torch.randn(4, 3)
    x[4, 2], new[0, 0], new[1, 1] = nan, nan, -nan
    check(lambda x, i, new: x.scatter_reduce(0, i, new, how), x, PLACES, new)


@pytest.mark.parametrize("how", ["prod", "amax", "sum"])
def test_integers_of_32_bits(how: str) -> None:
    x, new = torch.randint(-9, 9, (5, 3), dtype=torch.int32), torch.randint(-9, 9, (4, 3), dtype=torch.int32)
    check(lambda x, i, new: x.scatter_reduce(0, i, new, how), x, PLACES, new)


def test_what_is_added_is_made_by_the_kernel_that_adds_it() -> None:
    """Of a tensor that is wanted as it was there is a copy, before that."""
    x, new = torch.randn(5, 4), torch.randn(12, 4)
    tiled = check(lambda x, i, new: x.index_add(0, i.flatten(), new.sin()), x, PLACES, new)
    assert sum(isinstance(op, Launch) for op in tiled.main.body.ops) == 2


def test_a_sum_that_a_row_reduces_to_is_added_once() -> None:
    """Though more programs than one may hold the row's result."""
    new = torch.randn(12, 40)
    tiled = check(lambda i, x: torch.zeros(5).index_add(0, i.flatten(), x.sum(1)), PLACES, new)
    assert atomics(tiled) == {"add"}


def test_a_single_element_takes_all() -> None:
    everywhere = torch.zeros(30, dtype=torch.int64)
    check(lambda i, x: torch.ones(1).index_add(0, i, x), everywhere, torch.randn(30))


@pytest.mark.parametrize("width", [4, 8])
def test_the_first_columns_of_what_a_kernel_gives_are_added(width: int) -> None:
    """The kernel gives all of them, and only the first go where they are added: also into a tensor that has room for the others."""

    def function(x: torch.Tensor, rows: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made = (a * 2).exp()
        return x.index_put((rows[:, None], torch.arange(4)), made[:, :4], accumulate=True), made

    check(function, torch.randn(5, width), torch.tensor([0, 3, 3, 1]), torch.randn(4, 8))
