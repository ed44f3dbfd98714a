"""Pieces of generated source files: long calls, places in the user's model, and copies of device functions."""

from __future__ import annotations

import ast
import functools
import linecache
import re
from collections.abc import Sequence
from pathlib import Path

from codesign.backends.triton.quoting import packed
from codesign.ir.location import Location


def wrapped(start: str, items: Sequence[str], end: str) -> str:
    """A call or head on one line, or over several where it is long."""
    line = f"{start}{', '.join(items)}{end}"
    if len(line) <= 112:
        return line
    margin = start[: len(start) - len(start.lstrip())]
    return "\n".join([start, *(f"{margin}    {row}" for row in packed(items, 100)), f"{margin}{end}"])


def by_line(leaves: Sequence[Location]) -> dict[tuple[str, int], list[Location]]:
    groups: dict[tuple[str, int], list[Location]] = {}
    for leaf in leaves:
        groups.setdefault((leaf.file, leaf.line), []).append(leaf)
    return groups


def source_line(folder: Path | None, file: str, line: int) -> str:
    """A line of a file below the folder of the user's model; empty for any other file: a location may come from a stranger."""
    if folder is None or not file or "\0" in file:
        return ""
    try:
        place = Path(file).resolve()
        if not place.is_relative_to(folder.resolve()):
            return ""
    except (OSError, RuntimeError):
        return ""
    return linecache.getline(str(place), line).strip()


def short(location: Location) -> str:
    places = []
    for leaf in location.leaves():
        place = f"{Path(leaf.file).name}:{leaf.line}" if leaf.file else leaf.module
        places.append(f"{place} ({leaf.origin})" if leaf.origin and place else place or leaf.origin)
    unique = list(dict.fromkeys(places))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")


@functools.cache
def _library() -> dict[str, str]:
    """Source text of the device functions by name, from the files that hold them."""
    found = {}
    for name in ("library.py", "division.py", "draws.py"):
        source = Path(__file__).with_name(name).read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                start = min(decorator.lineno for decorator in node.decorator_list)
                found[node.name] = "\n".join(lines[start - 1 : node.end_lineno])
    return found


def device_functions(text: str) -> list[str]:
    """Sources of the device functions that a text uses, directly or through others, callees first."""
    library, order = _library(), dict[str, None]()

    def visit(body: str, own: str) -> None:
        for name in re.findall(r"\b_[a-z]\w*", body):
            if name in library and name != own and name not in order:
                visit(library[name], name)
                order[name] = None

    visit(text, "")
    return [library[name] for name in order]
