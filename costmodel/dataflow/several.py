"""Several machines as one target: those that differ in rates and latencies alone have an array of each figure that differs, one a machine.

So a schedule is priced on all of them at once, as a batch of as many equal schedules.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from codesign.costmodel.dataflow.target import Target, target_of
from codesign.costmodel.machine import Machine

Together = list[tuple[list[int], Target]]
"""The numbers of the machines that are one target, and that target."""

WHOLE = {"descriptor_dims", "line_bytes"}
"""Whole numbers that are reckoned with as others are, where the rest count what there is."""

_KNOWN: dict[int, tuple[tuple[Machine, ...], Together]] = {}


def side_by_side(machines: tuple[Machine, ...]) -> Together:
    """Machines by targets; a tuple that was given before is known."""
    known = _KNOWN.get(id(machines))
    if known is None or known[0] is not machines:
        targets = [target_of(machine) for machine in machines]
        alike: dict[Hashable, list[int]] = {}
        for number, target in enumerate(targets):
            alike.setdefault(_structure(target), []).append(number)
        found = [(numbers, _one([targets[number] for number in numbers])) for numbers in alike.values()]
        known = _KNOWN[id(machines)] = (machines, found)
    return known[1]


def _structure(value: Any) -> Hashable:
    """What targets that become one have in common: all but their numbers with a fraction, of which it says whether there is something to reckon
    with (what is 0, infinite or unknown has paths of its own through the model). What a power limit makes of a time does not go by arrays."""
    if isinstance(value, Target):
        watts = (repr(value.static_watts), repr(value.power_watts))
        return (watts, *(_structure(getattr(value, name)) for name in _named(value)))
    if isinstance(value, float):
        return "some" if math.isfinite(value) and value else repr(value)
    if is_dataclass(value):
        return tuple(_structure(getattr(value, name)) for name in _named(value))
    if isinstance(value, Mapping):
        return tuple((key, _structure(one)) for key, one in value.items())
    if isinstance(value, tuple):
        return tuple(map(_structure, value))
    known: Hashable = value
    return known


def _named(value: Any) -> list[str]:
    """The fields in which targets that become one are alike."""
    return [field.name for field in fields(value) if field.name not in WHOLE]


def _one(values: Sequence[Any]) -> Any:
    """Values of one structure as one value."""
    first = values[0]
    if isinstance(first, float):
        return _figures(values)
    if is_dataclass(first) and not isinstance(first, type):
        given = {field.name: [getattr(value, field.name) for value in values] for field in fields(first)}
        made = {name: _figures(each) if name in WHOLE else _one(each) for name, each in given.items()}
        return type(first)(**made)
    if isinstance(first, Mapping):
        return {key: _one([value[key] for value in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(_one(parts) for parts in zip(*values, strict=True))
    return first


def _figures(values: Sequence[float]) -> Any:
    first = values[0]
    return first if all(value == first or math.isnan(value) for value in values) else np.array(values)
