"""Values that several readers round to one narrower dtype are made in that dtype: they are kept and read in fewer bytes.

rewrite:
    %c = compute f32[i: N] { cos(%a[i]) };  %p = compute bf16[i: N] { bf16(%c[i]) * %x[i] };  %q = ... { bf16(%c[i]) + %y[i] }
    ->  %c = compute bf16[i: N] { cos(%a[i]) };  %p = compute bf16[i: N] { %c[i] * %x[i] };  %q = ... { %c[i] + %y[i] }

What one reader alone rounds stays: it mostly goes into the reader's kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.core import Block, Module, Value
from codesign.ir.dtypes import DType
from codesign.ir.index import Bounds
from codesign.ir.scalar import Apply, Read, Scalar, cast
from codesign.ir.tensor import Compute
from codesign.passes.algebra import Rewriting, simplify_scalar
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register


@register
@dataclass(frozen=True)
class Narrow(FunctionPass, Pass):
    """Make in a narrower dtype what two or more computes read and all round to it."""

    name: ClassVar[str] = "narrow"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        readers: dict[Value, list[Compute]] = {}
        other = set(block.yields)
        for op in block.ops:
            if isinstance(op, Compute):
                for value in op.operands():
                    readers.setdefault(value, []).append(op)
            else:
                other.update(op.uses())
        for position, op in enumerate(block.ops):
            if isinstance(op, Compute) and op.result not in other:
                block.ops[position] = _narrowed(op, readers.get(op.result, []))


def _narrowed(op: Compute, readers: list[Compute]) -> Compute:
    """The compute in the dtype that all its readers round its result to, and they without the rounding; itself where there is none."""
    if len(readers) < 2 or op.reductions or op.body.dtype is not op.dtype or not op.dtype.is_float:
        return op
    wanted = {dtype for reader in readers for dtype in _read_as(reader.body, op.result)}
    if len(wanted) != 1:
        return op
    (dtype,) = wanted
    if dtype is None or not dtype.is_float or dtype.bits >= op.dtype.bits:
        return op
    new = op.with_domain(op.dims, (), op.body, dtype=dtype)
    for reader in readers:
        reader.body = reader.body.rewrite(lambda node: _unrounded(node, op.result, new.result))
    return new


def _read_as(body: Scalar, value: Value) -> Iterator[DType | None]:
    """The dtypes that reads of a value are cast to; None where one is used as it is."""
    if _reads(body, value):
        yield None
    for node in body.walk():
        for child in node.children():
            if _reads(child, value):
                yield node.dtype if isinstance(node, Apply) and node.function == "cast" else None


def _unrounded(node: Scalar, old: Value, new: Value) -> Scalar | None:
    if isinstance(node, Apply) and node.function == "cast" and _reads(node.args[0], old):
        read = node.args[0]
        assert isinstance(read, Read)
        otherwise = read.otherwise and simplify_scalar(cast(read.otherwise, new.type.dtype), Rewriting(Bounds()))
        return Read(new, read.indices, otherwise)
    return None


def _reads(node: Scalar, value: Value) -> bool:
    return isinstance(node, Read) and node.source is value
