"""A problem: one kernel on one machine as a space of schedules with a price on each, whoever says the price."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.costmodel.machine import Machine
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import KernelSummary
from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.space import Ints, Space

Floats = npt.NDArray[np.float64]

LARGEST_TABLE = 1 << 22
"""Points of a space (those that break a constraint counted) up to which all of its prices are taken at once and kept."""


@dataclass(frozen=True)
class Problem:
    """A space and its prices.

    `key`: a hash of all that the prices follow from. `labels`: what the values of a knob stand for, where they are no numbers.
    `priced`: the model, over legal schedules of the space, of a `fidelity`. `model`: a whole
    model, which fusion policies are compared on, and not one kernel of it.
    """

    name: str
    machine: str
    key: str
    space: Space
    priced: Callable[[ScheduleBatch], CostBatch]
    summary: KernelSummary | None = None
    target: Machine | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fidelity: int = 1
    measured: bool = False
    model: Path | None = None

    @property
    def tabulated(self) -> bool:
        """Whether all prices are taken once and kept."""
        return self.fidelity < 2 and self.model is None and self.space.points <= LARGEST_TABLE

    @cached_property
    def strides(self) -> Ints:
        """What a step of each knob adds to the number of a schedule."""
        return self.space.places().astype(np.int64)

    def numbers(self, batch: ScheduleBatch) -> Ints:
        """The number [N] of each schedule in the product of all knobs; -1 for one that is not in the space."""
        codes = self.space.codes_of(batch)
        if codes is getattr(batch, "codes", None):
            found: Ints = codes @ self.strides
            return found
        inside = (codes >= 0).all(axis=1) & self.space.legal(np.maximum(codes, 0))
        return np.where(inside, codes @ self.strides, -1)

    def codes(self, numbers: Ints) -> Ints:
        """Codes of schedules by their numbers."""
        sizes = [len(knob.values) for knob in self.space.knobs]
        if not sizes:
            return np.zeros((len(numbers), 0), np.int64)
        return np.stack(np.unravel_index(numbers, sizes), axis=1).astype(np.int64)

    def knobs(self, number: int) -> dict[str, Any]:
        """A schedule by its number, in words: knob by value, as its label where it has one."""
        (code,) = self.codes(np.array([number]))
        found: dict[str, Any] = {}
        for knob, at in zip(self.space.knobs, code, strict=True):
            labels = self.labels.get(knob.name)
            found[knob.name] = labels[at] if labels is not None else knob.values[at]
        return found

    def describe(self) -> dict[str, Any]:
        """Plain data by which a database can show the schedules without the problem."""
        knobs = [[knob.name, list(self.labels.get(knob.name, knob.values))] for knob in self.space.knobs]
        return {"name": self.name, "machine": self.machine, "knobs": knobs, "measured": self.measured}


def digest(facts: Any) -> str:
    """A content hash of data, the same in every process: addresses in names (`c#7f51`) count by the order that they come in."""
    seen: dict[str, str] = {}
    text = re.sub(r"#[0-9a-f]{4,}", lambda found: seen.setdefault(found[0], f"#{len(seen)}"), json.dumps(_plain(facts)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """Data as JSON has it; what has no order in the order of its text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return sorted(([json.dumps(_plain(k)), _plain(v)] for k, v in value.items()), key=lambda pair: str(pair[0]))
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(entry) for entry in value), key=json.dumps)
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, *(_plain(getattr(value, entry.name)) for entry in fields(value))]
    return str(value)
