"""Architectures that people run, at tiny sizes with random weights: nothing is downloaded. `benchmarks/zoo.py` takes them one by one.

A file for each kind. An architecture is a function that makes a model and the inputs of one call; `STEPS` are those that are one step of
something longer: a token with a cache, or a step of training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

Example = tuple[nn.Module, dict[str, Any]]
"""A model and the keyword arguments of one call."""

FORWARD: dict[str, Callable[[], Example]] = {}
"""Whole calls, by name."""

STEPS: dict[str, Callable[[], Example]] = {}
"""Steps of decoding and of training, by name."""


def architecture(make: Callable[[], Example]) -> Callable[[], Example]:
    """Register one under the name of its function."""
    FORWARD[make.__name__] = make
    return make


def step(make: Callable[[], Example]) -> Callable[[], Example]:
    """Register one step under the name of its function."""
    STEPS[make.__name__] = make
    return make
