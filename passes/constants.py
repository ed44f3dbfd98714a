"""What is known before the model runs: small computations over constants with data, and over no data at all."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from codesign.ir.core import Block, Function, Module, Op, Value, tensor_type
from codesign.ir.dtypes import BOOL
from codesign.ir.index import Index, index
from codesign.ir.location import UNKNOWN
from codesign.ir.scalar import IndexValue, Read, Scalar
from codesign.ir.tensor import Compute, Constant, Dim, Scan, Sort
from codesign.passes.algebra import literal_of
from codesign.passes.context import Context
from codesign.passes.manager import FunctionPass, Pass, register
from codesign.passes.triangles import triangle
from codesign.passes.views import is_view

_WORK = 1 << 20
"""Points of an iteration domain that are evaluated at compile time at most."""


@register
@dataclass(frozen=True)
class ConstantFold(FunctionPass, Pass):
    """Evaluate small ops over constants whose data is known, and scans and sorts of what depends on no data.

    Results without elements become empty constants. One-element constants become literals in the bodies that read them. Integer
    data that is the same everywhere, or a linear function of its position, becomes index arithmetic. `limit`: greatest number of
    elements of a constant or a result that is folded; parameters beyond it stay by name, but for masks of triangles.
    """

    name: ClassVar[str] = "constant-fold"
    limit: int = 4096

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        pure: dict[Value, Op] = {}  # values that depend on nothing but small data
        given: set[Value] = set()  # those of them that come from constants
        kept: list[Op] = []
        written = {target for function in module.functions.values() for target in function.updates.values()}
        for op in block.ops:
            if isinstance(op, Constant) and op.constant in written:  # the next run of the model has another value
                pass
            elif isinstance(op, Constant) and op.constant in module.constants and self._small(op.result.shape):
                pure[op.result] = op
                given.add(op.result)
                if not tensor_type(op.result).dtype.is_float:
                    op = _simplest(op.result, np.asarray(module.constants[op.constant]), op)
                    pure[op.result] = op
            elif isinstance(op, Constant) and op.constant in module.constants:
                op = _triangle(op, np.asarray(module.constants[op.constant]))
            elif isinstance(op, (Compute, Scan)) and any(size == 0 for size in op.result.shape):
                op = _empty(op.result, module)
                pure[op.result] = op
            elif isinstance(op, (Compute, Scan, Sort)) and self._evaluable(op, given):
                if isinstance(op, Compute):
                    op.body = _with_numbers(op.body, pure, module)
                operands = op.operands()
                if all(value in pure for value in operands):
                    from_data = any(value in given for value in operands)
                    folded = self._fold(op, pure, module) if _worth_folding(op, from_data) else []
                    if folded:
                        pure.update((one.result, one) for one in folded)
                        given.update(one.result for one in folded)
                        kept.extend(folded)
                        continue
                    pure.update(dict.fromkeys(op.results, op))
                    given.update(op.results if from_data else ())
            kept.append(op)
        block.ops = kept

    def _small(self, shape: Iterable[Index]) -> bool:
        sizes = list(shape)
        return all(size.is_constant for size in sizes) and math.prod(size.constant for size in sizes) <= self.limit

    def _evaluable(self, op: Compute | Scan | Sort, given: set[Value]) -> bool:
        """The work is small, and so are the results, or they are of indices alone: a scan of those is often linear in its position."""
        of_indices = not isinstance(op, Sort) and given.isdisjoint(op.operands())
        if not of_indices and not all(self._small(value.shape) for value in op.results):
            return False
        domain = [dim.extent for dim in op.domain] if isinstance(op, Compute) else list(op.results[0].shape)
        return all(s.is_constant for s in domain) and math.prod(s.constant for s in domain) <= _WORK

    def _fold(self, op: Op, pure: dict[Value, Op], module: Module) -> list[Op]:
        """Ops that hold the op's results as data; they take over its values, so that no user needs to change. None where the data is large and
        not linear in its position.
        """
        from codesign.ir.interpreter import evaluate

        body = Block((), [*_needed(op, pure), op], op.results)
        part = Module("fold", {}, {"main": Function("main", body)}, constants=module.constants)
        folded: list[Op] = []
        for value, data in zip(op.results, evaluate(part, []), strict=True):
            name = _fresh(f"folded.{value.name or 'value'}", module.constants)
            constant = Constant(name, tensor_type(value), location=op.location)
            simplest = constant if tensor_type(value).dtype.is_float else _simplest(value, np.asarray(data), constant)
            if simplest is constant:
                if not self._small(value.shape):
                    return []
                _take_over(constant, value)
                module.constants[name] = np.asarray(data)
            folded.append(simplest)
        return folded


def _worth_folding(op: Op, from_data: bool) -> bool:
    """Arithmetic on indices alone, and views, are better recomputed where they are read."""
    if not isinstance(op, Compute):
        return True
    return from_data and bool(op.operands()) and not is_view(op)


def _needed(op: Op, pure: dict[Value, Op]) -> list[Op]:
    """The ops that the op depends on, in order, each once."""
    found: dict[Op, None] = {}

    def visit(one: Op) -> None:
        for value in one.operands():
            if pure[value] not in found:
                visit(pure[value])
                found[pure[value]] = None

    visit(op)
    return list(found)


def _empty(value: Value, module: Module) -> Op:
    """A constant without elements: there is nothing to compute."""
    type = tensor_type(value)
    name = _fresh(f"empty.{value.name or 'value'}", module.constants)
    if all(size.is_constant for size in type.shape):
        module.constants[name] = np.zeros([size.constant for size in type.shape], type.dtype.numpy)
    constant = Constant(name, type, location=value.owner.location if value.owner else UNKNOWN)
    _take_over(constant, value)
    return constant


def _take_over(op: Op, value: Value) -> None:
    op.results = (value,)
    value.owner = op


def _simplest(value: Value, data: npt.NDArray[Any], constant: Op) -> Op:
    """A compute of the value by index arithmetic when its data is linear in the position, else the constant."""
    dtype = tensor_type(value).dtype
    data = data.reshape([size.constant for size in value.shape])
    if not data.size:
        return constant
    first = data[(0,) * data.ndim]
    dims = [Dim(f"i{axis}", size) for axis, size in enumerate(value.shape)]
    body: Scalar
    if bool(np.all(data == first)):
        body = literal_of(first, dtype)
    elif dtype is BOOL:
        return constant
    else:
        linear, expected = index(int(first)), np.full(data.shape, int(first), dtype=np.int64)
        for axis, size in enumerate(data.shape):
            if size > 1:
                second = tuple(1 if other == axis else 0 for other in range(data.ndim))
                step = int(data[second]) - int(first)
                linear = linear + index(f"i{axis}") * step
                shape = [-1 if other == axis else 1 for other in range(data.ndim)]
                expected = expected + step * np.arange(size, dtype=np.int64).reshape(shape)
        if not bool(np.all(expected == data)):
            return constant
        body = IndexValue(linear, dtype)
    op = Compute(dims, body, dtype=dtype, location=constant.location)
    _take_over(op, value)
    return op


def _triangle(constant: Constant, data: npt.NDArray[Any]) -> Op:
    """A compute in place of a constant that is the mask of a triangle."""
    value = constant.result
    body = triangle(value, data) if all(size.is_constant for size in value.shape) else None
    if body is None:
        return constant
    dims = [Dim(f"i{axis}", size) for axis, size in enumerate(value.shape)]
    op = Compute(dims, body, dtype=tensor_type(value).dtype, location=constant.location)
    _take_over(op, value)
    return op


def _with_numbers(body: Scalar, pure: dict[Value, Op], module: Module) -> Scalar:
    def change(node: Scalar) -> Scalar | None:
        if not isinstance(node, Read) or node.otherwise is not None or any(size != 1 for size in node.source.shape):
            return None
        source = pure.get(node.source)
        if not isinstance(source, Constant):
            return None
        return literal_of(np.asarray(module.constants[source.constant]).reshape(()), node.dtype)

    return body.rewrite(change)


def _fresh(base: str, taken: dict[str, Any]) -> str:
    name, count = base, 1
    while name in taken:
        name, count = f"{base}.{count}", count + 1
    return name
