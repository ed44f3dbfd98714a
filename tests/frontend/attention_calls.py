"""Calls of attention in its kinds, for the tests of its lowering with and without dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KINDS = ("none", "causal", "bool", "empty", "float", "shared", "three dims", "scale")


def attention_call(kind: str) -> tuple[list[Tensor], dict[str, Any]]:
    """Query, key, value and mask (where there is one), and options by keyword."""
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8), torch.randn(2, 4, 7, 6)
    options: dict[str, Any] = {}
    extra: list[Tensor] = []
    if kind == "causal":
        options["is_causal"] = True
    elif kind in ("bool", "empty"):
        mask = torch.rand(2, 1, 5, 7) > 0.4
        if kind == "empty":
            mask[0, 0, 2] = False  # torch gives 0 for a row that sees nothing
        extra.append(mask)
    elif kind == "float":
        extra.append(torch.randn(5, 7))
    elif kind == "shared":
        k, v = k[:, :2].contiguous(), v[:, :2].contiguous()
        options["enable_gqa"] = True
    elif kind == "three dims":
        q, k, v = q[0], k[0], v[0]
    elif kind == "scale":
        options["scale"] = 0.3
    return [q, k, v, *extra], options
