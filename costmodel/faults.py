"""What is wrong with data that a file holds, in words for whoever wrote it: the field, what it must be, and the name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Path = tuple[int | str, ...]

ALSO = 2
"""How many other places with a fault are named."""


def fault(error: ValidationError, kind: type[BaseModel], data: Any = None) -> str:
    """The first thing that is wrong with `data`, which should have become a `kind`, and where else something is; on one line.

    A field that there is none of goes first: what is missing may be what it was meant to be. `data`: by which a place is told from the
    alternatives of a type that pydantic puts into its path.
    """
    found = error.errors(include_url=False)
    strange = [entry for entry in found if entry["type"] == "extra_forbidden"]
    missing = [tuple(entry["loc"]) for entry in found if entry["type"] == "missing"]
    faults: dict[Path, list[str]] = {}
    meant: set[Path] = set()
    for entry in strange:
        *within, name = entry["loc"]
        lacking = [str(path[-1]) for path in missing if list(path[:-1]) == within]
        names = [*lacking, *_fields(kind, within)]
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
        meant |= {(*within, other) for other in near}
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(dict.fromkeys(names))}"
        faults[_place(entry["loc"], data)] = [f"no such field; {hint}"]
    for entry in found:
        if entry["type"] != "extra_forbidden" and tuple(entry["loc"]) not in meant:
            faults.setdefault(_place(entry["loc"], data, entry["type"] == "missing"), []).append(_said(entry))
    (place, said), *others = faults.items()
    text = f"{_text(place)}: " if place else ""
    text += ", or ".join(dict.fromkeys(said))
    further = [other for other, _ in others if other != place[: len(other)]]  # not what the first is inside of
    if further:
        named = [_text(other) for other in further[:ALSO]]
        beyond = f" and {len(further) - ALSO} more" if len(further) > ALSO else ""
        text += f" (also wrong: {', '.join(named)}{beyond})"
    return text


def _said(entry: Any) -> str:
    if entry["type"] == "missing":
        return "missing"
    said = str(entry["msg"]).removeprefix("Value error, ")
    if not said.startswith("Input should be "):
        return said
    said = "must be a table" if entry["type"] == "model_type" else said.replace("Input should be ", "must be ", 1)
    given = entry["input"]
    return f"{said}, not {given!r}" if isinstance(given, str | int | float) and len(repr(given)) < 60 else said


def _place(path: Sequence[int | str], data: Any, missing: bool = False) -> Path:
    """The parts of a path that are places in the data; of what is missing the last is none yet."""
    if data is None:
        return tuple(path)
    kept: list[int | str] = []
    for position, part in enumerate(path):
        inside = isinstance(data, dict) and part in data
        if inside or (isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)):
            kept.append(part)
            data = data[part]
        elif missing and position == len(path) - 1:
            kept.append(part)
    return tuple(kept)


def _text(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _fields(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Names of the fields at a place."""
    kinds = {kind}
    for part in path:
        inner = [_models(each.model_fields[part].annotation) for each in kinds if part in each.model_fields]
        kinds = set().union(*inner) or kinds
    return [name for each in sorted(kinds, key=lambda one: one.__name__) for name in each.model_fields]


def _models(annotation: Any) -> set[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return set().union(*map(_models, get_args(annotation)))
