"""Reductions of tiles as Triton's: which axis after which, and in which order of the lanes."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.backends.triton.expressions import Expressions, Term
from codesign.backends.triton.functions import PRECEDENCE, compute_dtype
from codesign.ir.dtypes import BOOL, I32, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.scalar import Scalar
from codesign.ir.tile import Axis, Reduce


def reduced_text(op: Reduce, terms: Expressions) -> str:
    """Triton's text of a reduction; the body is laid out as the tile that it reads, so that big tiles are not transposed."""
    order = _natural_order((*op.axes, *op.reduced), op.body)
    body = terms.scalar(op.body, order, op.result.name or "v")
    dtype, name = op.body.dtype, op.result.name or "v"
    working = compute_dtype(dtype)
    if op.monoid in ("any", "all"):
        body, working = terms.convert(terms.convert(body, BOOL), I32), I32
    elif not working.is_float and (working.bits < 32 or working is BOOL):
        working = I32
    text = terms.full(body, order, working)
    reduced = [order.index(axis) for axis in op.reduced]
    if op.monoid in ("argmax", "argmin"):
        text, produced = _arg_reduce(terms, op, order, text, working), I32
    elif op.monoid in ("any", "all") and not op.axes:  # in each thread first, then among them once
        text, produced = f"tl.{'max' if op.monoid == 'any' else 'min'}({text})", working
    else:
        for position in sorted(reduced, reverse=True):
            text = _reduction(op.monoid, text, position, working)
        produced = working
    rest = [axis for axis in order if axis not in op.reduced]
    if rest != list(op.axes):
        name = terms.writer.namer.fresh(f"{name}_reduced")
        terms.writer.line(f"{name} = {text}")
        permutation = [rest.index(axis) for axis in op.axes]
        text = f"tl.trans({name})" if len(rest) == 2 else f"tl.permute({name}, {permutation})"
    if op.monoid in ("any", "all"):
        text, produced = f"{text} != 0", BOOL
        if op.result.type.dtype is not BOOL:
            text = f"({text})"
    axes = tuple(axis.name for axis in op.axes)
    term = Term(text, axes or ("",), PRECEDENCE["atom"], produced)  # never a Python number
    return terms.convert(term, op.result.type.dtype).text


def _arg_reduce(terms: Expressions, op: Reduce, order: Sequence[Axis], text: str, working: DType) -> str:
    """First position of the extremum: reduce the values, then the least position where they equal it (or both are NaN)."""
    if len(op.reduced) != 1:
        raise UnsupportedError(f"{op.monoid} over {len(op.reduced)} axes", place=op.location)
    (axis,) = op.reduced
    position = order.index(axis)
    names = [a.name for a in order]
    value, best = (terms.writer.namer.fresh(f"{op.result.name or 'v'}_{part}") for part in ("value", "best"))
    terms.writer.line(f"{value} = {text}")
    terms.writer.line(f"{best} = {_reduction('max' if op.monoid == 'argmax' else 'min', value, position, working)}")
    spread = f"tl.expand_dims({best}, {position})" if len(order) > 1 else best
    hit = f"{value} == {spread}"
    if working.is_float:
        hit = f"({hit}) | (({value} != {value}) & ({spread} != {spread}))"
    lanes = terms._align(terms.lanes(axis), (axis.name,), names)
    return f"tl.min(tl.where({hit}, {lanes}, {axis.size}), axis={position})"


def _reduction(monoid: str, text: str, position: int, dtype: DType) -> str:
    if monoid == "sum":
        return f"tl.sum({text}, axis={position})"
    if monoid == "prod":
        return f"tl.reduce({text}, {position}, _product)"
    largest = monoid in ("max", "any")
    if dtype.is_float:
        return f"tl.reduce({text}, {position}, {'_max_nan' if largest else '_min_nan'})"
    return f"tl.{'max' if largest else 'min'}({text}, axis={position})"


def _natural_order(axes: Sequence[Axis], body: Scalar) -> list[Axis]:
    """The axes in the order of the first read that has all of them, else as given."""
    by_name = {axis.name: axis for axis in axes}
    for read in body.reads():
        names = [i.variable for i in read.indices]
        if len(names) == len(axes) and all(name in by_name for name in names):
            return [by_name[str(name)] for name in names]
    return list(axes)
