"""Solutions of triangular systems, by products: the inverse of the triangle is made of those of the blocks on its diagonal.

    [A 0]^-1   [    A^-1        0  ]
    [C B]    = [-B^-1 C A^-1  B^-1 ]

Blocks of one size are inverted at once, each size from the one before, so that n rows take 2 log2(n) products, not n steps one after another.
N. J. Higham, "Accuracy and Stability of Numerical Algorithms" (2002), chapter 14: it is as stable in its forward error as substitution.
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

LARGEST = 256
"""Rows of a system that is inverted; the inverse of a larger one costs more operations (n^3 / 3) than a routine that substitutes."""


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

    def inverse_of_diagonal(self, batch: Sequence[Index], row: Index) -> Scalar:
        one = literal(1, self.dtype)
        if self.unit:
            return one
        return apply("div", one, where(_below(row, self.rows), self.at(batch, row, row), one))


@lower("aten.linalg_solve_triangular.default")
def solve_triangular(
    b: Builder, a: Value, right: Value, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Value:
    """X of A X = B, or of X A = B where not `left`."""
    rows = a.shape[-1]
    if not rows.is_constant or not 0 < rows.constant <= LARGEST or not b.dtype.is_float:
        result: Value = NotImplemented
        return result
    triangle = _Triangle(a, upper is left, not left, unitriangular, accumulator(b.dtype))
    inverse = _inverse(b, triangle)

    def term(i: Point, r: Point) -> Scalar:
        """Row `row` of the solution (of the transposed one where not `left`) has these parts; above the inverse's diagonal there is zero."""
        (k,) = r
        row, point = (i[-2], (k, i[-1])) if left else (i[-1], (i[-2], k))
        weight = read(inverse, (*broadcast(a.shape[:-2], i[:-2]), 0, triangle.place(row), triangle.place(k)))
        other = read(right, (*broadcast(right.shape[:-2], i[:-2]), *point))
        return apply("mul", weight, cast(other, triangle.dtype))

    return b.reduce("sum", b.shape, (triangle.rows,), term, accumulate=triangle.dtype, dtype=b.dtype)


def _inverse(b: Builder, triangle: _Triangle) -> Value:
    """[*batch, 1, n, n] with n a power of two from `rows` on: the inverse, zero above its diagonal."""
    blocks, half = 1 << (triangle.rows - 1).bit_length(), 1
    found = b.compute(
        (*triangle.batch, blocks, 1, 1),
        lambda i: triangle.inverse_of_diagonal(i[:-3], i[-3]),
        name=f"{b.name}_diagonal",
    )
    while blocks > 1:
        blocks //= 2
        found = _of_twice_the_size(b, triangle, found, blocks, half)
        half *= 2
    return found


def _of_twice_the_size(b: Builder, triangle: _Triangle, found: Value, blocks: int, half: int) -> Value:
    """The inverses of `blocks` blocks on the diagonal from those of their halves, of `half` rows."""
    kind, zero = triangle.dtype, literal(0, triangle.dtype)
    shape: tuple[IndexLike, ...] = (*triangle.batch, blocks, half, half)

    def below(i: Point, r: Point) -> Scalar:
        *batch, p, row, column = i
        first = p * (2 * half)
        element = triangle.at(batch, first + half + row, first + r[0])
        return apply("mul", element, read(found, (*batch, p * 2, r[0], column)))

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

    return b.compute((*triangle.batch, blocks, 2 * half, 2 * half), whole, name=f"{b.name}_inverse_{2 * half}")


def _below(k: Index, high: int) -> Scalar:
    return apply("lt", IndexValue(k), IndexValue(index(high)))
