"""What a lowering rule builds with: computes over named dims, reads with broadcasting, numbers of any kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from typing import cast as as_type

from codesign.frontend.lowering.formats import in_dtype
from codesign.frontend.lowering.products import Allowed
from codesign.ir.core import Op, Value, tensor_type
from codesign.ir.dtypes import BOOL, I64, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, Index, IndexLike, index, product
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.numerics import round_to
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim, Monoid, Scatter
from codesign.ir.types import TensorType

Operand = Value | Scalar | Index | bool | int | float
"""What an element-wise argument may be: a tensor, a scalar known at run time, a symbolic size or a number."""

Point = tuple[Index, ...]


class Builder:
    """Collects the ops of one function while its graph is lowered node by node.

    `types`: what torch says the current node gives (the truth for shapes and dtypes). `location`, `name`: of the current node. `key`: an
    i64[] value that random numbers depend on (None: each run draws the same ones). `products`: multiplies what is summed.
    """

    def __init__(self, bounds: Bounds, key: Value | None = None, products: Allowed | None = None) -> None:
        self.bounds = bounds
        self.key = key
        self.products = products or Allowed()
        self.ops: list[Op] = []
        self.types: tuple[TensorType | None, ...] = ()
        self.location: Location = UNKNOWN
        self.name = ""
        self.target = ""
        self.warnings: list[str] = []
        self.draws = 0
        self.layout: tuple[tuple[int, ...], int] | None = None
        """Strides and offset of the node's first argument in its storage, in elements, where they are known integers."""
        self.from_start = False
        """Whether torch knows of the numbers from data among the node's arguments that none is negative."""

    # -- the current node -------------------------------------------------------------------------------------------
    @property
    def out(self) -> TensorType:
        """Type of the node's first tensor result."""
        first = next((t for t in self.types if t is not None), None)
        if first is None:
            raise self.unsupported("it gives no tensor")
        return first

    @property
    def shape(self) -> tuple[Index, ...]:
        return self.out.shape

    @property
    def dtype(self) -> DType:
        return self.out.dtype

    def unsupported(self, why: str, hint: str | None = None) -> UnsupportedError:
        """An error that names the operator and its place."""
        named = self.location.origin == self.target  # the place says it already
        return UnsupportedError(why if named else f"{self.target}: {why}", place=self.location, hint=hint)

    def add(self, op: Op) -> Op:
        op.location = self.location
        self.ops.append(op)
        return op

    # -- computes ---------------------------------------------------------------------------------------------------
    def compute(
        self,
        shape: Sequence[IndexLike],
        body: Callable[[Point], Scalar],
        *,
        dtype: DType | None = None,
        name: str = "",
    ) -> Value:
        """A tensor whose element at point `i` is `body(i)`, converted to the dtype (the body's by default)."""
        dims = _dims("i", shape)
        scalar = body(_point(dims))
        if any(dim.extent == 0 for dim in dims):
            scalar = literal(0, scalar.dtype)  # no point reads anything
        return self.add(Compute(dims, scalar, dtype=dtype, name=name or self.name)).result

    def reduce(
        self,
        monoid: Monoid,
        shape: Sequence[IndexLike],
        over: Sequence[IndexLike],
        body: Callable[[Point, Point], Scalar],
        *,
        accumulate: DType | None = None,
        dtype: DType | None = None,
        name: str = "",
    ) -> Value:
        """A tensor whose element at `i` is `body(i, r)` combined over all `r`; a plain compute when `over` is empty."""
        dims, inner = _dims("i", shape), _dims("r", over)
        scalar = body(_point(dims), _point(inner))
        label = name or self.name
        if any(dim.extent == 0 for dim in (*dims, *inner)):
            scalar = literal(0, scalar.dtype)  # no point reads anything
        if not inner and monoid not in ("argmax", "argmin"):
            if monoid in ("any", "all"):
                scalar = cast(scalar, BOOL)
            elif accumulate is not None:
                scalar = cast(scalar, accumulate)
            return self.add(Compute(dims, scalar, dtype=dtype, name=label)).result
        op = Compute(dims, scalar, reductions=inner, monoid=monoid, accumulate=accumulate, dtype=dtype, name=label)
        return self.add(op).result

    def scatter(
        self,
        combine: str,
        init: Value,
        shape: Sequence[IndexLike],
        body: Callable[[Point], tuple[Sequence[Index], Scalar]],
        *,
        within: bool = True,
        name: str = "",
    ) -> Value:
        """`init` with `value` combined in at `target` for every point; `body(i)` gives (target, value).

        A target outside is an error, or is skipped where `within` is false.
        """
        dims = _dims("i", shape)
        target, scalar = body(_point(dims))
        value = cast(scalar, tensor_type(init).dtype)
        op = Scatter(as_type(Any, combine), init, dims, target, value, within=within, name=name or self.name)
        return self.add(op).result

    # -- reading ----------------------------------------------------------------------------------------------------
    def element(self, operand: Operand, point: Sequence[Index], dtype: DType) -> Scalar:
        """An operand at a point of the output's domain, broadcast from the right, in the given dtype."""
        if isinstance(operand, Value):
            return in_dtype(read(operand, broadcast(tensor_type(operand).shape, point)), dtype)
        return self.number(operand, dtype)

    def number(self, value: Operand, dtype: DType) -> Scalar:
        """A number, symbolic size or run-time scalar in the given dtype (integers wrap as two's complement)."""
        if isinstance(value, Value):
            return cast(read(value, (index(0),) * len(value.shape)), dtype)
        if isinstance(value, Scalar):
            return cast(value, dtype)
        if isinstance(value, Index):
            if value.is_constant:
                return self.number(value.constant, dtype)
            return cast(IndexValue(value), dtype)
        return literal(value, dtype)

    def pointwise(
        self,
        function: Callable[..., Scalar],
        *operands: Operand,
        compute: DType,
        shape: Sequence[IndexLike] | None = None,
        dtype: DType | None = None,
        rounded: int = 0,
        name: str = "",
    ) -> Value:
        """An element-wise tensor: operands broadcast and converted to `compute`, the function, the node's dtype.

        The first `rounded` operands are rounded to the node's dtype before: numbers and 0-dim tensors carry more digits than it has.
        """

        def body(i: Point) -> Scalar:
            read = [self.element(operand, i, self.dtype) for operand in operands[:rounded]]
            read = [cast(a, compute) for a in read] + [self.element(x, i, compute) for x in operands[rounded:]]
            return cast(function(*read), dtype or self.dtype)

        return self.compute(self.shape if shape is None else shape, body, name=name)

    # -- shapes -----------------------------------------------------------------------------------------------------
    def simplify(self, expression: Index, extents: dict[str, Index]) -> Index:
        return expression.simplify(self.bounds.with_extents(extents))

    def reshape_point(self, point: Sequence[Index], shape: Sequence[Index], source: Sequence[Index]) -> Point:
        """The point of a row-major tensor of shape `source` that lies where `point` lies in one of `shape`.

        Dims are matched in groups of equal size, so that only dims that really split or merge are divided.
        """
        if any(size == 0 for size in (*shape, *source)):
            return (index(0),) * len(source)
        extents = {i.variable: n for i, n in zip(point, shape, strict=True) if i.variable}
        result: list[Index] = [index(0)] * len(source)
        for ours, theirs in _groups(tuple(shape), tuple(source)):
            offset = index(0)
            for k in ours:
                offset = offset * shape[k] + point[k]
            for position, k in enumerate(theirs):
                inner = product(source[m] for m in theirs[position + 1 :])
                value = offset // inner
                if position:
                    value = value % source[k]
                result[k] = self.simplify(value, extents)
        return tuple(result)

    def limit(self, value: Index) -> Index:
        """A size expression simplified with what is known of the symbols."""
        return value if value.is_constant else value.simplify(self.bounds)


def read(value: Value, point: Sequence[IndexLike], otherwise: Scalar | None = None) -> Read:
    """One element of a tensor; `otherwise` where the point lies outside."""
    return Read(value, tuple(index(i) for i in point), otherwise)


def literal(value: bool | int | float, dtype: DType) -> Literal:
    """A number in a dtype; integers wrap around to the range of the dtype, narrow floats are rounded to it."""
    if dtype.is_integer:
        bits, whole = dtype.bits, int(value)
        whole &= (1 << bits) - 1
        if dtype.kind == "int" and whole >> (bits - 1):
            whole -= 1 << bits
        return Literal(whole, dtype)
    if dtype is BOOL:
        return Literal(bool(value), BOOL)
    return Literal(float(round_to(value, dtype)) if dtype.bits < 32 else float(value), dtype)


def broadcast(shape: Sequence[Index], point: Sequence[Index]) -> Point:
    """The point of an operand of this shape under broadcasting from the right: dims of size 1 are read at 0."""
    tail = point[len(point) - len(shape) :] if shape else ()
    return tuple(index(0) if size == 1 else i for size, i in zip(shape, tail, strict=True))


def inside(value: Index, low: IndexLike, high: IndexLike) -> Scalar:
    """The condition `low <= value < high` as a bool scalar."""
    above = apply("ge", IndexValue(value), IndexValue(index(low)))
    return apply("and", above, apply("lt", IndexValue(value), IndexValue(index(high))))


def where(condition: Scalar, yes: Scalar, no: Scalar) -> Scalar:
    """A select whose condition may be a known literal."""
    if isinstance(condition, Literal):
        return yes if condition.value else no
    return select(condition, yes, no)


def data_index(value: Scalar, size: Index, *, wrap: bool = True, below: IndexLike = 0) -> Index:
    """An integer read from data as an index into a dim of this size; those `below` a number count from the end when `wrap`."""
    position = cast(value, I64)
    if wrap and value.dtype.kind != "uint":
        limit, end = (
            Literal(each.constant, I64) if each.is_constant else IndexValue(each) for each in (index(below), size)
        )
        position = select(apply("lt", position, limit), apply("add", position, end), position)
    return position.as_index()


def _dims(prefix: str, shape: Sequence[IndexLike]) -> tuple[Dim, ...]:
    return tuple(Dim(f"{prefix}{k}", index(size)) for k, size in enumerate(shape))


def _point(dims: Sequence[Dim]) -> Point:
    return tuple(index(dim.name) for dim in dims)


def _groups(left: tuple[Index, ...], right: tuple[Index, ...]) -> list[tuple[list[int], list[int]]]:
    """Split two shapes of equal element count into the finest runs of dims with equal products."""
    groups: list[tuple[list[int], list[int]]] = []
    a = b = 0
    while a < len(left) or b < len(right):
        ours, theirs = [], []
        x, y = index(1), index(1)
        if a < len(left):
            ours, x, a = [a], left[a], a + 1
        if b < len(right):
            theirs, y, b = [b], right[b], b + 1
        while x != y:
            grow_left = a < len(left) and (b >= len(right) or _smaller(x, y))
            if grow_left:
                ours.append(a)
                x, a = x * left[a], a + 1
            elif b < len(right):
                theirs.append(b)
                y, b = y * right[b], b + 1
            elif a < len(left):
                ours.append(a)
                x, a = x * left[a], a + 1
            else:
                break
        groups.append((ours, theirs))
    return groups


def _smaller(x: Index, y: Index) -> bool:
    if x.is_constant and y.is_constant:
        return x.constant < y.constant
    degree_x = max((len(monomial) for monomial, _ in x.terms), default=0)
    degree_y = max((len(monomial) for monomial, _ in y.terms), default=0)
    if degree_x != degree_y:
        return degree_x < degree_y
    return sum(abs(c) for _, c in x.terms) < sum(abs(c) for _, c in y.terms)
