"""Objects of a model's own that hold tensors (caches, results of a call) made known to torch, which takes only known containers.

An object whose attributes hold tensors, in lists, dicts and other such objects too, is taken apart into those attributes, and a dict or list
with a class of its own into its items as well; the rest of it (numbers, names, settings) goes along unchanged.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
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
        if cls in pytree.SUPPORTED_NODES or isinstance(leaf, torch.Tensor) or not _can_be_taken_apart(leaf):
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


def _can_be_taken_apart(value: Any) -> bool:
    """Whether a value can be made anew of its parts: an object of attributes, a dict or a list with a class of its own."""
    return hasattr(value, "__dict__") and not isinstance(value, (tuple, set, frozenset, defaultdict))


def _parts(value: Any) -> tuple[list[Any], tuple[tuple[Any, ...], tuple[str, ...], dict[str, Any]]]:
    """The items of a dict or list, and the attributes that hold tensors; the keys of the former, the names of the latter, and the other
    attributes."""
    keys: tuple[Any, ...] = ()
    if isinstance(value, (dict, list)):
        keys = tuple(value) if isinstance(value, dict) else tuple(range(len(value)))
    state = vars(value)
    names = tuple(name for name in state if _holds_tensors(state[name], set()))
    rest = {key: item for key, item in state.items() if key not in names}
    return [*(value[key] for key in keys), *(state[name] for name in names)], (keys, names, rest)


def _register(cls: type) -> None:
    base: Any = next((kind for kind in (OrderedDict, dict, list) if issubclass(cls, kind)), object)

    def whole(children: Any, context: Any) -> Any:
        keys, names, rest = context
        made: Any = base.__new__(cls)
        values = list(children)
        if base is list:
            list.extend(made, values[: len(keys)])
        for key, value in zip(keys if base is not list else (), values, strict=False):
            base.__setitem__(made, key, value)
        made.__dict__.update(rest)
        made.__dict__.update(zip(names, values[len(keys) :], strict=True))
        return made

    def keyed(value: Any) -> Any:
        children, context = _parts(value)
        kind: Any = pytree.SequenceKey if base is list else pytree.MappingKey
        paths: list[Any] = [*(kind(key) for key in context[0]), *(pytree.GetAttrKey(name) for name in context[1])]
        return list(zip(paths, children, strict=True)), context

    pytree.register_pytree_node(
        cls,
        _parts,
        whole,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=keyed,
    )
