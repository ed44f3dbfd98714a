"""The physical parameters of the tile model: what each means, its bounds, and where its value comes from.

Fifteen are fitted per machine. A machine that was not calibrated takes the parameters of the calibrated
machine whose way of working is nearest (who multiplies, how operands are copied, how L2 is built); all are ratios to figures of the machine
file or clock counts, so they carry over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from codesign.costmodel.gpu.geometry import each_clock, wide_of
from codesign.costmodel.gpu.habits import usual_start
from codesign.costmodel.gpu.scales import STARTED, scales, unchecked_trips
from codesign.costmodel.launched import intervals as launched_intervals
from codesign.costmodel.launched import launch_seconds
from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.errors import MachineError

FOLDER = Path(__file__).resolve().parent.parent / "parameters"


@dataclass(frozen=True)
class Parameters:
    """Physical parameters; efficiencies are fractions of the machine file's figures, latencies multiples of its DRAM latency."""

    launch_seconds: float = 2.2e-6
    """Start and end of a kernel inside a replayed graph, until its first instruction and after its last."""
    tensor_efficiency: float = 0.85
    """Sustained share of the tensor peak for large tiles: issue gaps and the clock under load."""
    tensor_joules: float = 0.7e-12
    """Energy of one 16-bit operation of the tensor unit with its operands: what throttles the clock under load."""
    tile_overhead: float = 12.0
    """Elements of tile side lost to operand delivery: a tile of m x n runs at 1 / (1 + overhead (1/m + 1/n))."""
    l2_efficiency: float = 0.8
    """Share of the L2 bandwidth that tiled loads reach."""
    dram_efficiency: float = 0.9
    """Share of the DRAM bandwidth that long streams reach."""
    write_gap: float = 48.0
    """Bytes of DRAM time that each contiguous run of writes costs on top of its own: turnarounds and partly filled bursts."""
    fill_latency: float = 1.5
    """Latency from the start of a block until its first operands arrive, in DRAM latencies."""
    exposed: float = 0.8
    """Share of a block's fill and epilogue that is not hidden when another round of blocks follows on the SM."""
    sharpness: float = 5.0
    """Order of the norm that combines resources working at the same time: infinity overlaps perfectly, 1 not at all."""
    lasting_clock: float = 0.95
    """Clock that is left after some milliseconds of products, over the clock of short runs; of the power limit the same share is left for work."""
    reduction_latency: float = 6.0
    """Meeting of the parts of a split reduction, in DRAM latencies."""
    step_clocks: float = 60.0
    """Clocks of a loop trip that nothing hides within one block: waiting and issuing."""
    vector_efficiency: float = 0.9
    """Share of the vector and special-function peak that real instruction mixes reach."""
    warm: float = 0.6
    """Share of a small, recently written operand that is still found in L2."""

    profiled_launch_seconds: float = 1.0e-6
    """What a profiler's kernel time still holds of start and end (a table of `profiled` times)."""
    profiled_fill_latency: float = 2.0
    """`fill_latency` of a kernel in an eager run, whose code and pages are not at hand (a table of `profiled` times)."""
    profiled_clock: float = 0.85
    """Clock that power management leaves under the load of a long eager run, over the clock of short ones (a table of `profiled` times)."""
    helper_seconds: float = 1.3e-6
    """What each further small kernel of one call adds inside a replayed graph (appending to a cache, converting, scheduling, meeting of parts)."""
    extra_passes: float = 0.0
    """Further passes over the new part of what an online loop reads (keys and values) by helper kernels of an
    implementation: cache append, conversion."""
    token_seconds: float = 0.5e-9
    """What helper kernels take for each new token (and those that quantise activations for each row) on top of its bytes: a block of 512
    threads a token, or fewer where a token has fewer keys."""
    quantise_seconds: float = 5e-6
    """Floor of the small kernels that quantise the activations of a product before it, where the call does."""
    quantise_passes: float = 1.5
    """Passes over these activations (of 16 bits) that they take: reads for the scale, a read and a narrower write."""
    pass_bytes: float = 16.0
    """Bytes that an SM moves in a clock in such a pass at the most, wherever they lie: what it converts and waits for on the way. Fits to four
    tables of an H100 and a B300 give 11 to 18; an L40S's passes wait for its DRAM."""
    result_passes: float = 0.0
    """Passes over the results (of 16 bits) of such a product by what follows it in the call: a copy, a scale."""
    convert_passes: float = 2.0
    """Passes over queries and results where queries are converted to the type of the keys by a kernel of its own."""
    extra_query_passes: float = 0.0
    """The same over the other inputs and outputs (queries, results): layout, rotary embedding."""


FITTED = (
    "launch_seconds",
    "tensor_efficiency",
    "tensor_joules",
    "tile_overhead",
    "l2_efficiency",
    "dram_efficiency",
    "write_gap",
    "fill_latency",
    "lasting_clock",
    "reduction_latency",
    "step_clocks",
    "vector_efficiency",
    "profiled_launch_seconds",
    "profiled_fill_latency",
    "profiled_clock",
)
"""The parameters that calibration fits: fifteen. The others hold on every GPU that was looked at."""

PRODUCT = "gemm "
"""How names of quantised products begin among the implementations; the others are of attention."""

OF_MACHINE = ("launch_seconds", "tensor_joules", "l2_efficiency", "dram_efficiency", "write_gap", "reduction_latency")
"""Of the constants of an implementation those that speak of the machine, where it keeps them as they were when it was fitted."""

TYPICAL = "typical"
"""The name under which calibrations keep the middle of their implementations."""

BOUNDS: dict[str, tuple[float, float]] = {
    "launch_seconds": (0.8e-6, 40e-6),
    "tensor_efficiency": (0.02, 1.0),
    "tensor_joules": (0.2e-12, 2e-12),
    "tile_overhead": (0.0, 64.0),
    "l2_efficiency": (0.2, 1.2),
    "dram_efficiency": (0.6, 1.0),
    "write_gap": (0.0, 2000.0),
    "fill_latency": (0.3, 20.0),
    "exposed": (0.02, 1.0),
    "sharpness": (1.5, 12.0),
    "lasting_clock": (0.6, 1.0),
    "reduction_latency": (0.3, 40.0),
    "step_clocks": (5.0, 6000.0),
    "vector_efficiency": (0.2, 1.0),
    "warm": (0.0, 1.0),
    "helper_seconds": (0.5e-6, 4e-6),
    "extra_passes": (0.0, 8.0),
    "token_seconds": (0.05e-9, 20e-9),
    "quantise_seconds": (0.2e-6, 40e-6),
    "quantise_passes": (0.2, 8.0),
    "pass_bytes": (2.0, 128.0),
    "result_passes": (0.01, 8.0),
    "convert_passes": (0.0, 8.0),
    "extra_query_passes": (0.02, 8.0),
    "profiled_launch_seconds": (0.1e-6, 3e-6),
    "profiled_fill_latency": (0.3, 20.0),
    "profiled_clock": (0.6, 1.0),
}


@dataclass(frozen=True)
class Calibration:
    """Parameters with their provenance.

    `spread` maps a regime to the 5 % and 95 % quantile of measured over predicted time, from rows held out;
    `transferred` names the machine that the parameters were fitted on when it is another one.
    """

    machine: str
    parameters: Parameters
    spread: dict[str, tuple[float, float]]
    provenance: dict[str, Any]
    transferred: str = ""
    implementations: dict[str, dict[str, float]] = field(default_factory=dict)
    """Constants of named implementations (a serving system's attention) that differ from the machine's: the latency of
    a block, helper kernels' work. Those of `typical` stand for an implementation that is not known."""
    far: dict[str, str] = field(default_factory=dict)
    """Families of `spread` that were measured on another machine, and its distance: `machine` or `generation`."""
    elsewhere: dict[str, dict[str, float]] = field(default_factory=dict)
    """Constants of implementations that were measured on other machines only, each on the most alike one."""

    def measured(self, family: str) -> str:
        """The name of the intervals of a family: where only profiled times of it are known, of those."""
        profiled = f"profiled {family}"
        return profiled if family not in self.spread and profiled in self.spread else family

    def of(self, implementation: str = "", method: str = "graph") -> Parameters:
        """The parameters for an implementation ("" for the machine's own) and a way of measuring.

        A kernel of an implementation that was measured for other sizes takes the constants of the nearest ones, one that was measured
        on other machines only, those of the most alike machine, and an implementation that was not, those of `typical`. Profiled eager
        kernels hold less launch time than replayed graphs, those of an eager stream more.
        """
        own = self.implementations.get(implementation, {}) if implementation else {}
        if implementation.startswith(PRODUCT):
            own = own or self.elsewhere.get(implementation, {})
        elif implementation and not own:
            known = (self.implementations, self.elsewhere, {implementation: self.implementations.get(TYPICAL, {})})
            own = _nearest_of(implementation, known)
        found = replace(self.parameters, **own)
        if method == "eager":
            return replace(found, launch_seconds=launch_seconds())
        if method != "profiled":
            return found
        return replace(found, launch_seconds=found.profiled_launch_seconds, fill_latency=found.profiled_fill_latency)


def _nearest_of(name: str, known: Iterable[dict[str, dict[str, float]]]) -> dict[str, float]:
    """The constants of the same kernel for the nearest sizes, in the first table that has it for any."""
    for table in known:
        if nearest := _nearest(name, table):
            return table[nearest]
    return {}


_NUMBER = re.compile(r"(\d+)")


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The implementation whose name differs in numbers alone (elements of a head, bits), and by the least factors: the same
    kernel for other sizes."""
    words = _NUMBER.split(name)
    alike = [other for other in known if _NUMBER.split(other)[::2] == words[::2]]

    def factors(other: str) -> float:
        pairs = zip(_NUMBER.split(other)[1::2], words[1::2], strict=True)
        return sum(abs(math.log(max(int(a), 1) / max(int(b), 1))) for a, b in pairs)

    return min(alike, key=factors, default=None)


def load_calibration(machine: Machine) -> Calibration:
    """The calibration shipped for a machine, else one transferred from the nearest calibrated machine, with wider intervals."""
    known = _LOADED.get(id(machine))
    if known is None or known[0] is not machine:
        known = _LOADED[id(machine)] = (machine, _of_machine(machine))
        if len(_LOADED) > 64:
            _LOADED.pop(next(iter(_LOADED)))
    return known[1]


_LOADED: dict[int, tuple[Machine, Calibration]] = {}
"""Calibrations of the machine objects asked for last, each held so that its id stays its own."""


def _of_machine(machine: Machine) -> Calibration:
    own = calibration_from(machine.calibration, machine.origin) if machine.calibration else _read(machine.name)
    if own is None:
        own = transferred(_read(donor_of(machine)), machine)
    found = _completed(replace(own, elsewhere=_elsewhere(own, machine)), machine)
    found = _with_eager_streams(found, machine)
    if machine.calibration:  # as it was measured: the launch too
        return found
    return replace(found, parameters=_started(found.parameters, machine, found.transferred or found.machine))


def _elsewhere(own: Calibration, machine: Machine) -> dict[str, dict[str, float]]:
    """What other machines keep of implementations that a calibration has not got, each of the most alike machine. A machine's own
    file is left out: who asks for a transferred calibration has it not."""
    found: dict[str, dict[str, float]] = {}
    for name in sorted(calibrations(), key=lambda name: _unlike(machine, load_machine(name))):
        other = _read(name) if name not in (machine.name, own.machine) else None
        for implementation, constants in other.implementations.items() if other else ():
            if implementation != TYPICAL and implementation not in own.implementations:
                found.setdefault(implementation, _carried(constants, load_machine(name), machine))
    return found


GENERATED_SHARE = 0.75
"""Power of the tensor peak of an SM and clock with which the share that compiled attention reaches of it falls: its products wait for its
own vector work. Fitted to seven of Triton's kernels that an L40S and a B300 both ran (1024 and 7650 operations, shares 2.8 to 8.7 times apart)."""


def _carried(
    constants: dict[str, float], there: Machine, here: Machine, scale: Mapping[str, float] = {}
) -> dict[str, float]:
    """Constants of an implementation on another machine: what they say of the machine is scaled, or left to it without scales."""
    found = {key: value * scale.get(key, 1.0) for key, value in constants.items() if scale or key not in OF_MACHINE}
    if "fill_latency" in constants and "helper_seconds" not in constants:  # made by a compiler of tiles
        found["tensor_efficiency"] = generated_share(constants["tensor_efficiency"], each_clock(there), here)
    return found


def generated_share(share: float, operations: float, machine: Machine) -> float:
    """The share of the tensor peak that compiled attention reaches on a machine, of one that it reaches where an SM does so many operations a
    clock."""
    return float(min(share * (operations / each_clock(machine)) ** GENERATED_SHARE, 1.0))


def _started(p: Parameters, machine: Machine, fitted_on: str) -> Parameters:
    """The parameters with the launch time that a machine file asks for: the fit holds what the file of the machine that
    was measured says of it, so that a difference of the two files is a difference of launches."""
    here, there = (known.launch.get("kernel_seconds") for known in (machine, load_machine(fitted_on)))
    if here is None or there is None or here.value is None or there.value is None or here.value == there.value:
        return p
    return replace(p, launch_seconds=max(p.launch_seconds + here.value - there.value, 0.0))


def _completed(found: Calibration, machine: Machine) -> Calibration:
    """With intervals of kinds of kernels that were measured on other machines only, wider as for any other machine."""
    spread, far = dict(found.spread), dict(found.far)
    for name in calibrations():
        other = _read(name)
        kinds = {key.split(":")[0] for key in spread}
        if other is not None:
            alike = load_machine(other.machine).architecture == machine.architecture
            further = {key: pair for key, pair in other.spread.items() if key.split(":")[0] not in kinds}
            spread |= further
            far |= {key.split(":")[0]: "machine" if alike else "generation" for key in further}
    return replace(found, spread=spread, far=far)


def _with_eager_streams(found: Calibration, machine: Machine) -> Calibration:
    """With intervals of kernels timed on an eager stream: those measured on the machine, and the widest of other machines' kinds."""
    known = launched_intervals()
    spread, far = dict(found.spread), dict(found.far)
    for kind in {f"eager {kind}" for kinds in known.values() for kind in kinds}:
        measured = [name for name, kinds in known.items() if kind.removeprefix("eager ") in kinds]
        own = [name for name in measured if name == machine.name]
        alike = [name for name in measured if load_machine(name).architecture == machine.architecture]
        pairs = [known[name][kind.removeprefix("eager ")] for name in own or alike or measured]
        spread[kind] = min(low for low, _ in pairs), max(high for _, high in pairs)
        if not own:
            far[kind] = "machine" if alike else "generation"
    return replace(found, spread=spread, far=far)


def calibrations() -> list[str]:
    """Machines that are calibrated."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def calibration_like(donor: str, machine: Machine) -> Calibration:
    """The calibration of `machine` if it had only its spec sheet, transferred from a machine that was calibrated; MachineError if that was not."""
    found = _read(donor)
    if found is None:
        raise MachineError(f"{donor} is not calibrated; calibrated machines are {', '.join(calibrations())}")
    return transferred(found, machine)


def transferred(donor: Calibration | None, machine: Machine) -> Calibration:
    """What a machine that was never measured takes of a calibrated one, with wider intervals.

    Shares and clock counts carry over as they are. Launch and fill are work of the GPU's own clock, so their seconds
    scale with it (a fill is kept in DRAM latencies, whose length differs too): the launches fitted on an A100, an H100
    and an L40S are 3300 to 3700 clocks, and 1.3 to 2.4 us, in the mean over kernels that start sooner and later; those
    of data-center Blackwell are fewer (`STARTED`). Where warps multiply fragments, the clocks of a loop trip go by what
    an SM of their architecture multiplies in one (220 on an A100 and 519 on an L40S, which does half as much). The energy of an operation
    goes with the square of the clock, as voltage does; that of tensor units with a memory of their own is what the
    power limit leaves each at the peak (fits to an H100 and a B300 take 0.96 and 1.09 of it). What implementations of
    attention keep is latencies and steps of their own code, and is taken as it is.
    """
    if donor is None:
        wide = {"default": (0.6, 1.7)}
        return Calibration(machine.name, Parameters(), wide, {"rule": "physical defaults, no calibration shipped"})
    here, there = load_machine(donor.machine), machine
    distance = "generation" if here.architecture != there.architecture else "machine"
    far = {key.split(":")[0]: distance for key in donor.spread}
    provenance = {
        "rule": f"shares and clock counts fitted on {donor.machine}; figures of {machine.name}",
        "from": donor.provenance,
    }
    if not wide_of(there) and (unchecked := unchecked_trips(there, map(load_machine, calibrations()))):
        provenance["unchecked"] = unchecked
    scale = scales(here, there, donor.parameters.tensor_joules)
    parameters = replace(donor.parameters, **_scaled(asdict(donor.parameters), scale))
    launch = (donor.parameters.launch_seconds + usual_start(here.architecture)) * scale["launch_seconds"]
    launch = launch * STARTED.get(there.architecture, 1.0) / STARTED.get(here.architecture, 1.0)
    parameters = replace(parameters, launch_seconds=launch - usual_start(there.architecture))
    of_machine = {key: scale[key] for key in OF_MACHINE if key in scale}
    own = {name: _carried(constants, here, there, of_machine) for name, constants in donor.implementations.items()}
    return Calibration(
        machine.name,
        parameters,
        donor.spread,
        provenance,
        donor.machine,
        own,
        far,
        _elsewhere(donor, machine),
    )


def _scaled(values: dict[str, float], scale: dict[str, float]) -> dict[str, float]:
    return {name: value * scale[name] for name, value in values.items() if name in scale}


def donor_of(machine: Machine) -> str:
    """Which calibrated machine works most alike: fewest of the features that both files state differ; what multiplies counts before all."""
    return min(calibrations(), key=lambda name: _unlike(machine, load_machine(name)))


def _unlike(machine: Machine, other: Machine) -> tuple[bool, int]:
    """Whether other units multiply, and how many other features differ."""
    stated = machine.features.keys() & other.features.keys()
    return wide_of(machine) != wide_of(other), sum(machine.features[key] != other.features[key] for key in stated)


@lru_cache(maxsize=64)
def _read(name: str) -> Calibration | None:
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    return calibration_from(json.loads(path.read_text(encoding="utf-8")), str(path))


def calibration_from(data: dict[str, Any], origin: str) -> Calibration:
    """A calibration from plain data; MachineError names what is wrong."""
    _check_plain(data, origin)
    known = {entry.name for entry in fields(Parameters)}
    unknown = set(data.get("parameters", {})) - known
    if unknown or "machine" not in data or "parameters" not in data:
        raise MachineError(
            f"{origin}: not a calibration file" + (f": unknown parameters {sorted(unknown)}" if unknown else "")
        )
    return Calibration(
        machine=data["machine"],
        parameters=Parameters(**data["parameters"]),
        spread={regime: (float(low), float(high)) for regime, (low, high) in data.get("spread", {}).items()},
        provenance=data.get("provenance", {}),
        transferred=data.get("transferred", ""),
        implementations=data.get("implementations", {}),
        far=data.get("far", {}),
    )


def _check_plain(data: Any, origin: str) -> None:
    """The types of a calibration's fields: texts, and tables of finite numbers."""
    if not isinstance(data, dict):
        raise MachineError(f"{origin}: not a calibration file")
    for key in ("machine", "transferred"):
        if not isinstance(data.get(key, ""), str):
            raise MachineError(f"{origin}: {key}: must be a text")
    for key in ("parameters", "spread", "provenance", "implementations", "far"):
        if not isinstance(data.get(key, {}), dict):
            raise MachineError(f"{origin}: {key}: must be a table")
    for name, value in data.get("parameters", {}).items():
        if not _finite(value):
            raise MachineError(f"{origin}: parameters.{name}: must be a finite number")
    for regime, pair in data.get("spread", {}).items():
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_finite, pair)) or not 0 < pair[0] <= pair[1]:
            raise MachineError(f"{origin}: spread.{regime}: must be two factors, the low one first")
    for family, distance in data.get("far", {}).items():
        if distance not in ("machine", "generation"):
            raise MachineError(f"{origin}: far.{family}: must be 'machine' or 'generation'")
    for name, constants in data.get("implementations", {}).items():
        if not isinstance(constants, dict) or not all(map(_finite, constants.values())):
            raise MachineError(f"{origin}: implementations.{name}: must be a table of finite numbers")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def calibration_to(calibration: Calibration) -> dict[str, Any]:
    """Plain data of a calibration, as its file holds it."""
    return {
        "machine": calibration.machine,
        "parameters": asdict(calibration.parameters),
        "implementations": calibration.implementations,
        "spread": {regime: list(pair) for regime, pair in calibration.spread.items()},
        "provenance": calibration.provenance,
    } | ({"far": calibration.far} if calibration.far else {})
