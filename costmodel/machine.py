"""Machines as data: what a chip is made of, in figures that carry their source.

A machine is a chain of memory levels from the outermost to the innermost, compute units attached to a level, links to
other machines, and limits. GPUs and dataflow accelerators use the same words: on a GPU the levels are `dram`, `l2`,
`shared` and `registers`, on an accelerator `dram`, a cluster scratchpad, a core scratchpad and the registers of the
array.

Every figure names its source, and some model reads it (`readers`). A figure that is not public says so
(`unknown = true`) with the range worth sweeping and, when a value is assumed, the assumption in words: nothing is filled
in silently. Files are read with `tomllib`, so a stranger's file is data and never code.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from codesign.costmodel.allowed import allowed
from codesign.costmodel.faults import fault
from codesign.costmodel.figure import Count, Data, Figure, Flag, Number
from codesign.costmodel.levels import Level
from codesign.costmodel.readers import unread
from codesign.ir.errors import MachineError

NAMED_UNITS = ("tensor", "vector", "special")
"""Units whose names say what they do."""
MOST_INSTANCES = 1 << 24
"""Instances of one level that a machine may have."""
MACHINE_FOLDER = Path(__file__).resolve().parent / "machines"


class Unit(Data):
    """Compute units of one kind, `count` of them in each instance of `level`.

    `rate[dtype]` is multiply-adds (or results, for `special`) per unit and clock; `peak[dtype]` is the quoted figure
    of the whole machine in operations per second (a multiply-add is two). Where both are given they must agree within
    `tolerance`. `does`: kinds of operations (`ir.functions`) that an accelerator has this unit for, beside those that its name says: `tensor` does
    matrix products, `special` transcendental functions, and `vector` whatever no other unit does.
    """

    name: str
    level: str
    count: Count
    clock_hz: Figure
    rate: dict[str, Figure]
    peak: dict[str, Figure] = Field(default_factory=dict)
    operations_per_result: Annotated[int, Field(strict=True, ge=1, le=2)] = 2
    tolerance: Annotated[Number, Field(ge=0, le=0.2)] = 0.02
    tolerance_reason: str | None = None
    array: dict[Literal["rows", "columns", "depth"], Figure] | None = None
    dataflows: tuple[Literal["output_stationary", "weight_stationary", "input_stationary"], ...] = ()
    does: tuple[Literal["fma", "alu", "integer", "special"], ...] = ()
    energy_joules_per_operation: dict[str, Figure] = Field(default_factory=dict)


class Link(Data):
    """A link to other machines or to the host; bandwidth is one direction, bytes per second."""

    name: str
    bandwidth: Figure
    count: Count = 1
    latency_seconds: Figure | None = None
    topology: str = "point-to-point"


class Machine(Data):
    """A machine as its file describes it; `origin` is the path it was read from.

    `kind`: the family of cost models. `backend`: what makes code for it, by its registered name (default: by `kind`); `target`: the chip
    that this compiles for. `calibration`: parameters that were fitted to measurements of it (a file of `codesign.calibrate` beside the
    machine's, by its name), in place of those that ship.
    """

    schema_version: Annotated[int, Field(strict=True, ge=1, le=1)]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
    description: str
    kind: Literal["gpu", "dataflow"]
    vendor: str
    architecture: str
    target: str | None = None
    backend: str | None = None
    sources: dict[str, str]
    levels: Annotated[list[Level], Field(min_length=2)]
    units: Annotated[list[Unit], Field(min_length=1)]
    links: list[Link] = Field(default_factory=list)
    limits: dict[str, Figure] = Field(default_factory=dict)
    features: dict[str, Flag] = Field(default_factory=dict)
    launch: dict[str, Figure] = Field(default_factory=dict)
    power_watts: Figure | None = None
    static_watts: Figure | None = None
    calibration: dict[str, Any] = Field(default_factory=dict)

    _origin: str = PrivateAttr(default="")

    @property
    def origin(self) -> str:
        return self._origin

    @model_validator(mode="after")
    def _consistent(self) -> Machine:
        for kind, entries in (("levels", self.levels), ("units", self.units), ("links", self.links)):
            names = [entry.name for entry in entries]
            if len(set(names)) != len(names):
                raise ValueError(f"{kind}: names must be unique, got {', '.join(names)}")
        self._check_figures()
        names = [level.name for level in self.levels]
        if self.instances(names[-1]) > MOST_INSTANCES:
            raise ValueError(
                f"levels: {self.instances(names[-1]):,} instances of {names[-1]}, at most {MOST_INSTANCES:,}"
            )
        for index, unit in enumerate(self.units):
            if unit.level not in names:
                raise ValueError(f"units[{index}].level: '{unit.level}' is not a level; levels are {', '.join(names)}")
            if self.kind == "dataflow" and unit.name not in NAMED_UNITS and not unit.does:
                raise ValueError(
                    f'units[{index}].does: nothing is done on \'{unit.name}\'; say what for: ["fma"], ["alu"], ["integer"], ["special"]'
                )
            self._check_peaks(index, unit)
        return self

    def _check_figures(self) -> None:
        for path, figure in figures_of(self):
            if figure.source not in self.sources:
                raise ValueError(f"{path}.source: '{figure.source}' is not listed under [sources]")
            try:
                known = allowed(path)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            for field, value in (("value", figure.value), *(("range", end) for end in figure.range or ())):
                wrong = None if value is None else known.wrong(value)
                if wrong is not None:
                    raise ValueError(f"{path}.{field}: {wrong}")
        places = {level.name: level.place for level in self.levels}
        for path, near in unread(self.kind, [path for path, _ in figures_of(self)], places):
            raise ValueError(f"{path}: no model of a {self.kind} machine reads this figure; nearest: {near}")

    def _check_peaks(self, index: int, unit: Unit) -> None:
        instances = self.instances(unit.level)
        for dtype, quoted in unit.peak.items():
            rate, clock = unit.rate.get(dtype), unit.clock_hz.value
            if rate is None:
                raise ValueError(f"units[{index}].peak.{dtype}: a peak needs units[{index}].rate.{dtype}")
            if rate.value is None or clock is None or quoted.value is None:
                continue
            computed = instances * unit.count * clock * rate.value * unit.operations_per_result
            if abs(computed / quoted.value - 1.0) > unit.tolerance:
                raise ValueError(
                    f"units[{index}].peak.{dtype}: {instances} x {unit.count} units x {clock / 1e6:,.0f} MHz x {rate.value:g} x "
                    f"{unit.operations_per_result} = {computed / 1e12:,.1f} T/s, but the quoted peak is {quoted.value / 1e12:,.1f} T/s "
                    f"(more than {unit.tolerance:.0%} apart)"
                )

    def instances(self, level: str) -> int:
        """How many instances of a level the whole machine has."""
        total = 1
        for entry in self.levels:
            total *= entry.fanout
            if entry.name == level:
                return total
        raise MachineError(f"{self.name}: no level '{level}'; levels are {', '.join(e.name for e in self.levels)}")

    def level(self, name: str) -> Level:
        for entry in self.levels:
            if entry.name == name:
                return entry
        raise MachineError(f"{self.name}: no level '{name}'; levels are {', '.join(e.name for e in self.levels)}")

    def core_level(self) -> Level:
        """The memory of one core, of which a program has its share: where the vector unit is (an SM's shared memory, a scratchpad)."""
        return self.level(self.unit("vector").level)

    def above(self, level: Level) -> Level:
        """The level outside of one: the next that what is not in it is read from (the outermost is its own)."""
        return self.levels[max(self.levels.index(level) - 1, 0)]

    def has_level(self, name: str) -> bool:
        return any(entry.name == name for entry in self.levels)

    def unit(self, name: str) -> Unit:
        for entry in self.units:
            if entry.name == name:
                return entry
        raise MachineError(f"{self.name}: no unit '{name}'; units are {', '.join(e.name for e in self.units)}")

    def has_unit(self, name: str) -> bool:
        return any(entry.name == name for entry in self.units)

    def doing(self, kind: str) -> Unit:
        """The unit that does a kind of operation: the one that does least else of those that are there for it."""
        found = [unit for unit in self.units if kind in unit.does or unit.name == kind]
        return min(found, key=lambda unit: len(unit.does)) if found else self.unit("vector")

    def rate(self, unit: str, dtype: str) -> float | None:
        """Operations per second of the whole machine for a unit and dtype; None when the unit lacks the dtype."""
        entry = self.unit(unit)
        figure = entry.rate.get(dtype)
        if figure is None:
            return None
        where = f"units.{unit}"
        per_clock = self.need(figure, f"{where}.rate.{dtype}") * entry.count * entry.operations_per_result
        return per_clock * self.need(entry.clock_hz, f"{where}.clock_hz") * self.instances(entry.level)

    def burst_rate(self, unit: str, dtype: str) -> float | None:
        """The rate at the machine's highest clock, as short kernels reach it: peaks of tensor units are often quoted at
        a lower one."""
        rate = self.rate(unit, dtype)
        if rate is None:
            return None
        if self.kind != "gpu":
            return rate
        clocks = [self.need(entry.clock_hz, f"units.{entry.name}.clock_hz") for entry in self.units]
        return rate * max(clocks) / self.need(self.unit(unit).clock_hz, f"units.{unit}.clock_hz")

    def limit(self, name: str) -> float:
        if name not in self.limits:
            raise MachineError(f"{self.name}: limits.{name} is missing; add it to {self._origin or 'the machine file'}")
        return self.need(self.limits[name], f"limits.{name}")

    def need(self, figure: Figure | None, path: str) -> float:
        """The value of a figure, or an error that names the figure and the range to sweep."""
        if figure is None:
            raise MachineError(f"{self.name}: {path} is missing; add it to {self._origin or 'the machine file'}")
        if figure.value is None:
            low, high = figure.range or (float("nan"), float("nan"))
            raise MachineError(
                f"{self.name}: {path} is not public; give it a value between {low:g} and {high:g} with "
                f'`machine.with_figures({{"{path}": value}})`'
            )
        return figure.value

    def with_figures(self, changes: dict[str, float]) -> Machine:
        """A copy in which figures, named by path (`levels.l2.bandwidth`), have other values; peaks are rescaled to
        match.

        This is how a question "what if" or a sweep over an unknown is asked. Raises MachineError for a path that is
        not a figure and for a value that it can't have.
        """
        data = self.model_dump()
        data["sources"] = {**self.sources, "WHATIF": "value set by the user for a what-if question"}
        for path, value in changes.items():
            node = _find(data, path)
            if not isinstance(node, dict) or "source" not in node:
                known = [p for p, _ in figures_of(self)]
                near = difflib.get_close_matches(path, known, n=3, cutoff=0.3)
                raise MachineError(
                    f"{self.name}: '{path}' is not a figure" + (f"; did you mean {', '.join(near)}?" if near else "")
                )
            wrong = allowed(path).wrong(value)
            if wrong is not None:
                raise MachineError(f"{self.name}: {path} {wrong}")
            node.update(
                {"value": float(value), "source": "WHATIF", "range": None, "assumption": None, "unknown": False}
            )
        if any(path.startswith("units.") for path in changes):
            for unit in data["units"]:
                unit["peak"] = {}
        return _validated(data, self._origin)


def figures_of(machine: Machine) -> list[tuple[str, Figure]]:
    """Every figure with its path; entries of a list are named, as in `levels.l2.bandwidth`."""
    found: list[tuple[str, Figure]] = []

    def walk(node: object, path: str) -> None:
        if isinstance(node, Figure):
            found.append((path, node))
        elif isinstance(node, BaseModel):
            for key in type(node).model_fields:
                walk(getattr(node, key), f"{path}.{key}" if path else key)
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}")
        elif isinstance(node, list | tuple):
            for position, value in enumerate(node):
                walk(value, f"{path}.{getattr(value, 'name', position)}")

    walk(machine, "")
    return found


def _find(data: Any, path: str) -> Any:
    node = data
    for part in path.split("."):
        if isinstance(node, list):
            node = next((entry for entry in node if entry.get("name") == part), None)
        elif isinstance(node, dict):
            node = node.get(part)
        else:
            return None
    return node


def _validated(data: dict[str, Any], origin: str) -> Machine:
    try:
        machine = Machine.model_validate(data)
    except ValidationError as error:
        raise MachineError(f"{origin}: {fault(error, Machine, data)}") from None
    machine._origin = origin
    return machine


def machine_names() -> list[str]:
    """Names of the machines that ship with the package, sorted."""
    return sorted(path.stem for path in MACHINE_FOLDER.glob("*.toml"))


def as_shipped(machine: Machine) -> Machine:
    """The machine of this name that ships, if there is one: a chip whose power limit is set otherwise is the same chip."""
    return load_machine(machine.name) if machine.name in _shipped() else machine


@lru_cache(maxsize=1)
def _shipped() -> frozenset[str]:
    return frozenset(machine_names())


def load_machines(names: Iterable[str]) -> list[Machine]:
    """Load machines that one run tells apart by name; MachineError where two have the same."""
    loaded: dict[str, str] = {}
    machines = []
    for given in names:
        machine = load_machine(given)
        if machine.name in loaded:
            first = loaded[machine.name]
            also = "is given twice" if first == given else f"and {first} are both named '{machine.name}'"
            raise MachineError(f"machine {given} {also}; results go by the name, so give each file its own `name`")
        loaded[machine.name] = given
        machines.append(machine)
    return machines


def load_machine(name: str) -> Machine:
    """Load a machine by its name or by the path of a TOML file, which is read each time: the same machine as before while it says the same.

    Raises MachineError with the nearest names for an unknown name, and with the path of the bad field for a malformed
    file.
    """
    if name in _shipped():
        return _of_the_shipped(name)
    path = Path(name)
    if path.suffix != ".toml":
        near = difflib.get_close_matches(name, machine_names(), n=3, cutoff=0.4) or machine_names()
        raise MachineError(f"unknown machine '{name}'; nearest: {', '.join(near)} (or give the path of a .toml file)")
    if path.is_dir():
        raise MachineError(f"{path}: a folder, not a machine file")
    if not path.is_file():
        raise MachineError(f"no such machine file: {path}")
    text = _text_of(path)
    beside = _parsed(path, text).get("calibration")
    origin = path.name if path.parent == MACHINE_FOLDER else str(path)
    return _made(path, origin, text, _calibration(path, beside) if isinstance(beside, str) else None)


@lru_cache(maxsize=128)
def _of_the_shipped(name: str) -> Machine:
    path = MACHINE_FOLDER / f"{name}.toml"
    return _made(path, path.name, _text_of(path), None)


@lru_cache(maxsize=32)
def _made(path: Path, origin: str, text: str, calibration: str | None) -> Machine:
    """The machine of a file's text and of the text of the calibration that it names."""
    data = _parsed(path, text)
    fitted = {} if calibration is None else {"calibration": json.loads(calibration)}
    return _validated({**data, **fitted}, origin)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise MachineError(f"{path}: not a text file") from None
    except OSError as error:
        raise MachineError(f"{path}: cannot be read: {error}") from None


@lru_cache(maxsize=32)
def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MachineError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise MachineError(f"{path}: tables or lists nested too deep") from None
    except ValueError as error:  # Python refuses integers of thousands of digits
        raise MachineError(f"{path}: cannot be read: {error}") from None


def _calibration(path: Path, name: str) -> str:
    """The text of the calibration that a machine file names; MachineError where there is none."""
    file = path.parent / name
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError:
        raise MachineError(
            f"{path}: calibration: no such file: {file}", hint="codesign.calibrate -o writes it"
        ) from None
    except (ValueError, RecursionError):
        raise MachineError(f"{path}: calibration: {file} is not a JSON document") from None
    if not isinstance(found, dict):
        raise MachineError(f"{path}: calibration: {file} is not a calibration file")
    return text
