"""A routine that stays a call takes a transposed operand by its strides: nothing copies it first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from codesign.frontend import capture
from codesign.ir.errors import VerificationError
from codesign.ir.tensor import Call, Compute
from codesign.ir.text import parse, print_module
from codesign.ir.verify import verify
from codesign.passes import optimize
from tests.frontend.checks import Of, check

X, CUBE = torch.randn(5, 7), torch.randn(2, 3, 4)


@pytest.mark.parametrize(
    ("function", "x", "copies"),
    [
        (lambda x: torch.linalg.qr(x.t())[1], X, 0),
        (lambda x: torch.linalg.qr(x.permute(2, 0, 1).transpose(0, 1))[1], CUBE, 0),
        (lambda x: torch.linalg.qr(x.t() * 2)[1], X, 1),
        (lambda x: torch.linalg.qr(x.flip(0))[1], X, 1),
        (lambda x: torch.linalg.qr(x[:1].expand(5, 7))[1], X, 1),
    ],
    ids=["transposed", "permuted twice", "scaled", "flipped", "expanded"],
)
def test_only_what_is_no_permutation_is_made_first(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, copies: int
) -> None:
    captured = check(Of(function), x)
    ops = list(optimize(captured.module, pipeline="canonicalize,fold-views,canonicalize,cse,dce").main.body.walk())
    assert len([op for op in ops if isinstance(op, Call)]) == 1
    assert len([op for op in ops if isinstance(op, Compute)]) == copies


@pytest.mark.parametrize("order", ["0,0", "0", "0,1,2", "1,x", "", "0,1,"])
def test_an_order_that_is_none_is_refused(order: str) -> None:
    text = print_module(capture(Of(lambda x: torch.linalg.qr(x.t())[1]), (X,)).module)
    assert '"%0:1,0"' in text
    with pytest.raises(VerificationError, match="which names nothing"):
        verify(parse(text.replace("%0:1,0", f"%0:{order}")))
