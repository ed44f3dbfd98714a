"""What a simulation needs to know before it starts: the block, how many run together, and what they read from DRAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from codesign.costmodel.events.blocks import Around, Block, Chip, Knobs, block_of
from codesign.costmodel.events.cache import Panels, Reads, panels_of, reads, write_effort
from codesign.costmodel.events.walk import Walk
from codesign.costmodel.gpu.block import Part, block_work, parts_of_block
from codesign.costmodel.gpu.chains import (
    ChainBlock,
    chain_block,
    further_launches,
    helper_seconds,
    launched,
    meeting_seconds,
)
from codesign.costmodel.gpu.energy import power_seconds, work_joules
from codesign.costmodel.gpu.geometry import Array, Geometry, geometry, port_bytes_per_clock, wide_of
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.gpu.occupancy import Occupancy, occupancy, reasons
from codesign.costmodel.gpu.parameters import Parameters, load_calibration
from codesign.costmodel.gpu.paths import late_seconds
from codesign.costmodel.gpu.timing import in_flight_bytes, lasting_share, shared_effort, stages_consumed
from codesign.costmodel.gpu.traffic import Traffic, box_of, read_gap, side_by_side, traffic
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import MachineError, ScheduleError, UnsupportedError
from codesign.ir.schedule import Schedule, ScheduleBatch

BUNDLES = 8
"""At most so many bundles on one SM; with more resident blocks, several share one."""


@dataclass(frozen=True)
class Plan:
    """A kernel under a schedule on a chip.

    `grid` blocks; `resident` fit on an SM; an SM has `places` for bundles of at most `together` blocks. `bounds` are
    those of the roofline, in seconds.
    """

    kernel: str
    machine: str
    chip: Chip
    parameters: Parameters
    knobs: Knobs
    block: Block
    from_dram: Reads
    grid: int
    resident: int
    places: int
    together: int
    bounds: tuple[float, float, float, float]
    helper_seconds: float = 0.0
    """Passes of an implementation's helper kernels over inputs and outputs."""
    meeting_seconds: float | None = None
    """Until the parts of a chain are summed; None where a split reduction meets by itself."""
    hidden_fill: float = 0.0
    """Share of a block's fill that the block before it on the SM hides."""
    joules: float = 0.0
    """Of the kernel's work."""
    power_seconds: float = 0.0
    """What that takes at the power limit."""
    skew: float = 1.0
    """Work of the longest block over that of the mean one."""


def plan(
    kernel: KernelSummary,
    machine: Machine,
    schedule: Schedule,
    sizes: Mapping[str, int] | None = None,
    parameters: Parameters | None = None,
    compiled: bool = True,
) -> Plan:
    """The plan of one launch; see `simulate` for arguments and errors."""
    if machine.kind != "gpu":
        raise MachineError(f"{machine.name} is not a GPU", hint="cost_model_for(machine) picks the model of a machine")
    if kernel.strands:
        message = (
            f"{kernel.name}: its programs do {len(kernel.strands)} things side by side, of which a simulation is of one"
        )
        raise UnsupportedError(message, hint="simulate each of the kernel's strands, or price all with EventModel")
    missing = [symbol for symbol in kernel.symbols if symbol not in (sizes or {})]
    if missing:
        raise MachineError(f"{kernel.name}: no value for size {', '.join(missing)}", hint="pass sizes={...}")
    columns = {name: float(column[0]) for name, column in knob_columns(ScheduleBatch.of([schedule])).items()}
    return plan_columns(kernel, machine, columns, schedule.order, sizes, parameters, compiled)


def _bundles(blocks: int, resident: int, sms: int) -> tuple[int, int]:
    """Places for bundles on an SM, and blocks of a bundle."""
    wanted = min(resident, -(-blocks // sms))
    together = -(-wanted // BUNDLES)
    return -(-wanted // together), together


def _bytes_of(panels: Sequence[Panels]) -> tuple[float, float]:
    """Distinct bytes, and those of them that are read online."""
    distinct = sum(entry.bytes * entry.number for entry in panels)
    return distinct, sum(entry.bytes * entry.number for entry in panels if entry.online)


def _refuse_what_does_not_fit(kernel: KernelSummary, machine: Machine, found: Occupancy) -> None:
    _, (why,) = map(np.ravel, reasons(found))
    if why:
        message = f"{kernel.name} does not fit on {machine.name}: {why}"
        raise ScheduleError(message, hint="smaller tiles or fewer stages")


def _chained(
    kernel: KernelSummary,
    machine: Machine,
    g: Geometry,
    w: Work,
    chip: Chip,
    p: Parameters,
    columns: Mapping[str, float],
    values: Mapping[str, float],
    idle: float,
    missed: float,
    underway: Array,
) -> tuple[ChainBlock, float]:
    """A block of a chain of products, and the seconds until its parts are summed."""
    latencies = {"l2_latency": chip.l2_latency, "dram_latency": chip.dram_latency}
    chain = chain_block(w, columns, values, p, missed=missed, in_flight_bytes=underway, clock=chip.clock, **latencies)
    met = meeting_seconds(
        kernel, g, w, columns, idle, p,
        dram_bandwidth=chip.read_bandwidth, l2_bandwidth=chip.l2_bandwidth, cache_bytes=chip.cache_bytes,
        port=port_bytes_per_clock(machine) * chip.clock, **latencies,
    )  # fmt: skip
    return chain, float(met)


def plan_columns(
    kernel: KernelSummary,
    machine: Machine,
    knobs_given: Mapping[str, float],
    order: tuple[str, ...] = (),
    sizes: Mapping[str, float] | None = None,
    parameters: Parameters | None = None,
    compiled: bool = True,
) -> Plan:
    """The plan of one launch whose knobs are numbers by name, among them rules that the launch decides by."""
    p = parameters or load_calibration(machine).parameters
    values = {name: float(value) for name, value in (sizes or {}).items()}
    decided, idle = launched(kernel, knobs_given, values, float(machine.instances("shared")))
    columns, idle = {name: float(value) for name, value in decided.items()}, float(idle)
    g = geometry(kernel, columns, values, float(machine.instances("shared")))
    knobs = Knobs.of(columns)
    single = {name: np.float64(value) for name, value in columns.items()}
    w, held = block_work(kernel, g, machine, single, compiled)
    lasting = float(lasting_share(kernel, machine, g, w, p))
    p = replace(p, tensor_efficiency=p.tensor_efficiency * lasting)
    warps, pipeline = np.float64(knobs.warps), np.float64(knobs.pipeline)
    found = occupancy(w, machine, warps, pipeline, held)
    _refuse_what_does_not_fit(kernel, machine, found)
    parts = parts_of_block(kernel, g, machine, single) if compiled else [Part(w)]
    wave = min(float(found.blocks) * machine.instances("shared"), float(g.grid))
    streaming = not any(nest.contraction for nest in kernel.nests)
    runs = side_by_side(g, box_of(kernel, g, wave / min(float(g.split), wave), knobs.group, order)) if streaming else g
    chip = Chip.of(machine, p, write_effort(kernel, runs, p.write_gap))
    walk = Walk.of({dim: int(np.ceil(g.blocks[dim])) for dim in kernel.outer}, order, int(g.split), knobs.group)
    resident = min(int(found.blocks), int(columns.get("blocks_limit", float(found.blocks))))
    places, together = _bundles(walk.blocks, resident, chip.sms)
    panels = panels_of(kernel, g, runs, walk, chip.cache_bytes, p.warm, read_gap(kernel, p.write_gap), w.sweeps)
    from_dram = reads(panels, walk, chip.sms * together, float(w.store_bytes), chip.cache_bytes, places)
    distinct, online = _bytes_of(panels)
    missed = min(from_dram.total / max(distinct, 1.0), 1.0)
    chain, meeting = None, None
    if kernel.chained > 1:
        underway = in_flight_bytes(w, columns, found.threads, pipeline - stages_consumed(w, wide_of(machine)))
        chain, met = _chained(kernel, machine, g, w, chip, p, columns, values, idle, missed, underway)
        meeting = met + float(walk.blocks * idle / (chip.sms * resident) * chain.begin)
    later = p.helper_seconds * float(further_launches(g, columns, idle))
    effort = 0.0
    if kernel.chained == 1:
        later += float(late_seconds(float(walk.blocks), p, chip.dram_latency))
        slots = np.float64(resident * chip.sms)
        once = traffic(kernel, g, slots, knobs.group, order, chip.cache_bytes, p.warm, p.write_gap).together
        loaded = walk.blocks * float(w.load_bytes - w.shared_loads)
        effort = float(shared_effort(loaded, once)) / max(loaded, 1.0)
    around = Around(
        missed=missed,
        read_seconds=from_dram.per_block(0, walk.blocks) * min(walk.blocks, chip.sms) / chip.read_bandwidth,
        write_seconds=float(w.store_bytes) * min(walk.blocks, chip.sms) / chip.write_bandwidth,
        chained=kernel.chained,
        chain=chain,
        chain_trips=sum(float(part.work.trips) for part in parts),
        gone=min(max(from_dram.total / max(distinct, 1.0) - 1.0, 0.0), 1.0),
        bulk=bool(machine.features.get("tma", False)) and not compiled,
        effort=effort,
    )
    bounds = roofline_bounds(kernel, machine, values)  # a kernel that found its inputs in L2 owes DRAM nothing
    served = Traffic(distinct, walk.blocks * float(w.store_bytes), 0.0, 0.0, distinct, online)
    joules = float(work_joules(w, walk.blocks, from_dram.total, walk.blocks * w.store_bytes, machine, p))
    return Plan(
        kernel=kernel.name,
        machine=machine.name,
        chip=chip,
        parameters=replace(p, launch_seconds=p.launch_seconds + later),
        knobs=knobs,
        block=block_of(parts, w, g, found, machine, p, chip, knobs, around),
        from_dram=from_dram,
        grid=walk.blocks,
        resident=resident,
        helper_seconds=float(helper_seconds(served, columns, values, p, chip.read_bandwidth, chip.l2_bandwidth)),
        meeting_seconds=meeting,
        hidden_fill=1.0 - float(chain.seen) if chain is not None else 0.0,
        joules=joules,
        power_seconds=float(power_seconds(joules, machine)) / lasting,
        skew=values.get("skew", 1.0) * float(g.skew),
        places=places,
        together=together,
        bounds=(*bounds[:3], 0.0) if "replayed" in kernel.notes else bounds,
    )
