"""The kernels of measured tables, written as tensor-level groups and summarised like any other.

Sizes are symbols, so that one summary serves a whole table. Nothing here is a formula: each function says what the
kernel computes. `fresh` kernels run in the midst of a model: the one before has just written their input `x`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from codesign.costmodel.summary import Access, KernelSummary, summarize
from codesign.ir.core import Block, Value
from codesign.ir.dtypes import DTYPES, F32, I32, I64, DType
from codesign.ir.index import IndexLike, index
from codesign.ir.scalar import IndexValue, Read, Scalar, apply, cast, literal, select
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.types import row_major, tensor


def _dims(**sizes: IndexLike) -> list[Dim]:
    return [Dim(name, index(size)) for name, size in sizes.items()]


def _input(name: str, dtype: DType, *shape: IndexLike) -> Value:
    return Value(tensor(dtype, *shape), name)


def _group(computes: list[Compute], outputs: list[Compute]) -> Fusion:
    return Fusion(Block((), computes, [compute.result for compute in outputs]))


def _summary(
    name: str,
    computes: list[Compute],
    outputs: list[Compute],
    warm: str = "",
    fresh: str = "",
    replayed: str = "",
    rotated: str = "",
) -> KernelSummary:
    """The summary of a group; `warm` names inputs that were written some kernels ago, `fresh` those that the kernel
    just before has written, `replayed` those that the same kernel read when it was timed before, `rotated` those of
    which each timing takes another copy, a few in turn (all else is then the same memory each time)."""
    found = summarize(_group(computes, outputs), name=name, key=name)
    given = {"warm": warm, "fresh": fresh, "replayed": replayed, "rotated": rotated}
    return KernelSummary(**{**found.__dict__, "notes": {key: value for key, value in given.items() if value}})


@lru_cache(maxsize=32)
def gemm(dtype: str = "bf16", rotated: bool = False) -> KernelSummary:
    """`C[m, n] = sum_k A[m, k] B[n, k]` of sizes M, N, K; A is an activation that was just written.

    `rotated`: it was timed over and over, on one A and with several copies of the weights in turn.
    """
    c = _product(dtype, "M", "N", "K")
    return _summary("gemm", [c], [c], "a", rotated="b" if rotated else "")


F4 = DType("f4", "float", 4, 1, F32.numpy)
"""Four bits with one of mantissa, of which the IR has no type: products of it are priced, not compiled."""


@lru_cache(maxsize=8)
def quantised_gemm(operand: str, group: int = 0) -> KernelSummary:
    """`C[m, n] = sum_k A[m, k] B[n, k]` in bf16 of quantised operands, timed as `gemm(rotated=True)` is; with `group`, a scale
    of one byte for so many elements of k is read beside both."""
    c = _product("f8e4m3" if operand == F4.name else operand, "M", "N", "K", "bf16")
    found = _summary("gemm", [c], [c], "a", rotated="b")
    (nest,) = found.nests
    product = nest.contraction
    assert product is not None
    if operand == F4.name:
        product = replace(product, left=F4, right=F4, unit=F4)
        nest = replace(nest, contraction=product, loads=tuple(replace(load, dtype=F4) for load in nest.loads))
    if group:
        nest = replace(nest, loads=(*nest.loads, *(_scales(load, group) for load in nest.loads)))
    return replace(found, nests=(nest,))


def _scales(load: Access, group: int) -> Access:
    """The load of an operand's scales: one byte for each group of its last dim."""
    *rows, columns = load.shape
    *at, along = load.index
    shape = (*rows, columns // group)
    of_group = (*at, along // group)
    name = f"{load.tensor}_scale"
    return replace(load, tensor=name, dtype=DTYPES["u8"], shape=shape, strides=row_major(shape), index=of_group)


@lru_cache(maxsize=8)
def products(dtype: str = "f32") -> KernelSummary:
    """B products `C[m, n] = sum_k A[m, k] B[k, n]` of sizes M, N, K."""
    kind = DTYPES[dtype]
    a, b = _input("a", kind, "B", "M", "K"), _input("b", kind, "B", "K", "N")
    body = apply("mul", cast(Read(a, ("z", "m", "k")), F32), cast(Read(b, ("z", "k", "n")), F32))
    dims, summed = _dims(z="B", m="M", n="N"), _dims(k="K")
    c = Compute(dims, body, dtype=kind, reductions=summed, monoid="sum", accumulate=F32, name="c")
    return _summary("products", [c], [c], "a")


@lru_cache(maxsize=32)
def elementwise(function: str, tensors: int, number: bool, dtype: str = "f32") -> KernelSummary:
    """A scalar function of N elements of one or two tensors, of which a number may be the second."""
    kind = DTYPES[dtype]
    args: list[Scalar] = [Read(_input("xy"[position], kind, "N"), ("n",)) for position in range(tensors)]
    args += [literal(1.5, kind)] if number else []
    if function == "relu":
        body: Scalar = apply("max", args[0], literal(0.0, kind))
    elif function == "sigmoid":
        body = apply("reciprocal", apply("add", literal(1.0, kind), apply("exp", apply("neg", args[0]))))
    else:
        body = apply(function, *args)
    out = Compute(_dims(n="N"), body, dtype=kind, name="out")
    return _summary(function, [out], [out])


def product_group(dtype: str, m: int, n: int, k: int) -> Fusion:
    """The same at given sizes, as a group that is to be scheduled."""
    c = _product(dtype, m, n, k)
    return _group([c], [c])


def _product(dtype: str, m: IndexLike, n: IndexLike, k: IndexLike, result: str = "") -> Compute:
    kind = DTYPES[dtype]
    inner = I32 if kind.is_integer else F32
    a, b = _input("a", kind, m, k), _input("b", kind, n, k)
    body = apply("mul", cast(Read(a, ("m", "k")), inner), cast(Read(b, ("n", "k")), inner))
    dims, summed = _dims(m=m, n=n), _dims(k=k)
    stored = DTYPES[result or dtype]
    return Compute(dims, body, dtype=stored, reductions=summed, monoid="sum", accumulate=inner, name="c")


@lru_cache(maxsize=64)
def attention(
    dtype: str = "bf16",
    kv_dtype: str = "bf16",
    head: int = 128,
    masked: bool = True,
    replayed: bool = False,
    result: str = "",
    keys_only: bool = False,
) -> KernelSummary:
    """Grouped-query attention of one query block: sizes B batch, G key heads, R query heads a key head, Q queries, J
    keys.

    Scores, a softmax over j in one pass, and the product with the values. Masking is arithmetic on the scores; which
    tiles are empty is the scenario's share of keys that are visited. `replayed` keys and values were read by the same
    kernel a moment ago: they are in L2 as far as they fit. `result` is the dtype of the output, the queries' by
    default; with `keys_only` the keys are the values too.
    """
    kind, kv = DTYPES[dtype], DTYPES[kv_dtype]
    q = _input("q", kind, "B", "G", "R", "Q", head)
    k = _input("k", kv, "B", "G", "J", head)
    v = k if keys_only else _input("v", kv, "B", "G", "J", head)
    outer = _dims(b="B", g="G", r="R", i="Q")
    at = ("b", "g", "r", "i")
    j, d = _dims(j="J"), _dims(d=head)
    product = apply("mul", cast(Read(q, (*at, "d")), F32), cast(cast(Read(k, ("b", "g", "j", "d")), kind), F32))
    score = Compute([*outer, *j], product, dtype=F32, reductions=d, monoid="sum", accumulate=F32, name="score")
    scaled: Scalar = apply("mul", Read(score.result, (*at, "j")), literal(0.1, F32))
    if masked:
        keep = apply("le", IndexValue("j"), IndexValue(index("i") + index("J") - index("Q")))
        scaled = select(keep, scaled, literal(float("-inf"), F32))
    top = Compute(outer, scaled, dtype=F32, reductions=j, monoid="max", accumulate=F32, name="top")
    weight = apply("exp2", apply("sub", scaled, Read(top.result, at)))
    exp = Compute([*outer, *j], weight, dtype=F32, name="exp")
    total = Compute(
        outer, Read(exp.result, (*at, "j")), dtype=F32, reductions=j, monoid="sum", accumulate=F32, name="total"
    )
    product = apply(
        "mul", cast(cast(Read(exp.result, (*at, "j")), kind), F32), cast(cast(Read(v, ("b", "g", "j", "e")), kind), F32)
    )
    mixed = Compute(
        [*outer, *_dims(e=head)], product, dtype=F32, reductions=j, monoid="sum", accumulate=F32, name="mixed"
    )
    inverse = apply("div", literal(1.0, F32), Read(total.result, at))  # once a row
    body = apply("mul", Read(mixed.result, (*at, "e")), inverse)
    wide = DTYPES[result or dtype]
    out = Compute([*outer, *_dims(e=head)], cast(body, wide), dtype=wide, name="out")
    return _summary("attention", [score, top, exp, total, mixed, out], [out], "q", replayed="k,v" if replayed else "")


@lru_cache(maxsize=8)
def rms_norm(dtype: str = "bf16", fresh: bool = False) -> KernelSummary:
    """RMS norm of T rows of N elements with a weight."""
    kind = DTYPES[dtype]
    x, w = _input("x", kind, "T", "N"), _input("w", kind, "N")
    value = cast(Read(x, ("t", "n")), F32)
    squares = Compute(
        _dims(t="T"), apply("mul", value, value), dtype=F32, reductions=_dims(n="N"), monoid="sum", name="squares"
    )
    mean = apply("mul", Read(squares.result, ("t",)), literal(1e-4, F32))
    scale = apply("rsqrt", apply("add", mean, literal(1e-6, F32)))
    body = apply("mul", apply("mul", value, scale), cast(Read(w, ("n",)), F32))
    out = Compute(_dims(t="T", n="N"), cast(body, kind), dtype=kind, name="out")
    return _summary("rms_norm", [squares, out], [out], fresh="x" if fresh else "")


@lru_cache(maxsize=8)
def layer_norm(dtype: str = "bf16", fresh: bool = False) -> KernelSummary:
    """Layer norm of T rows of N elements with a weight and a bias; both moments in one pass, the mean as a
    running one that takes a reciprocal an element (Welford)."""
    kind = DTYPES[dtype]
    x, w, b = _input("x", kind, "T", "N"), _input("w", kind, "N"), _input("b", kind, "N")
    value = cast(Read(x, ("t", "n")), F32)
    share = apply("reciprocal", cast(IndexValue("n"), F32))
    moments = [
        Compute(_dims(t="T"), body, dtype=F32, reductions=_dims(n="N"), monoid="sum", name=name)
        for name, body in (("mean", apply("mul", value, share)), ("squares", apply("mul", value, value)))
    ]
    mean, squares = (Read(moment.result, ("t",)) for moment in moments)
    variance = apply("sub", squares, apply("mul", mean, mean))
    scale = apply("rsqrt", apply("add", variance, literal(1e-5, F32)))
    body = apply("mul", apply("mul", apply("sub", value, mean), scale), cast(Read(w, ("n",)), F32))
    body = apply("add", body, cast(Read(b, ("n",)), F32))
    out = Compute(_dims(t="T", n="N"), cast(body, kind), dtype=kind, name="out")
    return _summary("layer_norm", [*moments, out], [out], fresh="x" if fresh else "")


@lru_cache(maxsize=8)
def add(dtype: str = "bf16", fresh: bool = False) -> KernelSummary:
    """Sum of two T x N tensors."""
    kind = DTYPES[dtype]
    x, y = _input("x", kind, "T", "N"), _input("y", kind, "T", "N")
    out = Compute(_dims(t="T", n="N"), apply("add", Read(x, ("t", "n")), Read(y, ("t", "n"))), dtype=kind, name="out")
    return _summary("add", [out], [out], fresh="x" if fresh else "")


@lru_cache(maxsize=8)
def silu_and_multiply(dtype: str = "bf16", fresh: bool = False) -> KernelSummary:
    """`silu(x[:, :N]) * x[:, N:]` of a T x 2N tensor."""
    kind = DTYPES[dtype]
    x = _input("x", kind, "T", index("N") * 2)
    gate, up = cast(Read(x, ("t", "n")), F32), cast(Read(x, ("t", index("n") + index("N"))), F32)
    silu = apply("div", gate, apply("add", literal(1.0, F32), apply("exp", apply("neg", gate))))
    out = Compute(_dims(t="T", n="N"), cast(apply("mul", silu, up), kind), dtype=kind, name="out")
    return _summary("silu_and_multiply", [out], [out], fresh="x" if fresh else "")


@lru_cache(maxsize=8)
def gelu(dtype: str = "bf16", fresh: bool = False) -> KernelSummary:
    """GELU (by the error function) of a T x N tensor."""
    kind = DTYPES[dtype]
    x = _input("x", kind, "T", "N")
    value = cast(Read(x, ("t", "n")), F32)
    inner = apply("erf", apply("mul", value, literal(0.7071067811865476, F32)))
    body = apply("mul", apply("mul", value, literal(0.5, F32)), apply("add", inner, literal(1.0, F32)))
    out = Compute(_dims(t="T", n="N"), cast(body, kind), dtype=kind, name="out")
    return _summary("gelu", [out], [out], fresh="x" if fresh else "")


@lru_cache(maxsize=8)
def rope(dtype: str = "bf16", fresh: bool = False) -> KernelSummary:
    """Rotary embedding of T tokens, H heads (queries and keys) of 2 D elements: each element of a head's first half is
    turned with its fellow of the second half, by cosines and sines from a table by position."""
    kind = DTYPES[dtype]
    x = _input("x", kind, "T", "H", index("D") * 2)
    table, at = _input("table", kind, 4096, index("D") * 2), _input("at", I64, "T")
    position = Read(at, ("t",)).as_index()
    half = index("d") + index("D")
    cosine, sine = (cast(Read(table, (position, column)), F32) for column in (index("d"), half))
    first, second = (cast(Read(x, ("t", "h", column)), F32) for column in (index("d"), half))
    left = apply("sub", apply("mul", first, cosine), apply("mul", second, sine))
    right = apply("add", apply("mul", second, cosine), apply("mul", first, sine))
    dims = _dims(t="T", h="H", d="D")
    outs = [
        Compute(dims, cast(body, kind), dtype=kind, name=name) for body, name in ((left, "first"), (right, "second"))
    ]
    return _summary("rope", outs, outs, fresh="x" if fresh else "")


@lru_cache(maxsize=8)
def embedding(dtype: str = "bf16") -> KernelSummary:
    """Rows of a V x N table picked by T indices."""
    kind = DTYPES[dtype]
    table, ids = _input("table", kind, "V", "N"), _input("ids", I64, "T")
    out = Compute(_dims(t="T", n="N"), Read(table, (Read(ids, ("t",)).as_index(), "n")), dtype=kind, name="out")
    return _summary("embedding", [out], [out])


@lru_cache(maxsize=8)
def softmax(dtype: str = "bf16") -> KernelSummary:
    """Softmax of T rows of N elements."""
    kind = DTYPES[dtype]
    x = _input("x", kind, "T", "N")
    value = cast(Read(x, ("t", "n")), F32)
    top = Compute(_dims(t="T"), value, dtype=F32, reductions=_dims(n="N"), monoid="max", name="top")
    exp = Compute(
        _dims(t="T", n="N"), apply("exp", apply("sub", value, Read(top.result, ("t",)))), dtype=F32, name="exp"
    )
    total = Compute(
        _dims(t="T"), Read(exp.result, ("t", "n")), dtype=F32, reductions=_dims(n="N"), monoid="sum", name="total"
    )
    out = Compute(
        _dims(t="T", n="N"),
        cast(apply("div", Read(exp.result, ("t", "n")), Read(total.result, ("t",))), kind),
        dtype=kind,
        name="out",
    )
    return _summary("softmax", [top, exp, total, out], [out])


@lru_cache(maxsize=8)
def grouped_gemm(dtype: str = "bf16", replayed: bool = False) -> KernelSummary:
    """A mixture's GEMM: E experts, each with M rows of K gathered from T tokens, times its own N x K weights;
    `replayed` when it was timed over and over on the same data."""
    kind = DTYPES[dtype]
    x, w, rows = _input("x", kind, "T", "K"), _input("w", kind, "E", "N", "K"), _input("rows", I64, "E", "M")
    row = Read(rows, ("e", "m")).as_index()
    body = apply("mul", cast(Read(x, (row, "k")), F32), cast(Read(w, ("e", "n", "k")), F32))
    c = Compute(
        _dims(e="E", m="M", n="N"), body, dtype=kind, reductions=_dims(k="K"), monoid="sum", accumulate=F32, name="c"
    )
    return _summary("grouped_gemm", [c], [c], "x", replayed="x,w" if replayed else "")


@lru_cache(maxsize=8)
def convolution(dtype: str = "bf16") -> KernelSummary:
    """2-D convolution, stride 1, padded by one: N images, C to O channels, H x W pixels, R x S filter."""
    kind = DTYPES[dtype]
    x, w = _input("x", kind, "N", "C", "H", "W"), _input("w", kind, "O", "C", "R", "S")
    read = Read(x, ("n", "c", index("y") + index("r") - 1, index("x") + index("s") - 1), literal(0.0, kind))
    body = apply("mul", cast(read, F32), cast(Read(w, ("o", "c", "r", "s")), F32))
    dims, inner = _dims(n="N", o="O", y="H", x="W"), _dims(c="C", r="R", s="S")
    out = Compute(dims, body, dtype=kind, reductions=inner, monoid="sum", accumulate=F32, name="out")
    return _summary("convolution", [out], [out])


@lru_cache(maxsize=8)
def filtered_image(dtype: str = "f32") -> KernelSummary:
    """An image of Y x X pixels under a filter of R x S taps; the input has the border that the filter needs."""
    kind = DTYPES[dtype]
    x = _input("x", kind, index("Y") + index("R") - 1, index("X") + index("S") - 1)
    w = _input("w", kind, "O", "R", "S")
    body = apply(
        "mul",
        cast(Read(x, (index("y") + index("r"), index("x") + index("s"))), F32),
        cast(Read(w, ("o", "r", "s")), F32),
    )
    dims, inner = _dims(o="O", y="Y", x="X"), _dims(r="R", s="S")
    out = Compute(dims, body, dtype=kind, reductions=inner, monoid="sum", accumulate=F32, name="out")
    return _summary("filtered_image", [out], [out])
