"""Operations of MLIR's `tensor`: views, slices, padding, and single elements."""

from __future__ import annotations

from typing import Any

from codesign.frontend.lowering.builder import Point, literal, read, where
from codesign.frontend.lowering.views import chain
from codesign.frontend.mlir.affine import applied
from codesign.frontend.mlir.reader import DYNAMIC, Held, Reader, Undefined, constant_scalar, constant_tensor
from codesign.frontend.mlir.scalars import dtype_of, of_index
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import I64
from codesign.ir.index import Index, index, product
from codesign.ir.scalar import Scalar, apply
from codesign.ir.types import TensorType


def constant(reader: Reader, op: Any) -> list[Held]:
    return [constant_tensor(reader, op) if "tensor<" in str(op.results[0].type) else constant_scalar(op)]


def empty(reader: Reader, op: Any) -> list[Held]:
    kind = op.results[0].type
    sizes = reader.sizes(_static(kind), list(op.operands))
    return [Undefined(TensorType(dtype_of(kind.element_type), tuple(sizes)))]


def _static(kind: Any) -> list[int]:
    return [DYNAMIC if kind.is_dynamic_dim(k) else int(kind.get_dim_size(k)) for k in range(kind.rank)]


def dim(reader: Reader, op: Any) -> list[Held]:
    return [reader.dim(reader.env[op.operands[0]], reader.scalar(op.operands[1]), reader.b.bounds)]


def apply_map(reader: Reader, op: Any) -> list[Held]:
    """`affine.apply` on sizes."""
    sizes = [reader.size(value) for value in op.operands]
    return [of_index(applied(op.attributes["map"].value, sizes), reader.b.bounds)]


def reshape(reader: Reader, op: Any) -> list[Held]:
    """`tensor.expand_shape` and `tensor.collapse_shape`: the same elements in row-major order."""
    source = reader.env[op.operands[0]]
    kind = op.results[0].type
    if op.name == "tensor.expand_shape":
        shape = reader.sizes([int(n) for n in op.attributes["static_output_shape"]], list(op.operands)[1:])
    else:
        groups = [[int(axis.value) for axis in group] for group in op.attributes["reassociation"]]
        sizes = reader.shape_of(source)
        shape = [product(sizes[axis] for axis in group).simplify(reader.b.bounds) for group in groups]
    if isinstance(source, Undefined):
        return [Undefined(TensorType(dtype_of(kind.element_type), tuple(shape)))]
    value = reader.tensor(source)
    sizes = value.shape
    return [reader.b.compute(shape, lambda i: read(value, reader.b.reshape_point(i, shape, sizes)))]


def cast_shape(reader: Reader, op: Any) -> list[Held]:
    """`tensor.cast`: what is known of the sizes changes, nothing else."""
    return [reader.env[op.operands[0]]]


def extract(reader: Reader, op: Any) -> list[Held]:
    source, *places = op.operands
    return [reader.element(reader.env[source], [reader.size(place) for place in places])]


def from_elements(reader: Reader, op: Any) -> list[Held]:
    kind = op.results[0].type
    parts = [reader.scalar(value) for value in op.operands]
    shape = [int(kind.get_dim_size(k)) for k in range(kind.rank)]

    def body(i: Point) -> Scalar:
        place = index(0)
        for position, size in zip(i, shape, strict=True):
            place = place * size + position
        chosen = parts[-1]
        for k in reversed(range(len(parts) - 1)):
            chosen = where(apply("eq", reader.b.number(place, I64), literal(k, I64)), parts[k], chosen)
        return chosen

    return [reader.b.compute(shape, body, dtype=dtype_of(kind.element_type))]


def splat(reader: Reader, op: Any) -> list[Held]:
    value, kind = reader.scalar(op.operands[0]), op.results[0].type
    shape = reader.sizes(_static(kind), list(op.operands)[1:])
    return [reader.b.compute(shape, lambda i: value)]


class _Box:
    """Offsets, sizes and strides of a slice, and which of its dims the smaller tensor has."""

    def __init__(self, reader: Reader, op: Any, first: int, rank: int) -> None:
        segments = [int(n) for n in op.attributes["operandSegmentSizes"]]
        rest, parts = list(op.operands)[first:], []
        for name, count in zip(("offsets", "sizes", "strides"), segments[-3:], strict=True):
            given, rest = rest[:count], rest[count:]
            parts.append(reader.sizes([int(n) for n in op.attributes[f"static_{name}"]], given))
        self.offsets, self.sizes, self.strides = parts
        self.kept = self._dims_kept(rank)

    def _dims_kept(self, rank: int) -> list[int]:
        """Dims of size 1 are left out, from the front, until the ranks agree."""
        kept = list(range(len(self.sizes)))
        for dim in range(len(self.sizes)):
            if len(kept) > rank and self.sizes[dim] == 1:
                kept.remove(dim)
        return kept

    @property
    def shape(self) -> list[Index]:
        return [self.sizes[dim] for dim in self.kept]

    def place(self, i: Point) -> list[Index]:
        """Where an element of the small tensor lies in the large one."""
        inner = dict(zip(self.kept, i, strict=True))
        return [
            offset + stride * inner.get(dim, index(0))
            for dim, (offset, stride) in enumerate(zip(self.offsets, self.strides, strict=True))
        ]


def extract_slice(reader: Reader, op: Any) -> list[Held]:
    box = _Box(reader, op, 1, int(op.results[0].type.rank))
    source = reader.env[op.operands[0]]
    if isinstance(source, Undefined):
        return [Undefined(TensorType(source.type.dtype, tuple(box.shape)))]
    value = reader.tensor(source)
    return [reader.b.compute(box.shape, lambda i: read(value, box.place(i)))]


def insert_slice(reader: Reader, op: Any) -> list[Held]:
    """A slice written into a tensor; one that covers all of it is the slice."""
    small, large = reader.tensor(reader.env[op.operands[0]]), reader.env[op.operands[1]]
    box = _Box(reader, op, 2, len(small.shape))
    if len(box.kept) == len(box.sizes) and tuple(box.sizes) == tuple(reader.shape_of(large)):
        return [small]
    base = reader.tensor(large)
    return [reader.b.scatter("set", base, box.shape, lambda i: (box.place(i), read(small, i)))]


def pad(reader: Reader, op: Any) -> list[Held]:
    """A border of one value, or of values that follow from the place."""
    segments = [int(n) for n in op.attributes["operandSegmentSizes"]]
    source = reader.tensor(reader.env[op.operands[0]])
    rest = list(op.operands)[1:]
    low = reader.sizes([int(n) for n in op.attributes["static_low"]], rest[: segments[1]])
    high = reader.sizes([int(n) for n in op.attributes["static_high"]], rest[segments[1] :])
    shape = [(a + n + z).simplify(reader.b.bounds) for a, n, z in zip(low, source.shape, high, strict=True)]

    def body(i: Point) -> Scalar:
        extents = {f"i{k}": size for k, size in enumerate(shape)}
        arguments = [reader.b.number(place, I64) for place in i]
        (border,) = reader.body(op.regions[0].blocks[0], arguments, i, extents)
        return read(source, [place - a for place, a in zip(i, low, strict=True)], reader.stored(border, dtype))

    dtype = tensor_type(source).dtype
    return [reader.b.compute(shape, body)]


def concat(reader: Reader, op: Any) -> list[Held]:
    parts: list[Value] = [reader.tensor(reader.env[value]) for value in op.operands]
    dim = int(op.attributes["dim"].value)
    starts, total = [], index(0)
    for part in parts:
        starts.append(total)
        total = total + part.shape[dim]
    shape = [*parts[0].shape[:dim], total.simplify(reader.b.bounds), *parts[0].shape[dim + 1 :]]
    reader.b.types = (TensorType(tensor_type(parts[0]).dtype, tuple(shape)),)
    return [reader.b.compute(shape, lambda i: chain(reader.b, parts, starts, i, dim))]


def generate(reader: Reader, op: Any) -> list[Held]:
    kind = op.results[0].type
    shape = reader.sizes(_static(kind), list(op.operands))

    def body(i: Point) -> Scalar:
        extents = {f"i{k}": size for k, size in enumerate(shape)}
        return reader.body(op.regions[0].blocks[0], [reader.b.number(place, I64) for place in i], i, extents)[0]

    return [reader.b.compute(shape, body)]
