"""Numbers of tensors in brackets: read and written at the places that Python means, and an error outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import _get_current_function_mode_stack

from codesign.frontend import ModelSource, capture
from codesign.frontend.load import FunctionModule
from codesign.ir.errors import CodesignError, EvaluationError, UnsupportedError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Scatter

FORMS: dict[str, Callable[..., Any]] = {
    "read at a number": lambda k, n, pos: k[:, pos] + n[:, 0],
    "read at an item": lambda k, n, pos: k[:, pos.item()] + n[:, 0],
    "a window that ends at a number": lambda k, n, pos: k[:, pos - 2 : pos + 1] * n,
    "a window of more dims": lambda k, n, pos: k[None, ..., pos - 2 : pos + 1].sum(-1),
    "a window that starts at an item": lambda k, n, pos: k[:, pos.item() : pos.item() + 2].sum(-1),
    "narrow": lambda k, n, pos: k.narrow(1, pos.item(), 2) + n,
}
"""Of a cache `k[4, 8]`, an entry `n[4, 1]` and a place."""

WRITES: dict[str, Callable[..., Any]] = {
    "a place": lambda k, n, pos: k.__setitem__((slice(None), pos), n[:, 0]),
    "a place, of more dims": lambda k, n, pos: k.__setitem__((..., pos), n[None, :, 0]),
    "a place, a number": lambda k, n, pos: k.__setitem__((..., pos), 3.0),
    "an item": lambda k, n, pos: k.__setitem__((slice(None), pos.item()), n[:, 0]),
    "a slice of numbers": lambda k, n, pos: k.__setitem__((slice(None), slice(pos, pos + 1)), n),
    "a slice of items": lambda k, n, pos: k.__setitem__((slice(None), slice(pos.item(), pos.item() + 1)), n),
    "a slice that ends there": lambda k, n, pos: k.__setitem__((slice(None), slice(pos - 1, 1 + pos)), n),
    "a part by narrow": lambda k, n, pos: k.narrow(1, pos.item(), 1).copy_(n),
}

PARTS: dict[str, Callable[..., Any]] = {
    "a place of a row": lambda k, n, pos: k.__setitem__((-1, pos), n[0, 0]),
    "a place twice": lambda k, n, pos: k.__setitem__((pos - 2, pos.item()), 3.0),
    "a part of a place": lambda k, n, pos: k[:, pos].__setitem__(slice(1, 3), 3.0),
}
"""Writes into a part of a part: two writes each."""


class Model(torch.nn.Module):
    def __init__(self, *functions: Callable[..., Any]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, k: torch.Tensor, n: torch.Tensor, pos: torch.Tensor) -> list[torch.Tensor]:
        return [function(k, n, pos) for function in self.functions]


def _written(write: Callable[..., Any]) -> Callable[..., Any]:
    def function(k: torch.Tensor, n: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        k = k * 2
        write(k, n, pos)
        return k

    return function


def _inputs(place: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(4, 8), torch.randn(4, 1), torch.tensor(place)


def test_values_at_other_places_than_the_example_s() -> None:
    model = Model(*FORMS.values(), *map(_written, [*WRITES.values(), *PARTS.values()]))
    captured = capture(model, _inputs(3))
    assert sum(isinstance(op, Scatter) for op in captured.module.main.body.walk()) == len(WRITES) + 2 * len(PARTS)
    assert captured.module.symbols == {}
    for place in (3, 5):
        inputs = _inputs(place)
        found = evaluate(captured.module, captured.flatten_inputs(inputs))
        for name, got, expected in zip((*FORMS, *WRITES, *PARTS), found, model(*inputs), strict=True):
            torch.testing.assert_close(torch.from_numpy(got), expected, msg=name)


def test_places_count_from_the_end_and_an_outside_is_an_error() -> None:
    captured = capture(Model(FORMS["read at a number"], WRITES["a slice of numbers"]), _inputs(3))
    assert any("taken to lie inside" in warning for warning in captured.warnings)
    k, n, _ = _inputs(0)
    before = k.clone()
    found, _ = evaluate(captured.module, captured.flatten_inputs((k, n, torch.tensor(-2))))
    torch.testing.assert_close(torch.from_numpy(found), before[:, 6] + n[:, 0])
    with pytest.raises(EvaluationError, match="reaches 8"):
        evaluate(captured.module, captured.flatten_inputs((k, n, torch.tensor(8))))
    with pytest.raises(EvaluationError, match="reaches -1"):
        evaluate(captured.module, captured.flatten_inputs((k, n, torch.tensor(-9))))
    (written,) = (op for op in captured.module.main.body.ops if isinstance(op, Scatter))
    assert written.within


OUTSIDE: dict[str, tuple[Callable[..., Any], int]] = {
    "before the first": (FORMS["read at a number"], -9),
    "far before the first": (FORMS["read at a number"], -12),
    "far before the first, by narrow": (FORMS["narrow"], -12),
    "before the first, an item": (FORMS["read at an item"], -9),
    "before the first, by narrow": (FORMS["narrow"], -9),
    "before the first, written": (_written(WRITES["an item"]), -9),
    "a window around the end": (FORMS["a window that starts at an item"], -2),
    "a window around the end, written": (_written(WRITES["a slice of numbers"]), -1),
}
"""What Python takes for an index error, or for no element at all."""


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_place_outside_is_not_taken_for_one_inside(name: str) -> None:
    function, place = OUTSIDE[name]
    captured = capture(Model(function), _inputs(3))
    with pytest.raises(EvaluationError, match=r"reaches -\d"):
        evaluate(captured.module, captured.flatten_inputs(_inputs(place)))


def test_windows_count_from_the_end() -> None:
    names = ["narrow", "a window that starts at an item"]
    captured = capture(Model(*(FORMS[name] for name in names)), _inputs(3))
    for place in (-3, -8):
        inputs = _inputs(place)
        for name, found in zip(names, evaluate(captured.module, captured.flatten_inputs(inputs)), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), FORMS[name](*inputs))


def test_a_capture_that_fails_leaves_torch_as_it_was() -> None:
    before = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    with pytest.raises(CodesignError):
        capture(Model(lambda k, n, pos: k.sort(-1, True, True)), _inputs(3))
    assert _get_current_function_mode_stack() == before  # type: ignore[no-untyped-call]


def _later(k: torch.Tensor, n: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
    after = pos + 1
    pos.add_(1)
    return k[:, pos:after]


@pytest.mark.parametrize("function", [lambda k, n, pos: k[:, : pos.item() + 1] * n, _later], ids=["prefix", "moved"])
def test_a_length_that_data_decides_is_refused_with_what_to_do(function: Callable[..., Any]) -> None:
    """Also where the number changed since another was made of it, so that how far they are apart is not known."""
    with pytest.raises(UnsupportedError, match="a size depends on") as caught:
        capture(Model(function), _inputs(3))
    assert "mask" in str(caught.value.hint)


class _Moved(torch.nn.Module):
    """Writes a buffer, moves the place on, and reads what it wrote."""

    cache: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.arange(32.0).view(4, 8))

    def forward(self, n: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        self.cache.masked_fill_(self.cache > 20, 0.0)
        self.cache[:, pos] = n
        pos.add_(1)
        return self.cache[..., pos]


def test_a_buffer_that_was_written_is_read_where_data_says() -> None:
    model, pos = _Moved(), torch.tensor(5)
    before = model.cache.clone()
    captured = capture(model, (torch.ones(4), torch.tensor(2)))
    assert captured.method.startswith("torch.export")
    assert torch.equal(model.cache, before)
    results = evaluate(captured.module, captured.flatten_inputs((torch.ones(4), pos)))
    found = {m.name: torch.from_numpy(results[m.position]) for m in captured.mutations if m.kind == "buffer"}
    expected = model(torch.ones(4), pos)
    torch.testing.assert_close(captured.unflatten_outputs(results), expected)
    torch.testing.assert_close(found["cache"], model.cache)


def test_checks_of_numbers_are_no_arithmetic() -> None:
    """Of both ends of a range at once."""

    def function(k: torch.Tensor, n: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        start: Any = pos.item()
        torch._check((start >= 0) & (start < 7))  # type: ignore[no-untyped-call]
        return k[:, start] + n[:, 0]

    captured = capture(Model(function), _inputs(3))
    k, n, pos = _inputs(5)
    (found,) = evaluate(captured.module, captured.flatten_inputs((k, n, pos)))
    torch.testing.assert_close(torch.from_numpy(found), k[:, 5] + n[:, 0])


def test_arithmetic_without_a_rule_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="only known at run time"):
        capture(FunctionModule(lambda k, n: k * round(float(n), 1)), (torch.randn(4, 8), torch.tensor(3.0)))


def test_python_s_int_and_float_of_a_tensor_are_its_numbers() -> None:
    """Read, written and computed with at other places than the example's; the functions are afterwards what they were."""

    def function(k: torch.Tensor, n: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        k = k * float(pos)
        k[:, int(pos)] = 1
        part = k[:, int(pos) - 2 : int(pos)] + k.narrow(1, int(pos), 2)
        return part * int(n[0, 0])

    code = function.__code__
    captured = capture(Model(function), _inputs(3))
    assert function.__code__ is code
    k, n, pos = _inputs(5)
    n = n * 4
    (found,) = evaluate(captured.module, captured.flatten_inputs((k, n, pos)))
    torch.testing.assert_close(torch.from_numpy(found), function(k, n, pos))


@pytest.mark.parametrize(
    "function", [FORMS["narrow"], lambda k, n, pos: k.narrow(1, int(pos), 2) + n], ids=["item", "int"]
)
def test_a_part_of_a_program_that_was_exported_by_its_owner(function: Callable[..., Any]) -> None:
    """torch's graph has arithmetic on truth values for where the part ends, and a length with one possible value."""
    exported = torch.export.export(Model(function), _inputs(3), strict=True)
    captured = capture(ModelSource(Model(function), _inputs(3), program=exported))
    for place in (0, 5, 6, -3):
        k, n, pos = _inputs(place)
        (found,) = evaluate(captured.module, captured.flatten_inputs((k, n, pos)))
        torch.testing.assert_close(torch.from_numpy(found), function(k, n, pos))


@pytest.mark.parametrize(
    "function",
    [lambda k, n, pos: k if int(pos) > 1 else n, lambda k, n, pos: k.to(int) if int(pos) > 1 else k],
    ids=["a branch", "also a type"],
)
def test_a_branch_on_a_converted_number_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(CodesignError, match="data-dependent"):
        capture(Model(function), _inputs(3))
