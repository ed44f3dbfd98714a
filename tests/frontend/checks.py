"""Capture a model, run its tensor IR, and compare with eager torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from codesign.frontend import Captured, capture
from codesign.frontend.externals import externals
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.text import parse, print_module
from codesign.ir.verify import verify


class Of(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def run(captured: Captured, inputs: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Any:
    """What the captured model returns for these inputs, by the interpreter."""
    arrays = captured.flatten_inputs(inputs, kwargs)
    return captured.unflatten_outputs(evaluate(captured.module, arrays, externals=externals(captured.module)))


def assert_close(found: Any, expected: Any, rtol: float | None = None, atol: float | None = None) -> None:
    ours, theirs = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    assert len(ours) == len(theirs)
    for a, e in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, e, rtol=rtol, atol=atol, equal_nan=True)


def assert_wellformed(module: Module) -> None:
    """The verifier takes it, and its text parses to the same text."""
    verify(module)
    text = print_module(module)
    assert print_module(parse(text)) == text


def check(
    model: torch.nn.Module, *inputs: Any, rtol: float | None = None, atol: float | None = None, **options: Any
) -> Captured:
    """Capture, verify, run and compare with eager; gives what was captured."""
    captured = capture(model, inputs, **options)
    assert_wellformed(captured.module)
    with torch.no_grad():
        expected = model(*inputs)
    assert_close(run(captured, inputs), expected, rtol, atol)
    return captured
