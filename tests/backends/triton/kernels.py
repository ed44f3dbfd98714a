"""Kernels built by hand from tile operations, and helpers to run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import F16, F32, DType
from codesign.ir.index import Index, ceildiv, index
from codesign.ir.location import Location
from codesign.ir.numerics import round_to
from codesign.ir.scalar import Literal, Read, Scalar, apply, cast, literal
from codesign.ir.schedule import Schedule
from codesign.ir.tile import Axis, Dot, For, GridDim, Guard, Kernel, Load, Map, Store
from codesign.ir.types import BufferType

Array = npt.NDArray[Any]


def buffer(name: str, dtype: DType, *shape: int | str) -> Value:
    return Value(BufferType(dtype, tuple(index(size) for size in shape)), name)


def kernel(
    name: str, params: list[Value], outputs: int, ops: Sequence[Op], grid: dict[str, Any], **options: Any
) -> Kernel:
    """A kernel from its ops; options are fields of the schedule."""
    dims = tuple(GridDim(dim, index(extent)) for dim, extent in grid.items())
    return Kernel(name, params, outputs, dims, Block([], ops), Schedule(**options))


def pointwise(name: str, dtype: DType, body: Any, arity: int = 1, size: int = 256) -> Kernel:
    """`out[i] = body(x0[i], x1[i], ...)` in one program."""
    axis = Axis("i", size)
    inputs = [buffer(f"x{position}", dtype, size) for position in range(arity)]
    loads = [Load(value, [axis], ["i"], name=f"v{position}") for position, value in enumerate(inputs)]
    scalar: Scalar = body(*(Read(load.result, ["i"]) for load in loads))
    result = Map([axis], scalar, name="y")
    out = buffer("out", scalar.dtype, size)
    return kernel(name, [*inputs, out], 1, [*loads, result, Store(result.result, out, [axis], ["i"])], {})


def gemm(
    m: int | str = 100,
    n: int = 96,
    k: int = 80,
    *,
    tile: tuple[int, int, int] = (32, 32, 16),
    dtype: DType = F16,
    stages: int = 3,
    **extras: int,
) -> Kernel:
    """`relu(x @ w.T + bias)` with masks where a tile does not divide an extent."""
    bm, bn, bk = tile
    symbols = (m,) if isinstance(m, str) else ()
    x, w, bias = buffer("x", dtype, m, k), buffer("w", dtype, n, k), buffer("bias", dtype, n)
    out = buffer("out", dtype, m, n)
    i, j, d = Axis("i", bm), Axis("j", bn), Axis("l", bk)
    row, column, depth = index("pi") * bm + "i", index("pj") * bn + "j", index("kk") + "l"

    def guards(*wanted: tuple[Index, int | str, int]) -> list[Guard]:
        return [Guard(value, None, index(size)) for value, size, step in wanted if isinstance(size, str) or size % step]

    start = Map([i, j], literal(0.0), name="start")
    carried = Value(start.result.type, "acc")
    a = Load(x, [i, d], [row, depth], guards=guards((row, m, bm), (depth, k, bk)), name="a")
    b = Load(w, [d, j], [column, depth], guards=guards((column, n, bn), (depth, k, bk)), name="b")
    dot = Dot(a.result, b.result, carried, name="next")
    loop = For("kk", 0, k, bk, [start.result], Block([carried], [a, b, dot], [dot.result]), pipeline=stages)
    bias_tile = Load(bias, [j], [column], guards=guards((column, n, bn)), name="bias_tile")
    total = apply("add", Read(loop.result, ["i", "j"]), cast(Read(bias_tile.result, ["j"]), F32))
    y = Map([i, j], cast(apply("max", total, literal(0.0)), dtype), name="y")
    store = Store(y.result, out, [i, j], [row, column], guards=guards((row, m, bm), (column, n, bn)))
    return Kernel(
        "gemm_bias_relu",
        [x, w, bias, out],
        1,
        (GridDim("pi", ceildiv(m, bm)), GridDim("pj", ceildiv(n, bn))),
        Block([], [start, loop, bias_tile, y, store]),
        Schedule(tiles={"i": bm, "j": bn, "l": bk}, pipeline=stages, extras={"warps": 4, **extras}),
        symbols,
        Location("model.py", 3, "net.0", "aten.linear.default"),
        {"fused": "linear, relu"},
    )


def held(values: Any, dtype: DType) -> Array:
    """Values rounded to the dtype, as the IR's interpreter holds it."""
    array = np.asarray(values)
    if not dtype.is_float:
        return array.astype(dtype.numpy)
    return np.asarray(round_to(array.astype(np.float64 if dtype.bits == 64 else np.float32), dtype)).astype(dtype.numpy)


def gemm_inputs(rng: np.random.Generator, m: int, n: int, k: int, dtype: DType) -> list[Array]:
    return [held(rng.standard_normal(shape), dtype) for shape in ((m, k), (n, k), (n,))]


def gemm_expected(x: Array, w: Array, bias: Array) -> Array:
    result: Array = np.maximum(x.astype(np.float64) @ w.astype(np.float64).T + bias.astype(np.float64), 0)
    return result


ZERO = Literal(0.0, F32)
