"""Schedules as things to keep: write them down, apply them again, and compare two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule


def differences(a: Schedule, b: Schedule) -> dict[str, tuple[object, object]]:
    """The knobs in which two schedules differ, by path (`tiles.m`), with the value of each (None where one leaves it out)."""
    left, right = _flat(a), _flat(b)
    return {path: (left.get(path), right.get(path)) for path in {**left, **right} if left.get(path) != right.get(path)}


def write_schedules(path: Path, schedules: Mapping[str, Schedule]) -> None:
    """Write schedules by kernel name as JSON."""
    data = {name: schedule.to_json() for name, schedule in schedules.items()}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def read_schedules(path: Path) -> dict[str, Schedule]:
    """Read what `write_schedules` wrote; ScheduleError names the kernel and field that is wrong."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScheduleError(f"cannot read schedules: {error}", place=str(path)) from None
    except json.JSONDecodeError as error:
        raise ScheduleError(f"not JSON: {error.msg}", place=f"{path}:{error.lineno}:{error.colno}") from None
    if not isinstance(data, dict):
        raise ScheduleError("needs an object of schedules by kernel name", place=str(path))
    schedules = {}
    for name, entry in data.items():
        try:
            schedules[name] = Schedule.from_json(entry)
        except ScheduleError as error:
            raise ScheduleError(error.message, place=f"{path}: {name}", hint=error.hint) from None
    return schedules


def describe(changes: Mapping[str, tuple[object, object]]) -> Iterable[str]:
    """One line per difference: `tiles.m: 64 -> 128`."""
    for path, (old, new) in changes.items():
        yield f"{path}: {'-' if old is None else old} -> {'-' if new is None else new}"


def _flat(schedule: Schedule) -> dict[str, object]:
    flat: dict[str, object] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", schedule.to_json())
    return flat
