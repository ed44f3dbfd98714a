"""The product of two factors of a sum, at the precision that torch allows for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from codesign.ir.dtypes import F32, DType
from codesign.ir.precision import ARITHMETIC, PRECISIONS, Precision
from codesign.ir.scalar import Scalar, apply, cast

EXACT = "codesign_exact"
"""In the meta of a graph's node: its product is part of our own form of an operator that torch does not round so."""

Kind = Literal["matmul", "convolution"]
KINDS: tuple[Kind, ...] = ("matmul", "convolution")


@dataclass
class Allowed:
    """What may be rounded of products of float32, by kind of operator; nothing where `exact`, for products of our own making."""

    kinds: Mapping[Kind, Precision] = field(default_factory=dict)
    exact: bool = False

    def multiply(self, x: Scalar, y: Scalar, dtype: DType, kind: Kind = "matmul") -> Scalar:
        """x times y in a dtype."""
        plain = self.exact or not (x.dtype is y.dtype is dtype is F32)
        precision: Precision = "ieee" if plain else self.kinds.get(kind, "ieee")
        return apply(ARITHMETIC[precision].function, cast(x, dtype), cast(y, dtype))


def allowed_by_torch() -> Allowed:
    """What torch is told of CUDA's products: `torch.backends.cuda.matmul` (or `set_float32_matmul_precision`) and `torch.backends.cudnn.conv`.

    `fp32_precision` answers for both of torch's interfaces; `allow_tf32` raises once the newer one was used, and is asked only of a torch
    that has no other."""
    backends: Any = torch.backends
    told: dict[Kind, str]
    try:
        told = {"matmul": backends.cuda.matmul.fp32_precision, "convolution": backends.cudnn.conv.fp32_precision}
    except AttributeError:  # torch before 2.9
        rounds = {"matmul": backends.cuda.matmul.allow_tf32, "convolution": backends.cudnn.allow_tf32}
        told = {kind: "tf32" for kind in KINDS if rounds[kind]}
    return Allowed({kind: found for kind, name in told.items() for found in PRECISIONS if found == name})
