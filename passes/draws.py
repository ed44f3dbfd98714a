"""The passes that make random numbers element-wise work, which fuses like any other, and equal draws equal text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from codesign.ir.core import Block, Module, Op, tensor_type
from codesign.ir.draws import number
from codesign.ir.dtypes import I64
from codesign.ir.index import index
from codesign.ir.scalar import Apply, Literal, Read, Scalar, apply, literal
from codesign.ir.tensor import Compute, Constant, Dim, Random, Scan, Scatter
from codesign.ir.types import TensorType
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


@register
@dataclass(frozen=True)
class Streams(FunctionPass, Pass):
    """Read which stream a draw takes from a constant of one element, so that layers that differ in nothing else are one kernel.

    rewrite:
        philox(%key[] + 3, i, j)  ->  philox(%key[] + %stream[], i, j)     %stream = constant "stream..3": i64[]

    Runs after constants of one element became literals, and before fusion, which leaves them as they are.
    """

    name: ClassVar[str] = "streams"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        made: dict[int, Constant] = {}
        for op in block.ops:
            if isinstance(op, (Compute, Scan, Scatter)):
                op.body = op.body.rewrite(lambda node: _from_data(node, made, module))
        block.ops = [*made.values(), *block.ops]


def _from_data(node: Scalar, made: dict[int, Constant], module: Module) -> Scalar | None:
    """A node that draws, with the literals of its seed read from constants; None for others."""

    def change(part: Scalar) -> Scalar | None:
        if not isinstance(part, Literal) or part.dtype is not I64:
            return None
        number = int(part.value)
        if number not in made:
            made[number] = Constant(_held(number, module.constants), TensorType(I64, ()), name="stream")
        return Read(made[number].result, ())

    if not isinstance(node, Apply) or node.function != "philox":
        return None
    seed, *counter = node.args
    return Apply(node.function, (seed.rewrite(change), *counter), node.dtype)


def _held(number: int, constants: dict[str, Any]) -> str:
    """The name of a constant of the module that holds a number, made where there is none; a part of torch's names is never empty."""
    name = base = f"stream..{number}"
    count = 0
    while name in constants and not _holds(constants[name], number):
        name, count = f"{base}.{count + 1}", count + 1
    constants.setdefault(name, np.asarray(number, dtype=np.int64))
    return name


def _holds(data: Any, number: int) -> bool:
    array = np.asarray(data)
    return array.dtype == np.int64 and array.shape == () and int(array) == number
