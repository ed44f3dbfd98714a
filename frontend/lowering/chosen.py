"""Products with matrices that data chose among a few (`w[expert]`, a row each): grouped products of the rows in the order of what they chose.

Taken one by one, each row reads a matrix of its own: a mixture of experts read so moves its weights once for every token. Side by side, the
rows of one matrix share it.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.frontend.lowering.builder import Builder, Point, literal, read
from codesign.frontend.lowering.grouped import block_size, most_blocks, product_by_groups
from codesign.frontend.lowering.scans import sorted_along
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import I64, DType
from codesign.ir.index import Index, index
from codesign.ir.scalar import IndexValue, Read, apply, cast
from codesign.ir.tensor import Compute

LEAST_SAVED = 1 << 25
"""Bytes of matrices that must not be read again for the rows to be ordered: what a memory of 3 TB/s moves in the time of five launches."""


@dataclass(frozen=True)
class Chosen:
    """A batch of matrices [batch, row, column] that lie in one tensor, read there at `element`; data says where along `axis`."""

    element: Read
    axis: int
    names: tuple[str, str, str]

    @property
    def matrices(self) -> Index:
        """How many there are to choose from."""
        return self.element.source.shape[self.axis]

    def numbers(self, b: Builder, count: Index) -> Value:
        """Which one each of the batch is."""
        at = self.element.indices[self.axis]
        return b.compute((count,), lambda i: IndexValue(at.substitute({self.names[0]: i[0]})), name=f"{b.name}_chosen")

    def all(self, b: Builder, inner: Index, columns: Index, *, transposed: bool) -> Value:
        """All of them: [matrix, inner, column]."""
        inner_name, column_name = reversed(self.names[1:]) if transposed else self.names[1:]

        def body(i: Point) -> Read:
            at = [x.substitute({inner_name: i[1], column_name: i[2]}) for x in self.element.indices]
            at[self.axis] = i[0]
            return read(self.element.source, at)

        return b.compute((self.matrices, inner, columns), body, name=f"{b.name}_matrices")


def chosen(value: Value) -> Chosen | None:
    """What a batch of matrices was taken from, if data took each whole."""
    names = ("batch", "row", "column")
    element = _seen_through(read(value, [index(name) for name in names]))
    by_data = [axis for axis, at in enumerate(element.indices) if at.data()]
    of_batch = [axis for axis, at in enumerate(element.indices) if "batch" in at.variables()]
    if len(by_data) != 1 or of_batch != by_data or element.indices[by_data[0]].variables() != {"batch"}:
        return None
    return Chosen(element, by_data[0], names)


def _seen_through(element: Read) -> Read:
    """An element where it was before views and choices moved it."""
    while isinstance(owner := element.source.owner, Compute):
        body = owner.body
        if (
            owner.reductions
            or not isinstance(body, Read)
            or body.otherwise is not None
            or owner.dtype is not body.dtype
        ):
            break
        moved = body.substitute(dict(zip((dim.name for dim in owner.dims), element.indices, strict=True)))
        assert isinstance(moved, Read)
        element = moved
    return element


def product_of_chosen(b: Builder, x: Value, y: Value, sums: DType, dtype: DType) -> Value | None:
    """x[batch, m, k] times y[batch, k, n] where data chose one of the two and its matrices are read often enough; else None."""
    shapes = tensor_type(x).shape, tensor_type(y).shape
    if len(shapes[0]) != 3 or not all(size.is_constant for shape in shapes for size in shape):
        return None
    batch, m, inner = shapes[0]
    n = shapes[1][2]
    for plain, other, rows, columns, transposed in ((x, y, m, n, False), (y, x, n, m, True)):
        taken = chosen(other)
        if taken is None or not taken.matrices.is_constant or chosen(plain) is not None:
            continue
        size = block_size(batch * rows, taken.matrices)
        saved = batch - most_blocks(batch * rows, taken.matrices, size)
        if (saved * inner * columns).constant * tensor_type(other).dtype.bytes < LEAST_SAVED:
            return None
        weights = taken.all(b, inner, columns, transposed=transposed)
        return _in_order(b, plain, weights, taken.numbers(b, batch), sums, dtype, transposed)
    return None


def _in_order(
    b: Builder, plain: Value, weights: Value, numbers: Value, sums: DType, dtype: DType, transposed: bool
) -> Value:
    """Rows of plain[batch, row, k] (transposed: [batch, k, row]) times weights[numbers[batch], k, column], by way of their order by number."""
    shape = tensor_type(plain).shape
    batch, rows, inner = (shape[0], shape[2], shape[1]) if transposed else shape
    groups, _, columns = tensor_type(weights).shape
    order = sorted_along(b, numbers, 0, False, None, f"{b.name}_ordered")[1]
    start = b.compute((batch,), lambda i: literal(0, I64), name=f"{b.name}_start")
    ranks = b.scatter(
        "set", start, (batch,), lambda i: ((read(order, i).as_index(),), IndexValue(i[0])), name=f"{b.name}_rank"
    )

    def row(i: Point) -> Read:
        source, part = read(order, (i[0] // rows,)).as_index(), i[0] % rows
        return read(plain, (source, i[1], part) if transposed else (source, part, i[1]))

    ordered = b.compute((batch * rows, inner), row, name=f"{b.name}_rows")
    ends = b.reduce(
        "sum",
        (groups,),
        (batch,),
        lambda i, r: cast(apply("le", read(numbers, r), IndexValue(i[0])), I64),
        accumulate=I64,
        name=f"{b.name}_ends",
    )
    ends = ends if rows == 1 else b.compute((groups,), lambda i: apply("mul", read(ends, i), IndexValue(rows)))
    product, blocks = product_by_groups(b, ordered, weights, ends, sums, dtype)

    def answer(i: Point) -> Read:
        part, column = (i[2], i[1]) if transposed else (i[1], i[2])
        place = read(blocks.place, (read(ranks, (i[0],)).as_index() * rows + part,)).as_index()
        return read(product, (place // blocks.size, place % blocks.size, column))

    return b.compute((batch, columns, rows) if transposed else (batch, rows, columns), answer)
