"""Running reductions, sorting and what is found by sorting."""

from __future__ import annotations

from typing import Any, Literal

from codesign.frontend.lowering.builder import Builder, literal, read
from codesign.frontend.lowering.elementwise import converted
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of, wrap
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import I64, DType
from codesign.ir.index import IndexLike, index
from codesign.ir.scalar import cast
from codesign.ir.tensor import Dim, Scan, Sort

ScanMonoid = Literal["sum", "prod", "max", "min", "argmax", "argmin", "logsumexp"]


def scan(b: Builder, x: Value, dim: int, monoid: ScanMonoid, dtype: DType, accumulate: DType, name: str = "") -> Value:
    """The inclusive running reduction of x along a dim."""
    shape = shape_of(x)
    dims = tuple(Dim(f"i{k}", size) for k, size in enumerate(shape))
    body = cast(read(x, [index(d.name) for d in dims]), accumulate)
    op = Scan(dims, body, monoid=monoid, over=f"i{dim}", dtype=dtype, accumulate=accumulate, name=name or b.name)
    return b.add(op).result


def running_sum(b: Builder, x: Value, name: str) -> Value:
    """The running sum of a vector of integers."""
    return scan(b, x, 0, "sum", I64, I64, name)


@lower("aten.cumsum.default", "aten.cumprod.default", "aten.logcumsumexp.default")
def cumulative(b: Builder, x: Value, dim: int, *, dtype: Any = None) -> Value:
    rank = len(shape_of(x))
    source = converted(b, x, b.dtype) if dtype is not None else x
    if rank == 0:
        return converted(b, source, b.dtype)
    monoid: ScanMonoid = (
        "sum" if b.target.startswith("aten.cumsum") else "prod" if "cumprod" in b.target else "logsumexp"
    )
    return scan(b, source, wrap(dim, rank), monoid, b.dtype, accumulator(b.dtype))


@lower("aten.cummax.default", "aten.cummin.default")
def cumulative_extreme(b: Builder, x: Value, dim: int) -> tuple[Value, Value]:
    rank, high = len(shape_of(x)), "cummax" in b.target
    if rank == 0:
        return x, b.compute((), lambda i: literal(0, I64), name=f"{b.name}_1")
    kind, dim = tensor_type(x).dtype, wrap(dim, rank)
    values = scan(b, x, dim, "max" if high else "min", kind, kind)
    return values, scan(b, x, dim, "argmax" if high else "argmin", I64, kind, f"{b.name}_1")


def sorted_along(
    b: Builder, x: Value, dim: int, descending: bool, keep: IndexLike | None, name: str = ""
) -> tuple[Value, Value]:
    """Values and positions along a dim in stable order, the first `keep` of them."""
    limit = None if keep is None else index(keep)
    label = name or b.name
    op = b.add(Sort(x, dim, descending=descending, keep=limit, names=(label, f"{label}_positions")))
    return op.results[0], op.results[1]


@lower("aten.sort.default")
def sort(b: Builder, x: Value, dim: int = -1, descending: bool = False) -> tuple[Value, Value]:
    rank = len(shape_of(x))
    if rank == 0:
        return x, b.compute((), lambda i: literal(0, I64), name=f"{b.name}_positions")
    return sorted_along(b, x, wrap(dim, rank), descending, None)


@lower("aten.sort.stable")
def sort_stable(
    b: Builder, x: Value, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Value, Value]:
    return sort(b, x, dim, descending)


@lower("aten.argsort.default")
def argsort(b: Builder, x: Value, dim: int = -1, descending: bool = False) -> Value:
    return sort(b, x, dim, descending)[1]


@lower("aten.topk.default")
def topk(
    b: Builder, x: Value, k: IndexLike, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Value, Value]:
    rank = len(shape_of(x))
    if rank == 0:
        return x, b.compute((), lambda i: literal(0, I64), name=f"{b.name}_positions")
    return sorted_along(b, x, wrap(dim, rank), largest, k)


@lower("aten.kthvalue.default")
def kthvalue(b: Builder, x: Value, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """The k-th smallest value along a dim (k counts from 1) and where it is."""
    rank = len(shape_of(x))
    if rank == 0:
        return x, b.compute((), lambda i: literal(0, I64), name=f"{b.name}_positions")
    dim = wrap(dim, rank)
    values, positions = sorted_along(b, x, dim, False, k, f"{b.name}_sorted")

    def pick(source: Value, name: str) -> Value:
        def body(i: Any) -> Any:
            rest = i[dim + 1 :] if keepdim else i[dim:]
            return read(source, (*i[:dim], index(k - 1), *rest))

        return b.compute(b.shape, body, name=name)

    return pick(values, b.name), pick(positions, f"{b.name}_positions")
