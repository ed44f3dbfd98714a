"""A plan: what a model became on a machine, as plain data.

Which groups it was cut into and in what order they run, the schedule of each by the structure that it was made for, the memory that they
share, and the machine and sizes that all of it is for. It is JSON that can be kept, compared, edited and replayed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule

FORMAT = 1
"""What `plan` says in the JSON."""


@dataclass(frozen=True)
class PlannedKernel:
    """A group of operators done by one kernel.

    `name`: for people. `structure`: the structural hash of the group, which stays when names change. `fuses`: the operators, `places`: the
    lines and modules that they are from. `launches`: how often it runs. `seconds`: predicted, of one launch.
    """

    name: str
    structure: str
    schedule: Schedule
    fuses: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    launches: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class PlannedMemory:
    """Bytes of the arena that intermediates share, and outside of it of inputs, results and constants; `buffers`: offset and size of each
    intermediate in the arena, by name."""

    arena_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    constant_bytes: int = 0
    buffers: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A model on a machine. `machine_hash`: of the machine's file, which its name alone does not tell. `sizes`: values of size symbols that
    were costed at. `order`: the launches of the whole model by kernel name."""

    model: str
    machine: str
    machine_hash: str
    kernels: tuple[PlannedKernel, ...]
    order: tuple[str, ...] = ()
    memory: PlannedMemory = PlannedMemory()
    sizes: Mapping[str, int] = field(default_factory=dict)

    def kernel(self, name: str) -> PlannedKernel:
        """The kernel of a name; ScheduleError lists those that there are."""
        for kernel in self.kernels:
            if kernel.name == name:
                return kernel
        names = ", ".join(kernel.name for kernel in self.kernels)
        raise ScheduleError(f"the plan of {self.model} has no kernel {name!r}", hint=f"kernels: {names}")

    @property
    def seconds(self) -> float:
        """Predicted time of all launches of kernels."""
        return sum(kernel.seconds * kernel.launches for kernel in self.kernels)

    def to_json(self) -> dict[str, Any]:
        """Plain data, kernels by name."""
        kernels = {}
        for kernel in self.kernels:
            data = {**asdict(kernel), "schedule": kernel.schedule.to_json()}
            del data["name"]
            data.update({key: list(data[key]) for key in ("fuses", "places")})
            kernels[kernel.name] = data
        memory = asdict(self.memory)
        memory["buffers"] = {name: list(place) for name, place in self.memory.buffers.items()}
        return {
            "plan": FORMAT,
            "model": self.model,
            "machine": self.machine,
            "machine_hash": self.machine_hash,
            "sizes": dict(self.sizes),
            "kernels": kernels,
            "order": list(self.order),
            "memory": memory,
        }

    def to_text(self) -> str:
        """JSON with an entry a line, the same for the same plan."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    @staticmethod
    def from_json(data: Any) -> Plan:
        """From plain data; ScheduleError names the field that is wrong."""
        if not isinstance(data, Mapping) or data.get("plan") != FORMAT:
            raise ScheduleError("not a plan", hint=f'a plan is a JSON object with "plan": {FORMAT}')
        known = {"plan", "model", "machine", "machine_hash", "sizes", "kernels", "order", "memory"}
        _refuse_unknown("a plan", data, known)
        kernels = tuple(_kernel(name, entry) for name, entry in _object("kernels", data.get("kernels")).items())
        memory = _object("memory", data.get("memory", {}))
        _refuse_unknown("memory", memory, set(PlannedMemory.__dataclass_fields__))
        counts = {name: _count(f"memory.{name}", value) for name, value in memory.items() if name != "buffers"}
        buffers = _object("memory.buffers", memory.get("buffers", {}))
        sizes = _object("sizes", data.get("sizes", {}))
        return Plan(
            model=_text("model", data.get("model", "")),
            machine=_text("machine", data.get("machine", "")),
            machine_hash=_text("machine_hash", data.get("machine_hash", "")),
            kernels=kernels,
            order=_texts("order", data.get("order", [])),
            memory=PlannedMemory(**counts, buffers={name: _place(name, place) for name, place in buffers.items()}),
            sizes={name: _count(f"sizes.{name}", value) for name, value in sizes.items()},
        )


def differences(old: Plan, new: Plan) -> dict[str, tuple[object, object]]:
    """What differs by path (`kernels.linear.schedule.tiles.m`), with the value of each (None where one has none).

    Kernels of the same structure are the same, whatever they are called.
    """
    called = {kernel.structure: kernel.name for kernel in old.kernels}
    names = {kernel.name: called.get(kernel.structure, kernel.name) for kernel in new.kernels}
    left, right = old.to_json(), new.to_json()
    right["kernels"] = {names[name]: entry for name, entry in right["kernels"].items()}
    right["order"] = [names.get(name, name) for name in new.order]
    a, b = dict(flat(left)), dict(flat(right))
    return {path: (a.get(path), b.get(path)) for path in {**a, **b} if a.get(path) != b.get(path)}


def flat(data: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The values of nested objects by path."""
    if isinstance(data, Mapping):
        for key, inner in data.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, data


def _kernel(name: str, data: Any) -> PlannedKernel:
    entry = _object(f"kernels.{name}", data)
    _refuse_unknown(f"kernels.{name}", entry, set(PlannedKernel.__dataclass_fields__) - {"name"})
    try:
        schedule = Schedule.from_json(_object("schedule", entry.get("schedule")))
    except ScheduleError as error:
        raise ScheduleError(error.message, place=f"kernels.{name}", hint=error.hint) from None
    seconds = entry.get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ScheduleError(f"kernels.{name}.seconds: needs a number")
    return PlannedKernel(
        name=name,
        structure=_text(f"kernels.{name}.structure", entry.get("structure", "")),
        schedule=schedule,
        fuses=_texts(f"kernels.{name}.fuses", entry.get("fuses", [])),
        places=_texts(f"kernels.{name}.places", entry.get("places", [])),
        launches=_count(f"kernels.{name}.launches", entry.get("launches", 1)),
        seconds=float(seconds),
    )


def _refuse_unknown(what: str, data: Mapping[str, Any], known: set[str]) -> None:
    for key in data:
        if key not in known:
            raise ScheduleError(f"{what}: unknown field {key!r}", hint=f"known: {', '.join(sorted(known))}")


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ScheduleError(f"{name}: needs an object")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ScheduleError(f"{name}: needs a text")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ScheduleError(f"{name}: needs a list of texts")
    return tuple(_text(name, entry) for entry in value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ScheduleError(f"{name}: needs an integer, 0 or more")
    return value


def _place(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ScheduleError(f"memory.buffers.{name}: needs an offset and a size")
    offset, size = (_count(f"memory.buffers.{name}", part) for part in value)
    return offset, size
