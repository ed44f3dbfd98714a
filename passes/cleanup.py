"""Dead code and common subexpressions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Function, Module, Op, Value
from codesign.ir.data_sizes import new_sizes
from codesign.ir.scalar import Scalar
from codesign.ir.tensor import Call, Compute, Constant, Random, Scan, Scatter, Sort
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register


@register
@dataclass(frozen=True)
class DeadCode(FunctionPass, Pass):
    """Remove ops whose results nobody uses (ops have no side effects)."""

    name: ClassVar[str] = "dce"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        remove_dead(block)

    def _descend(self, module: Module, function: Function, block: Block, context: Context) -> None:
        remove_dead(block)  # outer first: what only a dead region used dies with it
        for op in block.ops:
            for inner in op.blocks():
                self._descend(module, function, inner, context)


def remove_dead(block: Block) -> None:
    """Drop the ops of one block that contribute nothing to its yields: no value, and no size that data decides."""
    live: set[Value] = set(block.yields)
    sizes = _sizes(block.yields)
    kept: list[Op] = []
    for op in reversed(block.ops):
        makes_size = isinstance(op, Call) and bool(sizes & new_sizes(op))
        if makes_size or any(value in live for value in op.results) or not op.results:
            live.update(op.uses())
            sizes |= _sizes(op.results) | _sizes(value for inner in op.blocks() for value in inner.defined())
            if isinstance(op, Compute):
                sizes |= {name for dim in op.reductions for name in dim.extent.variables()}
            kept.append(op)
    block.ops = kept[::-1]


def _sizes(values: Iterable[Value]) -> set[str]:
    """Size symbols in the types of values."""
    return {name for value in values for size in value.shape for name in size.variables()}


@register
@dataclass(frozen=True)
class CommonSubexpressions(FunctionPass, Pass):
    """Compute equal things once: ops with the same structure over the same operands are merged."""

    name: ClassVar[str] = "cse"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        seen: dict[Hashable, Op] = {}
        same: dict[Value, Value] = {}
        kept: list[Op] = []
        for op in block.ops:
            if same and any(value in same for value in op.uses()):
                op.replace(same)
            key = structural_key(op)
            first = seen.setdefault(key, op) if key is not None else op
            if first is op:
                kept.append(op)
            else:
                same.update(zip(op.results, first.results, strict=True))
        block.ops = kept
        block.yields = tuple(same.get(value, value) for value in block.yields)


def structural_key(op: Op) -> Hashable | None:
    """What makes two ops of a block equal: all but names of dims, and locations. None: never merged."""
    kind = tuple(value.type for value in op.results)
    if isinstance(op, Compute):
        names = {dim.name: f"d{position}" for position, dim in enumerate(op.domain)}
        body = _renamed(op.body, names)
        extents = tuple(dim.extent for dim in op.domain)
        return ("compute", kind, len(op.dims), extents, op.monoid, op.accumulate, body)
    if isinstance(op, Scan):
        names = {dim.name: f"d{position}" for position, dim in enumerate(op.dims)}
        return ("scan", kind, op.monoid, names[op.over], op.accumulate, _renamed(op.body, names))
    if isinstance(op, Scatter):
        names = {dim.name: f"d{position}" for position, dim in enumerate(op.dims)}
        extents = tuple(dim.extent for dim in op.dims)
        target = tuple(i.substitute(names) for i in op.target)
        return ("scatter", kind, op.combine, op.within, op.init, extents, target, _renamed(op.body, names))
    if isinstance(op, Constant):
        return ("constant", kind, op.constant)
    if isinstance(op, Sort):
        return ("sort", kind, op.source, op.dim, op.descending, op.keep)
    if isinstance(op, Call):
        return ("call", kind, op.target, op.inputs, tuple(op.attributes.items()))
    if isinstance(op, Random):
        return ("random", kind, op.distribution, op.key, op.seed, op.offset)
    return None


def _renamed(body: Scalar, names: dict[str, str]) -> Scalar:
    return body if all(old == new for old, new in names.items()) else body.substitute(dict(names))
