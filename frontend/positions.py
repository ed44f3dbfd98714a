"""Positions that data decides, in Python's brackets: `cache[:, pos] = x`, `cache[:, pos : pos + 1] = x` with numbers that are in tensors.

torch.export reads such a number with `.item()`, and then knows of two of them neither that they are one apart nor that a part between them lies
inside of the tensor. Here it is told: one step apart from what Python added, inside because outside is an error of the kernel that reads or writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, statically_known_true
from torch.overrides import TorchFunctionMode

NOTE = "slices of a known length at a place that data decides are taken to lie inside: one that does not is an error (PyTorch cuts it off)"

_SUMS = {"add": 1, "__add__": 1, "__radd__": 1, "sub": -1, "__sub__": -1}
"""Operators by the sign of their second operand."""

Version = tuple[int, int]
"""A tensor and the state of its contents."""


@contextmanager
def positions_read(model: torch.nn.Module, notes: list[str]) -> Iterator[None]:
    """While it lasts, calls of the model may have numbers of tensors in brackets; `notes` gets what that takes for granted."""
    modes: list[_Positions] = []

    def enter(*_: Any) -> None:
        modes.append(_Positions(notes))
        modes[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        if modes:
            modes.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    hooks = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        while modes:  # torch runs no hook after an error while it traces
            leave()


class _Positions(TorchFunctionMode):
    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes
        self.sums: dict[Version, tuple[torch.Tensor, torch.Tensor, Version, Any]] = {}
        """What numbers were made of: the number itself (which keeps it), another number, that one's version, and what was added to it."""
        self.read: dict[Version, tuple[torch.Tensor, Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("__getitem__", "__setitem__") and isinstance(args[0], torch.Tensor):
            items = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(_by_data(item) for item in items) and all(_is_basic(item) for item in items):
                part = self._part(args[0], items)
                return part if name == "__getitem__" else _fill(part, args[2])
        if name == "narrow" and not kwargs and _by_data(args[2]):
            tensor, dim, start, length = args
            start = self._not_negative(start, self._number(start), tensor.shape[dim])
            self._lies_inside(start, start + length, tensor.shape[dim])
            return func(tensor, dim, start, length)
        result = func(*args, **(kwargs or {}))
        if name in _SUMS and len(args) == 2 and not kwargs:
            self._note_sum(result, args[0], args[1], _SUMS[name])
        return result

    def _note_sum(self, result: Any, x: Any, y: Any, sign: int) -> None:
        if sign > 0 and not isinstance(x, torch.Tensor):
            x, y = y, x
        if _is_number(x) and _is_number(result) and isinstance(y, (int, torch.SymInt)):
            self.sums[_version(result)] = result, x, _version(x), sign * y

    def _number(self, x: Any) -> Any:
        """An integer of Python's, or of a tensor of one element: that of what it was made of, and what was added."""
        if not isinstance(x, torch.Tensor):
            return x
        key = _version(x)
        if key in self.sums:
            _, before, version, more = self.sums[key]
            if _version(before) == version:
                return self._number(before) + more
        if key not in self.read:
            self.read[key] = x, x.item()
        return self.read[key][1]

    def _part(self, tensor: torch.Tensor, items: tuple[Any, ...]) -> torch.Tensor:
        """What is in the brackets, as a view; of slices of a known length torch learns that they lie inside, and a number that data decides is
        a slice of length 1, whose dim goes: of a number that may count from the end torch would not know where its view starts."""
        used = sum(item is not None and item is not Ellipsis for item in items)
        found, single, dim, place = [], list[int](), 0, 0
        for item in items:
            if item is Ellipsis:
                place += tensor.dim() - used
                dim += tensor.dim() - used
            known = self._slice(item, tensor.shape[dim]) if isinstance(item, slice) else self._number(item)
            if _is_open(known):
                known = self._from_the_start(item, known, tensor.shape[dim])
                single.append(place)
                known = slice(known, known + 1)
            found.append(known)
            dim += item is not None and item is not Ellipsis
            place += item is None or isinstance(known, slice)
        part = tensor[tuple(found)]
        for place in reversed(single):
            part = part.squeeze(place)
        return part

    def _from_the_start(self, item: Any, number: Any, size: Any) -> Any:
        """A place that may count from the end as one that counts from the start."""
        number = self._not_negative(item, number, size)
        torch._check(number < size)  # type: ignore[no-untyped-call]
        return number

    def _not_negative(self, item: Any, number: Any, size: Any) -> Any:
        if _is_open(number) and not statically_known_true(number >= 0):
            at = item if isinstance(item, torch.Tensor) else torch.full((), number, dtype=torch.int64)
            number = torch.where(at < 0, at + size, at).clamp(min=-1).item()  # which no window can count from the end
            torch._check(number >= 0)  # type: ignore[no-untyped-call]
        return number

    def _slice(self, item: slice, size: Any) -> slice:
        start, stop, step = (self._number(end) for end in (item.start, item.stop, item.step))
        if _is_open(start) and stop is not None and not _is_open(stop - start):
            self._lies_inside(start, stop, size)
        return slice(start, stop, step)

    def _lies_inside(self, start: Any, stop: Any, size: Any) -> None:
        torch._check(start >= 0)  # type: ignore[no-untyped-call]
        torch._check(stop <= size)  # type: ignore[no-untyped-call]
        if NOTE not in self.notes:
            self.notes.append(NOTE)


def _version(x: torch.Tensor) -> Version:
    return id(x), x._version


def _is_number(x: Any) -> bool:
    """Whether it is a tensor with one integer, as Python takes for an index."""
    if not isinstance(x, torch.Tensor) or x.dtype is torch.bool or x.is_floating_point() or x.is_complex():
        return False
    return all(isinstance(size, int) and size == 1 for size in x.shape)


def _by_data(item: Any) -> bool:
    """Whether a part of the brackets is a number that data decides."""
    if isinstance(item, slice):
        return any(_is_number(end) or _is_open(end) for end in (item.start, item.stop, item.step))
    return (_is_number(item) and item.dim() == 0) or _is_open(item)


def _is_basic(item: Any) -> bool:
    if isinstance(item, torch.Tensor):
        return _is_number(item) and item.dim() == 0
    return (
        item is None
        or item is Ellipsis
        or (isinstance(item, (int, slice, torch.SymInt)) and not isinstance(item, bool))
    )


def _is_open(number: Any) -> bool:
    """Whether a number is made of some that data decides."""
    return isinstance(number, torch.SymInt) and bool(free_unbacked_symbols(number))


def _fill(part: torch.Tensor, value: Any) -> None:
    """Write what Python assigns to a part: a number, or a tensor that may have more dims of size 1 in front."""
    if not isinstance(value, torch.Tensor):
        part.fill_(value)
        return
    while value.dim() > part.dim() and value.shape[0] == 1:
        value = value[0]
    part.copy_(value)
