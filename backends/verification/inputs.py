"""Inputs that a fused group is checked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import DType
from codesign.ir.index import Datum
from codesign.ir.numerics import round_to
from codesign.ir.scalar import Scalar
from codesign.ir.tensor import Fusion

Array = npt.NDArray[Any]


def random_inputs(
    fusion: Fusion, sizes: Mapping[str, int], rng: np.random.Generator, *, positive: bool = False
) -> list[Array]:
    """Fresh inputs of a group: normal floats, integers that stay inside whatever they index, coin-flip bools."""
    limits = _index_limits(fusion, sizes)
    arrays = []
    for value in fusion.uses():
        kind = tensor_type(value)
        shape = tuple(int(size.evaluate(dict(sizes))) for size in kind.shape)
        arrays.append(random_array(rng, kind.dtype, shape, limits.get(value), positive=positive))
    return arrays


def random_array(
    rng: np.random.Generator, dtype: DType, shape: Sequence[int], limit: int | None = None, *, positive: bool = False
) -> Array:
    """Random values as the IR's interpreter holds the dtype; integers below `limit` (default 8)."""
    if dtype.kind == "bool":
        return rng.random(tuple(shape)) < 0.5
    if not dtype.is_float:
        low = 0 if positive or limit is not None or dtype.kind == "uint" else -8
        return rng.integers(low, limit if limit is not None else 8, tuple(shape)).astype(dtype.numpy)
    values = rng.standard_normal(tuple(shape))
    values = np.abs(values) + 0.1 if positive else values
    return np.asarray(round_to(values.astype(np.float64 if dtype.bits == 64 else np.float32), dtype)).astype(
        dtype.numpy
    )


def _index_limits(fusion: Fusion, sizes: Mapping[str, int]) -> dict[Value, int]:
    """For integer inputs used as indices, the least size of a dim that they index."""
    found: dict[Value, int] = {}

    members = {compute.result: compute for compute in fusion.computes}

    def note(scalar: Scalar, size: int) -> None:
        for read in scalar.reads():
            if read.dtype.is_integer and read.source in members:
                note(members[read.source].body, size)
            elif read.dtype.is_integer:
                found[read.source] = min(found.get(read.source, size), max(size, 1))

    for compute in fusion.computes:
        for read in compute.body.reads():
            for expression, size in zip(read.indices, read.source.shape, strict=True):
                for atom in expression.atoms():
                    if isinstance(atom, Datum):
                        note(atom.scalar, int(size.evaluate(dict(sizes))))
    return found
