"""Hand-built modules in the form that a front end captures: one compute per framework operator."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codesign.ir.core import Block, Function, Module, Value
from codesign.ir.dtypes import F32, DType
from codesign.ir.index import IndexLike, index
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Constant, Dim, Monoid
from codesign.ir.types import tensor


@dataclass
class Builder:
    """Builds a function op by op; each method is one framework operator."""

    dtype: DType = F32
    args: list[Value] = field(default_factory=list)
    block: Block = field(default_factory=Block)
    constants: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    counter: itertools.count[int] = field(default_factory=itertools.count)

    def input(self, *shape: IndexLike, dtype: DType | None = None) -> Value:
        value = Value(tensor(dtype or self.dtype, *shape), f"x{len(self.args)}")
        self.args.append(value)
        return value

    def constant(self, data: npt.NDArray[np.generic], dtype: DType | None = None) -> Value:
        name = f"c{len(self.constants)}"
        self.constants[name] = data
        return self.block.add(Constant(name, tensor(dtype or self.dtype, *data.shape))).result

    def names(self, count: int) -> list[str]:
        return [f"{letter}" for letter, _ in zip("abcdefgh", range(count), strict=False)]

    def compute(self, dims: dict[str, IndexLike], body: Scalar, **options: object) -> Value:
        reductions = options.pop("reductions", {})
        assert isinstance(reductions, dict)
        op = Compute(
            [Dim(n, index(e)) for n, e in dims.items()],
            body,
            reductions=[Dim(n, index(e)) for n, e in reductions.items()],
            name=f"v{next(self.counter)}",
            **options,  # type: ignore[arg-type]
        )
        return self.block.add(op).result

    def pointwise(self, function: str, *values: Value) -> Value:
        """Element-wise with broadcasting by trailing dims, as PyTorch does."""
        rank = max(len(v.shape) for v in values)
        names = self.names(rank)
        shape: list[IndexLike] = [1] * rank
        reads: list[Scalar] = []
        for v in values:
            own = names[rank - len(v.shape) :]
            for name, size in zip(own, v.shape, strict=True):
                if size != 1:
                    shape[names.index(name)] = size
        for v in values:
            own = names[rank - len(v.shape) :]
            reads.append(Read(v, [0 if size == 1 else name for name, size in zip(own, v.shape, strict=True)]))
        return self.compute(dict(zip(names, shape, strict=True)), apply(function, *reads))

    def scale(self, value: Value, factor: float, function: str = "mul") -> Value:
        names = self.names(len(value.shape))
        body = apply(function, Read(value, names), Literal(factor, value.type.dtype))
        return self.compute(dict(zip(names, value.shape, strict=True)), body)

    def cast(self, value: Value, dtype: DType) -> Value:
        names = self.names(len(value.shape))
        return self.compute(dict(zip(names, value.shape, strict=True)), cast(Read(value, names), dtype))

    def view(self, value: Value, *shape: int) -> Value:
        """Reshape through the row-major position."""
        names = self.names(len(shape))
        flat = index(0)
        for name, extent in zip(names, shape, strict=True):
            flat = flat * extent + name
        indices = []
        for size in reversed(value.shape):
            indices.append(flat % size)
            flat = flat // size
        return self.compute(dict(zip(names, shape, strict=True)), Read(value, indices[::-1]))

    def permute(self, value: Value, *order: int) -> Value:
        names = self.names(len(order))
        places = [names[order.index(i)] for i in range(len(order))]
        return self.compute({n: value.shape[o] for n, o in zip(names, order, strict=True)}, Read(value, places))

    def matmul(self, x: Value, w: Value) -> Value:
        """Batched `x @ w` with f32 accumulation."""
        *batch, m, k = x.shape
        names = self.names(len(batch))
        left = cast(Read(x, [*names, "m", "k"]), F32)
        right = cast(Read(w, [*names, "k", "n"]), F32)
        dims: dict[str, IndexLike] = {**dict(zip(names, batch, strict=True)), "m": m, "n": w.shape[-1]}
        return self.compute(dims, apply("mul", left, right), reductions={"k": k}, monoid="sum", dtype=self.dtype)

    def linear(self, x: Value, w: Value, b: Value | None = None) -> Value:
        """`x @ w.T + b` for x [m, k], w [n, k]."""
        out = self.matmul(x, self.permute(w, 1, 0))
        return out if b is None else self.pointwise("add", out, b)

    def reduce(self, value: Value, monoid: Monoid, *, keep: bool = True) -> Value:
        """Over the last dim."""
        names = self.names(len(value.shape))
        dims: dict[str, IndexLike] = dict(zip(names[:-1], value.shape[:-1], strict=True))
        if keep:
            dims["one"] = 1
        body: Scalar = Read(value, names)
        if monoid == "sum":
            body = cast(body, F32)
        options = {"dtype": value.type.dtype} if not monoid.startswith("arg") else {}
        return self.compute(dims, body, reductions={names[-1]: value.shape[-1]}, monoid=monoid, **options)

    def softmax(self, x: Value) -> Value:
        e = self.pointwise("exp", self.pointwise("sub", x, self.reduce(x, "max")))
        return self.pointwise("div", e, self.reduce(e, "sum"))

    def layer_norm(self, x: Value, weight: Value, bias: Value) -> Value:
        count = float(x.shape[-1].constant)
        mean = self.scale(self.reduce(x, "sum"), count, "div")
        centred = self.pointwise("sub", x, mean)
        variance = self.scale(self.reduce(self.pointwise("mul", centred, centred), "sum"), count, "div")
        scale = self.pointwise("rsqrt", self.scale(variance, 1e-5, "add"))
        return self.pointwise("add", self.pointwise("mul", self.pointwise("mul", centred, scale), weight), bias)

    def gelu(self, x: Value) -> Value:
        inner = self.scale(self.pointwise("erf", self.scale(x, 0.5**0.5)), 1.0, "add")
        return self.pointwise("mul", self.scale(x, 0.5), inner)

    def causal_mask(self, size: int) -> Value:
        rows = self.compute({"a": size}, IndexValue("a"))
        i = self.view(rows, size, 1)
        names = ["a", "b"]
        body = apply("ge", Read(i, ["a", 0]), Read(rows, ["b"]))
        return self.compute(dict(zip(names, (size, size), strict=True)), body)

    def masked(self, scores: Value, mask: Value) -> Value:
        names = self.names(len(scores.shape))
        keep = Read(mask, names[-2:])
        body = select(keep, Read(scores, names), Literal(float("-inf"), scores.type.dtype))
        return self.compute(dict(zip(names, scores.shape, strict=True)), body)

    def module(self, *results: Value) -> Module:
        body = Block(self.args, self.block.ops, results)
        return Module("test", {}, {"main": Function("main", body)}, constants=self.constants)


def mlp(m: int = 8, k: int = 16, h: int = 32, n: int = 12) -> Module:
    """linear, gelu, linear, over a batch of sequences that are flattened and unflattened around each linear."""
    b = Builder()
    x = b.input(2, m, k)
    w1, b1, w2, b2 = b.input(h, k), b.input(h), b.input(n, h), b.input(n)
    hidden = b.gelu(b.view(b.linear(b.view(x, 2 * m, k), w1, b1), 2, m, h))
    return b.module(b.view(b.linear(b.view(hidden, 2 * m, h), w2, b2), 2, m, n))


def softmax(m: int = 6, n: int = 10) -> Module:
    b = Builder()
    return b.module(b.softmax(b.input(m, n)))


def layer_norm(m: int = 6, n: int = 8) -> Module:
    b = Builder()
    return b.module(b.layer_norm(b.input(m, n), b.input(n), b.input(n)))


def attention(batch: int = 2, tokens: int = 8, heads: int = 2, size: int = 4) -> Module:
    """Causal self-attention with projections, heads split and merged by view and permute."""
    b = Builder()
    width = heads * size
    x = b.input(batch, tokens, width)
    flat = b.view(x, batch * tokens, width)
    parts = []
    for _ in range(3):
        projected = b.view(b.linear(flat, b.input(width, width), b.input(width)), batch, tokens, heads, size)
        parts.append(b.permute(projected, 0, 2, 1, 3))
    q, k, v = parts
    scores = b.scale(b.matmul(q, b.permute(k, 0, 1, 3, 2)), size**-0.5)
    weights = b.softmax(b.masked(scores, b.causal_mask(tokens)))
    out = b.view(b.permute(b.matmul(weights, v), 0, 2, 1, 3), batch * tokens, width)
    return b.module(b.view(b.linear(out, b.input(width, width)), batch, tokens, width))


def as_module(function: Function) -> Module:
    return Module("test", {}, {function.name: function})


ALL: dict[str, Callable[[], Module]] = {
    "mlp": mlp,
    "softmax": softmax,
    "layer_norm": layer_norm,
    "attention": attention,
}
