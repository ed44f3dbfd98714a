"""Which function reads which operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from codesign.frontend.mlir import ordering, shaping
from codesign.frontend.mlir.generic import generic
from codesign.frontend.mlir.reader import Held, Reader


def _nothing(reader: Reader, op: Any) -> list[Held]:
    """Checks, which compute nothing."""
    return []


RULES: dict[str, Callable[[Reader, Any], list[Held]]] = {
    "linalg.generic": generic,
    "affine.apply": shaping.apply_map,
    "arith.constant": shaping.constant,
    "tensor.empty": shaping.empty,
    "tensor.dim": shaping.dim,
    "tensor.expand_shape": shaping.reshape,
    "tensor.collapse_shape": shaping.reshape,
    "tensor.cast": shaping.cast_shape,
    "tensor.extract": shaping.extract,
    "tensor.extract_slice": shaping.extract_slice,
    "tensor.insert_slice": shaping.insert_slice,
    "tensor.pad": shaping.pad,
    "tensor.concat": shaping.concat,
    "tensor.from_elements": shaping.from_elements,
    "tensor.splat": shaping.splat,
    "tensor.generate": shaping.generate,
    "tm_tensor.scan": ordering.scan,
    "tm_tensor.sort": ordering.sort,
    "tm_tensor.scatter": ordering.scatter,
    "cf.assert": _nothing,
}
