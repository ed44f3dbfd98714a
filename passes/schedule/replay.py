"""Schedules as things to keep: write them down, apply them again, and compare two."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from codesign.ir.errors import ScheduleError
from codesign.ir.plan import Plan, flat
from codesign.ir.schedule import Schedule
from codesign.passes.knobs import check


def differences(a: Schedule, b: Schedule) -> dict[str, tuple[object, object]]:
    """The knobs in which two schedules differ, by path (`tiles.m`), with the value of each (None where one leaves it out)."""
    left, right = dict(flat(a.to_json())), dict(flat(b.to_json()))
    return {path: (left.get(path), right.get(path)) for path in {**left, **right} if left.get(path) != right.get(path)}


class Schedules(dict[str, Schedule]):
    """Schedules by kernel name; `structures` has the structural hash of the group that each was made for, where it is known."""

    def __init__(self, schedules: Mapping[str, Schedule], structures: Mapping[str, str] | None = None) -> None:
        super().__init__(schedules)
        self.structures = dict(structures or {})

    def named_for(self, name: str, structure: str) -> str | None:
        """The entry for a kernel: the one of its structure, by preference of its name, else one of its name that names no structure."""
        if name in self and self.structures.get(name, structure) == structure:
            return name
        return next((other for other in self if self.structures.get(other) == structure), None)


def write_schedules(path: Path, schedules: Mapping[str, Schedule]) -> None:
    """Write schedules by kernel name as JSON."""
    structures = schedules.structures if isinstance(schedules, Schedules) else {}
    data = {
        name: {**({"structure": structures[name]} if name in structures else {}), **schedule.to_json()}
        for name, schedule in schedules.items()
    }
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def read_schedules(path: Path) -> Schedules:
    """Read what `write_schedules` wrote, or a plan; ScheduleError names the kernel and the field that is wrong, or that nothing reads."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError:
        raise ScheduleError("not a text file", place=str(path)) from None
    except OSError as error:
        raise ScheduleError(f"cannot read schedules: {error.strerror or error}", place=str(path)) from None
    except json.JSONDecodeError as error:
        raise ScheduleError(f"not JSON: {error.msg}", place=f"{path}:{error.lineno}:{error.colno}") from None
    except RecursionError:
        raise ScheduleError("not schedules: nested too deep", place=str(path)) from None
    except ScheduleError as error:
        raise ScheduleError(error.message, place=str(path)) from None
    except ValueError:  # Python reads no integer of thousands of digits
        raise ScheduleError("a number has too many digits", place=str(path)) from None
    if not isinstance(data, dict):
        raise ScheduleError("needs an object of schedules by kernel name", place=str(path))
    if isinstance(data.get("plan"), int):
        try:
            data = _entries(Plan.from_json(data))
        except ScheduleError as error:
            raise ScheduleError(
                error.message, place=f"{path}: {error.place}" if error.place else str(path), hint=error.hint
            ) from None
    schedules = Schedules({})
    for name, entry in data.items():
        if not isinstance(entry, dict):
            raise ScheduleError(
                "a schedule is a JSON object", place=f"{path}: {name}", hint="give a schedules.json or plan.json of -o"
            )
        try:
            if "structure" in entry:
                structure = entry.pop("structure")
                if not isinstance(structure, str):
                    raise ScheduleError("`structure` is not a text", hint="leave it out to replay by name")
                schedules.structures[name] = structure
            schedules[name] = Schedule.from_json(entry)
            check(schedules[name])
        except ScheduleError as error:
            raise ScheduleError(error.message, place=f"{path}: {name}", hint=error.hint) from None
    return schedules


def _entries(plan: Plan) -> dict[str, Any]:
    """The schedules of a plan in the form of a file of schedules."""
    return {
        kernel.name: {"structure": kernel.structure, **kernel.schedule.to_json()}
        if kernel.structure
        else kernel.schedule.to_json()
        for kernel in plan.kernels
    }


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ScheduleError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def describe(changes: Mapping[str, tuple[object, object]]) -> Iterable[str]:
    """One line per difference: `tiles.m: 64 -> 128`."""
    for path, (old, new) in changes.items():
        yield f"{path}: {'-' if old is None else old} -> {'-' if new is None else new}"
