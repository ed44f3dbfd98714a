"""Inputs that a fused group is checked on: of a domain where its functions are defined, with integers that suit what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from typing import Literal as OneOf

import numpy as np
import numpy.typing as npt

from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import F1E1M0, F4X2, F8E8M0, I64, DType
from codesign.ir.index import Bounds, Datum, Index
from codesign.ir.numerics import round_to
from codesign.ir.scalar import Apply, Literal, Read, Scalar
from codesign.ir.tensor import Fusion

Array = npt.NDArray[Any]

Domain = OneOf["any sign", "positive", "between 0 and 1", "above 1"]
"""Where floats are drawn from: roots and logarithms want the second, inverse sines the third, inverse hyperbolic cosines the last."""

DOMAINS: tuple[Domain, ...] = ("any sign", "positive", "between 0 and 1", "above 1")

DIVISIONS = ("floordiv", "truncdiv", "mod", "fmod")


@dataclass
class Roles:
    """What a group does with its inputs, as far as it limits their values."""

    limits: dict[Value, int] = field(default_factory=dict)
    """The least size of a dim that an input indexes, itself or through casts."""

    divisors: set[Value] = field(default_factory=set)
    """Integers that integers are divided by: not zero, and where they are summed or multiplied before, positive."""


def roles_of(fusion: Fusion, sizes: Mapping[str, int]) -> Roles:
    """The roles of a group's inputs, followed through the values that it computes inside."""
    roles = Roles()
    members = {compute.result: compute.body for compute in fusion.computes}

    def sources(scalar: Scalar) -> list[Read]:
        inner = [read for read in scalar.reads() if read.source in members]
        outer = [read for read in scalar.reads() if read.source not in members]
        return outer + [read for member in inner for read in sources(members[member.source])]

    for compute in fusion.computes:
        for node in compute.body.walk():
            if isinstance(node, Apply) and node.function in DIVISIONS and node.dtype.is_integer:
                roles.divisors |= {read.source for read in sources(node.args[1])}
            if not isinstance(node, Read):
                continue
            for expression, size in zip(node.indices, node.source.shape, strict=True):
                extent = max(int(size.evaluate(dict(sizes))), 1)
                for read in _positions(expression, sources):
                    roles.limits[read.source] = min(roles.limits.get(read.source, extent), extent)
    bounds = Bounds(fusion.dims(), {name: (size, size) for name, size in sizes.items()})
    for write in fusion.writes.values():
        for expression, size in zip(write.at, write.base.shape, strict=True):
            rest = expression.substitute({}, lambda _: Literal(0, I64)) if expression.data() else expression
            room = int(size.evaluate(dict(sizes))) - (rest.limits(bounds)[1] or 0)
            for read in _positions(expression, sources):
                roles.limits[read.source] = min(roles.limits.get(read.source, room), max(room, 1))
    return roles


def _positions(expression: Index, sources: Callable[[Scalar], list[Read]]) -> list[Read]:
    """The reads whose values an index follows."""
    data = (atom for atom in expression.atoms() if isinstance(atom, Datum))
    return [read for datum in data for read in sources(datum.scalar)]


def random_inputs(
    fusion: Fusion, sizes: Mapping[str, int], rng: np.random.Generator, *, domain: Domain = "any sign"
) -> list[Array]:
    """Fresh inputs of a group: floats of a domain, integers and floats that stay inside whatever they index, divisors that are not
    zero, coin-flip bools."""
    roles = roles_of(fusion, sizes)
    arrays = []
    for value in fusion.uses():
        kind = tensor_type(value)
        shape = tuple(int(size.evaluate(dict(sizes))) for size in kind.shape)
        array = random_array(rng, kind.dtype, shape, roles.limits.get(value), domain=domain)
        if value in roles.divisors and kind.dtype.is_integer:
            array = _nonzero(array, domain)
        arrays.append(array)
    return arrays


def _nonzero(array: Array, domain: Domain) -> Array:
    """Integers without zeros; in every domain but the first without negative ones, whose sums could be zero again."""
    positive = array if domain == "any sign" else np.abs(array)
    return np.where(positive == 0, 3, positive).astype(array.dtype)


def random_array(
    rng: np.random.Generator,
    dtype: DType,
    shape: Sequence[int],
    limit: int | None = None,
    *,
    domain: Domain = "any sign",
) -> Array:
    """Random values as the IR's interpreter holds the dtype; what indexes lies in [0, limit), other integers in -8..7 (or 0..7)."""
    size = tuple(shape)
    if dtype is F8E8M0:  # exponents of scales that leave numbers as large as they are, about
        return rng.integers(123, 132, size).astype(np.uint8)
    if dtype is F1E1M0:
        return rng.integers(0, 2, size).astype(np.uint8)
    if dtype is F4X2:
        return rng.integers(0, 256, size).astype(np.uint8)
    if dtype.kind == "bool":
        return rng.random(size) < 0.5
    if not dtype.is_float:
        low = 0 if domain != "any sign" or limit is not None or dtype.kind == "uint" else -8
        return rng.integers(low, limit if limit is not None else 8, size).astype(dtype.numpy)
    if limit is not None and domain == "any sign":
        values = rng.random(size) * (limit - 1)
    elif domain == "between 0 and 1":
        values = 0.02 + 0.96 * rng.random(size)
    else:
        values = rng.standard_normal(size)
        if domain != "any sign":
            values = np.abs(values) + (0.1 if domain == "positive" else 1.1)
    wide = values.astype(np.float64 if dtype.bits == 64 else np.float32)
    return np.asarray(round_to(wide, dtype)).astype(dtype.numpy)
