"""A machine as mappings see it: memories from the outermost in, and the axes in space between them.

A level's `holds` table says which operands it keeps or may keep and how its instances lie; where a file says nothing, it follows: the
outermost memory and a core's own keep all that is worked on, the array what its dataflow leaves in place, others what a mapping stages there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, prod

import numpy as np
import numpy.typing as npt

from codesign.costmodel.figure import Figure
from codesign.costmodel.levels import Level
from codesign.costmodel.machine import Machine, Unit
from codesign.costmodel.mapping.problem import ROLES
from codesign.ir.errors import MachineError, UnsupportedError

Floats = npt.NDArray[np.float64]
ALL = frozenset(ROLES)


@dataclass(frozen=True)
class Store:
    """One instance of a memory: bytes it holds (or `values`, where it is made for so many), bytes a second in and out (0: never waits),
    whether both pass one port in turn, and joules a byte. `keeps`: roles that always pass through it; `may`: those that a mapping may stage.
    `wide`: by role, how many times as wide as elsewhere values are here.
    """

    name: str
    place: str
    capacity: float
    values: int | None
    read_bandwidth: float
    write_bandwidth: float
    one_port: bool
    read_joules: float
    write_joules: float
    keeps: frozenset[str]
    may: frozenset[str]
    wide: Mapping[str, float]


@dataclass(frozen=True)
class Axis:
    """Instances side by side, just outside of store number `before` (or of the multipliers, beyond the last one).

    `shares`: only dims that this role's operand does not depend on lie along it (any, where empty). `carries`: roles of which one transfer serves
    all along it: sent to all of them, or merged on the way out. `full`: as many are used as the sizes of a product allow.
    `ports`: links that leave its port (two of a ring), of `link_bandwidth` bytes a second (0: no links, and no wait) and `link_joules` a byte.
    """

    name: str
    size: int
    before: int
    shares: str
    carries: frozenset[str]
    full: bool = False
    ports: int = 1
    link_bandwidth: float = 0.0
    link_joules: float = 0.0

    def passed(self, used: Floats, alike: Floats) -> Floats:
        """Links that a transfer passes to so many of the instances in use which need it, in the mean: to one the way, the shorter one round a ring;
        to all each link; to some as much more than to one as they are of all."""
        around = np.floor(used / self.ports)
        left = used - self.ports * around
        one = (self.ports * around * (around + 1.0) / 2.0 + left * (around + 1.0)) / used
        found: Floats = one + (used - one) * (alike - 1.0) / np.maximum(used - 1.0, 1.0)
        return found


@dataclass(frozen=True)
class Hierarchy:
    """Stores and axes of a machine for one dtype; `rate`: multiply-adds a second of one multiplier."""

    name: str
    stores: tuple[Store, ...]
    axes: tuple[Axis, ...]
    rate: float
    joules: float
    static_watts: float

    @property
    def multipliers(self) -> int:
        return prod(axis.size for axis in self.axes)

    @property
    def linked(self) -> bool:
        """Whether links cost energy, so that it matters how many instances need the same."""
        return any(axis.link_joules for axis in self.axes)


STATIONARY = {"weight_stationary": "weight", "output_stationary": "output", "input_stationary": "input"}


def hierarchy_of(machine: Machine, dtype: str) -> Hierarchy:
    """The hierarchy of a dataflow machine; MachineError names what its file lacks."""
    if machine.kind != "dataflow":
        raise MachineError(f"{machine.name} is a {machine.kind}", hint="mappings are of dataflow machines: try maia100")
    tensor = machine.unit("tensor")
    if dtype not in tensor.rate:
        raise UnsupportedError(f"{machine.name} multiplies no {dtype}", hint=f"it has {', '.join(tensor.rate)}")
    stores: list[Store] = []
    axes: list[Axis] = []
    home = machine.level(tensor.level)
    inside = machine.levels[machine.levels.index(home) + 1 :]
    array = home if home.place == "array" or home.holds is not None else inside[0] if inside else None
    for level in machine.levels:
        axes += _axes(machine, level, len(stores))
        if level is array and level.holds is None:
            axes += _array_axes(machine, tensor, len(stores))
        stores.append(_store(machine, level, level is array and level.holds is None))
    if array is None:
        axes += _array_axes(machine, tensor, len(stores))
        stores.append(_registers(tensor))
    used = tensor.array or {}
    side = prod(int(machine.need(figure, f"units.tensor.array.{key}")) for key, figure in used.items())
    per_clock = machine.need(tensor.rate[dtype], f"units.tensor.rate.{dtype}")
    rate = per_clock * machine.need(tensor.clock_hz, "units.tensor.clock_hz") / (side if home.holds is None else 1)
    joules = tensor.energy_joules_per_operation.get(dtype)
    return Hierarchy(
        machine.name,
        tuple(stores),
        tuple(axis for axis in axes if axis.size > 1),
        rate,
        2.0 * _or_zero(joules),
        _or_zero(machine.static_watts),
    )


def _or_zero(figure: Figure | None) -> float:
    return 0.0 if figure is None or figure.value is None else figure.value


def _axes(machine: Machine, level: Level, before: int) -> list[Axis]:
    if level.holds is not None and level.holds.axes:
        return [
            Axis(
                axis.name,
                axis.size,
                before,
                axis.shares or "",
                _carried(axis.shares, axis.multicast),
                axis.full,
                2 if axis.topology == "ring" else 1,
                0.0 if axis.topology == "bus" else _or_zero(axis.link_bandwidth),
                0.0 if axis.topology == "bus" else _or_zero(axis.link_joules_per_byte),
            )
            for axis in level.holds.axes
        ]
    carried = ALL if machine.above(level).multicast else frozenset[str]()
    if level.network is None:
        return [Axis(level.place, level.fanout, before, "", carried)]
    net, columns = level.network, level.network.columns
    links = _or_zero(net.link_bandwidth), _or_zero(net.joules_per_byte)
    sides = {f"{level.place} rows": level.fanout // columns, f"{level.place} columns": columns}
    if net.topology != "mesh":
        sides = {level.place: level.fanout}
    ports = 2 if net.topology == "ring" else 1
    return [Axis(name, size, before, "", carried, False, ports, *links) for name, size in sides.items()]


def _carried(shares: str | None, multicast: bool) -> frozenset[str]:
    return frozenset() if not multicast else frozenset({shares}) if shares else ALL


def _array_axes(machine: Machine, tensor: Unit, before: int) -> tuple[Axis, ...]:
    """The sides of the array: along each, one of the operands is sent to all or summed on its way."""
    sides = {key: int(machine.need(f, f"units.tensor.array.{key}")) for key, f in (tensor.array or {}).items()}
    kept = _kept_in_array(tensor)
    rows, columns = {"weight": ("output", "input"), "output": ("weight", "input"), "input": ("output", "weight")}[kept]
    shared = {"rows": rows, "columns": columns, "depth": "output"}
    axes = [Axis(key, size, before, shared[key], frozenset({shared[key]})) for key, size in sides.items()]
    return (Axis("arrays", tensor.count, before, "", frozenset()), *axes)


def _registers(tensor: Unit) -> Store:
    """The registers of an array that no level describes: a value of what its dataflow leaves in place."""
    kept = frozenset({_kept_in_array(tensor)})
    return Store("array", "array", inf, 1, 0.0, 0.0, False, 0.0, 0.0, kept, kept, {})


def _kept_in_array(tensor: Unit) -> str:
    return STATIONARY[tensor.dataflows[0]] if tensor.dataflows else "output"


def _store(machine: Machine, level: Level, is_array: bool) -> Store:
    where, outermost = f"levels.{level.name}", level is machine.levels[0]
    reached = machine.need(level.efficiency, f"{where}.efficiency") if level.efficiency else 1.0
    read = machine.need(level.bandwidth, f"{where}.bandwidth") * reached if level.bandwidth else 0.0
    write = machine.need(level.write_bandwidth, f"{where}.write_bandwidth") * reached if level.write_bandwidth else 0.0
    keeps, may, values = _held(machine, level, is_array)
    energy = level.energy
    return Store(
        level.name,
        level.place,
        inf if outermost else machine.need(level.capacity_bytes, f"{where}.capacity_bytes"),
        values,
        read,
        write or read,
        not write or (level.holds is not None and level.holds.one_port),
        _or_zero(energy.read_joules_per_byte) if energy else 0.0,
        _or_zero(energy.write_joules_per_byte) if energy else 0.0,
        keeps,
        may,
        {str(role): times for role, times in level.holds.wide.items()} if level.holds is not None else {},
    )


def _held(machine: Machine, level: Level, is_array: bool) -> tuple[frozenset[str], frozenset[str], int | None]:
    if level.holds is not None:
        keeps = frozenset[str](level.holds.keeps)
        return keeps, keeps | frozenset(level.holds.may), level.holds.values
    if is_array:
        kept = frozenset({_kept_in_array(machine.unit("tensor"))})
        return kept, kept, 1
    core = machine.level(machine.unit("vector").level) if machine.has_unit("vector") else machine.levels[0]
    keeps = ALL if level in (machine.levels[0], core) else frozenset()
    inside = machine.levels.index(level) > machine.levels.index(core)
    return keeps, keeps if inside or level.managed == "hardware" else ALL, None
