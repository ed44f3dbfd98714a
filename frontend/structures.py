"""Objects of a model's own that hold tensors (caches, results of a call) made known to torch, which takes only known containers.

An object whose attributes hold tensors, in lists, dicts and other such objects too, is taken apart into those attributes; the rest of
it (numbers, names, settings) goes along unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

_CONTAINERS = (list, tuple, set, frozenset)


@contextmanager
def outputs_made_known(model: torch.nn.Module, found: list[type]) -> Iterator[None]:
    """While it lasts, classes of objects that the model returns become known when it returns them; `found` gets them."""

    def look(_module: Any, _args: Any, result: Any) -> None:
        found.extend(make_known(result))

    handle = model.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


def make_known(value: Any) -> list[type]:
    """Register every class in a structure that torch takes for a leaf although it holds tensors; gives those classes."""
    made: list[type] = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.nn.Module) or not _holds_tensors(leaf, set()):
            continue
        cls = type(leaf)
        if cls in pytree.SUPPORTED_NODES or isinstance(leaf, torch.Tensor):
            continue
        _register(cls)
        made.append(cls)
        made.extend(make_known(_parts(leaf)[0]))
    return made


def remark(classes: list[type]) -> str:
    """What to tell the user of classes that were taken apart."""
    names = ", ".join(dict.fromkeys(cls.__name__ for cls in classes))
    return f"{names}: not a type that torch.export knows; taken apart into the tensors it holds"


def _holds_tensors(value: Any, seen: set[int]) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if id(value) in seen or isinstance(value, (type, torch.nn.Module)):
        return False
    seen.add(id(value))
    if isinstance(value, Mapping):
        return any(_holds_tensors(item, seen) for item in value.values())
    if isinstance(value, _CONTAINERS):
        return any(_holds_tensors(item, seen) for item in value)
    return any(_holds_tensors(item, seen) for item in getattr(value, "__dict__", {}).values())


def _parts(value: Any) -> tuple[list[Any], tuple[tuple[str, ...], dict[str, Any]]]:
    """The attributes that hold tensors; their names and the other attributes."""
    state = vars(value)
    names = tuple(name for name in state if _holds_tensors(state[name], set()))
    return [state[name] for name in names], (names, {key: item for key, item in state.items() if key not in names})


def _register(cls: type) -> None:
    def whole(children: Any, context: Any) -> Any:
        names, rest = context
        made: Any = object.__new__(cls)
        made.__dict__.update(rest)
        made.__dict__.update(zip(names, children, strict=True))
        return made

    def keyed(value: Any) -> Any:
        children, context = _parts(value)
        return [(pytree.GetAttrKey(name), child) for name, child in zip(context[0], children, strict=True)], context

    pytree.register_pytree_node(
        cls,
        _parts,
        whole,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=keyed,
    )
