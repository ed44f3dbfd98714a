"""Where an operation came from: the user's file, line and nn.Module path. Locations survive every pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the user's source.

    `file`, `line`: of the statement that produced the op (line 0 = unknown). `module`: path of the nn.Module, as in
    `layers.0.mlp.up_proj`. `origin`: the framework operator, as in `aten.mm.default`. `parts`: the places that were
    merged when a pass made one op of several, in program order.
    """

    file: str = ""
    line: int = 0
    module: str = ""
    origin: str = ""
    parts: tuple[Location, ...] = ()

    @property
    def known(self) -> bool:
        """True when there is anything to show."""
        return bool(self.file or self.module or self.origin) or any(part.known for part in self.parts)

    @property
    def operator(self) -> str:
        """The operator's own name, without its namespace and overload: `aten.add.Tensor` is `add`."""
        parts = self.origin.split(".")
        return parts[1] if len(parts) > 2 or (parts[0] == "aten" and len(parts) > 1) else parts[0]

    @property
    def place(self) -> str:
        """The line and the module, in short: `model.py:12 layers.0`; `module layers.0` where no line is known."""
        if not self.file:
            return f"module {self.module}" if self.module else ""
        return f"{PurePath(self.file).name}:{self.line} {self.module}".strip()

    def leaves(self) -> tuple[Location, ...]:
        """The distinct unfused places below this one, in order."""
        if not self.parts:
            return (self,) if self.known else ()
        return tuple(dict.fromkeys(leaf for part in self.parts for leaf in part.leaves()))

    def __str__(self) -> str:
        if self.parts:
            return ", ".join(str(leaf) for leaf in self.leaves())
        text = f"{self.file}:{self.line}" if self.file else ""
        if self.module:
            text = f"{text} in {self.module}" if text else f"in {self.module}"
        if self.origin:
            text = f"{text} ({self.origin})" if text else self.origin
        return text


UNKNOWN = Location()


def merge(locations: Iterable[Location]) -> Location:
    """One location for an op made from several: the distinct leaves, or the single one."""
    leaves = tuple(dict.fromkeys(leaf for location in locations for leaf in location.leaves()))
    if not leaves:
        return UNKNOWN
    return leaves[0] if len(leaves) == 1 else Location(parts=leaves)
