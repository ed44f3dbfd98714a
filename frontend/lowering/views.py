"""Views, copies, padding and concatenation: index arithmetic, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.frontend.lowering.builder import Builder, Operand, Point, broadcast, data_index, literal, read, where
from codesign.frontend.lowering.elementwise import converted
from codesign.frontend.lowering.registry import lower
from codesign.ir.core import Value, tensor_type
from codesign.ir.dtypes import U8, U16, U32, U64
from codesign.ir.index import Index, IndexLike, index, maximum, minimum
from codesign.ir.scalar import IndexValue, Scalar, apply, bitcast, cast


def wrap(dim: int, rank: int) -> int:
    """A dim counted from the front."""
    return dim + max(rank, 1) if dim < 0 else dim


def shape_of(value: Value) -> tuple[Index, ...]:
    return tensor_type(value).shape


# -- the same tensor ---------------------------------------------------------------------------------------------------------
@lower(
    "aten.alias.default",
    "aten.alias_copy.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_copy.default",
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.lift.default",
    "aten._conj.default",
    "aten.conj.default",
    "aten._conj_physical.default",
    "aten.positive.default",
    "aten.resolve_conj.default",
    "aten.resolve_neg.default",
    "aten.real.default",
)
def same(b: Builder, x: Value, *_: object, **__: object) -> Value:
    return x


@lower("aten.copy.default")
def copy(b: Builder, x: Value, source: Value, non_blocking: bool = False) -> Value:
    if b.shape == shape_of(source):
        return converted(b, source, b.dtype)
    return b.compute(b.shape, lambda i: b.element(source, i, b.dtype))


# -- reshaping ---------------------------------------------------------------------------------------------------------------
@lower(
    "aten.view.default",
    "aten.view_copy.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten._reshape_copy.default",
    "aten._reshape_alias.default",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.squeeze_copy.default",
    "aten.squeeze_copy.dim",
    "aten.squeeze_copy.dims",
    "aten.unsqueeze.default",
    "aten.unsqueeze_copy.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "prims.collapse_view.default",
)
def reshape(b: Builder, x: Value, *_: object, **__: object) -> Value:
    """The same elements in row-major order under the shape that torch worked out."""
    return reshaped(b, x, b.shape)


def reshaped(b: Builder, x: Value, shape: Sequence[Index], name: str = "") -> Value:
    source = shape_of(x)
    if tuple(shape) == source:
        return x
    return b.compute(shape, lambda i: read(x, b.reshape_point(i, shape, source)), name=name)


_UNSIGNED = {8: U8, 16: U16, 32: U32, 64: U64}


@lower("aten.view.dtype", "aten.view_copy.dtype")
def view_dtype(b: Builder, x: Value, dtype: object) -> Value:
    """The same bits as another dtype; where widths differ, the last dim is split into or joined from neighbours (little-endian)."""
    if tensor_type(x).dtype is b.dtype:
        return x
    source, target = tensor_type(x).dtype, b.dtype
    if source.bits == target.bits:
        return b.compute(b.shape, lambda i: bitcast(read(x, i), target))
    narrow, wide = (_UNSIGNED[min(source.bits, target.bits)], _UNSIGNED[max(source.bits, target.bits)])
    ratio = wide.bits // narrow.bits

    def part(i: Point) -> Scalar:
        """One of the narrow elements that lie in a wide one, the lowest first."""
        offset = apply("mul", cast(IndexValue(i[-1] % ratio), wide), literal(narrow.bits, wide))
        bits = bitcast(read(x, (*i[:-1], i[-1] // ratio)), wide)
        return bitcast(cast(apply("shr", bits, offset), narrow), target)

    def joined(i: Point) -> Scalar:
        """A wide element of consecutive narrow ones."""
        whole: Scalar = literal(0, wide)
        for k in range(ratio):
            bits = cast(bitcast(read(x, (*i[:-1], i[-1] * ratio + k)), narrow), wide)
            whole = apply("or", whole, apply("shl", bits, literal(k * narrow.bits, wide)))
        return bitcast(whole, target)

    return b.compute(b.shape, part if source.bits > target.bits else joined)


@lower("aten.permute.default", "aten.permute_copy.default")
def permute(b: Builder, x: Value, dims: Sequence[int]) -> Value:
    rank = len(shape_of(x))
    order = [wrap(d, rank) for d in dims]
    if order == list(range(rank)):
        return x
    return b.compute(b.shape, lambda i: read(x, [i[order.index(d)] for d in range(rank)]))


@lower("aten.transpose.int", "aten.transpose_copy.int", "aten.t.default", "aten.t_copy.default", "aten.numpy_T.default")
def transpose(b: Builder, x: Value, first: int = 0, second: int = 1) -> Value:
    rank = len(shape_of(x))
    if rank < 2:
        return x
    order = list(range(rank))
    a, c = wrap(first, rank), wrap(second, rank)
    order[a], order[c] = order[c], order[a]
    return permute(b, x, order)


@lower("aten.expand.default", "aten.expand_copy.default", "aten.broadcast_to.default", "aten.expand_as.default")
def expand(b: Builder, x: Value, *_: object, **__: object) -> Value:
    if shape_of(x) == b.shape:
        return x
    return b.compute(b.shape, lambda i: read(x, broadcast(shape_of(x), i)))


@lower("aten.repeat.default", "aten.tile.default")
def repeat(b: Builder, x: Value, repeats: Sequence[IndexLike]) -> Value:
    source = shape_of(x)
    lead = len(b.shape) - len(source)

    def body(i: Point) -> Scalar:
        return read(x, [_wrapped(i[lead + d], source[d], b.shape[lead + d]) for d in range(len(source))])

    return b.compute(b.shape, body)


def _wrapped(i: Index, size: Index, extent: Index) -> Index:
    if size == extent:
        return i
    return index(0) if size == 1 or size == 0 else i % size


# -- parts -------------------------------------------------------------------------------------------------------------------
Position = IndexLike | Scalar
"""A place along a dim: a number, a size, or a number that is read from data."""


def place_along(b: Builder, position: Position, size: Index, length: Index | None = None) -> Index:
    """A position as Python has it: negative ones count from the end, but those of which torch was told that they are none are outside. The first
    of a slice of a `length` counts from the end where its end does too, else there is nothing in it."""
    if isinstance(position, Scalar) or index(position).data():
        number = position if isinstance(position, Scalar) else IndexValue(index(position))
        if b.from_start:
            return data_index(number, size, wrap=length is not None, below=-length if length is not None else 0)
        return data_index(number, size)
    at = index(position)
    return at + size if at.is_constant and at.constant < 0 else at


def _clip(b: Builder, position: Position | None, size: Index, default: IndexLike, length: Index | None = None) -> Index:
    """A slice bound as Python has it: negative from the end, then clipped to the dim. One that data decides is not clipped: torch knows how long
    the slice is only where it lies inside, and what reads or writes there sees to that."""
    if position is None:
        return index(default)
    if isinstance(position, Scalar) or index(position).data():
        return place_along(b, position, size, length)
    where_to = index(position)
    if where_to.is_constant and where_to.constant >= 2**62:
        return size
    if where_to.is_constant and where_to.constant < 0:
        where_to = maximum(where_to + size, 0)
    elif not where_to.is_constant:
        where_to = maximum(where_to, 0)
    return b.limit(minimum(where_to, size))


def _sliced(
    b: Builder, x: Value, dim: int, start: Index, step: IndexLike, shape: Sequence[Index], name: str = ""
) -> Value:
    return b.compute(
        shape, lambda i: read(x, [i[d] * step + start if d == dim else i[d] for d in range(len(shape))]), name=name
    )


@lower("aten.slice.Tensor", "aten.slice_copy.Tensor", "aten.slice.default")
def slice_tensor(
    b: Builder,
    x: Value,
    dim: int = 0,
    start: Position | None = None,
    end: Position | None = None,
    step: IndexLike = 1,
) -> Value:
    source = shape_of(x)
    dim = wrap(dim, len(source))
    first = _clip(b, start, source[dim], 0, b.shape[dim] * index(step))
    if first == 0 and step == 1 and b.shape == source:
        return x
    return _sliced(b, x, dim, first, step, b.shape)


@lower("aten.narrow.default", "aten.narrow_copy.default")
def narrow(b: Builder, x: Value, dim: int, start: Position, length: IndexLike) -> Value:
    source = shape_of(x)
    dim = wrap(dim, len(source))
    return _sliced(b, x, dim, place_along(b, start, source[dim]), 1, b.shape)


@lower("aten.select.int", "aten.select_copy.int")
def select_int(b: Builder, x: Value, dim: int, position: Position) -> Value:
    source = shape_of(x)
    dim = wrap(dim, len(source))
    at = place_along(b, position, source[dim])
    return b.compute(b.shape, lambda i: read(x, (*i[:dim], at, *i[dim:])))


@lower("aten.unbind.int", "aten.unbind_copy.int")
def unbind(b: Builder, x: Value, dim: int = 0) -> tuple[Value, ...]:
    dim = wrap(dim, len(shape_of(x)))
    return tuple(
        b.compute(kind.shape, lambda i, k=k: read(x, (*i[:dim], index(k), *i[dim:])), name=f"{b.name}_{k}")  # type: ignore[misc]
        for k, kind in enumerate(b.types)
        if kind is not None
    )


@lower(
    "aten.split_with_sizes.default",
    "aten.split_with_sizes_copy.default",
    "aten.split.Tensor",
    "aten.split_copy.Tensor",
    "aten.split.sizes",
    "aten.chunk.default",
    "aten.unsafe_split.Tensor",
    "aten.unsafe_chunk.default",
    "aten.unsafe_split_with_sizes.default",
)
def split(b: Builder, x: Value, sizes: object, dim: int = 0) -> tuple[Value, ...]:
    """Consecutive parts along a dim; torch already says how large each is."""
    dim = wrap(dim, len(shape_of(x)))
    start, parts = index(0), []
    for k, kind in enumerate(b.types):
        assert kind is not None
        parts.append(_sliced(b, x, dim, start, 1, kind.shape, name=f"{b.name}_{k}"))
        start = start + kind.shape[dim]
    return tuple(parts)


@lower("aten.diagonal.default", "aten.diagonal_copy.default")
def diagonal(b: Builder, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    rank = len(shape_of(x))
    rows, columns = wrap(dim1, rank), wrap(dim2, rank)

    def body(i: Point) -> Scalar:
        rest = iter(i[:-1])
        at = {rows: i[-1] + max(-offset, 0), columns: i[-1] + max(offset, 0)}
        return read(x, [at[d] if d in at else next(rest) for d in range(rank)])

    return b.compute(b.shape, body)


@lower("aten.unfold.default", "aten.unfold_copy.default")
def unfold(b: Builder, x: Value, dim: int, size: int, step: int) -> Value:
    """Windows of a dim: the window's number stays at the dim, the place inside it becomes the last dim."""
    rank = len(shape_of(x))
    if rank == 0:
        return reshaped(b, x, b.shape)
    dim = wrap(dim, rank)
    return b.compute(b.shape, lambda i: read(x, [i[d] * step + i[rank] if d == dim else i[d] for d in range(rank)]))


def unflatten(b: Builder, flat: Index, source: Sequence[Index], shape: Sequence[IndexLike]) -> list[Index]:
    """The point of a row-major tensor at a flat position; `shape` bounds the dims `i0...` in it."""
    if any(size == 0 for size in (*source, *shape)):
        return [index(0)] * len(source)
    extents = {f"i{k}": index(n) for k, n in enumerate(shape)}
    point, stride = [], index(1)
    for d in reversed(range(len(source))):
        value = flat // stride
        if d:
            value = value % source[d]
        point.append(b.simplify(value, extents))
        stride = stride * source[d]
    return point[::-1]


# -- rearranging ---------------------------------------------------------------------------------------------------------------
@lower("aten.flip.default")
def flip(b: Builder, x: Value, dims: Sequence[int]) -> Value:
    rank = len(b.shape)
    turned = {wrap(d, rank) for d in dims}
    return b.compute(b.shape, lambda i: read(x, [b.shape[d] - 1 - i[d] if d in turned else i[d] for d in range(rank)]))


@lower("aten.roll.default")
def roll(b: Builder, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    rank, shape = len(b.shape), b.shape
    if not dims:
        count = tensor_type(x).elements
        if count == 0:
            return x
        shift = index(shifts[0])

        def flat_body(i: Point) -> Scalar:
            flat = index(0)
            for position, size in zip(i, shape, strict=True):
                flat = flat * size + position
            return read(x, unflatten(b, (flat - shift) % count, shape, shape))

        return b.compute(shape, flat_body)
    moved: dict[int, int] = {}
    for dim, amount in zip(dims, shifts, strict=True):
        moved[wrap(dim, rank)] = moved.get(wrap(dim, rank), 0) + amount
    if any(shape[d] == 0 for d in range(rank)):
        return x
    return b.compute(
        shape, lambda i: read(x, [(i[d] - moved[d]) % shape[d] if d in moved else i[d] for d in range(rank)])
    )


@lower("aten.cat.default", "aten.concat.default")
def cat(b: Builder, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Each part is read where its range covers the position; a chain of selects with the last part as the rest."""
    rank = len(b.shape)
    parts = [t for t in tensors if len(shape_of(t)) == rank and not any(size == 0 for size in shape_of(t))]
    if not parts:
        return b.compute(b.shape, lambda i: literal(0, b.dtype))
    dim = wrap(dim, rank)
    if len(parts) == 1:
        return converted(b, parts[0], b.dtype)
    starts, total = [], index(0)
    for part in parts:
        starts.append(total)
        total = total + shape_of(part)[dim]

    def body(i: Point) -> Scalar:
        return chain(b, parts, starts, i, dim)

    return b.compute(b.shape, body)


def chain(b: Builder, parts: Sequence[Value], starts: Sequence[Index], i: Point, dim: int) -> Scalar:
    """The element of the part that covers position `i[dim]`; every part is guarded by its own range."""
    result: Scalar = literal(0, b.dtype)
    for position, (part, start) in reversed(list(enumerate(zip(parts, starts, strict=True)))):
        size = shape_of(part)[dim]
        at = (*i[:dim], i[dim] - start, *i[dim + 1 :])
        value = cast(read(part, at, literal(0, tensor_type(part).dtype)), b.dtype)
        last = position == len(parts) - 1
        result = value if last else where(below(i[dim], start + size), value, result)
    return result


def below(position: Index, end: Index) -> Scalar:
    """The condition `position < end`."""
    return apply("lt", IndexValue(position), IndexValue(end))


@lower("aten.stack.default")
def stack(b: Builder, tensors: Sequence[Value], dim: int = 0) -> Value:
    dim = wrap(dim, len(b.shape))

    def body(i: Point) -> Scalar:
        at = (*i[:dim], *i[dim + 1 :])
        result: Scalar = cast(read(tensors[-1], at), b.dtype)
        for k in reversed(range(len(tensors) - 1)):
            result = where(below(i[dim], index(k + 1)), cast(read(tensors[k], at), b.dtype), result)
        return result

    return b.compute(b.shape, body)


# -- padding -------------------------------------------------------------------------------------------------------------------
@lower("aten.constant_pad_nd.default")
def constant_pad(b: Builder, x: Value, pad: Sequence[IndexLike], value: Operand = 0) -> Value:
    before = _before(pad, len(b.shape))
    fill = b.number(value, b.dtype)
    if any(size == 0 for size in shape_of(x)):
        return b.compute(b.shape, lambda i: fill)
    return b.compute(b.shape, lambda i: read(x, [k - start for k, start in zip(i, before, strict=True)], fill))


def _before(pad: Sequence[IndexLike], rank: int) -> list[Index]:
    """Padding in front of each dim; torch lists the last dim first."""
    before = [index(0)] * rank
    for k in range(len(pad) // 2):
        before[rank - 1 - k] = index(pad[2 * k])
    return before


@lower(
    "aten.reflection_pad1d.default",
    "aten.reflection_pad2d.default",
    "aten.reflection_pad3d.default",
    "aten.replication_pad1d.default",
    "aten.replication_pad2d.default",
    "aten.replication_pad3d.default",
    "aten._pad_circular.default",
)
def edge_pad(b: Builder, x: Value, pad: Sequence[IndexLike]) -> Value:
    rank, source = len(b.shape), shape_of(x)
    before = _before(pad, rank)
    padded = {rank - 1 - k for k in range(len(pad) // 2)}

    def place(d: int, i: Index) -> Index:
        position, size = i - before[d], source[d]
        if d not in padded:
            return i
        if "replication" in b.target:
            return minimum(maximum(position, 0), size - 1)
        if "circular" in b.target:
            return position % size
        folded = maximum(position, -position)  # mirrored at 0
        return minimum(folded, 2 * (size - 1) - folded)  # and at the last element

    return b.compute(b.shape, lambda i: read(x, [place(d, i[d]) for d in range(rank)]))


# -- writing into a part ---------------------------------------------------------------------------------------------------------
@lower("aten.select_scatter.default")
def select_scatter(b: Builder, x: Value, source: Value, dim: int, position: Position) -> Value:
    shape = shape_of(x)
    dim = wrap(dim, len(shape))
    at = place_along(b, position, shape[dim])
    return b.scatter("set", x, shape_of(source), lambda i: ((*i[:dim], at, *i[dim:]), read(source, i)))


@lower("aten.slice_scatter.default")
def slice_scatter(
    b: Builder,
    x: Value,
    source: Value,
    dim: int = 0,
    start: Position | None = None,
    end: Position | None = None,
    step: IndexLike = 1,
) -> Value:
    shape = shape_of(x)
    dim = wrap(dim, len(shape))
    stride = index(step)
    first = _clip(b, start, shape[dim], 0, shape_of(source)[dim] * stride)
    part = (*shape[:dim], shape_of(source)[dim], *shape[dim + 1 :])
    return b.scatter(
        "set",
        x,
        part,
        lambda i: (
            (*i[:dim], first + stride * i[dim], *i[dim + 1 :]),
            read(source, broadcast(shape_of(source), i)),
        ),
    )


@lower("aten.diagonal_scatter.default")
def diagonal_scatter(b: Builder, x: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    rank = len(b.shape)
    rows, columns = wrap(dim1, rank), wrap(dim2, rank)
    down, right = max(-offset, 0), max(offset, 0)

    def body(i: Point) -> Scalar:
        along = i[rows] - down
        on_diagonal = apply("eq", IndexValue(along), IndexValue(i[columns] - right))
        at = [i[d] for d in range(rank) if d not in (rows, columns)]
        new = cast(read(source, (*at, along), literal(0, tensor_type(source).dtype)), b.dtype)
        return where(on_diagonal, new, read(x, i))

    return b.compute(b.shape, body)


@lower("aten.tril.default", "aten.triu.default")
def triangle(b: Builder, x: Value, diagonal: int = 0) -> Value:
    relation = "le" if "tril" in b.target else "ge"

    def body(i: Point) -> Scalar:
        keep = apply(relation, IndexValue(i[-1] - i[-2]), IndexValue(index(diagonal)))
        return where(keep, read(x, i), literal(0, b.dtype))

    return b.compute(b.shape, body)
