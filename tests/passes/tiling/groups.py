"""Fused groups of many shapes for the tests of tiling, built from sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from codesign.ir.core import Block, Function, Module, Value
from codesign.ir.dtypes import BF16, BOOL, F16, F32, I8, I32, I64, DType
from codesign.ir.index import Bounds, IndexLike, index
from codesign.ir.interpreter import evaluate, run_kernel
from codesign.ir.numerics import round_to
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, literal, select
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Dim, Fusion, Monoid
from codesign.ir.text import parse
from codesign.ir.tile import Kernel
from codesign.ir.types import tensor
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower


def dims(**extents: IndexLike) -> list[Dim]:
    return [Dim(name, index(extent)) for name, extent in extents.items()]


def group(computes: Sequence[Compute], yields: Sequence[Compute]) -> Fusion:
    return Fusion(
        Block([], computes, [compute.result for compute in yields]), names=[f"out{i}" for i in range(len(yields))]
    )


def gemm(
    m: int, n: int, k: int, dtype: DType = F16, *, batch: int = 0, transposed: bool = True, swapped: bool = False
) -> Fusion:
    """`max(x @ w + bias, 0)` with the product accumulated in f32, over a batch dim when one is given."""
    outer = dims(b=batch) if batch else []
    lead = [d.name for d in outer]
    x = Value(tensor(dtype, *([batch] if batch else []), m, k), "x")
    w = Value(tensor(dtype, *([batch] if batch else []), *((n, k) if transposed else (k, n))), "w")
    bias = Value(tensor(dtype, n), "bias")
    left, right = (
        cast(Read(x, [*lead, "i", "k"]), F32),
        cast(Read(w, [*lead, *(("j", "k") if transposed else ("k", "j"))]), F32),
    )
    grid = [*outer, *(dims(j=n, i=m) if swapped else dims(i=m, j=n))]
    product = Compute(grid, apply("mul", left, right), reductions=dims(k=k), monoid="sum", dtype=dtype, name="h")
    names = [d.name for d in grid]
    added = apply("add", Read(product.result, names), Read(bias, ["j"]))
    return group([product, relu := Compute(grid, apply("max", added, Literal(0, dtype)), name="r")], [relu])


def products(rows: int, depth: int, columns: list[int], dtype: str = "f32", further: int = 0) -> Fusion:
    """Products of one operand side by side, each of its own columns; the last has an epilogue. With `further`, as many exponentials."""
    params, ops, results = [f"%x: {dtype}[{rows}, {depth}]"], [], []
    for n, width in enumerate(columns):
        params.append(f"%w{n}: {dtype}[{width}, {depth}]")
        body = f"{{ f32(%x[i{n}, k{n}]) * f32(%w{n}[j{n}, k{n}]) }}"
        ops.append(f"%a{n} = compute {dtype}[i{n}: {rows}, j{n}: {width}] sum(k{n}: {depth}) in f32 {body}")
        results.append(f"%a{n}")
    last = len(columns) - 1
    ends = f"%e = compute {dtype}[i{last}: {rows}, j{last}: {columns[-1]}]"
    ops.append(f"{ends} {{ {dtype}(f32(%a{last}[i{last}, j{last}]) + 1.0) }}")
    results[-1] = "%e"
    if further:
        params.append(f"%p: f32[{further}]")
        ops.append(f"%c = compute f32[m: {further}] {{ exp(%p[m]) }}")
        results.append("%c")
    given, lines = ", ".join(results), "\n".join(ops)
    text = f"func @f({', '.join(params)}) {{\n{given} = fusion {{\n{lines}\nyield {given}\n}}\nreturn {given}\n}}"
    (fusion,) = parse(text).main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


def balanced(batch: int, rows: int, columns: int, rounds: int) -> Fusion:
    """A matrix for each batch, divided by the sums of its rows, then by those of its columns, in turn."""
    points = dims(b=batch, i=rows, j=columns)
    at = [dim.name for dim in points]
    x = Value(tensor(F32, batch, rows, columns), "x")
    last = Compute(points, apply("exp", Read(x, at)), name="e")
    computes = [last]
    for _ in range(rounds):
        for along in ("j", "i"):
            kept = [dim for dim in points if dim.name != along]
            over = [dim for dim in points if dim.name == along]
            total = Compute(kept, Read(last.result, at), reductions=over, monoid="sum", name="s")
            quotient = apply("div", Read(last.result, at), Read(total.result, [dim.name for dim in kept]))
            last = Compute(points, quotient, name="m")
            computes += [total, last]
    return group(computes, [last])


def softmax(rows: int, columns: int, *, causal: bool = False) -> Fusion:
    x = Value(tensor(F32, rows, columns), "x")
    score: Scalar = Read(x, ["i", "j"])
    if causal:
        score = select(apply("le", IndexValue("j"), IndexValue("i")), score, literal(float("-inf")))
    masked = Compute(dims(i=rows, j=columns), score, name="masked")
    top = Compute(dims(i=rows), Read(masked.result, ["i", "j"]), reductions=dims(j=columns), monoid="max", name="top")
    e = apply("exp", apply("sub", Read(masked.result, ["i", "j"]), Read(top.result, ["i"])))
    power = Compute(dims(i=rows, j=columns), e, name="power")
    total = Compute(
        dims(i=rows), Read(power.result, ["i", "j"]), reductions=dims(j=columns), monoid="sum", name="total"
    )
    share = apply("div", Read(power.result, ["i", "j"]), Read(total.result, ["i"]))
    out = Compute(dims(i=rows, j=columns), share, name="share")
    return group([masked, top, power, total, out], [out])


def layer_norm(rows: int, columns: int, dtype: DType = F16) -> Fusion:
    """A residual sum that is stored too, its mean and variance per row, and the scaled result."""
    x, y = Value(tensor(dtype, rows, columns), "x"), Value(tensor(dtype, rows, columns), "y")
    gain = Value(tensor(dtype, columns), "gain")
    over = dims(i=rows, j=columns)
    summed = Compute(over, apply("add", Read(x, ["i", "j"]), Read(y, ["i", "j"])), name="residual")
    wide = cast(Read(summed.result, ["i", "j"]), F32)
    total = Compute(dims(i=rows), wide, reductions=dims(j=columns), monoid="sum", name="total")
    mean = Compute(dims(i=rows), apply("div", Read(total.result, ["i"]), literal(float(columns))), name="mean")
    centred = apply("sub", wide, Read(mean.result, ["i"]))
    squares = Compute(
        dims(i=rows), apply("mul", centred, centred), reductions=dims(j=columns), monoid="sum", name="squares"
    )
    variance = apply("div", Read(squares.result, ["i"]), literal(float(columns)))
    scale = Compute(dims(i=rows), apply("rsqrt", apply("add", variance, literal(1e-5))), name="scale")
    scaled = apply("mul", apply("mul", centred, Read(scale.result, ["i"])), cast(Read(gain, ["j"]), F32))
    out = Compute(over, cast(scaled, dtype), name="normed")
    return group([summed, total, mean, squares, scale, out], [summed, out])


NORM_GRADIENTS = """func @f(%x: {dtype}[{shape}, {n}], %w: f32[{n}], %g: {dtype}[{shape}, {n}]) {{
%o, %p, %q = fusion {{
%m = compute f32[{rows}] sum(j: {n}) {{ f32(%x[{at}, j]) / {n}.0 }}
%v = compute f32[{rows}] sum(j: {n}) {{ (f32(%x[{at}, j]) - %m[{at}]) * (f32(%x[{at}, j]) - %m[{at}]) / {n}.0 }}
%h = compute f32[{rows}, j: {n}] {{ (f32(%x[{at}, j]) - %m[{at}]) * rsqrt(%v[{at}] + 0.00001) }}
%a = compute f32[{rows}] sum(j: {n}) {{ f32(%g[{at}, j]) * %w[j] / {n}.0 }}
%b = compute f32[{rows}] sum(j: {n}) {{ f32(%g[{at}, j]) * %w[j] * %h[{at}, j] / {n}.0 }}
%d = compute {dtype}[{rows}, j: {n}] {{ {dtype}(rsqrt(%v[{at}] + 0.00001) * (f32(%g[{at}, j]) * %w[j] - %a[{at}] - %h[{at}, j] * %b[{at}])) }}
%s = compute f32[j: {n}] sum({rows}) {{ f32(%g[{at}, j]) * %h[{at}, j] }}
%t = compute f32[j: {n}] sum({rows}) {{ f32(%g[{at}, j]) }}
yield %d, %s, %t
}}
return %o, %p, %q
}}"""


def norm_gradients(*rows: int, columns: int, dtype: DType = F32) -> Fusion:
    """Gradients of a layer norm's input, weight and bias, of which the last two are sums over all rows."""
    names = [f"i{place}" for place in range(len(rows))]
    pairs = ", ".join(f"{name}: {count}" for name, count in zip(names, rows, strict=True))
    shape, at = ", ".join(map(str, rows)), ", ".join(names)
    text = NORM_GRADIENTS.format(dtype=dtype.name, shape=shape, rows=pairs, at=at, n=columns)
    (fusion,) = parse(text).main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


def reduction(rows: int, columns: int, monoid: Monoid, dtype: DType = F32, *, over_rows: bool = False) -> Fusion:
    """A plain reduction of one dim, and of the same body an arg-reduction's neighbour to share the loop with."""
    x = Value(tensor(dtype, rows, columns), "x")
    kept, gone = (dims(j=columns), dims(i=rows)) if over_rows else (dims(i=rows), dims(j=columns))
    body: Scalar = Read(x, ["i", "j"])
    if monoid in ("any", "all"):
        body = apply("gt", body, Literal(1, dtype))
    first = Compute(kept, body, reductions=gone, monoid=monoid, name="first")
    other = Compute(kept, Read(x, ["i", "j"]), reductions=gone, monoid="max", name="other")
    return group([first, other], [first, other])


def convolution(n: int, c: int, size: int, o: int, window: int, stride: int, padding: int) -> Fusion:
    out = (size + 2 * padding - window) // stride + 1
    image = Value(tensor(F32, n, c, size, size), "image")
    weight = Value(tensor(F32, o, c, window, window), "weight")
    bias = Value(tensor(F32, o), "bias")
    place: list[IndexLike] = ["n", "c", index("y") * stride + "r" - padding, index("x") * stride + "s" - padding]
    body = apply("mul", Read(image, place, literal(0.0)), Read(weight, ["o", "c", "r", "s"]))
    grid = dims(n=n, o=o, y=out, x=out)
    conv = Compute(grid, body, reductions=dims(c=c, r=window, s=window), monoid="sum", name="conv")
    added = apply("add", Read(conv.result, ["n", "o", "y", "x"]), Read(bias, ["o"]))
    result = Compute(grid, apply("max", added, literal(0.0)), name="out")
    return group([conv, result], [result])


def max_pool(n: int, c: int, size: int, window: int, stride: int) -> Fusion:
    out = (size - window) // stride + 1
    image = Value(tensor(F32, n, c, size, size), "image")
    place: list[IndexLike] = ["n", "c", index("y") * stride + "r", index("x") * stride + "s"]
    pool = Compute(
        dims(n=n, c=c, y=out, x=out), Read(image, place), reductions=dims(r=window, s=window), monoid="max", name="pool"
    )
    return group([pool], [pool])


def element_wise(*shape: int, permuted: bool = False, shared: bool = False) -> Fusion:
    """`x + y` where y is of the same shape, permuted (reversed dims) or a vector along the last dim."""
    names = [f"d{i}" for i in range(len(shape))]
    over = dims(**dict(zip(names, shape, strict=True)))
    x = Value(tensor(F32, *shape), "x")
    if shared:
        y, place = Value(tensor(F32, shape[-1]), "y"), names[-1:]
    elif permuted:
        y, place = Value(tensor(F32, *reversed(shape)), "y"), names[::-1]
    else:
        y, place = Value(tensor(F32, *shape), "y"), names
    total = Compute(over, apply("add", Read(x, names), Read(y, place)), name="total")
    return group([total], [total])


def embedding(tokens: int, vocabulary: int, width: int) -> Fusion:
    """Rows of a table by indices that are computed (negative ones count from the end), plus the root mean square of each row."""
    table, ids = Value(tensor(F32, vocabulary, width), "table"), Value(tensor(I64, tokens), "ids")
    raw = Read(ids, ["i"])
    wrapped = select(apply("lt", raw, literal(0)), apply("add", raw, literal(vocabulary)), raw)
    row = Compute(dims(i=tokens, d=width), Read(table, [wrapped.as_index(), "d"]), name="row")
    square = apply("mul", Read(row.result, ["i", "d"]), Read(row.result, ["i", "d"]))
    total = Compute(dims(i=tokens), square, reductions=dims(d=width), monoid="sum", name="squares")
    out = Compute(
        dims(i=tokens, d=width), apply("mul", Read(row.result, ["i", "d"]), Read(total.result, ["i"])), name="out"
    )
    return group([row, total, out], [out])


def padded(rows: int, columns: int, by: int) -> Fusion:
    """x shifted by a constant, where outside of it another tensor's value is taken."""
    x, fill = Value(tensor(F32, rows, columns), "x"), Value(tensor(F32, rows), "fill")
    read = Read(x, ["i", index("j") - by], Read(fill, ["i"]))
    total = Compute(dims(i=rows), read, reductions=dims(j=columns + 2 * by), monoid="sum", name="total")
    out = Compute(dims(i=rows, j=columns + 2 * by), apply("mul", read, literal(2.0)), name="out")
    return group([total, out], [total, out])


def below(column: str = "j", row: str = "i", offset: int = 0) -> Scalar:
    """The condition of a lower triangle."""
    return apply("le", IndexValue(column), IndexValue(index(row) + offset))


def attention(
    heads: int, rows: int, keys: int, width: int, mask: Scalar | None = None, floor: float = float("-inf")
) -> Fusion:
    """Two matrix products with a softmax between them, in one group; `mask`: which scores (`i`, `j`) count, the others being `floor`."""
    q, k = Value(tensor(F16, heads, rows, width), "q"), Value(tensor(F16, heads, keys, width), "k")
    v = Value(tensor(F16, heads, keys, width), "v")

    def f32(value: Value, *place: str) -> Scalar:
        return cast(Read(value, place), F32)

    scores = Compute(
        dims(h=heads, i=rows, j=keys),
        apply("mul", f32(q, "h", "i", "d"), f32(k, "h", "j", "d")),
        reductions=dims(d=width),
        monoid="sum",
        name="scores",
    )
    s: Scalar = Read(scores.result, ["h", "i", "j"])
    masked = Compute(
        dims(h=heads, i=rows, j=keys), s if mask is None else select(mask, s, literal(floor)), name="masked"
    )
    s = Read(masked.result, ["h", "i", "j"])
    top = Compute(dims(h=heads, i=rows), s, reductions=dims(j=keys), monoid="max", name="top")
    power = Compute(
        dims(h=heads, i=rows, j=keys), apply("exp", apply("sub", s, Read(top.result, ["h", "i"]))), name="power"
    )
    p = Read(power.result, ["h", "i", "j"])
    total = Compute(dims(h=heads, i=rows), p, reductions=dims(j=keys), monoid="sum", name="total")
    share = Compute(
        dims(h=heads, i=rows, j=keys), cast(apply("div", p, Read(total.result, ["h", "i"])), F16), name="share"
    )
    out = Compute(
        dims(h=heads, i=rows, e=width),
        apply("mul", cast(Read(share.result, ["h", "i", "j"]), F32), f32(v, "h", "j", "e")),
        reductions=dims(j=keys),
        monoid="sum",
        dtype=F16,
        name="out",
    )
    return group([scores, masked, top, power, total, share, out], [out])


def masked_product(m: int, n: int, k: int, mask: Scalar, dtype: DType = F32) -> Fusion:
    """A matrix of which only what the mask of `i` and `k` leaves counts, times another one."""
    a, b = Value(tensor(dtype, m, k), "a"), Value(tensor(dtype, k, n), "b")
    left = select(mask, cast(Read(a, ["i", "k"]), F32), Literal(0, F32))
    body = apply("mul", left, cast(Read(b, ["k", "j"]), F32))
    out = Compute(dims(i=m, j=n), body, reductions=dims(k=k), monoid="sum", name="out")
    return group([out], [out])


def integer_product(m: int, n: int, k: int) -> Fusion:
    x, w = Value(tensor(I8, m, k), "x"), Value(tensor(I8, k, n), "w")
    body = apply("mul", cast(Read(x, ["i", "k"]), I32), cast(Read(w, ["k", "j"]), I32))
    out = Compute(dims(i=m, j=n), body, reductions=dims(k=k), monoid="sum", accumulate=I32, name="out")
    return group([out], [out])


# -- running --------------------------------------------------------------------------------------------------------------
def random_inputs(fusion: Fusion, seed: int = 0, sizes: dict[str, int] | None = None) -> list[np.ndarray[Any, Any]]:
    """Arrays for `fusion.uses()`: small values; integers stay inside -2..3 (indices of a table of at least 3 rows)."""
    rng = np.random.default_rng(seed)
    arrays = []
    for value in fusion.uses():
        shape = tuple(int(size.evaluate(sizes or {})) for size in value.shape)
        dtype = value.type.dtype
        if dtype.is_float:
            arrays.append(round_to(rng.standard_normal(shape).astype(dtype.numpy), dtype))
        elif dtype is BOOL:
            arrays.append(rng.integers(0, 2, shape).astype(np.bool_))
        else:
            arrays.append(rng.integers(-2, 3, shape).astype(dtype.numpy))
    return arrays


def run_tiles(
    kernel: Kernel, arrays: Sequence[np.ndarray[Any, Any]], sizes: dict[str, int] | None = None
) -> list[np.ndarray[Any, Any]]:
    """Run a kernel on fresh outputs (filled with a value that no result has by chance), or on copies of the inputs that they overwrite."""
    outputs = [
        np.array(arrays[kernel.overwrites[k]])
        if k in kernel.overwrites
        else np.full([int(size.evaluate(sizes or {})) for size in value.shape], 77).astype(value.type.dtype.numpy)
        for k, value in enumerate(kernel.results)
    ]
    run_kernel(kernel, [*arrays, *outputs], sizes)
    return outputs


def reference(
    fusion: Fusion, arrays: Sequence[np.ndarray[Any, Any]], sizes: dict[str, int] | None = None
) -> list[np.ndarray[Any, Any]]:
    """The group's results by the tensor-level interpreter."""
    module = Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})
    return evaluate(module, list(arrays), symbols=sizes)


TOLERANCE = {F16: 4e-3, BF16: 3e-2, F32: 2e-5}


def check(fusion: Fusion, schedule: Schedule, *, normal: bool = True, seed: int = 0) -> Kernel:
    """Tile a group, run it on the tile interpreter, and compare with the tensor interpreter; the kernel."""
    arrays = random_inputs(fusion, seed)
    if normal:
        form = normalize(fusion)
        kernel = lower(form.fusion, schedule, outputs=form.outputs, bounds=Bounds())
    else:
        kernel = lower(fusion, schedule)
    for found, wanted, value in zip(run_tiles(kernel, arrays), reference(fusion, arrays), kernel.results, strict=True):
        assert found.shape == wanted.shape
        tolerance = TOLERANCE.get(value.type.dtype, 0.0)
        scale = max(float(np.max(np.abs(wanted[np.isfinite(wanted)].astype(np.float64)), initial=0.0)), 1.0)
        np.testing.assert_allclose(
            found.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance * scale, equal_nan=True
        )
    return kernel
