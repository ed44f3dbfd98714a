"""torch-mlir's own operations on tensors: running reductions, sorting, scattered writes."""

from __future__ import annotations

from typing import Any

from codesign.frontend.lowering.builder import Point, data_index, read
from codesign.frontend.lowering.promotion import opmath
from codesign.frontend.mlir.monoids import combined
from codesign.frontend.mlir.reader import Held, Reader
from codesign.frontend.mlir.scalars import dtype_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Index, index
from codesign.ir.scalar import Apply, Read, Scalar, cast
from codesign.ir.tensor import Dim, Scan, Sort
from codesign.ir.tiling.monoids import FUNCTIONS
from codesign.ir.types import TensorType


def _scalars(op: Any) -> list[Read]:
    """Stand-ins for the arguments of an operation's region."""
    block = op.regions[0].blocks[0]
    kinds = [dtype_of(argument.type) for argument in block.arguments]
    return [Read(Value(TensorType(kind, ()), f"argument_{k}"), ()) for k, kind in enumerate(kinds)]


def _refused(reader: Reader, what: str) -> UnsupportedError:
    return UnsupportedError(f"{what} of torch-mlir", place=reader.b.location, hint="leave --frontend torch-mlir out")


def scan(reader: Reader, op: Any) -> list[Held]:
    """A running reduction along a dim; what it starts from must change nothing."""
    arguments = _scalars(op)
    (value,) = reader.body(op.regions[0].blocks[0], list(arguments), (), {})
    found = combined(value, arguments[1])
    over = int(op.attributes["dimension"].value)
    if found is None or found.term != arguments[0] or found.monoid == "any" or found.monoid == "all":
        raise _refused(reader, "this running reduction")
    if "true" not in str(op.attributes["inclusive"]):
        raise _refused(reader, "a running reduction without its own element")
    source = reader.tensor(reader.env[op.operands[0]])
    kind = tensor_type(source).dtype
    sums = opmath(kind) if found.monoid in ("sum", "prod") else kind
    dims = [Dim(f"i{k}", size) for k, size in enumerate(source.shape)]
    points = [index(dim.name) for dim in dims]
    made = Scan(
        dims,
        cast(read(source, points), sums),
        monoid=found.monoid,
        over=f"i{over}",
        dtype=kind,
        accumulate=sums,
        name=reader.b.name,
    )
    result = reader.b.add(made).result
    shape = [size for k, size in enumerate(source.shape) if k != over]
    last = source.shape[over] - 1
    total = reader.b.compute(shape, lambda i: read(result, (*i[:over], last, *i[over:])))
    return [result, total]


def sort(reader: Reader, op: Any) -> list[Held]:
    """A stable sort by the first tensor; the others go along."""
    arguments = _scalars(op)
    (value,) = reader.body(op.regions[0].blocks[0], list(arguments), (), {})
    if not (
        isinstance(value, Apply)
        and value.function in ("ge", "gt", "le", "lt")
        and set(value.args) == set(arguments[:2])
    ):
        raise _refused(reader, "a sort by anything but its first operand")
    falls = (value.function in ("ge", "gt")) == (value.args[0] == arguments[0])
    dim = int(op.attributes["dimension"].value)
    values = [reader.tensor(reader.env[operand]) for operand in op.operands]
    made = Sort(values[0], dim, descending=falls, names=(reader.b.name, f"{reader.b.name}_places"))
    keys, places = reader.b.add(made).results

    def moved(other: Value) -> Value:
        def body(i: Point) -> Scalar:
            at = data_index(read(places, i), other.shape[dim], wrap=False)
            return read(other, (*i[:dim], at, *i[dim + 1 :]))

        return reader.b.compute(other.shape, body)

    return [keys, *(moved(other) for other in values[1:])]


def scatter(reader: Reader, op: Any) -> list[Held]:
    """Updates combined into a tensor at places that a table gives."""
    updates, indices, original = (reader.tensor(reader.env[operand]) for operand in op.operands)
    arguments = _scalars(op)
    (value,) = reader.body(op.regions[0].blocks[0], list(arguments), (), {})
    found = None if value == arguments[0] else combined(value, arguments[1])
    if value != arguments[0] and (found is None or found.term != arguments[0] or found.monoid in ("any", "all")):
        raise _refused(reader, "this combination of scattered values")
    dims = [int(n) for n in op.attributes["dimension_map"]]

    def body(i: Point) -> tuple[list[Index], Scalar]:
        size = len(original.shape)
        inner = list(i[1:])
        place = [index(0)] * size
        windows = [d for d in range(size) if d not in dims]
        sliced = inner[len(inner) - size :] if len(inner) >= size else [index(0)] * (size - len(inner)) + inner
        for d in windows:
            place[d] = sliced[d]
        for k, d in enumerate(dims):
            at = data_index(cast(read(indices, (i[0], index(k))), tensor_type(indices).dtype), original.shape[d])
            place[d] = at + sliced[d] if len(inner) >= size else at
        return place, read(updates, i)

    return [reader.b.scatter(FUNCTIONS[found.monoid] if found else "set", original, updates.shape, body)]
