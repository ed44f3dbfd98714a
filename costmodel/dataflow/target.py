"""A dataflow machine as its engines see it: figures of one core, in clocks and bytes, taken from the machine file once.

The analytic model, the lowering and the simulator all work on this, so that they can't disagree about the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.costmodel.dataflow.network import Network, network_of
from codesign.costmodel.launches import launch_seconds
from codesign.costmodel.levels import Level
from codesign.costmodel.machine import Machine, Unit
from codesign.ir.dtypes import DTYPES, DType
from codesign.ir.errors import MachineError, UnsupportedError
from codesign.ir.scaled import NARROW

KINDS = ("fma", "alu", "integer", "special")
"""Of operations of element-wise work (`ir.functions`)."""

Floats = Any
"""A number or an array of them."""


@dataclass(frozen=True)
class Port:
    """A memory that several cores reach through one port: `cores` of them share `bytes_per_clock`, and have as many
    `write_bytes_per_clock` beside them where writes have a way of their own (0: they share).

    `line_bytes`: least transfer (1 when any size goes). Energies are joules per byte (NaN: not in the machine file). `inside`: how many
    of the target's places are not inside one instance. `multicast`: one transfer out of it reaches any number of those inside.
    `place`: as programs name it; `capacity`: bytes of an instance that they may keep data in (none in hardware's own caches).
    `network`: what connects it to the instances of the next level in.
    """

    name: str
    cores: int
    bytes_per_clock: Floats
    latency_clocks: Floats
    line_bytes: Floats
    read_joules: float
    write_joules: float
    write_bytes_per_clock: Floats = 0.0
    inside: int = 0
    multicast: bool = False
    place: str = ""
    capacity: int = 0
    network: Network | None = None

    @property
    def writes_apart(self) -> bool:
        """Whether writes have a way of their own."""
        return bool(np.any(self.write_bytes_per_clock))


@dataclass(frozen=True)
class Array:
    """The matrix unit of a core: `count` arrays of rows x columns, working on `depth` reduction steps a clock (1: systolic).

    `slowdown[dtype]`: clocks per step relative to the full rate. `dataflows`: what it can do, its own choice first. `held_twice`: the
    next stationary operand is loaded behind the present one. `scales_blocks`: operands may be narrow floats in blocks with an exponent each;
    `scales_floats`: or with a float of 8 bits each. `mixed_bits`: the widest operand beside which one in blocks may be narrower (0: none).
    """

    rows: int
    columns: int
    depth: int
    count: int
    slowdown: dict[str, Floats]
    dataflows: tuple[str, ...]
    startup_clocks: Floats
    joules: dict[str, float]
    held_twice: bool = False
    scales_blocks: bool = False
    scales_floats: bool = False
    mixed_bits: int = 0

    @property
    def systolic(self) -> bool:
        return self.depth == 1

    def multiply_joules(self, left: DType, right: DType) -> float:
        """Energy of one operation on operands of these dtypes: the wider one's, or the 16-bit figure where a file lacks it."""
        wider = max(left, right, key=lambda dtype: dtype.bits)
        return self.joules.get(wider.name, self.joules.get("bf16", float("nan")))

    @property
    def scales(self) -> frozenset[str]:
        """Dtypes of the scales of blocks."""
        of_pairs = {"f1e1m0"} if any(DTYPES[name].is_fixed for name in self.slowdown) else set()
        return frozenset({"f8e8m0", *of_pairs, *({"f8e4m3"} if self.scales_floats else ())})

    @property
    def scaled(self) -> frozenset[str]:
        """Dtypes of operands that may stand in blocks with an exponent each."""
        return frozenset(self.slowdown) if self.scales_blocks else frozenset()


@dataclass(frozen=True)
class Pipe:
    """A unit of a core that element-wise instructions pass, with others side by side. `lanes`: results a clock by dtype; `joules`: of one."""

    machine: str
    name: str
    lanes: Mapping[str, Floats]
    joules: Mapping[str, float]

    def rate(self, dtype: DType) -> Floats:
        """Results a clock; narrower types run as f32 or i32, 64-bit integers at half of i32."""
        return _lanes(self.machine, self.name, self.lanes, dtype)


@dataclass(frozen=True)
class Target:
    """One core and what surrounds it. Times are clocks of the tensor unit (`clock_hz`).

    `places`: the places between the chip and the core that have several instances, outermost first, with how many one instance of the place
    around has; a core's number counts them in this order. `sharing`: by a memory's place, as programs name it, how many cores share one instance
    (`cluster` is the memory above a core's own, whatever its name). Of several machines that differ in rates and latencies alone, one figure each
    (`several`).
    """

    name: str
    clock_hz: Floats
    cores: int
    places: tuple[tuple[str, int], ...]
    sharing: Mapping[str, int]
    array: Array
    pipes: Mapping[str, Pipe]
    """By kind of operation."""
    vector_startup_clocks: Floats
    scratch_bytes_per_clock: Floats
    scratch_read_joules: float
    scratch_write_joules: float
    capacity: dict[str, int]
    ports: tuple[Port, ...]
    dma_bytes_per_clock: Floats
    dma_setup_clocks: Floats
    descriptor_dims: Floats
    issue_clocks: Floats
    queue_depth: int
    semaphores: int
    launch_seconds: Floats
    static_watts: float
    power_watts: float = float("inf")

    def throttled(self, seconds: Floats, joules: Floats) -> Floats:
        """Seconds of a kernel at the power limit, which leaves its work's `joules` what is not drawn anyway."""
        left = self.power_watts - (0.0 if math.isnan(self.static_watts) else self.static_watts)
        return np.fmax(seconds, joules / left) if left > 0.0 else seconds + np.inf

    @property
    def dram(self) -> Port:
        return self.ports[0]

    @property
    def latency_clocks(self) -> Floats:
        """From a core's request to the first byte out of DRAM, in the mean over the cores."""
        return sum(port.latency_clocks + _hops(port) for port in self.ports)

    @property
    def shortest_clocks(self) -> Floats:
        """Of any program: a request to memory and its answer, first of a load, then of a store."""
        return 2.0 * self.latency_clocks

    @property
    def meeting_seconds(self) -> Floats:
        """Until all cores know that all of them have come to the same point: as long as from a request to its answer."""
        return self.latency_clocks / self.clock_hz

    def multiplies(self, dtype: DType) -> bool:
        """Whether the tensor unit takes operands of a dtype; else the vector unit multiplies them."""
        return dtype.name in self.array.slowdown

    def tensor_slowdown(self, dtype: DType) -> Floats:
        """Clocks per step of the array for operands of a dtype, relative to its full rate."""
        if dtype.name not in self.array.slowdown:
            have = ", ".join(self.array.slowdown)
            raise UnsupportedError(
                f"the tensor unit of {self.name} has no rate for {dtype} operands (it has {have})",
                hint="convert the operands, or add a rate under units.tensor.rate of the machine file",
            )
        return self.array.slowdown[dtype.name]


def _lanes(machine: str, unit: str, rates: Mapping[str, Floats], dtype: DType) -> Floats:
    if dtype.name in rates:
        return rates[dtype.name]
    if dtype.is_float and dtype.bits <= 32 and "f32" in rates:
        return rates["f32"]
    if not dtype.is_float:
        base = rates.get("i32", rates.get("f32"))
        if base is not None:
            return base if dtype.bits <= 32 else base / 2
    raise UnsupportedError(
        f"the {unit} unit of {machine} has no rate for {dtype}",
        hint=f"compute in f32, or add a rate under units.{unit}.rate of the machine file",
    )


def _joules(machine: Machine, level: Level, write: bool) -> float:
    if level.energy is None:
        return float("nan")
    figure = level.energy.write_joules_per_byte if write else level.energy.read_joules_per_byte
    return float("nan") if figure.value is None else figure.value


def _rates(machine: Machine, unit: Unit, clock_hz: float, per_core: float) -> dict[str, float]:
    scale = machine.need(unit.clock_hz, f"units.{unit.name}.clock_hz") / clock_hz * per_core
    return {
        dtype: machine.need(figure, f"units.{unit.name}.rate.{dtype}") * scale for dtype, figure in unit.rate.items()
    }


def _pipe(machine: Machine, unit: Unit, clock: float, cores: int) -> Pipe:
    """A unit's pipe; its energies are those of the vector unit where its own are not known."""
    known = unit.energy_joules_per_operation or machine.unit("vector").energy_joules_per_operation
    joules = {dtype: figure.value for dtype, figure in known.items() if figure.value is not None}
    per_core = machine.instances(unit.level) * unit.count / cores
    return Pipe(machine.name, unit.name, _rates(machine, unit, clock, per_core), joules)


def target_of(machine: Machine) -> Target:
    """The figures of a dataflow machine; MachineError names what its file lacks."""
    known = _KNOWN.get(id(machine))
    if known is None or known[0] is not machine:
        known = _KNOWN[id(machine)] = (machine, _target(machine))
    return known[1]


_KNOWN: dict[int, tuple[Machine, Target]] = {}


def _target(machine: Machine) -> Target:
    if machine.kind != "dataflow":
        raise MachineError(f"{machine.name} is a {machine.kind}, not a dataflow machine", hint="try maia100")
    core = machine.core_level()
    cores = machine.instances(core.name)
    tensor = machine.unit("tensor")
    clock = machine.need(tensor.clock_hz, "units.tensor.clock_hz")
    position = machine.levels.index(core)
    capacity = _capacities(machine, core, cores)
    return Target(
        name=machine.name,
        clock_hz=clock,
        cores=cores,
        places=_places(machine.levels[: position + 1]),
        sharing={
            "cluster": cores // machine.instances(machine.above(core).name),
            **{level.place: cores // machine.instances(level.name) for level in machine.levels[:position]},
            "chip": cores,
        },
        array=_array(machine, tensor, cores),
        pipes={kind: _pipe(machine, machine.doing(kind), clock, cores) for kind in KINDS},
        vector_startup_clocks=machine.limit("vector_startup_clocks"),
        scratch_bytes_per_clock=machine.need(core.bandwidth, f"levels.{core.name}.bandwidth") / clock,
        scratch_read_joules=_joules(machine, core, False),
        scratch_write_joules=_joules(machine, core, True),
        capacity=capacity,
        ports=tuple(
            _port(machine, level, inner, cores, clock)
            for level, inner in zip(machine.levels[:position], machine.levels[1:], strict=False)
        ),
        dma_bytes_per_clock=machine.limit("dma_bytes_per_clock"),
        dma_setup_clocks=machine.limit("dma_setup_clocks"),
        descriptor_dims=int(machine.limit("dma_descriptor_dims")),
        issue_clocks=machine.limit("issue_clocks"),
        queue_depth=int(machine.limit("queue_depth")),
        semaphores=int(machine.limit("semaphores_per_core")) if "semaphores_per_core" in machine.limits else 1 << 16,
        launch_seconds=launch_seconds(machine),
        static_watts=float("nan") if machine.static_watts is None else machine.static_watts.value or float("nan"),
        power_watts=(machine.power_watts and machine.power_watts.value) or float("inf"),
    )


def _capacities(machine: Machine, core: Level, cores: int) -> dict[str, int]:
    """Bytes of the memories below DRAM, by the names that programs have for them: of outer levels an instance's, inside a core all of them.

    `core` is a core's own, `array` the one inside it that the tensor unit's sums stay in (the unit's own level, or the next one in).
    """
    position = machine.levels.index(core)
    inside = machine.levels[position + 1 :]
    home = machine.level(machine.unit("tensor").level)
    sums = home if home in inside else next(iter(inside), None)
    found: dict[str, int] = {}
    for level in machine.levels[1:]:
        name = "core" if level is core else "array" if level is sums else level.place
        each = machine.need(level.capacity_bytes, f"levels.{level.name}.capacity_bytes")
        found[name] = int(each * max(machine.instances(level.name) // cores, 1))
    return found


def _places(levels: list[Level]) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for level in levels:
        if level.fanout > 1:
            found[level.place] = found.get(level.place, 1) * level.fanout
    return tuple(found.items())


def _hops(port: Port) -> Floats:
    """Clocks on the links of a port's network, in the mean."""
    return port.network.hops * port.network.hop_clocks if port.network else 0.0


def _port(machine: Machine, level: Level, inner: Level, cores: int, clock: float) -> Port:
    where = f"levels.{level.name}"
    reached = machine.need(level.efficiency, f"{where}.efficiency") if level.efficiency else 1.0
    return Port(
        name=level.name,
        cores=cores // machine.instances(level.name),
        bytes_per_clock=machine.need(level.bandwidth, f"{where}.bandwidth") * reached / clock,
        latency_clocks=machine.need(level.latency_seconds, f"{where}.latency_seconds") * clock,
        line_bytes=int(machine.need(level.line_bytes, f"{where}.line_bytes")) if level.line_bytes else 1,
        read_joules=_joules(machine, level, False),
        write_joules=_joules(machine, level, True),
        write_bytes_per_clock=(
            machine.need(level.write_bandwidth, f"{where}.write_bandwidth") * reached / clock
            if level.write_bandwidth
            else 0.0
        ),
        inside=len(_places(machine.levels[: machine.levels.index(level) + 1])),
        multicast=level.multicast,
        place=level.place,
        capacity=_kept_bytes(machine, level, where),
        network=network_of(
            machine, inner, cores, len(_places(machine.levels[: machine.levels.index(inner) + 1])), clock
        ),
    )


def _kept_bytes(machine: Machine, level: Level, where: str) -> int:
    if level is machine.levels[0] or level.managed == "hardware":
        return 0
    return int(machine.need(level.capacity_bytes, f"{where}.capacity_bytes"))


def _array(machine: Machine, tensor: Unit, cores: int) -> Array:
    shape = {key: int(machine.need(f, f"units.tensor.array.{key}")) for key, f in (tensor.array or {}).items()}
    if "rows" not in shape or "columns" not in shape:
        raise MachineError(f"{machine.name}: units.tensor.array needs rows and columns")
    depth = shape.get("depth", 1)
    full = shape["rows"] * shape["columns"] * depth
    rates = {k: machine.need(f, f"units.tensor.rate.{k}") for k, f in tensor.rate.items() if k in DTYPES}
    return Array(
        rows=shape["rows"],
        columns=shape["columns"],
        depth=depth,
        count=max(machine.instances(tensor.level) * tensor.count // cores, 1),
        slowdown={k: full / rate for k, rate in rates.items()},
        dataflows=tensor.dataflows or ("output_stationary",),
        startup_clocks=machine.limit("tensor_startup_clocks"),
        joules={k: f.value for k, f in tensor.energy_joules_per_operation.items() if f.value is not None},
        held_twice=machine.features.get("stationary_operand_held_twice", False),
        scales_blocks=machine.features.get("block_scaled_products", False),
        scales_floats=machine.features.get("float_scaled_products", False),
        mixed_bits=_mixed_bits(machine),
    )


def _mixed_bits(machine: Machine) -> int:
    if machine.features.get("widened_products", False):
        return 32
    return NARROW if machine.features.get("mixed_products", False) else 0
