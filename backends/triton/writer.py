"""Where generated lines go: nested scopes of a kernel, with names for what is computed once in the outermost place possible."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from codesign.backends.triton.names import Namer

INDENT = "    "


class Writer:
    """The lines of a kernel body under construction.

    Scope 0 is the top of the kernel, each loop opens one more. `variables`: index variable -> (its text, the scope where it exists).
    """

    def __init__(self, namer: Namer, first_depth: int = 1) -> None:
        self.namer = namer
        self._first_depth = first_depth
        self._lines: list[list[str]] = [[]]
        self._known: list[dict[Hashable, str]] = [{}]
        self.variables: dict[str, tuple[str, int]] = {}

    @property
    def depth(self) -> int:
        """The innermost open scope."""
        return len(self._lines) - 1

    def line(self, text: str, scope: int | None = None) -> None:
        """Append a line to a scope (the innermost by default)."""
        at = self.depth if scope is None else scope
        self._lines[at].append(f"{INDENT * (self._first_depth + at)}{text}" if text else "")

    def scope_of(self, variables: Iterable[str]) -> int:
        """The outermost scope in which all of the index variables exist."""
        return max((self.variables[name][1] for name in variables if name in self.variables), default=0)

    def once(self, key: Hashable, wish: str, text: str, scope: int | None = None) -> str:
        """The name of a value that is computed once in a scope (the innermost by default) and reused below it."""
        at = self.depth if scope is None else scope
        for level in range(at + 1):
            if key in self._known[level]:
                return self._known[level][key]
        name = self.namer.fresh(wish)
        self.line(f"{name} = {text}", at)
        self._known[at][key] = name
        return name

    @contextmanager
    def nested(self, header: str) -> Iterator[None]:
        """Lines written inside are the body of `header`, which is placed when the body is complete."""
        self._lines.append([])
        self._known.append({})
        yield
        body = self._lines.pop()
        self._known.pop()
        self.line(header)
        self._lines[-1].extend(body or [f"{INDENT * (self._first_depth + self.depth + 1)}pass"])

    def text(self) -> str:
        """All lines of a finished kernel."""
        if self.depth:
            raise RuntimeError("a scope is still open")
        return "\n".join(self._lines[0])

    def bind(self, variables: Mapping[str, tuple[str, int]]) -> None:
        """Make index variables known: their text and the scope where they exist."""
        self.variables.update(variables)
