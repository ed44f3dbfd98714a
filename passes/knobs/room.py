"""What a knob is: which values a machine and a kernel allow, where a search starts, and what it does. One file a knob.

A knob acts in one of three ways, and the price follows from what it acts on: it gives other parts of the schedule their values
(`derive`), which the lowering and the cost models read; it gives the code generator an option (`options`); and where an option
changes what a program has of the machine, it says so in the machine's own figures (`machine`).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, TypeVar

from codesign.costmodel.machine import Machine
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import Knob as ScheduleKnob
from codesign.ir.schedule import Schedule
from codesign.passes.knobs.site import Site
from codesign.passes.schedule.space import Columns, Constraint, Ints, Knob

Value = ScheduleKnob
"""What a schedule may say of a knob."""

Read = tuple[str, str, Value]
"""What a schedule says of a knob: its path (`tiles.m`), the dim (empty where it has none) and the value."""


class Room:
    """Base of knobs: subclasses set `name`, have a docstring that says what the knob does, and override what differs.

    `default`: what a schedule that does not name the knob has, and where a search starts. `rank`: knobs of lower rank come first in
    a space, and are derived last. `needs`: another knob without which this one does nothing, or
    nothing that is priced.
    """

    name: ClassVar[str] = ""
    default: ClassVar[Value] = 1
    rank: ClassVar[int] = 100
    needs: ClassVar[str] = ""

    def unread(self, site: Site) -> str:
        """Why nothing reads the knob for a kernel on a machine; empty where something does."""
        return ""

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        """What the knob may be; without a site, on any machine."""
        raise NotImplementedError

    def offered(self, site: Site) -> Iterable[Knob]:
        """What a search tries: all values, where the knob is read and has more than one."""
        if self.unread(site):
            return
        values = tuple(value for value in self.values(site) if isinstance(value, int))
        if len(values) > 1:
            yield Knob(self.name, values, int(self.default))

    def constraints(self, site: Site) -> Iterable[Constraint]:
        """Rules between the knob's values of different dims."""
        return ()

    def replaces(self, site: Site) -> frozenset[str]:
        """Names of the knobs that a search need not choose because this one gives them their values."""
        return frozenset()

    def derive(self, columns: Columns, site: Site) -> Mapping[str, Ints]:
        """Columns that follow from the ones given, this knob's among them."""
        return {}

    def options(self, value: Value) -> Mapping[str, int]:
        """Options of the GPU code generator's compiler, by its own names."""
        return {}

    def machine(self, machine: Machine, value: Value) -> Machine:
        """The machine as a program with this value has it."""
        return machine

    def together(self, schedule: Schedule, site: Site) -> str:
        """Why a schedule may not say all that it says of the knob at once; empty where it may."""
        return ""

    # -- what follows from the above -----------------------------------------------------------------------------------
    def said(self, schedule: Schedule) -> Iterator[Read]:
        """What a schedule says of the knob."""
        if self.name in schedule.extras:
            yield f"extras.{self.name}", "", schedule.extras[self.name]

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        """Why a schedule may not say this; empty where it may."""
        why = self.unread(site) if site is not None else ""
        if why:
            return why
        values = self.values(site, dim)
        if isinstance(value, str) == isinstance(values[0], str) and value in values:
            return ""
        some = ", ".join(map(str, values)) if len(values) < 14 else f"a whole number, {values[0]} or more"
        return f"needs {some}, got {json.dumps(value)}"


class Unpriced(Room):
    """Base of knobs that a code generator knows and no cost model prices yet: a schedule may only say that they are off.

    A search could not choose by them, and a price that does not follow the program is wrong.
    """

    default: ClassVar[Value] = 0

    def values(self, site: Site | None, dim: str = "") -> Sequence[Value]:
        return (self.default,)

    def wrong(self, value: Value, site: Site | None, dim: str = "") -> str:
        found = super().wrong(value, site, dim)
        return f"{found}; no cost model prices anything else" if found and not (site and self.unread(site)) else found


ROOMS: dict[str, Room] = {}
"""Every registered knob by name."""

ENTRY_POINTS = "codesign.knobs"
"""The group of entry points by which an installed package adds a knob."""

R = TypeVar("R", bound=type[Room])


def register(cls: R) -> R:
    """Class decorator: makes a knob known under its name."""
    if not cls.name or not cls.__doc__:
        raise TypeError(f"knob {cls.__name__} needs a name and a docstring")
    if cls.name in ROOMS and type(ROOMS[cls.name]).__qualname__ != cls.__qualname__:
        raise TypeError(f"the name of knob {cls.name!r} is taken by {type(ROOMS[cls.name]).__module__}")
    ROOMS[cls.name] = cls()
    return cls


def rooms() -> tuple[Room, ...]:
    """All knobs by rank, those of installed packages included."""
    installed()
    return tuple(sorted(ROOMS.values(), key=lambda room: room.rank))


def foreign() -> dict[str, str]:
    """The knobs of others by name, each with a digest of the file it is in: choices that were made with one are of no use without it."""
    found: dict[str, str] = {}
    for room in rooms():
        module = sys.modules.get(type(room).__module__)
        if not type(room).__module__.startswith("codesign.passes.knobs."):
            path = getattr(module, "__file__", None)
            text = Path(path).read_bytes() if path else type(room).__qualname__.encode()
            found[room.name] = hashlib.sha256(text).hexdigest()
    return found


@cache
def installed() -> None:
    """Load the knobs of installed packages, once."""
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found = point.load()
            if not (isinstance(found, type) and issubclass(found, Room)):
                raise TypeError(f"{point.value} is not a subclass of codesign.passes.knobs.Room")
            register(found)
        except Exception as error:  # another's package may fail in any way
            raise CodesignError(f"knob {point.name!r}: {error}", hint=f"mend or remove {point.value}") from error
