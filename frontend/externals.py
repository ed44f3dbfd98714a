"""Operators without a lowering rule: `call` ops in the IR, and torch to run them for the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from codesign.frontend.arrays import from_torch_dtype, to_numpy, to_torch
from codesign.frontend.lowering.builder import Builder
from codesign.ir.core import Module, Value, tensor_type
from codesign.ir.dtypes import DTYPES
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Index
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Call, Compute
from codesign.ir.types import TensorType

if TYPE_CHECKING:
    from torch.fx import Node

_RANDOM_HINT = "random values of torch have no meaning that another machine could repeat"


def call_external(b: Builder, name: str, node: Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A `call` op for an operator without a rule, and a warning that names it with its place.

    The attributes hold the operator's arguments in order, with `%0`, `%1`, ... where the tensors go, and `%0:1,0` where one goes
    transposed. Operators whose results
    can't be described (random numbers, writes into arguments) raise UnsupportedError.
    """
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        raise b.unsupported("this call has no lowering and is not an ATen operator")
    if torch.Tag.nondeterministic_seeded in target.tags:
        raise b.unsupported("it draws random numbers", _RANDOM_HINT)
    if target._schema.is_mutable:
        raise b.unsupported("it writes into its arguments", "capture the model with torch.export")
    inputs: list[Value] = []
    attributes = {f"arg{k}": _encode(b, value, inputs) for k, value in enumerate(args)}
    attributes |= {key: _encode(b, value, inputs) for key, value in kwargs.items()}
    meta = node.meta.get("val")
    many = isinstance(meta, (list, tuple))
    for value in meta if isinstance(meta, (list, tuple)) else (meta,):
        if not isinstance(value, torch.Tensor):
            raise b.unsupported("it has no lowering and gives something that is not a tensor")
    types: list[TensorType] = [kind for kind in b.types if kind is not None]
    names = [b.name] if len(types) == 1 else [f"{b.name}_{k}" for k in range(len(types))]
    op = b.add(Call(name, inputs, types, attributes=attributes, names=names))
    b.warnings.append(f"{b.location}: {name} has no lowering; it stays an external call")
    return list(op.results) if many else op.result


def _encode(b: Builder, value: Any, inputs: list[Value]) -> Any:
    if isinstance(value, Value):
        source, order = _untransposed(value)
        if source not in inputs:
            inputs.append(source)
        return f"%{inputs.index(source)}{':' if order else ''}{','.join(map(str, order))}"
    if isinstance(value, (list, tuple)):
        return tuple(_encode(b, item, inputs) for item in value)
    if isinstance(value, torch.dtype):
        return f"dtype:{from_torch_dtype(value).name}"
    if isinstance(value, torch.device):
        return f"device:{value}"
    if isinstance(value, (torch.layout, torch.memory_format)):
        return f"{value}"
    if isinstance(value, (Index, Scalar)):
        raise b.unsupported("it has no lowering and takes a dynamic size", "fix the dimension")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise b.unsupported(f"it has no lowering and takes {type(value).__name__}")


def _untransposed(value: Value) -> tuple[Value, tuple[int, ...]]:
    """What a tensor transposes, and the order of its dims; a routine takes strides, so that it needs no copy."""
    order: tuple[int, ...] = ()
    while isinstance(value.owner, Compute):
        compute = value.owner
        read, names = compute.body, [dim.name for dim in compute.dims]
        if not isinstance(read, Read) or read.dtype is not compute.dtype or compute.reductions:
            break
        places = [i.variable for i in read.indices]
        if sorted(map(str, places)) != sorted(names) or read.source.shape != tuple(
            compute.dims[names.index(str(name))].extent for name in places
        ):
            break
        step = tuple(places.index(name) for name in names)
        order = tuple(step[dim] for dim in order) if order else step
        value = read.source
    return value, () if order == tuple(range(len(order))) else order


def _decode(value: Any, tensors: Sequence[torch.Tensor]) -> Any:
    if isinstance(value, tuple):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith("%"):
        position, _, order = value[1:].partition(":")
        tensor = tensors[int(position)]
        return tensor.permute([int(dim) for dim in order.split(",")]) if order else tensor
    if value.startswith("dtype:"):
        from codesign.frontend.arrays import to_torch_dtype

        return to_torch_dtype(DTYPES[value.removeprefix("dtype:")])
    if value.startswith("device:"):
        return torch.device("cpu")
    if value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."))
    return value


def _operator(target: str) -> torch._ops.OpOverload:
    """The operator of a name; AttributeError or ValueError for anything else, such as a method of `torch.ops` itself."""
    namespace, packet, overload = target.split(".")
    found = getattr(torch.ops, namespace)
    for part in (packet, overload):
        if not isinstance(found, (torch._ops._OpNamespace, torch._ops.OpOverloadPacket)):
            raise ValueError(target)
        found = getattr(found, part)
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(target)
    return found


def run_with_torch(op: Call, arrays: Sequence[Any]) -> list[Any]:
    """What torch gives for a `call` op on NumPy arrays, as NumPy arrays."""
    try:
        routine = _operator(op.target)
    except (AttributeError, ValueError):
        raise UnsupportedError(f"torch has no operator {op.target}", place=op.location) from None
    tensors = [to_torch(array, tensor_type(value).dtype) for array, value in zip(arrays, op.inputs, strict=True)]
    positional = [k for k in op.attributes if k.startswith("arg") and k[3:].isdigit()]
    args = [_decode(op.attributes[key], tensors) for key in sorted(positional, key=lambda k: int(k[3:]))]
    kwargs = {k: _decode(value, tensors) for k, value in op.attributes.items() if k not in positional}
    with torch.no_grad():
        result = routine(*args, **kwargs)
    results = result if isinstance(result, (list, tuple)) else (result,)
    return [to_numpy(tensor) for tensor in results]


def externals(module: Module) -> dict[str, Callable[[Call, Sequence[Any]], list[Any]]]:
    """What `codesign.ir.interpreter.evaluate` needs to run the external calls of a module."""
    targets = {op.target for f in module.functions.values() for op in f.body.walk() if isinstance(op, Call)}
    return dict.fromkeys(targets, run_with_torch)
