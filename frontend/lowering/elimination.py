"""Small systems by elimination with row exchanges, unrolled: factors, solutions, inverses and determinants of matrices of up to `LARGEST` rows.

    P A = L U:    of the rows that are left the one with the largest element in column k comes to row k, and is taken off those below it

Each element of a result is one expression of the matrix, as any element-wise work is, so that it fuses with what makes the matrix and what reads
the result: covariances of splats, poses of cameras, Kalman gains. Order of operations and the choice of rows are LAPACK's (getrf, getrs), so that
a zero on the way has the same meaning: its column is left as it is, and `info` is the number of the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from codesign.frontend.lowering.builder import Builder, Point, broadcast, literal, read
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.registry import lower
from codesign.frontend.lowering.views import shape_of
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import I32, DType
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast, select

LARGEST = 4
"""Rows of a matrix whose elimination is one expression: some hundreds of operations, as many again for each row more than that."""

Rows = list[list[Scalar]]


@dataclass(frozen=True)
class Factors:
    """Of one matrix: L below the diagonal (its own is of ones) and U, the row (from 0) that each was exchanged with, and the number of the first
    zero on the diagonal of U, from 1, or 0."""

    rows: Rows
    pivots: list[Scalar]
    info: Scalar

    @property
    def size(self) -> int:
        return len(self.rows)


def factored(rows: Rows, pivot: bool = True) -> Factors:
    """The factors of a matrix by its elements; without exchanges where not `pivot`."""
    size, kind = len(rows), rows[0][0].dtype
    zero, info, pivots = literal(0, kind), literal(0, I32), list[Scalar]()
    a, found = [list(row) for row in rows], list[Scalar]()
    for k in range(size):
        place: Scalar = literal(k, I32)
        if pivot:
            largest = apply("abs", a[k][k])
            for i in range(k + 1, size):
                here = apply("abs", a[i][k])
                better = apply("gt", here, largest)
                largest, place = select(better, here, largest), select(better, literal(i, I32), place)
            a = [
                list(row)
                for row in zip(*(exchanged(list(column), k, place) for column in zip(*a, strict=True)), strict=True)
            ]
        pivots.append(place)
        none = apply("eq", a[k][k], zero)
        found.append(none)
        for i in range(k + 1, size):
            a[i][k] = select(none, a[i][k], apply("div", a[i][k], a[k][k]))
            for j in range(k + 1, size):
                a[i][j] = apply("sub", a[i][j], apply("mul", a[i][k], a[k][j]))
    first: Scalar = info
    for k in reversed(range(size)):
        first = select(found[k], literal(k + 1, I32), first)
    return Factors(a, pivots, first)


def exchanged(column: list[Scalar], k: int, place: Scalar) -> list[Scalar]:
    """A column in which element `k` and that of a later or the same place have changed places."""
    result, here = list(column), column[k]
    for i in range(k + 1, len(column)):
        chosen = apply("eq", place, literal(i, place.dtype))
        result[k] = select(chosen, column[i], result[k])
        result[i] = select(chosen, here, column[i])
    return result


def solved(factors: Factors, right: Sequence[Scalar], transposed: bool = False) -> list[Scalar]:
    """x of A x = b, or of A^T x = b."""
    a, size = factors.rows, factors.size
    x = list(right)
    if transposed:
        for i in range(size):
            for j in range(i):
                x[i] = apply("sub", x[i], apply("mul", a[j][i], x[j]))
            x[i] = apply("div", x[i], a[i][i])
        for i in reversed(range(size)):
            for j in range(i + 1, size):
                x[i] = apply("sub", x[i], apply("mul", a[j][i], x[j]))
        for k in reversed(range(size)):
            x = exchanged(x, k, factors.pivots[k])
        return x
    for k, place in enumerate(factors.pivots):
        x = exchanged(x, k, place)
    for i in range(size):
        for j in range(i):
            x[i] = apply("sub", x[i], apply("mul", a[i][j], x[j]))
    for i in reversed(range(size)):
        for j in range(i + 1, size):
            x[i] = apply("sub", x[i], apply("mul", a[i][j], x[j]))
        x[i] = apply("div", x[i], a[i][i])
    return x


def chosen(values: Sequence[Scalar], place: Index) -> Scalar:
    """The value at a place."""
    result = values[-1]
    for number, value in reversed([*enumerate(values[:-1])]):
        result = select(apply("eq", IndexValue(place), IndexValue(index(number))), value, result)
    return result


@dataclass(frozen=True)
class _Matrices:
    """Square matrices in the last two dims of a value, or those `transposed`, small enough to be unrolled."""

    b: Builder
    value: Value
    transposed: bool = False

    @property
    def batch(self) -> tuple[Index, ...]:
        return shape_of(self.value)[:-2]

    @property
    def size(self) -> int:
        return shape_of(self.value)[-1].constant

    @property
    def dtype(self) -> DType:
        return accumulator(tensor_type(self.value).dtype)

    def rows(self, batch: Sequence[Index]) -> Rows:
        point, places = broadcast(self.batch, batch), range(self.size)
        rows = [[cast(read(self.value, (*point, i, j)), self.dtype) for j in places] for i in places]
        return [list(column) for column in zip(*rows, strict=True)] if self.transposed else rows

    def factors(self, batch: Sequence[Index], pivot: bool = True) -> Factors:
        return factored(self.rows(batch), pivot)

    def packed(self, pivot: bool = True) -> Value:
        """L and U in one matrix."""
        kind = tensor_type(self.value).dtype

        def element(i: Point) -> Scalar:
            rows = self.factors(i[:-2], pivot).rows
            return cast(chosen([chosen(row, i[-1]) for row in rows], i[-2]), kind)

        return self.b.compute(shape_of(self.value), element, name=f"{self.b.name}_factors")

    def pivots(self, pivot: bool = True) -> Value:
        """Rows that were exchanged, from 1."""
        one = literal(1, I32)

        def element(i: Point) -> Scalar:
            return apply("add", chosen(self.factors(i[:-1], pivot).pivots, i[-1]), one)

        return self.b.compute((*self.batch, self.size), element, name=f"{self.b.name}_pivots")

    def info(self, pivot: bool = True) -> Value:
        return self.b.compute(self.batch, lambda i: self.factors(i, pivot).info, name=f"{self.b.name}_info")


def _small(value: Value) -> bool:
    rows, kind = shape_of(value)[-1], tensor_type(value).dtype
    return rows.is_constant and 0 < rows.constant <= LARGEST and kind.is_float and kind.bits >= 32


@lower("aten.linalg_lu_factor_ex.default")
def lu_factor(b: Builder, a: Value, *, pivot: bool = True, check_errors: bool = False) -> tuple[Value, Value, Value]:
    """L and U in one matrix, rows that were exchanged, and the first zero on the diagonal."""
    if not _small(a) or shape_of(a)[-1] != shape_of(a)[-2]:
        result: tuple[Value, Value, Value] = NotImplemented
        return result
    matrices = _Matrices(b, a)
    return matrices.packed(pivot), matrices.pivots(pivot), matrices.info(pivot)


@lower("aten.linalg_inv_ex.default")
def inverse(b: Builder, a: Value, *, check_errors: bool = False) -> tuple[Value, Value]:
    """Solutions for the columns of the identity."""
    if not _small(a):
        result: tuple[Value, Value] = NotImplemented
        return result
    matrices = _Matrices(b, a)
    zero, one = literal(0, matrices.dtype), literal(1, matrices.dtype)

    def element(i: Point) -> Scalar:
        column = [select(apply("eq", IndexValue(i[-1]), IndexValue(index(k))), one, zero) for k in range(matrices.size)]
        return cast(chosen(solved(matrices.factors(i[:-2]), column), i[-2]), tensor_type(a).dtype)

    return b.compute(shape_of(a), element), matrices.info()


@lower("aten._linalg_solve_ex.default")
def solve(
    b: Builder, a: Value, right: Value, *, left: bool = True, check_errors: bool = False
) -> tuple[Value, Value, Value, Value]:
    """X of A X = B, or of X A = B where not `left`; with the factors of A."""
    if not _small(a):
        result: tuple[Value, Value, Value, Value] = NotImplemented
        return result
    matrices = _Matrices(b, a)
    vectors = shape_of(right) == shape_of(a)[:-1] or len(shape_of(right)) == 1
    found = _solutions(b, matrices.size, matrices.factors, right, left, not left, vectors)
    return found, matrices.packed(), matrices.pivots(), matrices.info()


@lower("aten.linalg_lu_solve.default")
def solve_factored(
    b: Builder, factors: Value, pivots: Value, right: Value, *, left: bool = True, adjoint: bool = False
) -> Value:
    """X of A X = B by the factors of A, of X A = B where not `left`, or with A^T for A where `adjoint`."""
    if not _small(factors):
        result: Value = NotImplemented
        return result
    matrices = _Matrices(b, factors)

    def known(batch: Sequence[Index]) -> Factors:
        point = broadcast(shape_of(pivots)[:-1], batch)
        one = literal(1, I32)
        places = [apply("sub", cast(read(pivots, (*point, k)), I32), one) for k in range(matrices.size)]
        return Factors(matrices.rows(batch), places, literal(0, I32))

    return _solutions(b, matrices.size, known, right, left, adjoint is left, False)


def _solutions(
    b: Builder,
    size: int,
    factors: Callable[[Sequence[Index]], Factors],
    right: Value,
    left: bool,
    transposed: bool,
    vectors: bool,
) -> Value:
    """The node's first result: solutions for the columns of `right` (its rows where not `left`, itself where it is of `vectors`), of systems with
    the matrices or those `transposed`."""
    kind = tensor_type(right).dtype

    def element(i: Point) -> Scalar:
        *batch, row, column = (*i, index(0)) if vectors else i
        if not left:
            row, column = column, row
        found = factors(batch)
        at = broadcast(shape_of(right)[: -1 if vectors else -2], batch)
        ends = [(k,) if vectors else (k, column) if left else (column, k) for k in range(size)]
        given = [cast(read(right, (*at, *end)), found.rows[0][0].dtype) for end in ends]
        return cast(chosen(solved(found, given, transposed), row), kind)

    return b.compute(b.shape, element)


@lower("aten._linalg_det.default")
def determinant(b: Builder, a: Value) -> tuple[Value, Value, Value]:
    """The product of the diagonal of U, with a sign for each exchange; and the factors, which are those of the transpose of a matrix whose rows
    are contiguous."""
    matrices = _as_factored(b, a)
    if matrices is None:
        result: tuple[Value, Value, Value] = NotImplemented
        return result

    def element(i: Point) -> Scalar:
        factors = matrices.factors(i)
        found = _sign(factors)
        for k in range(factors.size):
            found = apply("mul", found, factors.rows[k][k])
        return cast(found, tensor_type(a).dtype)

    return b.compute(matrices.batch, element), matrices.packed(), matrices.pivots()


@lower("aten._linalg_slogdet.default")
def log_determinant(b: Builder, a: Value) -> tuple[Value, Value, Value, Value]:
    """The sign of the determinant and the logarithm of its size; and the factors, as of the determinant."""
    matrices = _as_factored(b, a)
    if matrices is None:
        result: tuple[Value, Value, Value, Value] = NotImplemented
        return result
    kind = tensor_type(a).dtype

    def sign(i: Point) -> Scalar:
        factors = matrices.factors(i)
        found = _sign(factors)
        for k in range(factors.size):
            found = apply("mul", found, apply("sign", factors.rows[k][k]))
        return cast(found, kind)

    def size(i: Point) -> Scalar:
        factors = matrices.factors(i)
        sizes = [apply("log", apply("abs", factors.rows[k][k])) for k in range(factors.size)]
        return cast(reduce(lambda x, y: apply("add", x, y), sizes), kind)

    signs = b.compute(matrices.batch, sign, name=f"{b.name}_sign")
    return signs, b.compute(matrices.batch, size), matrices.packed(), matrices.pivots()


def _as_factored(b: Builder, a: Value) -> _Matrices | None:
    """The matrices that torch factors for a determinant; None where they are not small or it is not known which."""
    if not _small(a) or b.layout is None or not all(size.is_constant for size in shape_of(a)):
        return None
    strides, step = b.layout[0], 1
    contiguous = True
    for size, stride in zip(reversed([size.constant for size in shape_of(a)]), reversed(strides), strict=True):
        contiguous = contiguous and (size == 1 or stride == step)
        step *= size
    return _Matrices(b, a, transposed=contiguous)


def _sign(factors: Factors) -> Scalar:
    """One, or minus one after an odd number of exchanges."""
    found: Scalar = literal(1, factors.rows[0][0].dtype)
    for k, place in enumerate(factors.pivots):
        found = select(apply("eq", place, literal(k, I32)), found, apply("neg", found))
    return found
