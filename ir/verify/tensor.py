"""Rules of the tensor level, one function per op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from codesign.ir import tensor
from codesign.ir.core import Block, Function, Module, Op, Value
from codesign.ir.data_sizes import made_sizes
from codesign.ir.dtypes import BOOL, I64
from codesign.ir.errors import VerificationError
from codesign.ir.index import Bounds, Index, product
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import MONOIDS, Dim
from codesign.ir.types import TensorType
from codesign.ir.verify.expressions import (
    check_dtype,
    check_extents,
    check_index,
    check_inside,
    check_scalar,
    fail,
    points,
    same_types,
)
from codesign.ir.verify.names import check_call
from codesign.ir.writes import COMBINERS, Write


class TensorVerifier:
    """Checks blocks of tensor-level ops; `defined` holds the values in scope."""

    def __init__(self, module: Module, function: Function) -> None:
        self.module = module
        self.symbols = frozenset(module.symbols)
        self.unmade = made_sizes(function)
        self.bounds = module.bounds()

    # -- blocks -------------------------------------------------------------------------------------------------------
    def block(self, block: Block, defined: set[Value], owner: Op | None = None) -> None:
        """The ops in order, each using only what is defined before it."""
        inner = set(defined)
        for value in block.args:
            self._define(value, inner, owner)
        for op in block.ops:
            self.op(op, inner)
        for value in block.yields:
            if value not in inner:
                message = f"%{value.name} is yielded but not defined"
                if owner is not None:
                    fail(owner, message)
                raise VerificationError(message)

    def _define(self, value: Value, defined: set[Value], op: Op | None) -> None:
        message = ""
        if value in defined:
            message = f"%{value.name} is defined twice"
        elif not isinstance(value.type, TensorType):
            message = f"%{value.name} is a {value.type}; the tensor level has tensors only"
        else:
            unknown = sorted({n for size in value.type.shape for n in size.variables()} - self.symbols)
            early = sorted(n for size in value.type.shape for n in size.variables() if n in self.unmade)
            if early:
                message = f"%{value.name}: {value.type} has the size {early[0]!r} before the call that makes it"
            if unknown:
                message = f"%{value.name}: {value.type} has the size {unknown[0]!r}, which is no symbol of the module"
        if message and op is not None:
            fail(op, message)
        if message:
            raise VerificationError(message)
        defined.add(value)

    def op(self, op: Op, defined: set[Value]) -> None:
        """One op; its results are then defined."""
        for value in op.operands():
            if value not in defined:
                fail(op, f"uses %{value.name}, which is not defined before it")
        rule = _RULES.get(type(op))
        if rule is None:
            fail(op, "is not an op of the tensor level")
        rule(self, op, defined)
        self.unmade = {name: call for name, call in self.unmade.items() if call is not op}
        for value in op.results:
            self._define(value, defined, op)

    # -- expressions --------------------------------------------------------------------------------------------------
    def domain(self, op: Op, dims: tuple[Dim, ...]) -> Bounds:
        """The dims' names and extents; gives the bounds that hold inside."""
        check_extents(op, ((dim.name, dim.extent) for dim in dims), self.symbols)
        return self.bounds.with_extents({dim.name: dim.extent for dim in dims})

    def scalar(self, op: Op, scalar: Scalar, dims: tuple[Dim, ...]) -> None:
        """A body over the dims."""
        bounds = self.domain(op, dims)
        ranges = points((dim.name, dim.extent) for dim in dims)
        empty = any(dim.extent == 0 for dim in dims)

        def read(node: Read) -> None:
            kind = node.source.type
            if not isinstance(kind, TensorType):
                fail(op, f"reads %{node.source.name}, which is a {kind}")
            if len(node.indices) != len(kind.shape):
                fail(op, f"reads %{node.source.name} of rank {len(kind.shape)} with {len(node.indices)} indices")
            if node.otherwise is None and not empty:
                check_inside(op, f"%{node.source.name}", node.indices, kind.shape, ranges, bounds)

        check_scalar(op, scalar, {*self.symbols, *(dim.name for dim in dims)}, read)


def _compute(v: TensorVerifier, op: tensor.Compute, defined: set[Value]) -> None:
    if op.monoid is None and op.reductions:
        fail(op, "has reduction dims but nothing to reduce with")
    if op.monoid is not None and op.monoid not in MONOIDS:
        fail(op, f"unknown reduction {op.monoid!r}", hint=f"known: {', '.join(MONOIDS)}")
    if op.monoid in ("argmax", "argmin"):
        if len(op.reductions) != 1:
            fail(op, f"{op.monoid} goes over one dim, not {len(op.reductions)}")
        if not op.dtype.is_integer:
            fail(op, f"{op.monoid} gives positions, which {op.dtype} can't hold")
        if op.reductions[0].extent == 0:
            fail(op, f"{op.monoid} over an empty dim")
    v.scalar(op, op.body, op.domain)
    shape = tuple(dim.extent for dim in op.dims)
    if op.result.shape != shape:
        fail(op, f"%{op.result.name} is {op.result.type}, its dims say [{', '.join(map(str, shape))}]")


def _constant(v: TensorVerifier, op: tensor.Constant, defined: set[Value]) -> None:
    data = v.module.constants.get(op.constant)
    shape = getattr(data, "shape", None)
    sizes = op.result.shape
    if shape is not None and all(size.is_constant for size in sizes):
        declared = [size.constant for size in sizes]
        if list(shape) != declared:
            fail(op, f"the data of {op.constant!r} has shape {list(shape)}, its type says {declared}")


def _fusion(v: TensorVerifier, op: tensor.Fusion, defined: set[Value]) -> None:
    inside: dict[Value, tensor.Compute] = {}
    extents: dict[str, Any] = {}
    for inner in op.body.ops:
        if not isinstance(inner, tensor.Compute):
            fail(op, f"holds a {inner.opcode}; only computes are fused")
        for dim in inner.domain:
            if extents.setdefault(dim.name, dim.extent) != dim.extent:
                fail(inner, f"dim {dim.name!r} is {dim.extent} here and {extents[dim.name]} elsewhere in the fusion")
        for read in inner.body.reads():
            made = inside.get(read.source)
            if made is not None and [i.variable for i in read.indices] != [dim.name for dim in made.dims]:
                names = ", ".join(dim.name for dim in made.dims)
                fail(inner, f"reads {read}, a value of the same fusion, elsewhere than at its own [{names}]")
        inside[inner.result] = inner
    if not op.body.yields:
        fail(op, "yields nothing")
    if op.body.args:
        fail(op, "takes arguments; a fusion reads values from outside as they are")
    for value in op.body.yields:
        if value not in inside:
            fail(op, f"yields %{value.name}, which it does not compute")
    v.block(op.body, defined, op)
    for position, write in op.writes.items():
        _write(v, op, write, inside[op.body.yields[position]])
    for position, shape in op.shapes.items():
        _shape(op, position, shape)
    for value, kind in zip(op.results, op.result_types(), strict=True):
        if value.type != kind:
            fail(op, f"results: %{value.name} is {value.type}, must be {kind}")


def _shape(op: tensor.Fusion, position: int, shape: tuple[Index, ...]) -> None:
    if position in op.writes:
        fail(op, f"result {position} is written into a tensor, whose shape it has")
    made = product(op.body.yields[position].shape)
    if product(shape) != made:
        fail(op, f"result {position} has {product(shape)} elements, of which {made} are computed")


def _write(v: TensorVerifier, op: tensor.Fusion, write: Write, made: tensor.Compute) -> None:
    if write.combine not in COMBINERS:
        fail(op, f"unknown combiner {write.combine!r}", hint=f"known: {', '.join(COMBINERS)}")
    if len(write.at) != len(write.base.shape):
        fail(op, f"writes %{write.base.name} of rank {len(write.base.shape)} at {len(write.at)} indices")
    names = v.symbols | {dim.name for dim in made.dims}
    for expression in write.at:
        check_index(op, expression, names)
        for scalar in expression.data():
            v.scalar(op, scalar, made.dims)
    check_dtype(op, "what is written", made.dtype, write.base.type.dtype)


def _scatter(v: TensorVerifier, op: tensor.Scatter, defined: set[Value]) -> None:
    if op.combine not in COMBINERS:
        fail(op, f"unknown combiner {op.combine!r}", hint=f"known: {', '.join(COMBINERS)}")
    if len(op.target) != len(op.init.shape):
        fail(op, f"writes %{op.init.name} of rank {len(op.init.shape)} at {len(op.target)} indices")
    v.scalar(op, op.body, op.dims)
    names = v.symbols | {dim.name for dim in op.dims}
    for expression in op.target:
        check_index(op, expression, names)
        for scalar in expression.data():
            v.scalar(op, scalar, op.dims)
    check_dtype(op, "the body", op.body.dtype, op.init.type.dtype)


def _scan(v: TensorVerifier, op: tensor.Scan, defined: set[Value]) -> None:
    if op.monoid not in ("sum", "prod", "max", "min", "argmax", "argmin", "logsumexp"):
        fail(op, f"unknown scan {op.monoid!r}")
    if op.over not in {dim.name for dim in op.dims}:
        fail(op, f"runs over {op.over!r}, which is none of its dims")
    v.scalar(op, op.body, op.dims)


def _sort(v: TensorVerifier, op: tensor.Sort, defined: set[Value]) -> None:
    rank = len(op.source.shape)
    if not 0 <= op.dim < max(rank, 1):
        fail(op, f"sorts dim {op.dim} of %{op.source.name}, whose rank is {rank}")
    if op.keep is not None:
        size = op.source.shape[op.dim]
        if op.keep.is_constant and size.is_constant and not 0 <= op.keep.constant <= size.constant:
            fail(op, f"keeps {op.keep} of {size} entries")


def _nothing(v: TensorVerifier, op: Op, defined: set[Value]) -> None:
    """An op of which all that could be wrong is checked of every op."""


def _random(v: TensorVerifier, op: tensor.Random, defined: set[Value]) -> None:
    if op.distribution not in ("uniform", "normal", "bits"):
        fail(op, f"unknown distribution {op.distribution!r}")
    if op.distribution != "bits" and not op.result.type.dtype.is_float:
        fail(op, f"draws {op.distribution} numbers as {op.result.type.dtype}; needs a float dtype")
    if op.key is not None and op.key.type != TensorType(I64, ()):
        fail(op, f"the seed %{op.key.name} is {op.key.type}, must be i64[]")


def _call(v: TensorVerifier, op: tensor.Call, defined: set[Value]) -> None:
    check_call(op)


def _collective(v: TensorVerifier, op: tensor.Collective, defined: set[Value]) -> None:
    if op.devices < 1:
        fail(op, f"goes over {op.devices} devices")
    check_dtype(op, f"%{op.result.name}", op.result.type.dtype, op.inputs[0].type.dtype)


def _launch(v: TensorVerifier, op: tensor.Launch, defined: set[Value]) -> None:
    kernel = v.module.kernels.get(op.kernel)
    if kernel is None:
        fail(op, f"no kernel @{op.kernel} in the module")
    given = [*op.inputs, *op.results]
    if len(op.inputs) != len(kernel.inputs) or len(op.results) != kernel.outputs:
        wanted = f"{len(kernel.inputs)} inputs and {kernel.outputs} outputs"
        fail(op, f"@{op.kernel} takes {wanted}, given {len(op.inputs)} and {len(op.results)}")
    for value, parameter in zip(given, kernel.params, strict=True):
        check_dtype(op, f"%{value.name} for %{parameter.name} of @{op.kernel}", value.type.dtype, parameter.type.dtype)
        if product(value.shape) != product(parameter.shape):
            fail(op, f"%{value.name} is {value.type}, @{op.kernel} wants {parameter.type} for %{parameter.name}")


def _truth(op: Op, value: Value, what: str) -> None:
    if value.type != TensorType(BOOL, ()):
        fail(op, f"{what} %{value.name} is {value.type}, must be bool[]")


def _if(v: TensorVerifier, op: tensor.If, defined: set[Value]) -> None:
    _truth(op, op.inputs[0], "the condition")
    for block in op.blocks():
        v.block(block, defined, op)
        same_types(op, "a branch yields", block.yields, op.results)


def _while(v: TensorVerifier, op: tensor.While, defined: set[Value]) -> None:
    for block in op.blocks():
        same_types(op, "a region takes", block.args, op.inputs)
        v.block(block, defined, op)
    if len(op.condition.yields) != 1:
        fail(op, f"the condition yields {len(op.condition.yields)} values, must be one bool[]")
    _truth(op, op.condition.yields[0], "the condition")
    same_types(op, "the body yields", op.body.yields, op.inputs)


_RULES: Mapping[type[Op], Callable[[TensorVerifier, Any, set[Value]], None]] = {
    tensor.Compute: _compute,
    tensor.Constant: _constant,
    tensor.Empty: _nothing,
    tensor.Fusion: _fusion,
    tensor.Scatter: _scatter,
    tensor.Scan: _scan,
    tensor.Sort: _sort,
    tensor.Random: _random,
    tensor.Call: _call,
    tensor.Collective: _collective,
    tensor.Launch: _launch,
    tensor.If: _if,
    tensor.While: _while,
}
