"""Solutions of triangular systems, block by block: a block of rows is solved by the inverse of its triangle, what it brings into the rows
below is taken from their right sides.

    X_k = D_k^-1 (M_k R_k),    R = R - T[below, k] X_k    where T_kk^-1 = D_k^-1 M_k, and D_k is the diagonal of T_kk

The matrices M of all blocks on the diagonal are made at once, each size from the one before:

      [A 0]   [        M_A          0  ]
    M [C B] = [-M_B C D_A^-1 M_A   M_B ]

A solution's row is divided by its element of the diagonal last, as substitution does: up to the first zero there, and in its row (infinity, or
NaN for 0 / 0), solutions are those of substitution. Rows after it are infinite or NaN in both; where substitution has an infinity there, this
may have NaN, as what it adds up are infinities of both signs.

The blocks are small, as the error of a product with an inverse grows with the condition of what is inverted; between blocks it is that of
substitution (N. J. Higham, "Accuracy and Stability of Numerical Algorithms" (2002), chapter 8 and section 14.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.frontend.lowering.builder import Builder, Point, broadcast, literal, read, where
from codesign.frontend.lowering.promotion import accumulator
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import DType
from codesign.ir.index import Index, IndexLike, index
from codesign.ir.scalar import IndexValue, Scalar, apply, cast

BLOCK = 16
"""Rows of a block that is solved by its inverse: a power of two."""

LARGEST = 128
"""Rows of a system that becomes products: two for each block, one after another; those of a larger one wait longer than a routine does."""


@dataclass(frozen=True)
class _Triangle:
    """A lower triangle of `rows` by `rows` in a matrix that may have it above the diagonal (`flipped`: from its end) or `transposed`."""

    matrix: Value
    flipped: bool
    transposed: bool
    unit: bool
    dtype: DType

    @property
    def batch(self) -> tuple[Index, ...]:
        return self.matrix.shape[:-2]

    @property
    def rows(self) -> int:
        return self.matrix.shape[-1].constant

    def place(self, k: Index) -> Index:
        return index(self.rows - 1) - k if self.flipped else k

    def at(self, batch: Sequence[Index], row: Index, column: Index) -> Scalar:
        """An element; zero where the rows that fill up to a power of two are."""
        point = (self.place(row), self.place(column))
        zero = literal(0, tensor_type(self.matrix).dtype)
        return cast(read(self.matrix, (*batch, *(point[::-1] if self.transposed else point)), zero), self.dtype)

    def diagonal(self, batch: Sequence[Index], row: Index) -> Scalar:
        """An element of the diagonal; one where the rows that fill up to a power of two are."""
        return where(_below(row, self.rows), self.at(batch, row, row), literal(1, self.dtype))


@lower("aten.linalg_solve_triangular.default")
def solve_triangular(
    b: Builder, a: Value, right: Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:
    """X of A X = B, or of X A = B where not `left`."""
    if not _in_blocks(b, a):
        result: Value = NotImplemented
        return result
    system = _System(b, _Triangle(a, upper is left, not left, unitriangular, accumulator(b.dtype)), left)
    return system.solution(right)


@lower("aten.cholesky_solve.default")
def cholesky_solve(b: Builder, right: Value, factor: Value, upper: bool = False) -> Value:
    """X of L L^T X = B: two triangular systems, one after the other."""
    if not _in_blocks(b, factor):
        result: Value = NotImplemented
        return result
    return _by_factor(b, right, factor, upper)


@lower("aten.cholesky_inverse.default")
def cholesky_inverse(b: Builder, factor: Value, upper: bool = False) -> Value:
    """The inverse of L L^T: what solves it for the unit vectors."""
    if not _in_blocks(b, factor):
        result: Value = NotImplemented
        return result
    zero, one = literal(0, b.dtype), literal(1, b.dtype)
    unit = b.compute(
        b.shape, lambda i: where(apply("eq", IndexValue(i[-2]), IndexValue(i[-1])), one, zero), name=f"{b.name}_unit"
    )
    return _by_factor(b, unit, factor, upper)


def _in_blocks(b: Builder, a: Value) -> bool:
    """Whether a triangular matrix is small enough for blocks."""
    rows = a.shape[-1]
    return rows.is_constant and 0 < rows.constant <= LARGEST and b.dtype.is_float


def _by_factor(b: Builder, right: Value, factor: Value, upper: bool) -> Value:
    """Forward by L, then back by its transpose; `upper`: the factor is that transpose."""
    kind, name = accumulator(b.dtype), b.name
    try:
        for transposed in (False, True):
            b.name = f"{name}_back" if transposed else f"{name}_forward"
            triangle = _Triangle(factor, transposed, upper is not transposed, False, kind)
            right = _System(b, triangle, True).solution(right)
    finally:
        b.name = name
    return right


@dataclass(frozen=True)
class _System:
    """Rows of right sides and solutions are numbered as those of the lower triangle, and are the last but one dim; of X A = B all is transposed."""

    b: Builder
    triangle: _Triangle
    left: bool

    def solution(self, right: Value) -> Value:
        rows, solved = self.triangle.rows, list[Value]()
        rest, numerators = self._given(right), _numerators(self.b, self.triangle)
        for first in range(0, rows, BLOCK):
            count = min(BLOCK, rows - first)
            solved.append(self._block(numerators, rest, first, count))
            if first + count < rows:
                rest = self._below(rest, solved[-1], first, count)
        zero = literal(0, self.triangle.dtype)

        def element(i: Point) -> Scalar:
            row, column = (i[-2], i[-1]) if self.left else (i[-1], i[-2])
            row = self.triangle.place(row)
            found: Scalar = read(solved[-1], (*i[:-2], row - (len(solved) - 1) * BLOCK, column), zero)
            for number, block in reversed([*enumerate(solved[:-1])]):
                here = read(block, (*i[:-2], row - number * BLOCK, column), zero)
                found = where(_below(row, (number + 1) * BLOCK), here, found)
            return cast(found, self.b.dtype)

        return self.b.compute(self.b.shape, element)

    def _shape(self, rows: int) -> tuple[IndexLike, ...]:
        return (*self.b.shape[:-2], rows, self.b.shape[-1] if self.left else self.b.shape[-2])

    def _given(self, right: Value) -> Value:
        """The right sides."""

        def element(i: Point) -> Scalar:
            row = self.triangle.place(i[-2])
            point = (row, i[-1]) if self.left else (i[-1], row)
            return cast(read(right, (*broadcast(right.shape[:-2], i[:-2]), *point)), self.triangle.dtype)

        return self.b.compute(self._shape(self.triangle.rows), element, name=f"{self.b.name}_right")

    def _block(self, numerators: Value, rest: Value, first: int, count: int) -> Value:
        """The solution's rows of a block, where `rest` begins with it. What lies above the diagonal counts not, not even times infinity."""

        def term(i: Point, r: Point) -> Scalar:
            batch = broadcast(self.triangle.batch, i[:-2])
            weight = read(numerators, (*batch, first // BLOCK, i[-2], r[0]))
            product = apply("mul", weight, read(rest, (*i[:-2], r[0], i[-1])))
            return where(apply("le", IndexValue(r[0]), IndexValue(i[-2])), product, literal(0, self.triangle.dtype))

        name, shape, triangle = f"{self.b.name}_rows_{first}", self._shape(count), self.triangle
        if triangle.unit:
            return self.b.reduce("sum", shape, (count,), term, accumulate=triangle.dtype, name=name)
        undivided = self.b.reduce("sum", shape, (count,), term, accumulate=triangle.dtype, name=f"{name}_undivided")

        def element(i: Point) -> Scalar:
            below = triangle.diagonal(broadcast(triangle.batch, i[:-2]), i[-2] + first)
            return apply("div", read(undivided, i), below)

        return self.b.compute(shape, element, name=name)

    def _below(self, rest: Value, block: Value, first: int, count: int) -> Value:
        """The right sides of the rows after a block without what its solution brings there."""
        after, kind = first + count, self.triangle.dtype

        def term(i: Point, r: Point) -> Scalar:
            weight = self.triangle.at(broadcast(self.triangle.batch, i[:-2]), i[-2] + after, r[0] + first)
            return apply("mul", weight, read(block, (*i[:-2], r[0], i[-1])))

        shape, name = self._shape(self.triangle.rows - after), self.b.name
        brought = self.b.reduce("sum", shape, (count,), term, accumulate=kind, name=f"{name}_by_{first}")

        def element(i: Point) -> Scalar:
            return apply("sub", read(rest, (*i[:-2], i[-2] + count, i[-1])), read(brought, i))

        return self.b.compute(shape, element, name=f"{name}_without_{first}")


def _numerators(b: Builder, triangle: _Triangle) -> Value:
    """[*batch, blocks, n, n] with n a power of two up to `BLOCK`: M of blocks on the diagonal, zero above theirs."""
    most = min(BLOCK, 1 << (triangle.rows - 1).bit_length())
    blocks, half, one = -(-triangle.rows // most) * most, 1, literal(1, triangle.dtype)
    found = b.compute((*triangle.batch, blocks, 1, 1), lambda i: one, name=f"{b.name}_ones")
    inverses = None
    if not triangle.unit and most > 1:
        inverses = b.compute(
            (*triangle.batch, blocks),
            lambda i: apply("div", one, triangle.diagonal(i[:-1], i[-1])),
            name=f"{b.name}_diagonal",
        )
    while half < most:
        blocks //= 2
        found = _of_twice_the_size(b, triangle, found, inverses, blocks, half)
        half *= 2
    return found


def _of_twice_the_size(
    b: Builder, triangle: _Triangle, found: Value, inverses: Value | None, blocks: int, half: int
) -> Value:
    """M of `blocks` blocks on the diagonal from those of their halves, of `half` rows; `inverses`: of the diagonal, where it is not of ones."""
    kind, zero = triangle.dtype, literal(0, triangle.dtype)
    shape: tuple[IndexLike, ...] = (*triangle.batch, blocks, half, half)

    def below(i: Point, r: Point) -> Scalar:
        *batch, p, row, column = i
        first = p * (2 * half)
        element = triangle.at(batch, first + half + row, first + r[0])
        above: Scalar = read(found, (*batch, p * 2, r[0], column))
        if inverses is not None:
            above = apply("mul", read(inverses, (*batch, first + r[0])), above)
        return apply("mul", element, above)

    right = b.reduce("sum", shape, (half,), below, accumulate=kind, name=f"{b.name}_times_{half}")

    def corner(i: Point, r: Point) -> Scalar:
        *batch, p, row, column = i
        return apply("mul", read(found, (*batch, p * 2 + 1, row, r[0])), read(right, (*batch, p, r[0], column)))

    corners = b.reduce("sum", shape, (half,), corner, accumulate=kind, name=f"{b.name}_corner_{half}")

    def whole(i: Point) -> Scalar:
        """One of the three parts, or what is above the diagonal."""
        *batch, p, row, column = i
        diagonal = apply(
            "add",
            read(found, (*batch, p * 2, row, column), zero),
            read(found, (*batch, p * 2 + 1, row - half, column - half), zero),
        )
        return apply("sub", diagonal, read(corners, (*batch, p, row - half, column), zero))

    return b.compute((*triangle.batch, blocks, 2 * half, 2 * half), whole, name=f"{b.name}_numerators_{2 * half}")


def _below(k: Index, high: int) -> Scalar:
    return apply("lt", IndexValue(k), IndexValue(index(high)))
