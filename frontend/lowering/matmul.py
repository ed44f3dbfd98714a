"""Matrix products: sums of products over one dim, kept in float32 (f64 for f64, i64 for integers)."""

from __future__ import annotations

from codesign.frontend.lowering.builder import Builder, read
from codesign.frontend.lowering.chosen import product_of_chosen
from codesign.frontend.lowering.promotion import accumulator, opmath, product_sums
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import DType
from codesign.ir.scalar import Scalar, apply


def _accumulate(b: Builder, x: Value) -> DType:
    kind = tensor_type(x).dtype
    return product_sums(b.dtype) if b.dtype.is_integer else accumulator(kind)


@lower("aten.mm.default", "aten.mm.dtype")
def mm(b: Builder, x: Value, y: Value, *_: object) -> Value:
    return product_of_matrices(b, x, y)


@lower("aten.bmm.default", "aten.bmm.dtype")
def bmm(b: Builder, x: Value, y: Value, *_: object) -> Value:
    return product_of_matrices(b, x, y)


def product_of_matrices(b: Builder, x: Value, y: Value, dtype: DType | None = None, name: str = "") -> Value:
    """x[..., m, k] times y[..., k, n] over equal leading dims."""
    sums = _accumulate(b, x)
    grouped = product_of_chosen(b, x, y, sums, dtype or b.dtype)
    if grouped is not None:
        return grouped
    rows, columns = tensor_type(x).shape, tensor_type(y).shape
    return b.reduce(
        "sum",
        (*rows[:-1], columns[-1]),
        (rows[-1],),
        lambda i, r: b.products.multiply(read(x, (*i[:-1], r[0])), read(y, (*i[:-2], r[0], i[-1])), sums),
        accumulate=sums,
        dtype=dtype or b.dtype,
        name=name,
    )


def _scaled_sum(b: Builder, bias: Value, product: Value, beta: int | float, alpha: int | float) -> Value:
    """beta * bias + alpha * product; a zero beta drops the bias, NaN or not."""
    compute = opmath(b.dtype) if b.dtype.is_float else b.dtype

    def body(c: Scalar, p: Scalar) -> Scalar:
        scaled = p if alpha == 1 else apply("mul", b.number(alpha, compute), p)
        if beta == 0:
            return scaled
        return apply("add", c if beta == 1 else apply("mul", b.number(beta, compute), c), scaled)

    return b.pointwise(body, bias, product, compute=compute)


def _sums(b: Builder) -> DType:
    """The dtype in which a product waits for its bias: what it was summed in, so that it is rounded once."""
    return opmath(b.dtype) if b.dtype.is_float else b.dtype


@lower("aten.addmm.default", "aten.baddbmm.default")
def addmm(
    b: Builder, bias: Value, x: Value, y: Value, *_: object, beta: int | float = 1, alpha: int | float = 1
) -> Value:
    product = product_of_matrices(b, x, y, dtype=_sums(b), name=f"{b.name}_product")
    return _scaled_sum(b, bias, product, beta, alpha)


@lower("aten.addbmm.default")
def addbmm(b: Builder, bias: Value, x: Value, y: Value, *, beta: int | float = 1, alpha: int | float = 1) -> Value:
    """The products of all matrices of the batch, summed."""
    sums = _accumulate(b, x)
    rows, columns = tensor_type(x).shape, tensor_type(y).shape
    product = b.reduce(
        "sum",
        (rows[1], columns[2]),
        (rows[0], rows[2]),
        lambda i, r: b.products.multiply(read(x, (r[0], i[0], r[1])), read(y, (r[0], r[1], i[1])), sums),
        accumulate=sums,
        dtype=_sums(b),
        name=f"{b.name}_product",
    )
    return _scaled_sum(b, bias, product, beta, alpha)


@lower("aten.mv.default")
def mv(b: Builder, x: Value, y: Value) -> Value:
    return _matrix_vector(b, x, y, b.dtype)


def _matrix_vector(b: Builder, x: Value, y: Value, dtype: DType, name: str = "") -> Value:
    sums, shape = _accumulate(b, x), tensor_type(x).shape
    return b.reduce(
        "sum",
        shape[:1],
        shape[1:],
        lambda i, r: b.products.multiply(read(x, (i[0], r[0])), read(y, r), sums),
        accumulate=sums,
        dtype=dtype,
        name=name,
    )


@lower("aten.addmv.default")
def addmv(b: Builder, bias: Value, x: Value, y: Value, *, beta: int | float = 1, alpha: int | float = 1) -> Value:
    product = _matrix_vector(b, x, y, _sums(b), f"{b.name}_product")
    return _scaled_sum(b, bias, product, beta, alpha)


@lower("aten.dot.default", "aten.vdot.default")
def dot(b: Builder, x: Value, y: Value) -> Value:
    sums = _accumulate(b, x)
    return b.reduce(
        "sum",
        (),
        tensor_type(x).shape,
        lambda i, r: b.products.multiply(read(x, r), read(y, r), sums),
        accumulate=sums,
        dtype=b.dtype,
    )


@lower("aten.linear.default")
def linear(b: Builder, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x[..., k] times weight[n, k] transposed, plus bias[n]."""
    sums, shape = _accumulate(b, x), tensor_type(x).shape
    out = tensor_type(weight).shape[:-1]
    product = b.reduce(
        "sum",
        (*shape[:-1], *out),
        shape[-1:],
        lambda i, r: b.products.multiply(
            read(x, (*i[: len(shape) - 1], r[0])), read(weight, (*i[len(shape) - 1 :], r[0])), sums
        ),
        accumulate=sums,
        dtype=b.dtype if bias is None else _sums(b),
        name="" if bias is None else f"{b.name}_product",
    )
    return product if bias is None else _scaled_sum(b, bias, product, 1, 1)


@lower("aten._trilinear.default")
def trilinear(
    b: Builder,
    x: Value,
    y: Value,
    z: Value,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    sum_dims: list[int],
    unroll_dim: int = 1,
) -> Value:
    """The sum over `sum_dims` of the product of three tensors, each first given dims of size 1 at `expand*`."""
    operands: list[tuple[Value, list[int]]] = [(x, expand1), (y, expand2), (z, expand3)]
    rank = len(tensor_type(x).shape) + len(expand1)
    sizes = []
    for d in range(rank):
        size = None
        for value, expand in operands:
            if d not in expand:
                own = tensor_type(value).shape[d - sum(1 for e in expand if e < d)]
                size = own if size is None or size == 1 else size
        assert size is not None
        sizes.append(size)
    kept = [d for d in range(rank) if d not in sum_dims]
    sums = _accumulate(b, x)

    def body(i: tuple, r: tuple) -> Scalar:  # type: ignore[type-arg]
        position = {d: i[k] for k, d in enumerate(kept)} | {d: r[k] for k, d in enumerate(sum_dims)}
        factors = [read(v, [position[d] for d in range(rank) if d not in e]) for v, e in operands]
        return b.products.multiply(b.products.multiply(factors[0], factors[1], sums), factors[2], sums)

    shape, over = [sizes[d] for d in kept], [sizes[d] for d in sum_dims]
    return b.reduce("sum", shape, over, body, accumulate=sums, dtype=b.dtype)
