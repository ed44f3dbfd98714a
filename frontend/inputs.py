"""Inputs to check a model on: copies of the user's own, and others like them.

A copy has the strides and offset of its tensor, and tensors that share memory still do. Where the model's file makes no others
(`get_fresh_inputs(seed)`, or `get_inputs()` under another seed), values are drawn that keep what a model may rely on: the range, and so the
sign; integers, also those that floats hold; no zero where there was none; order along the last dimension, with its ends; values that are all
different; which values there are where they are few, as in masks.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils import _pytree as pytree

from codesign.frontend.arrays import as_complex, as_real, is_bytes, to_numpy
from codesign.frontend.load import Arguments, ModelSource
from codesign.ir.errors import CodesignError

Array = npt.NDArray[Any]

FEW = 8
"""So many distinct values, or fewer, are a mask or a set of labels: they change places, and no others appear."""

MANY = 1024
"""So many sorted rows are not drawn one by one; they change places."""


@dataclass(frozen=True)
class Fresh:
    """Other inputs than the example; `origin` says where they are from."""

    origin: str
    arguments: Arguments


def cloned(arguments: Arguments) -> Arguments:
    """The same values in memory of their own, laid out and shared as they were."""
    storages: dict[int, torch.UntypedStorage] = {}

    def copied(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            try:
                return copy.deepcopy(leaf)
            except Exception:
                return leaf
        plain = leaf.detach()
        if type(plain) is not torch.Tensor or plain.layout is not torch.strided or plain.is_conj() or plain.is_neg():
            return plain.clone()
        whole = plain.untyped_storage()
        storage = storages.setdefault(whole._cdata, whole) if plain.is_meta else storages.get(whole._cdata)
        if storage is None:
            storage = storages[whole._cdata] = whole.clone()  # type: ignore[no-untyped-call]
        twin = torch.empty(0, dtype=plain.dtype, device=plain.device)
        return twin.set_(storage, plain.storage_offset(), plain.shape, plain.stride())

    result: Arguments = pytree.tree_map(copied, arguments)
    return result


def without_values(arguments: Arguments) -> bool:
    """True where a tensor is only a shape (on the meta device)."""
    return any(isinstance(leaf, torch.Tensor) and leaf.is_meta for leaf in pytree.tree_leaves(arguments))


def stored_bytes(arguments: Arguments) -> int:
    """Bytes that a copy of the inputs takes."""
    sizes: dict[int, int] = {}
    for leaf in pytree.tree_leaves(arguments):
        if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
            sizes[leaf.untyped_storage()._cdata] = leaf.untyped_storage().nbytes()
    return sum(sizes.values())


def fresh_inputs(source: ModelSource, seed: int) -> Iterator[Fresh]:
    """Other inputs of a model, the ones that try it most first; a later one is for where torch fails on those before it."""
    example: Arguments = (source.inputs, source.kwargs)
    if source.fresh is not None:
        given = source.fresh(seed)
        reason = unlike(example, given)
        if reason:
            raise CodesignError(f"get_fresh_inputs({seed}) does not fit the example: {reason}", place=str(source.path))
        yield Fresh("get_fresh_inputs", given)
        return
    if source.again is not None and not without_values(example):
        again = _again(source, seed)
        if again is not None and not unlike(example, again) and not _same(example, again):
            yield Fresh("get_inputs again", again)
    yield Fresh("drawn", drawn(example, seed, gentle=False))
    yield Fresh("drawn, with integers and masks of the example", drawn(example, seed, gentle=True))


def _again(source: ModelSource, seed: int) -> Arguments | None:
    assert source.again is not None
    try:
        with other_seed(seed):
            return source.again()
    except (Exception, SystemExit):
        return None  # a file may make its inputs only once


@contextmanager
def other_seed(seed: int) -> Iterator[None]:
    """Generators of torch, NumPy and Python under another seed, and as they were afterwards."""
    state, theirs = random.getstate(), np.random.get_state()  # noqa: NPY002 - a model's file may use the global one
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 0x5EED)
        random.seed(seed + 0x5EED)
        np.random.seed((seed + 0x5EED) % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(theirs)  # noqa: NPY002


def unlike(example: Arguments, other: Arguments) -> str:
    """What of other inputs does not fit those that the model was captured with; empty when all does."""
    wanted, tree = pytree.tree_flatten(example)
    got, shape = pytree.tree_flatten(other)
    if tree != shape:
        return "other arguments"
    for position, (a, b) in enumerate(zip(wanted, got, strict=True)):
        if isinstance(a, torch.Tensor) != isinstance(b, torch.Tensor):
            return f"input {position} is {type(b).__name__}, not {type(a).__name__}"
        if isinstance(a, torch.Tensor) and (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
            return f"input {position} is {b.dtype} {list(b.shape)}, not {a.dtype} {list(a.shape)}"
        if isinstance(a, (bool, int, float, str)) and a != b:
            return f"input {position} is {b!r}, and the model was captured with {a!r}"
    return ""


def _same(example: Arguments, other: Arguments) -> bool:
    pairs = zip(pytree.tree_leaves(example), pytree.tree_leaves(other), strict=True)
    return all(np.array_equal(to_numpy(a), to_numpy(b)) for a, b in pairs if isinstance(a, torch.Tensor) and a.numel())


def drawn(example: Arguments, seed: int, *, gentle: bool) -> Arguments:
    """Inputs like the example with drawn values; `gentle` leaves integers, masks and sorted values as they are."""
    rng = np.random.default_rng(seed)
    done: set[int] = set()

    def redraw(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.layout is not torch.strided:
            return leaf
        if leaf.is_meta:
            return as_complex(_invented(as_real(leaf), rng)) if leaf.is_complex() else _invented(leaf, rng)
        if leaf.is_complex():
            return torch.view_as_complex(redraw(torch.view_as_real(leaf.resolve_conj())))
        key = leaf.untyped_storage()._cdata
        if key in done or not leaf.numel():
            return leaf  # it looks at memory that has its values already
        done.add(key)
        target = leaf
        for dim, (size, stride) in enumerate(zip(leaf.shape, leaf.stride(), strict=True)):
            if stride == 0 and size > 1:
                target = target.narrow(dim, 0, 1)
        values = redrawn(to_numpy(target), rng, gentle=gentle)
        if is_bytes(leaf.dtype):
            target.view(torch.uint8).copy_(torch.from_numpy(values))
        else:
            target.copy_(torch.from_numpy(values).to(leaf.dtype))
        return leaf

    result: Arguments = pytree.tree_map(redraw, cloned(example))
    return result


def _invented(leaf: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Values for a tensor that has none: normal floats, integers that index anything, and exponents of scales about 1."""
    if is_bytes(leaf.dtype):
        low, high = (123, 132) if leaf.dtype is torch.float8_e8m0fnu else (0, 256)
        bits = torch.empty_strided(tuple(leaf.shape), leaf.stride(), dtype=torch.uint8)
        drawn = rng.integers(low, high, tuple(leaf.shape), dtype=np.uint8)
        return bits.copy_(torch.from_numpy(drawn)).view(leaf.dtype)
    made = torch.empty_strided(tuple(leaf.shape), leaf.stride(), dtype=leaf.dtype)
    floating = leaf.is_floating_point()
    values = rng.standard_normal(tuple(leaf.shape)) if floating else rng.integers(0, 2, tuple(leaf.shape))
    return made.copy_(torch.from_numpy(np.asarray(values)).to(leaf.dtype))


def redrawn(values: Array, rng: np.random.Generator, *, gentle: bool) -> Array:
    """Other values like these (see the top of this file)."""
    finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
    known = np.unique(values[finite]) if finite.any() else values[:0]
    floating = values.dtype.kind == "f"
    wide = known.astype(np.float64)
    whole = not floating or bool(((wide == np.rint(wide)) & (np.abs(wide) < 1 << 31)).all())
    if values.dtype == bool or not finite.all():
        return values.copy() if gentle else _moved(values, rng)
    if len(known) == 1:
        return values.copy() if gentle or not floating else _beside(values, rng)
    order = _order(values)
    distinct = len(known) == values.size
    if gentle and (whole or order or len(known) <= FEW):
        return values.copy()
    if order:
        return _sorted_like(values, rng, order, whole)
    if len(known) <= FEW and len(known) < values.size:
        return _moved(values, rng)
    if whole and distinct:
        return _moved(values, rng)
    return _between(values.shape, known, rng, whole).astype(values.dtype)


def _moved(values: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(values.reshape(-1)).reshape(values.shape)


def _beside(values: Array, rng: np.random.Generator) -> Array:
    """For floats that are all the same: from half of it to it, or between 0 and 1 for zeros (states that start empty)."""
    constant = float(values.flat[0])
    drawn_values = rng.random(values.shape)
    return np.asarray(drawn_values if constant == 0 else constant * (0.5 + drawn_values / 2)).astype(values.dtype)


def _between(shape: tuple[int, ...], known: Array, rng: np.random.Generator, whole: bool) -> Array:
    """Integers of the range, without zero where there was none; floats distributed like the known ones, which are sorted."""
    if whole:
        low, high = int(known[0]), int(known[-1])
        values = rng.integers(low, high, shape, endpoint=True, dtype=np.uint64 if low >= 0 else np.int64)
        if low < 0 < high and not (known == 0).any():
            values = np.where(values == 0, rng.choice(known, shape), values)
        return np.asarray(values)
    places = rng.random(shape) * (len(known) - 1)
    below = places.astype(np.int64)
    share = places - below
    wide = known.astype(np.float64)
    return np.asarray(wide[below] * (1 - share) + wide[below + 1] * share)


def _order(values: Array) -> int:
    """1 where values ascend along the last dimension, -1 where they descend, else 0."""
    if values.ndim == 0 or values.shape[-1] < 2:
        return 0
    ahead, behind = values[..., 1:], values[..., :-1]
    return 1 if bool((ahead >= behind).all()) else -1 if bool((ahead <= behind).all()) else 0


def _sorted_like(values: Array, rng: np.random.Generator, order: int, whole: bool) -> Array:
    """Rows in the order of the example: floats between the ends of each, integers between ends that stay, as distinct as they were."""
    rows = values.reshape(-1, values.shape[-1])
    if len(rows) > MANY:
        return np.asarray(rng.permutation(rows).reshape(values.shape))
    made = rows.copy()
    for row in made:
        low, high = (row[0], row[-1]) if order > 0 else (row[-1], row[0])
        if not whole:
            chosen = np.sort(rng.uniform(float(low), float(high), len(row)))
        else:
            inner = _integers_between(int(low), int(high), row, rng)
            chosen = np.concatenate([[low], np.sort(inner), [high]])
        row[:] = (chosen if order > 0 else chosen[::-1]).astype(values.dtype)
    return made.reshape(values.shape)


def _integers_between(low: int, high: int, row: Array, rng: np.random.Generator) -> Array:
    """As many integers as the row has between its ends, and none twice where the row has none twice."""
    count = len(row) - 2
    if len(np.unique(row)) < len(row):
        return rng.integers(low, high, count, endpoint=True)
    if high - low > 1 << 24:
        return np.asarray(row[1:-1])
    return low + 1 + rng.choice(max(high - low - 1, 0), count, replace=False)
