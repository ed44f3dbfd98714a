"""Operators that treat both parts alike (views, moves, sums), products of matrices, and what gives a real result."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from codesign.frontend.complex.elementwise import Pair, times, truth
from codesign.frontend.complex.planes import Complex, Emitter, Real, aten
from codesign.frontend.complex.registry import rule
from codesign.ir.errors import UnsupportedError

Args = Mapping[str, Any]

_SELF = (
    "view _unsafe_view reshape _reshape_alias _reshape_copy view_copy flatten unflatten permute transpose t "
    "squeeze unsqueeze expand slice select split split_with_sizes split_copy split_with_sizes_copy unbind chunk "
    "narrow diagonal diag_embed unfold repeat repeat_interleave flip roll tril triu index index_select gather "
    "take sum mean cumsum trace neg positive clone detach alias contiguous lift lift_fresh lift_fresh_copy "
    "resolve_conj resolve_neg zeros_like empty_like new_zeros new_empty permute_copy transpose_copy t_copy "
    "squeeze_copy unsqueeze_copy expand_copy slice_copy select_copy alias_copy detach_copy diagonal_copy "
    "unbind_copy unfold_copy reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d zeros empty sym_size sym_numel masked_select empty_strided new_empty_strided "
    "empty_permuted resize"
)
"""Both planes go the same way; the tensor is `self`, the other arguments say how."""

_VALUES = dict.fromkeys(_SELF.split(), ("self",)) | {
    "cat": ("tensors",),
    "stack": ("tensors",),
    "where": ("self", "other"),
    "masked_fill": ("self", "value"),
    "masked_scatter": ("self", "source"),
    "constant_pad_nd": ("self", "value"),
    "copy": ("self", "src"),
    "fill": ("self", "value"),
    "full": ("fill_value",),
    "full_like": ("self", "fill_value"),
    "new_full": ("self", "fill_value"),
    "scalar_tensor": ("s",),
    "embedding": ("weight",),
    "index_put": ("self", "values"),
    "put": ("self", "source"),
    "index_add": ("self", "source"),
    "index_copy": ("self", "source"),
    "index_fill": ("self", "value"),
    "scatter": ("self", "src", "value"),
    "scatter_add": ("self", "src"),
    "select_scatter": ("self", "src"),
    "slice_scatter": ("self", "src"),
    "diagonal_scatter": ("self", "src"),
}
"""The arguments of each operator that hold numbers, of which a plane takes its part."""

_RESHAPES = (aten.view.default, aten._unsafe_view.default)


def _planewise(name: str) -> None:
    values = _VALUES[name]

    def run(e: Emitter, args: Args) -> Any:
        if e.origin.target is aten.view.dtype:
            return _as_other_type(e, args["self"])
        if args.get("reduce") in ("multiply", "prod"):
            return _multiplied(e, args)
        if args.get("reduce") not in (None, "add", "sum"):
            raise UnsupportedError("complex numbers have no order")
        first = _on_plane(e, args, values, 0)
        if not any(isinstance(leaf, torch.Tensor) and leaf.is_complex() for leaf in tree_leaves(e.origin.meta["val"])):
            return first  # a size, or the real part in a real dtype
        return Complex(e, planes=(first, _on_plane(e, args, values, 1)))

    rule(name)(run)


def _on_plane(e: Emitter, args: Args, values: tuple[str, ...], part: int) -> Node:
    """The operator on the real parts (`part` 0) or on the imaginary ones."""
    target = e.origin.target
    assert isinstance(target, torch._ops.OpOverload)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for argument in target._schema.arguments:
        value = args[argument.name]
        if argument.name in values:
            value = _part(e, value, part)
        elif isinstance(value, torch.dtype):
            value = value.to_real() if value.is_complex else value
        elif isinstance(value, (Complex, complex)):
            raise UnsupportedError(f"a complex {argument.name}")
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            positional.append(value)
    return e.plane_call(aten.reshape.default if target in _RESHAPES else target, *positional, **named)


def _multiplied(e: Emitter, args: Args) -> Complex:
    """Numbers multiplied in at places that data names: their sizes multiply, their angles add up."""
    target = aten.scatter.reduce
    (a, b), (c, d) = e.operand(args["self"]), e.operand(args["src"] if "src" in args else args["value"])
    if c.is_number:
        like = Real(e, e.call(aten.full_like.default, args["index"], 0.0, dtype=e.real))
        c, d = like + c, like + d
    places = args["dim"], args["index"]

    def put(into: Real, values: Real, how: str) -> Real:
        return Real(e, e.call(target, into, *places, values, reduce=how))

    size = put(a.function("hypot", b), c.function("hypot", d), "multiply")
    angle = put(b.function("atan2", a), d.function("atan2", c), "add")
    return e.complex(size * angle.function("cos"), size * angle.function("sin"))


def _part(e: Emitter, value: Any, part: int) -> Any:
    if isinstance(value, (list, tuple)):
        return [_part(e, item, part) for item in value]
    return None if value is None else e.operand(value)[part]


def _as_other_type(e: Emitter, value: Any) -> Any:
    """The same bits as real numbers, or as complex ones."""
    meta = e.origin.meta["val"]
    if isinstance(value, Complex) and meta.dtype is value.whole.meta["val"].dtype:
        return e.call(aten.flatten.using_ints, value.whole, -2, -1)
    if isinstance(value, Node) and meta.dtype.is_complex and meta.dtype.to_real() is value.meta["val"].dtype:
        return Complex(e, joined=e.call(aten.unflatten.int, value, -1, [-1, 2]))
    raise UnsupportedError("the bits of complex numbers as another type")


for _name in _VALUES:
    _planewise(_name)


@rule("as_strided", "as_strided_copy")
def as_strided(e: Emitter, args: Args) -> Complex:
    """A window of the storage of the real form, whose last dim has both parts."""
    known = e.origin.args[0].meta["val"]  # type: ignore[union-attr]
    whole = args["self"].whole
    twice = [2 * step for step in known.stride()]
    start = known.storage_offset()
    offset = start if args["storage_offset"] is None else args["storage_offset"]
    if [*twice, 1] != list(whole.meta["val"].stride()) or 2 * start != whole.meta["val"].storage_offset():
        order = sorted(range(known.dim()), key=lambda d: (-known.stride(d), -known.shape[d]))
        dense = [known.shape[d] for d in order]
        if [known.stride(d) for d in order] != _row_major(dense):
            raise UnsupportedError("a window of a complex tensor with gaps", hint="call .contiguous() before it")
        whole = e.call(aten.permute.default, whole, [*order, known.dim()])
        whole = e.call(aten.reshape.default, whole, [known.numel(), 2])
        offset -= start
    size, stride = [*args["size"], 2], [*(2 * step for step in args["stride"]), 1]
    return Complex(e, joined=e.call(aten.as_strided.default, whole, size, stride, 2 * offset))


def _row_major(sizes: list[int]) -> list[int]:
    steps = [1]
    for size in reversed(sizes[1:]):
        steps.insert(0, steps[0] * size)
    return steps[: len(sizes)]


@rule("rand", "rand_like", "randn", "randn_like", "uniform", "normal_functional")
def drawn(e: Emitter, args: Args) -> Complex:
    """Both parts are drawn, the normal ones with half of the variance; the mean of `normal_` is that of the real part."""
    name = str(e.origin.target).split(".")[1]
    sizes = _real_sizes(e, e.origin.meta["val"], args.get("self"))
    normal = "normal" in name or "randn" in name
    target = aten.randn.default if normal else aten.rand.default
    parts = Real(e, e.call(target, sizes, dtype=e.real, device=torch.device("cpu")))
    if name == "uniform":
        return Complex(e, joined=(parts * (args["to"] - args["from"]) + args["from"]).value)
    if not normal:
        return Complex(e, joined=parts.value)
    found = Complex(e, joined=(parts * (args.get("std", 1.0) * math.sqrt(0.5))).value)
    return found if not args.get("mean") else e.complex(e.plane(found.re) + args["mean"], e.plane(found.im))


def _real_sizes(e: Emitter, known: torch.Tensor, of: Any) -> list[Any]:
    """The sizes of the real form, those that are not known as nodes."""
    sizes = list(known.shape)
    if isinstance(of, Complex):
        sizes = [
            size if isinstance(size, int) else e.call(aten.sym_size.int, of.whole, d) for d, size in enumerate(sizes)
        ]
    elif not all(isinstance(size, int) for size in sizes):
        sizes = list(e.origin.args[0])  # type: ignore[arg-type]
    return [*sizes, 2]


@rule("ones", "ones_like", "new_ones")
def ones(e: Emitter, args: Args) -> Complex | Real:
    re = Real(e, _on_plane(e, args, ("self",), 0))
    return e.complex(re, re.constant(0.0)) if e.origin.meta["val"].is_complex() else re


@rule("view_as_complex")
def view_as_complex(e: Emitter, args: Args) -> Complex:
    return Complex(e, joined=args["self"])


# -- products ----------------------------------------------------------------------------------------------------------------
@rule("mm", "bmm", "matmul", "dot", "mv", "ger", "outer")
def product(e: Emitter, args: Args) -> Complex:
    left, right = (e.operand(value) for value in args.values())
    return _products(e, left, right, lambda a, b: Real(e, e.call(e.origin.target, a, b)))


def _products(e: Emitter, left: Any, right: Any, multiply: Any) -> Complex:
    (a, b), (c, d) = left, right
    return e.complex(multiply(a, c) - multiply(b, d), multiply(a, d) + multiply(b, c))


@rule("linear", "convolution")
def biased(e: Emitter, args: Args) -> Complex:
    tensors, weights = (e.operand(args[name]) for name in ("input", "weight"))
    bias = (None, None) if args["bias"] is None else e.operand(args["bias"])
    rest = list(args.values())[3:]
    (a, b), (c, d) = tensors, weights

    def apply(x: Real, y: Real, more: Real | None) -> Real:
        return Real(e, e.call(e.origin.target, x, y, more, *rest))

    return e.complex(apply(a, c, bias[0]) - apply(b, d, None), apply(a, d, bias[1]) + apply(b, c, None))


@rule("addmm", "baddbmm", "addmv", "addbmm")
def added_product(e: Emitter, args: Args) -> Complex:
    added, left, right = (e.operand(value) for value in list(args.values())[:3])
    beta, alpha = args["beta"], args["alpha"]
    if isinstance(beta, complex):
        added, beta = times(added, e.operand(beta)), 1
    if isinstance(alpha, complex):
        left, alpha = times(left, e.operand(alpha)), 1
    (a, b), (c, d) = left, right

    def apply(start: Any, x: Real, y: Real, scale: Any, factor: Any) -> Node:
        return e.call(e.origin.target, start, x, y, beta=scale, alpha=factor)

    re = apply(apply(added[0], a, c, beta, alpha), b, d, 1, -alpha)
    return e.complex(re, apply(apply(added[1], a, d, beta, alpha), b, c, 1, alpha))


@rule("prod")
def prod(e: Emitter, args: Args) -> Complex:
    """Halves multiplied with each other until one number is left."""
    value = e.operand(args["self"])
    dim = args.get("dim")
    if dim is None:
        value, dim = _each(e, value, aten.reshape.default, [-1]), 0
    size = value[0].value.meta["val"].shape[dim] if value[0].value.meta["val"].dim() else None
    if not isinstance(size, int) and size is not None:
        raise UnsupportedError("a product of complex numbers along a dynamic size", hint="fix the dimension")
    if size == 0:
        none = Real(e, e.call(aten.sum.dim_IntList, value[0], [dim], bool(args.get("keepdim"))))
        return e.complex(none + 1.0, none)
    while size is not None and size > 1:
        half = size // 2
        halves = [_each(e, value, aten.slice.Tensor, dim, start, start + half) for start in (0, half)]
        odd = _each(e, value, aten.slice.Tensor, dim, 2 * half, size) if size % 2 else None
        value, size = times(*halves), half
        if odd is not None:
            first, second = (
                Real(e, e.call(aten.cat.default, list(pair), dim)) for pair in zip(value, odd, strict=True)
            )
            value, size = (first, second), half + 1
    if size is not None and not args.get("keepdim"):
        value = _each(e, value, aten.squeeze.dim, dim)
    return e.complex(*value)


@rule("cumprod")
def cumprod(e: Emitter, args: Args) -> Complex:
    """Products with what is 1, 2, 4, ... places before: after each, a number is the product of twice as many (Hillis and Steele, 1986)."""
    value = e.operand(args["self"])
    shape = value[0].value.meta["val"].shape
    if not shape:
        return e.complex(*value)
    dim = args["dim"] % len(shape)
    size, step = shape[dim], 1
    if not isinstance(size, int):
        raise UnsupportedError("a running product of complex numbers along a dynamic size", hint="fix the dimension")
    while step < size:
        value, step = times(value, _moved(e, value, dim, step, size)), 2 * step
    return e.complex(*value)


def _moved(e: Emitter, value: Pair, dim: int, step: int, size: int) -> Pair:
    """Each number in the place `step` further along a dim, and ones before them."""
    found = []
    for plane, filling in zip(value, (1.0, 0.0), strict=True):
        first = Real(e, e.call(aten.slice.Tensor, plane, dim, 0, step)).constant(filling)
        rest = e.call(aten.slice.Tensor, plane, dim, 0, size - step)
        found.append(Real(e, e.call(aten.cat.default, [first, rest], dim)))
    return found[0], found[1]


def _each(e: Emitter, value: Pair, target: Any, *rest: Any) -> Pair:
    re, im = (Real(e, e.call(target, plane, *rest)) for plane in value)
    return re, im


# -- real results ------------------------------------------------------------------------------------------------------------
@rule("var")
def var(e: Emitter, args: Args) -> Real:
    first, second = (Real(e, _on_plane(e, args, ("self",), k)) for k in (0, 1))
    return first + second


@rule("var_mean")
def var_mean(e: Emitter, args: Args) -> list[Any]:
    """Of both parts the variances add up; the mean is complex."""
    parts = [_on_plane(e, args, ("self",), k) for k in (0, 1)]
    (first, re), (second, im) = ([e.call(operator.getitem, part, k) for k in (0, 1)] for part in parts)
    return [(Real(e, first) + Real(e, second)).value, e.complex(re, im)]


@rule("dist")
def dist(e: Emitter, args: Args) -> Node:
    (a, b), (c, d) = e.operand(args["self"]), e.operand(args["other"])
    return e.call(aten.linalg_vector_norm.default, (a - c).function("hypot", b - d), args["p"])


@rule("linalg_vector_norm")
def vector_norm(e: Emitter, args: Args) -> Node:
    re, im = e.operand(args["self"])
    dtype = args["dtype"]
    kind = dtype.to_real() if dtype is not None and dtype.is_complex else dtype
    size = re.function("hypot", im)
    return e.call(aten.linalg_vector_norm.default, size, args["ord"], args["dim"], args["keepdim"], dtype=kind)


@rule("nonzero", "any", "all", "logical_not", "logical_and", "logical_or", "logical_xor")
def of_truth(e: Emitter, args: Args) -> Node:
    tensors = {name: truth(e, args[name]) for name in ("self", "other") if name in args}
    target = e.origin.target
    assert isinstance(target, torch._ops.OpOverload)
    return e.plane_call(target, *(tensors.get(a.name, args[a.name]) for a in target._schema.arguments))
