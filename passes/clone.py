"""Copies of tensor-level IR. Passes change a module in place, so whoever wants to keep the original copies it first."""

from __future__ import annotations

import copy

from codesign.ir.core import Block, Function, Module, Op, Value
from codesign.ir.tensor import Fusion, If, While


def clone_op(op: Op, mapping: dict[Value, Value]) -> Op:
    """A copy of the op over mapped operands, with fresh results that are entered into the mapping."""
    new = copy.copy(op)
    new.results = tuple(Value(value.type, value.name, new) for value in op.results)
    if isinstance(op, Fusion) and isinstance(new, Fusion):
        new.body = clone_block(op.body, mapping)
    elif isinstance(op, If) and isinstance(new, If):
        new.then = clone_block(op.then, mapping)
        new.otherwise = clone_block(op.otherwise, mapping)
    elif isinstance(op, While) and isinstance(new, While):
        new.condition = clone_block(op.condition, mapping)
        new.body = clone_block(op.body, mapping)
    elif op.blocks():
        raise TypeError(f"clone_op does not know the regions of {op!r}")
    if any(value in mapping for value in new.operands()):
        new.replace(mapping)
    mapping.update(zip(op.results, new.results, strict=True))
    return new


def clone_block(block: Block, mapping: dict[Value, Value]) -> Block:
    """A copy of the block; values from outside are mapped, or kept when the mapping lacks them."""
    args = [Value(value.type, value.name) for value in block.args]
    mapping.update(zip(block.args, args, strict=True))
    ops = [clone_op(op, mapping) for op in block.ops]
    return Block(args, ops, (mapping.get(value, value) for value in block.yields))


def clone_function(function: Function) -> Function:
    """A copy that shares no op or value with the original."""
    return Function(function.name, clone_block(function.body, {}), function.location, dict(function.updates))


def clone_module(module: Module) -> Module:
    """A copy whose functions may be changed freely; kernels, programs and constants' data are shared."""
    return Module(
        module.name,
        dict(module.symbols),
        {name: clone_function(function) for name, function in module.functions.items()},
        dict(module.kernels),
        dict(module.programs),
        dict(module.constants),
    )
