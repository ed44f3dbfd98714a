"""Text from outside (names, places, notes, attributes, source lines) made harmless for generated Python: one function for each place it goes to.

Identifiers are `names.Namer`'s, names of files `names.file_names`'; string literals are `repr`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from codesign.ir.errors import UnsupportedError

LONGEST_LINE = 400
"""Lines of foreign text are cut here."""


def comment(text: str) -> str:
    """The text for a comment: one line of printable characters (whatever Python or an editor takes for an end of line is escaped)."""
    line = "".join(c if c.isprintable() else _escaped(c) for c in text)
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."


def docstring(text: str) -> str:
    r'''The text for the inside of a `"""` string: its own lines stay lines, and nothing in it ends or escapes the string.'''
    lines = (comment(line).replace("\\", "\\\\").replace('"""', "'''") for line in text.split("\n"))
    inside = "\n".join(lines)
    return f'{inside[:-1]}\\"' if inside.endswith('"') else inside


def dotted(text: str, least: int, most: int) -> str:
    """A dotted name with so many parts, as it is; UnsupportedError when it is none or has a private part."""
    parts = text.split(".")
    if not least <= len(parts) <= most or not all(
        re.fullmatch(r"(?!__)[A-Za-z_][A-Za-z_0-9]*", part) for part in parts
    ):
        raise UnsupportedError(f"{comment(text)[:80]!r} is no name that generated Python may use")
    return text


def packed(items: Sequence[str], width: int) -> list[str]:
    """Items with commas behind, in rows of about a width; no item is broken."""
    rows: list[str] = []
    for item in items:
        if rows and len(rows[-1]) + len(item) + 2 <= width:
            rows[-1] += f" {item},"
        else:
            rows.append(f"{item},")
    return rows


def _escaped(character: str) -> str:
    return "    " if character == "\t" else repr(character)[1:-1]
