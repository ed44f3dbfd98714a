"""Which of equal elements torch takes: it does not say, so what the compiled model is compared with takes the first, as the compiled model does.

Scores in 16 bits often are equal; a router that takes another of two equal experts is as right, and everything after it differs.
"""

from __future__ import annotations

from typing import Any

import torch

from codesign.frontend.replacing import Made, Replacing

_ATEN = torch.ops.aten


def first_of_equals() -> Replacing:
    """Within it `topk` and `kthvalue` are made by a stable sort of the row."""
    return Replacing(_RULES)


def _topk(x: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Any, Any]:
    if x.dim() == 0:
        return _ATEN.topk.default(x, k, dim, largest, sorted)  # type: ignore[no-any-return]
    values, places = _ATEN.sort.stable(x, stable=True, dim=dim, descending=largest)
    return values.narrow(dim, 0, k).clone(), places.narrow(dim, 0, k).clone()


def _kthvalue(x: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Any, Any]:
    if x.dim() == 0:
        return _ATEN.kthvalue.default(x, k, dim, keepdim)  # type: ignore[no-any-return]
    values, places = _ATEN.sort.stable(x, stable=True, dim=dim, descending=False)
    found = values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return tuple(each.clone() if keepdim else each.squeeze(dim).clone() for each in found)


_RULES: Made = {_ATEN.topk.default: _topk, _ATEN.kthvalue.default: _kthvalue}
