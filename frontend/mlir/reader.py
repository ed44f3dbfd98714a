"""A function of `linalg` on tensors, operation by operation, into the ops of a builder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.frontend.locations import is_internal
from codesign.frontend.lowering.builder import Builder, literal, read
from codesign.frontend.mlir.affine import applied
from codesign.frontend.mlir.scalars import dtype_of, of_index, operation, plain, signless
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import BOOL, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, Index, index
from codesign.ir.location import Location
from codesign.ir.scalar import IndexValue, Literal, Scalar, bitcast, cast
from codesign.ir.tensor import Constant
from codesign.ir.types import TensorType

_FRAME = re.compile(r'"([^"]+)":(\d+):\d+')
DYNAMIC = -(2**63)
"""What MLIR puts in the place of a size that is no number."""


@dataclass(frozen=True)
class Undefined:
    """A tensor whose values nobody may ask for: `tensor.empty`."""

    type: TensorType

    @property
    def shape(self) -> tuple[Index, ...]:
        return self.type.shape


Held = Value | Undefined | Scalar
"""What a value of MLIR is here: a tensor, a tensor without values, or a scalar."""


@dataclass
class Reader:
    """Reads operations into the builder's ops; `env` has what each of MLIR's values is, `constants` gets the data of dense ones."""

    b: Builder
    constants: dict[str, Any]
    env: dict[Any, Held] = field(default_factory=dict)

    # -- functions ----------------------------------------------------------------------------------------------------
    def function(self, function: Any, given: Sequence[Any], types: Sequence[DType]) -> list[Value]:
        """The results, in these types, of a function whose arguments are these tensors and sizes."""
        block = function.regions[0].blocks[0]
        for argument, value in zip(block.arguments, given, strict=True):
            self.env[argument] = of_index(index(value), self.b.bounds) if isinstance(value, (int, Index)) else value
        for op in block.operations:
            if op.operation.name == "func.return":
                results = (self.env[operand] for operand in op.operation.operands)
                return [self._result(held, dtype) for held, dtype in zip(results, types, strict=True)]
            self.operation(op.operation)
        raise UnsupportedError("a function of torch-mlir without a return")

    def _result(self, held: Held, dtype: DType) -> Value:
        """A result in torch's type, which knows of unsigned numbers."""
        if isinstance(held, Value) and tensor_type(held).dtype is dtype:
            return held
        shape = self.shape_of(held)
        return self.b.compute(shape, lambda i: self.stored(self.element(held, i), dtype))

    def operation(self, op: Any) -> None:
        """One operation at the level of tensors; UnsupportedError names it where there is no rule."""
        from codesign.frontend.mlir.rules import RULES

        self.b.location = self._place(op)
        self.b.target, self.b.name = op.name, op.name.rpartition(".")[2]
        rule = RULES.get(op.name)
        if rule is not None:
            results = rule(self, op)
        elif op.name.startswith(("arith.", "math.")) and not _on_tensors(op):
            results = [operation(op, [self.scalar(x) for x in op.operands], self.b.bounds, self.b.warnings)]
        else:
            raise UnsupportedError(
                f"{op.name} of torch-mlir has no form in the tensor IR",
                place=self.b.location,
                hint="leave --frontend torch-mlir out",
            )
        for value, held in zip(op.results, results, strict=True):
            self.env[value] = held

    def _place(self, op: Any) -> Location:
        frames = [(file, int(line)) for file, line in _FRAME.findall(str(op.location))]
        own = [frame for frame in frames if not is_internal(frame[0])]
        file, line = own[-1] if own else ("", 0)
        return Location(file, line, "", op.name)

    # -- values -------------------------------------------------------------------------------------------------------
    def tensor(self, held: Held) -> Value:
        """A tensor with values; zeros for one without."""
        if isinstance(held, Value):
            return held
        if isinstance(held, Undefined):
            return self.b.compute(held.shape, lambda i: literal(0, held.type.dtype))
        raise UnsupportedError("a scalar where a tensor is needed", place=self.b.location)

    def scalar(self, value: Any) -> Scalar:
        """A scalar of the function itself."""
        held = self.env[value]
        if not isinstance(held, Scalar):
            raise UnsupportedError("a tensor where a scalar is needed", place=self.b.location)
        return held

    def size(self, value: Any) -> Index:
        """A scalar as an index expression."""
        return self.scalar(value).as_index().simplify(self.b.bounds)

    def sizes(self, static: Sequence[int], dynamic: Sequence[Any]) -> list[Index]:
        """Sizes that are numbers, or come from values where they are dynamic."""
        rest = iter(dynamic)
        return [self.size(next(rest)) if size == DYNAMIC else index(int(size)) for size in static]

    def shape_of(self, held: Held) -> tuple[Index, ...]:
        if isinstance(held, Scalar):
            return ()
        return held.shape

    def dim(self, held: Held, axis: Scalar, bounds: Bounds) -> Scalar:
        """One size of a tensor."""
        place = plain(axis)
        if place is None or not place.is_constant:
            raise UnsupportedError("a size of a dimension that is chosen at run time", place=self.b.location)
        return of_index(self.shape_of(held)[place.constant], bounds)

    def element(self, held: Held, point: Sequence[Index]) -> Scalar:
        """One element, as MLIR holds it; zero of a tensor without values."""
        if isinstance(held, Scalar):
            return held
        if isinstance(held, Undefined):
            return literal(0, held.type.dtype)
        return signless(read(held, point))

    def stored(self, scalar: Scalar, dtype: DType) -> Scalar:
        """A scalar of MLIR's as an element of one of our dtypes."""
        if dtype.kind == "uint" and scalar.dtype.bits == dtype.bits and scalar.dtype.kind == "int":
            return bitcast(scalar, dtype)
        return cast(scalar, dtype)

    # -- regions ------------------------------------------------------------------------------------------------------
    def body(
        self, block: Any, arguments: Sequence[Scalar], loops: Sequence[Index], extents: Mapping[str, Index]
    ) -> list[Scalar]:
        """What a region of scalars yields at the point whose loop indices are these."""
        bounds = self.b.bounds.with_extents(dict(extents))
        local: dict[Any, Scalar] = dict(zip(block.arguments, arguments, strict=True))

        def held(value: Any) -> Any:
            return local[value] if value in local else self.env[value]

        for wrapped in block.operations:
            op = wrapped.operation
            if op.name in ("linalg.yield", "tensor.yield", "tm_tensor.yield"):
                return [held(value) for value in op.operands]
            if op.name == "cf.assert":
                continue
            local[op.results[0]] = self._in_body(op, held, loops, bounds)
        raise UnsupportedError("a region of torch-mlir that yields nothing", place=self.b.location)

    def _in_body(self, op: Any, held: Callable[[Any], Any], loops: Sequence[Index], bounds: Bounds) -> Scalar:
        if op.name == "linalg.index":
            return IndexValue(loops[int(op.attributes["dim"].value)])
        if op.name == "arith.constant":
            return constant_scalar(op)
        if op.name == "tensor.extract":
            source, *places = (held(value) for value in op.operands)
            return self.element(source, [place.as_index().simplify(bounds) for place in places])
        if op.name == "affine.apply":
            places = [held(value).as_index() for value in op.operands]
            return of_index(applied(op.attributes["map"].value, places), bounds)
        if op.name == "tensor.dim":
            return self.dim(held(op.operands[0]), held(op.operands[1]), bounds)
        return operation(op, [held(value) for value in op.operands], bounds, self.b.warnings)


def _on_tensors(op: Any) -> bool:
    return any("tensor<" in str(value.type) for value in (*op.operands, *op.results))


def constant_scalar(op: Any) -> Scalar:
    """A scalar `arith.constant`."""
    attribute, dtype = op.attributes["value"], dtype_of(op.results[0].type)
    value = attribute.value
    return Literal(bool(value), BOOL) if dtype is BOOL else literal(value, dtype)


def constant_tensor(reader: Reader, op: Any) -> Value:
    """A dense `arith.constant`: one value for all elements, or data of its own."""
    kind = op.results[0].type
    dtype, shape = dtype_of(kind.element_type), tuple(int(size) for size in kind.shape)
    attribute = op.attributes["value"]
    if getattr(attribute, "is_splat", False):
        value = attribute.get_splat_value().value
        return reader.b.compute(shape, lambda i: literal(value, dtype))
    try:
        data = _resource(op, dtype) if str(attribute).startswith(_RESOURCE) else np.array(attribute)
    except (TypeError, ValueError, BufferError) as error:
        raise UnsupportedError(f"a constant of {dtype} in torch-mlir's output", place=reader.b.location) from error
    name = f"dense_{len(reader.b.ops)}"
    made = Constant(name, TensorType(dtype, tuple(index(size) for size in shape)), name=name)
    reader.b.add(made)
    reader.constants[name] = np.asarray(data, dtype=dtype.numpy).reshape(shape)
    return made.result


_RESOURCE = "dense_resource<"
_BLOB = r'\b{}"?: "0x([0-9A-Fa-f]*)"'
_ALIGNMENT_BYTES = 4
"""What the hexadecimal text of a resource begins with."""


def _resource(op: Any, dtype: DType) -> Any:
    """The data of a constant that lies beside the module, which the text alone gives."""
    module = op
    while module.parent is not None:
        module = module.parent.operation
    name = str(op.attributes["value"])[len(_RESOURCE) :].partition(">")[0].strip('"')
    found = re.search(_BLOB.format(re.escape(name)), str(module).partition("{-#")[2])
    if found is None:
        raise ValueError(name)
    return np.frombuffer(bytes.fromhex(found[1])[_ALIGNMENT_BYTES:], dtype.numpy)
