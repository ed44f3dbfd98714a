"""Where the results of a group go in memory."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.core import Value, tensor_type
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Index, index
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.types import TensorType


@dataclass(frozen=True)
class OutputMap:
    """Where a result of a group goes in memory: the tensor's type, and per dim of it the index over the result's dims."""

    type: TensorType
    indices: tuple[Index, ...]


def own_shape(value: Value) -> OutputMap:
    """The map of a result that goes to memory as it is."""
    compute = value.owner
    if not isinstance(compute, Compute):
        raise UnsupportedError(f"a fused kernel yields %{value.name}, which it does not compute")
    return OutputMap(tensor_type(value), tuple(index(dim.name) for dim in compute.dims))


def output_maps(fusion: Fusion) -> tuple[OutputMap, ...]:
    """The maps of the results of a group that is not normalised: as they are, or into the tensors that they are written into."""
    return tuple(
        OutputMap(tensor_type(fusion.writes[k].base), fusion.writes[k].at) if k in fusion.writes else own_shape(value)
        for k, value in enumerate(fusion.body.yields)
    )
