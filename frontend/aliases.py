"""State that a model holds under several names: buffers that are also in caches, lists and plain attributes of its objects.

torch.export without Python analysis puts stand-ins in the place of registered tensors only, so that what such an object holds would be taken for a
constant beside the buffer. Where one of them is written torch then gives up.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_REGISTERED = ("_parameters", "_buffers", "_modules")


@contextmanager
def aliases_bound(model: torch.nn.Module) -> Iterator[None]:
    """While it lasts, what objects of the model hold beside the registered buffers is, in a call, what stands for those in that call."""
    owners = {id(buffer): (module, key) for module in model.modules() for key, buffer in module._buffers.items()}
    places = [(table, key, owners[id(tensor)]) for table, key, tensor in _held_elsewhere(model) if id(tensor) in owners]
    before: list[Any] = []

    def bind(*_: Any) -> None:
        before[:] = [table[key] for table, key, _ in places]
        for table, key, (module, name) in places:
            table[key] = module._buffers[name]

    def restore(*_: Any) -> None:
        for (table, key, _owner), tensor in zip(places, before, strict=False):
            table[key] = tensor
        before.clear()

    hooks = [
        model.register_forward_pre_hook(bind),
        model.register_forward_hook(restore, always_call=True),
    ]
    try:
        yield
    finally:
        restore()
        for hook in hooks:
            hook.remove()


@contextmanager
def nothing_written(model: torch.nn.Module) -> Iterator[None]:
    """RuntimeError where what runs meanwhile writes a tensor that the model holds, as tracing does with what it takes for a constant. Buffers, and
    tensors held beside the registered ones, are as before then."""
    kept = [*model.buffers(), *(tensor for _, _, tensor in _held_elsewhere(model))]
    before = [(tensor, _version(tensor), tensor.detach().clone()) for tensor in kept]
    versions = [_version(parameter) for parameter in model.parameters()]
    try:
        yield
    finally:
        written = [(tensor, values) for tensor, version, values in before if _version(tensor) != version]
        with torch.no_grad():
            for tensor, values in written:
                tensor.copy_(values)
    if written or versions != [_version(parameter) for parameter in model.parameters()]:
        raise RuntimeError("tracing the model writes its tensors")


def also_held(model: torch.nn.Module) -> set[str]:
    """Names of registered tensors whose memory, or a part of it, the model holds beside them too."""
    memory = {tensor.untyped_storage()._cdata for _, _, tensor in _held_elsewhere(model)}
    registered = (*model.named_parameters(), *model.named_buffers())
    return {name for name, tensor in registered if tensor.untyped_storage()._cdata in memory}


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _held_elsewhere(model: torch.nn.Module) -> Iterator[tuple[Any, Any, torch.Tensor]]:
    """Tensors in plain attributes of modules, and in dicts, lists and objects there: the table that holds each, and its key."""
    seen: set[int] = set()
    stack: list[tuple[Any, Any, Any]] = []
    for module in model.modules():
        attributes = vars(module)
        stack.extend((attributes, key, value) for key, value in attributes.items() if key not in _REGISTERED)
    while stack:
        table, key, value = stack.pop()
        if isinstance(value, torch.Tensor):
            yield table, key, value
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (list, tuple)):
            stack.extend((value, k, item) for k, item in enumerate(value) if _may_hold(value, item))
            continue
        inner = value if isinstance(value, dict) else _attributes(value)
        stack.extend((inner, k, item) for k, item in inner.items())


def _may_hold(sequence: Any, item: Any) -> bool:
    """Whether an item of a list or tuple matters: a tensor in a tuple can't be replaced."""
    return isinstance(sequence, list) or not isinstance(item, torch.Tensor)


def _attributes(value: Any) -> dict[str, Any]:
    if isinstance(value, (type, torch.nn.Module, types.ModuleType, types.FunctionType, types.MethodType)):
        return {}
    found = getattr(value, "__dict__", None)
    return found if isinstance(found, dict) else {}
