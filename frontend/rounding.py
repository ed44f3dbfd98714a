"""Products of float32 as matrix units make them that round both factors (tf32), where torch lets them: on a CPU torch keeps all bits.

A model that chooses by its values (a mask of what is positive, the place of a maximum, and so most gradients) may choose otherwise at a few
places when its products are rounded, and the values there are far apart; so what the compiled model is compared with can be rounded alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from codesign.frontend.lowering.products import Kind, allowed_by_torch
from codesign.frontend.replacing import Replacing
from codesign.ir.numerics import round_to_tf32

_ATEN = torch.ops.aten
_FACTORS: dict[Any, tuple[Kind, tuple[int, ...]]] = {
    _ATEN.mm.default: ("matmul", (0, 1)),
    _ATEN.bmm.default: ("matmul", (0, 1)),
    _ATEN.addmm.default: ("matmul", (1, 2)),
    _ATEN.baddbmm.default: ("matmul", (1, 2)),
    _ATEN.convolution.default: ("convolution", (0, 1)),
    _ATEN.convolution_backward.default: ("convolution", (0, 1, 2)),
}
"""Which arguments of an operator are factors of its products."""


def products_rounded() -> Replacing | None:
    """Within it torch rounds the factors of the products that it lets be rounded to tf32; None where it lets none."""
    kinds = {kind for kind, precision in allowed_by_torch().kinds.items() if precision == "tf32"}
    made = {func: partial(_of_rounded, func, places) for func, (kind, places) in _FACTORS.items() if kind in kinds}
    return Replacing(made) if made else None


def _of_rounded(func: Any, places: Sequence[int], *args: Any, **kwargs: Any) -> Any:
    given = list(args)
    for place in places:
        given[place] = _rounded(given[place])
    return func(*given, **kwargs)


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype is not torch.float32:
        return tensor
    return torch.from_numpy(round_to_tf32(tensor.detach().cpu().numpy())).to(tensor.device)
