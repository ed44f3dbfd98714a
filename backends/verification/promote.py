"""A fused group in float64 wherever it says float32: what its float32 evaluation is off by is how ill-conditioned it is."""

from __future__ import annotations

from collections.abc import Mapping

from codesign.ir.core import Block, Op, Value, tensor_type
from codesign.ir.dtypes import F32, F64, DType
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, bitcast, cast
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.types import TensorType


def promoted(fusion: Fusion) -> tuple[Fusion, dict[Value, Value]]:
    """The group with float32 replaced by float64, and its inputs by the original ones. Narrower formats still round, and bits are float32's."""
    mapping: dict[Value, Value] = {}
    for value in fusion.uses():
        kind = tensor_type(value)
        mapping[value] = Value(TensorType(_wide(kind.dtype), kind.shape), value.name)
    inputs = dict(mapping)
    ops: list[Op] = []
    for compute in fusion.computes:
        new = Compute(
            compute.dims,
            _promoted(compute.body, mapping),
            dtype=_wide(compute.dtype),
            reductions=compute.reductions,
            monoid=compute.monoid,
            accumulate=_wide(compute.accumulate),
            name=compute.result.name,
        )
        mapping[compute.result] = new.result
        ops.append(new)
    body = Block([], ops, [mapping[value] for value in fusion.body.yields])
    writes = {position: write.replaced(mapping) for position, write in fusion.writes.items()}
    return Fusion(body, names=[value.name for value in fusion.results], writes=writes), inputs


def _wide(dtype: DType) -> DType:
    return F64 if dtype is F32 else dtype


def _promoted(body: Scalar, mapping: Mapping[Value, Value]) -> Scalar:
    def change(node: Scalar) -> Scalar | None:
        if isinstance(node, Read):
            return Read(mapping.get(node.source, node.source), node.indices, node.otherwise)
        if isinstance(node, Literal):
            return Literal(node.value, _wide(node.dtype))
        if isinstance(node, IndexValue):
            return IndexValue(node.index, _wide(node.dtype))
        if isinstance(node, Apply) and node.function == "bitcast":
            (arg,) = node.args
            bits = bitcast(cast(arg, F32) if arg.dtype is F64 and node.dtype.bits == 32 else arg, node.dtype)
            return cast(bits, _wide(node.dtype))
        if isinstance(node, Apply):
            return Apply(node.function, node.args, _wide(node.dtype))
        return None

    return body.rewrite(change)
