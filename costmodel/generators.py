"""Code generators by the backend that each belongs to, found when a price first needs one.

A backend says what its generator adds (`codesign.costmodel.gpu.generator.CodeGenerator`) under the name that machine files call it by:
with `register`, or as an entry point of the group `codesign.generators`.
"""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codesign.costmodel.machine import Machine

ENTRY_POINTS = "codesign.generators"
"""The group of entry points by which an installed package adds one: the backend's name, and the generator."""

_REGISTERED: dict[str, Any] = {}
_OF_KIND: dict[str, str] = {}


def register(backend: str, generator: Any, kind: str = "") -> None:
    """Say what the generator of a backend adds: the generator, or `package.module:name` where it is. `kind`: of machines whose prices take
    it where their own backend has none."""
    _REGISTERED[backend] = generator
    if kind:
        _OF_KIND[kind] = backend


def generator_of(machine: Machine) -> Any:
    """The generator of a machine's backend, else the one of its kind; CodesignError where there is none."""
    found = _REGISTERED.get(machine.backend or "") or _foreign().get(machine.backend or "")
    found = found or _REGISTERED.get(_OF_KIND.get(machine.kind, ""))
    if found is None:
        from codesign.ir.errors import CodesignError

        names = sorted({*_REGISTERED, *_foreign()})
        near = difflib.get_close_matches(machine.backend or "", names, n=1) or names
        raise CodesignError(f"{machine.name}: no code generator", hint=f"register one; known: {', '.join(near)}")
    return _loaded(found) if isinstance(found, str) else found


@cache
def _foreign() -> dict[str, Any]:
    """Where the generators of installed packages are."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


@cache
def _loaded(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
