"""Dead code, common subexpressions, and constants computed ahead of time."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from codesign.ir.core import Block, Function, Module, Op, Value, tensor_type
from codesign.ir.index import Index
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute, Constant, Random, Scan, Scatter, Sort
from codesign.passes.algebra import literal_of
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
    """Drop the ops of one block that contribute nothing to its yields."""
    live: set[Value] = set(block.yields)
    kept: list[Op] = []
    for op in reversed(block.ops):
        if any(value in live for value in op.results) or not op.results:
            live.update(op.uses())
            kept.append(op)
    block.ops = kept[::-1]


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
        return ("scatter", kind, op.combine, op.init, extents, target, _renamed(op.body, names))
    if isinstance(op, Constant):
        return ("constant", kind, op.constant)
    if isinstance(op, Sort):
        return ("sort", kind, op.source, op.dim, op.descending, op.keep)
    if isinstance(op, Random):
        return ("random", kind, op.distribution, op.seed, op.offset)
    return None


def _renamed(body: Scalar, names: dict[str, str]) -> Scalar:
    return body if all(old == new for old, new in names.items()) else body.substitute(dict(names))


@register
@dataclass(frozen=True)
class ConstantFold(FunctionPass, Pass):
    """Evaluate computes over small constants whose data is known, and write one-element constants into the bodies.

    `limit`: greatest number of elements of a constant or a result that is folded; parameters beyond it stay by name.
    """

    name: ClassVar[str] = "constant-fold"
    limit: int = 4096

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        known: dict[Value, Constant] = {}
        kept: list[Op] = []
        for op in block.ops:
            if isinstance(op, Constant):
                if op.constant in module.constants and self._small(tensor_type(op.result).shape):
                    known[op.result] = op
            elif isinstance(op, Compute) and any(value in known for value in op.operands()):
                op.body = _with_numbers(op.body, known, module)
                folded = self._fold(op, known, module)
                if folded is not None:
                    known[folded.result] = folded
                    block.ops = kept  # only to keep the block valid should replace() walk it
                    self._redirect(op, folded)
                    kept.append(folded)
                    continue
            kept.append(op)
        block.ops = kept

    def _small(self, shape: tuple[Index, ...]) -> bool:
        elements = 1
        for size in shape:
            if not size.is_constant:
                return False
            elements *= size.constant
        return elements <= self.limit

    def _fold(self, op: Compute, known: dict[Value, Constant], module: Module) -> Constant | None:
        reads = op.operands()
        if not reads or not all(value in known for value in reads) or not self._small(op.result.shape):
            return None
        domain = tuple(dim.extent for dim in op.domain)
        if (
            not all(size.is_constant for size in domain)
            or int(np.prod([s.constant for s in domain], dtype=float)) > 1 << 20
        ):
            return None
        from codesign.ir.interpreter import evaluate

        constants = list(dict.fromkeys(known[value] for value in reads))
        body = Block((), [*constants, op], (op.result,))
        part = Module("fold", {}, {"main": Function("main", body)}, constants=module.constants)
        (result,) = evaluate(part, [])
        name = _fresh(f"folded.{op.result.name or 'value'}", module.constants)
        module.constants[name] = np.asarray(result)
        return Constant(name, tensor_type(op.result), name=op.result.name, location=op.location)

    def _redirect(self, op: Compute, folded: Constant) -> None:
        """The constant takes over the compute's value, so that no user needs to change."""
        (value,) = op.results
        value.owner = folded
        folded.results = (value,)


def _with_numbers(body: Scalar, known: dict[Value, Constant], module: Module) -> Scalar:
    def change(node: Scalar) -> Scalar | None:
        if not isinstance(node, Read) or node.source not in known or node.otherwise is not None:
            return None
        if any(size != 1 for size in node.source.shape):
            return None
        data: Any = np.asarray(module.constants[known[node.source].constant])
        return literal_of(data.reshape(()), node.dtype)

    return body.rewrite(change)


def _fresh(base: str, taken: dict[str, Any]) -> str:
    name, count = base, 1
    while name in taken:
        name, count = f"{base}.{count}", count + 1
    return name
