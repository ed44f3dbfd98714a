"""Where the results of a group go in memory."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, Index, index
from codesign.ir.reshape import reshaped
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.types import TensorType


@dataclass(frozen=True)
class OutputMap:
    """Where a result of a group goes in memory: the tensor's type, and per dim of it the index over the result's dims."""

    type: TensorType
    indices: tuple[Index, ...]


def output_maps(fusion: Fusion) -> tuple[OutputMap, ...]:
    """The maps of the results of a group that is not normalised: as they are, in their order in another shape, or into the tensors that they
    are written into."""
    return tuple(OutputMap(type, _indices(fusion, k)) for k, type in enumerate(fusion.result_types()))


def _indices(fusion: Fusion, position: int) -> tuple[Index, ...]:
    if position in fusion.writes:
        return fusion.writes[position].at
    value = fusion.body.yields[position]
    if not isinstance(value.owner, Compute):
        raise UnsupportedError(f"a fused kernel yields %{value.name}, which it does not compute")
    point = tuple(index(dim.name) for dim in value.owner.dims)
    if position not in fusion.shapes:
        return point
    return reshaped(point, value.shape, fusion.shapes[position], Bounds().with_extents(value.owner.extents()))
