"""Some schedules of a batch: what records of values by schedule say of them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]
T = TypeVar("T")


def taken(value: T, rows: Rows | slice, count: int) -> T:
    """What the schedules at `rows` have of a value, a mapping or a record of `count` schedules; what is the same for all stays as it is."""
    if isinstance(rows, slice) and rows == slice(0, count):
        return value
    found: Any = value
    if isinstance(value, np.ndarray):
        found = value[..., rows] if value.ndim and value.shape[-1] == count else value
    elif isinstance(value, dict):
        found = {key: taken(each, rows, count) for key, each in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{each.name: taken(getattr(value, each.name), rows, count) for each in fields(value)})
    return cast(T, found)
