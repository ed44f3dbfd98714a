"""The pass that makes random numbers element-wise work, which fuses like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module, Op, tensor_type
from codesign.ir.draws import number
from codesign.ir.dtypes import I64
from codesign.ir.index import index
from codesign.ir.scalar import Read, apply, literal
from codesign.ir.tensor import Compute, Dim, Random
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register, replace_ops


@register
@dataclass(frozen=True)
class Draws(FunctionPass, Pass):
    """Write random numbers as expressions of where an element lies and of the seed."""

    name: ClassVar[str] = "draws"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        if any(isinstance(op, Random) for op in block.ops):
            replace_ops(block, _drawn)


def _drawn(op: Op) -> Sequence[Op]:
    if not isinstance(op, Random):
        return ()
    kind = tensor_type(op.result)
    dims = [Dim(f"d{axis}", size) for axis, size in enumerate(kind.shape)]
    seed = literal(op.seed, I64) if op.key is None else apply("add", Read(op.key, ()), literal(op.seed, I64))
    body = number(op.distribution, kind.dtype, seed, op.offset, [index(dim.name) for dim in dims], kind.shape)
    return (Compute(dims, body, name=op.result.name, location=op.location),)
