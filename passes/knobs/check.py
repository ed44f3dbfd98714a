"""Whether a schedule may say what it says: one check for files, replays and calls, driven by the registered knobs."""

from __future__ import annotations

import difflib
from dataclasses import replace

from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.passes.knobs.room import ROOMS, Room, rooms
from codesign.passes.knobs.site import Site


def check(schedule: Schedule, site: Site | None = None) -> None:
    """ScheduleError for a knob that nothing knows (with the nearest), that nothing reads for this kernel on this machine, or that
    has a value it can't have. Without a site: for what no kernel on any machine may say."""
    everything = rooms()
    for name in schedule.extras:
        if name not in ROOMS or not any(path == f"extras.{name}" for path, _, _ in ROOMS[name].said(schedule)):
            raise ScheduleError(f"extras.{name}: no backend reads this knob; nearest: {_nearest(name)}")
    for room in everything:
        for path, dim, value in room.said(schedule):
            wrong = room.wrong(value, site, dim)
            if wrong:
                raise ScheduleError(f"{path}: {wrong}", hint=_read_here(room, site))
            if room.needs and value != room.default and not schedule.extras.get(room.needs):
                raise ScheduleError(
                    f"{path}: works and is priced with {room.needs} only", hint=f"set extras.{room.needs}"
                )
        if site is not None and (clash := room.together(schedule, site)):
            raise ScheduleError(clash, hint="use fewer parts")


def settled(schedule: Schedule, site: Site) -> Schedule:
    """A schedule that passes the check, with what its knobs give other knobs; ScheduleError where it says something else of those."""
    check(schedule, site)
    found = schedule
    for room in reversed(rooms()):
        if room.replaces(site) and any(True for _ in room.said(found)):
            given = ScheduleBatch.of([found])
            derived = room.derive(given.columns, site)
            made = ScheduleBatch({**given.columns, **derived}, replace(given.common, order=found.order)).row(0)
            for name, column in derived.items():
                own = given.columns.get(name)
                if own is not None and int(own[0]) != int(column[0]):
                    raise ScheduleError(f"{name}: {int(own[0])}, but knob {room.name} makes it {int(column[0])}")
            found = made
    return found


def _read_here(room: Room, site: Site | None) -> str | None:
    """What to do about a knob that nothing reads at a site."""
    if site is None or not room.unread(site):
        return None
    return f"leave it out; read here: {', '.join(other.name for other in rooms() if not other.unread(site))}"


def _nearest(name: str) -> str:
    """The knobs whose names are nearest, as a schedule spells them."""
    near = difflib.get_close_matches(name, ROOMS, n=1) or sorted(ROOMS)
    return ", ".join(near)
