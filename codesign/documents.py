"""The document of a compiled model: what is printed of it, and its JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from codesign.compiler import Compiled
from codesign.costmodel.assumptions import Assumption, assumptions, spread
from codesign.costmodel.external import external_seconds
from codesign.costmodel.features import features
from codesign.costmodel.machine import Machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.roofline import Roofline, kernel_flops, points_of
from codesign.costmodel.sums import Part, Time, time_of_parts
from codesign.document import (
    Assumed,
    ExternalCall,
    FusionEdge,
    IntervalPart,
    Issued,
    KernelDocument,
    ModelDocument,
    Verified,
)
from codesign.document import Compiled as Outcome
from codesign.frontend.training import PARTS
from codesign.ir.core import Block, Module, Op
from codesign.ir.location import Location
from codesign.ir.schedule import ScheduleBatch
from codesign.ir.tensor import Call, Collective, Constant, Launch, Random, Scan, Scatter, Sort
from codesign.ir.tile import Kernel
from codesign.passes.lowering import KernelInfo, whole
from codesign.passes.schedule.tuner import Tuned
from codesign.totals import remarks_of, time_of, times_run

EXTERNAL = (Call, Collective, Random, Scan, Scatter, Sort)


def document_of(
    name: str,
    compiled: Compiled,
    verified: Mapping[str, Verified],
    model: Verified | None,
    phases: Mapping[str, float],
    part_of: Callable[[Location], str] | None = None,
) -> ModelDocument:
    """The document of a model; `verified`: its kernels, `model`: itself, `phases`: seconds that each step took. `part_of`: the part of a step of
    training that is done at a place, where the model is one."""
    planned, machine, sizes = compiled.planned, compiled.machine, compiled.planned.sizes
    documents = [
        _kernel_document(info, machine, sizes, verified.get(kernel), compiled.outcomes.get(kernel))
        for kernel, info in planned.kernels.items()
    ]
    calls = _external_calls(planned.module, machine, sizes)
    prices = {k.name: _time_of(k) for k in documents}

    def price(op: Op) -> Time:
        if isinstance(op, Launch):
            return prices[op.kernel]
        if not isinstance(op, EXTERNAL):
            return Time()
        estimate = external_seconds(op, machine, sizes)
        return Time(estimate.seconds, estimate.low, estimate.high, {estimate.rule: (1.0, 1.0)})

    body = planned.module.main.body
    run = time_of(body, price, sizes)
    joules = [k.energy_joules for k in documents]
    memory, constants = planned.memory, _constant_bytes(planned.module)
    peak = memory.peak_bytes + memory.input_bytes + memory.output_bytes + constants
    capacity = machine.levels[0].capacity_bytes.value
    remarks = [*planned.remarks, *remarks_of(body, sizes)]
    if capacity is not None and peak > capacity:
        remarks.append(f"the model needs {peak:,} B of memory, {machine.name} has {capacity:,.0f}: it does not fit")
    return ModelDocument(
        model=name,
        target=machine.name,
        seconds=run.seconds,
        seconds_low=run.low,
        seconds_high=run.high,
        energy_joules=sum((k.energy_joules or 0.0) * k.count for k in documents) if None not in joules else None,
        peak_memory_bytes=peak,
        input_bytes=memory.input_bytes,
        output_bytes=memory.output_bytes,
        constant_bytes=constants,
        compile_seconds=sum(phases.values()),
        phases=dict(phases),
        kernels=documents,
        external_calls=[
            ExternalCall(op=op, count=whole(count), seconds=estimate.seconds, source=places)
            for op, (estimate, count, places) in calls.items()
        ],
        symbols=sizes,
        parts=_parts(body, price, sizes, part_of) if part_of is not None else {},
        verified=model,
        warnings=list(dict.fromkeys(remarks)),
        fusion=[FusionEdge(**edge.to_json()) for edge in planned.edges],
    )


def _parts(
    body: Block, price: Callable[[Op], Time], sizes: Mapping[str, int], part_of: Callable[[Location], str]
) -> dict[str, float]:
    """Seconds by part of a step of training; of a kernel that does several, by all of them."""
    found: dict[str, float] = {}
    for op, times in times_run(body, sizes):
        seconds = price(op).seconds * times
        if seconds:
            names = {part_of(place): None for place in op.location.leaves() or (op.location,)}
            name = " + ".join(sorted(names, key=PARTS.index))
            found[name] = found.get(name, 0.0) + seconds
    return dict(sorted(found.items(), key=lambda part: [PARTS.index(name) for name in part[0].split(" + ")]))


def _time_of(kernel: KernelDocument) -> Time:
    """The time of one launch with what its interval shares with those of other kernels."""
    parts = {name: Part(part.low, part.high, part.common) for name, part in kernel.interval.items()}
    return time_of_parts(kernel.seconds, kernel.seconds_low, kernel.seconds_high, parts, kernel.name)


def _at(assumed: Assumption, tuned: Tuned) -> tuple[float, float]:
    """Seconds at the two ends of a figure's range."""
    return assumed.at[0] * tuned.seconds, assumed.at[1] * tuned.seconds


def _kernel_document(
    info: KernelInfo, machine: Machine, sizes: Mapping[str, int], verified: Verified | None, compiled: Outcome | None
) -> KernelDocument:
    tuned = info.tuned
    bound = Roofline().predict(tuned.summary, machine, ScheduleBatch.of([tuned.schedule]), sizes)
    roofline = float(bound.seconds[0])
    least = float(tuned.summary.read_bytes.evaluate(sizes) + tuned.summary.write_bytes.evaluate(sizes))
    flops = kernel_flops(tuned.summary, sizes) or _scalar_operations(info, sizes)
    runner_up = None
    if tuned.runners_up:
        other = tuned.runners_up[0]
        runner_up = {"schedule": other.schedule.to_json(), "seconds": float(other.seconds)}
    assumed = assumptions(cost_model_for(machine), tuned.summary, machine, tuned.schedule, sizes)
    low, high = spread(assumed)
    parts = {**tuned.parts, **{one.figure: Part(min(*one.at), max(*one.at)) for one in assumed}}
    return KernelDocument(
        name=info.kernel.name,
        count=info.count,
        ops=list(info.operators),
        source=list(info.places),
        seconds=tuned.seconds,
        seconds_low=tuned.low * low,
        seconds_high=tuned.high * high,
        interval={name: IntervalPart(**asdict(part)) for name, part in parts.items()},
        assumptions=[Assumed(figure=one.figure, range=one.range, seconds=_at(one, tuned)) for one in assumed[:8]],
        bound=tuned.bound,
        roofline_seconds=roofline,
        roofline_share=min(1.0, roofline / tuned.seconds) if tuned.seconds else 1.0,
        flops=flops,
        dram_bytes=tuned.dram_bytes,
        min_dram_bytes=least,
        energy_joules=tuned.joules if math.isfinite(tuned.joules) else None,
        terms=dict(tuned.terms),
        issued=_issued(info.kernel, sizes),
        schedule=tuned.schedule.to_json(),
        candidates=tuned.evaluated,
        runner_up=runner_up,
        verified=verified,
        compiled=compiled,
        remarks=list(tuned.remarks),
    )


def _issued(kernel: Kernel, sizes: Mapping[str, int]) -> Issued:
    """What all programs of a kernel's grid do."""
    work = features(kernel).at(sizes)
    programs = int(work.programs)
    return Issued(
        programs=programs,
        load_bytes=round(programs * work.load_bytes),
        store_bytes=round(programs * (work.store_bytes + work.atomic_bytes)),
        multiply_adds={dtype: round(programs * count) for dtype, count in work.products.items()},
        slots={f"{unit} {dtype}": programs * float(count) for (unit, dtype), count in work.slots.items()},
        live_bytes=int(work.live_bytes),
    )


def _scalar_operations(info: KernelInfo, sizes: Mapping[str, int]) -> float:
    """Scalar operations of a kernel without a contraction, in issue slots."""
    summary = info.tuned.summary
    total = 0.0
    for nest in summary.nests:
        points = points_of(summary, nest, sizes)
        total += points * sum(
            slots for (unit, _), slots in nest.operations.items() if unit in ("fma", "special", "alu")
        )
    return total


def _external_calls(module: Module, machine: Machine, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Costed ops that stay calls, grouped by operator and cost: name -> (estimate, count, places)."""
    found: dict[str, tuple[Any, float, list[str]]] = {}
    for op, times in times_run(module.main.body, sizes):
        if not isinstance(op, EXTERNAL):
            continue
        estimate = external_seconds(op, machine, sizes)
        base = name = op.target if isinstance(op, Call) else f"{op.opcode} {op.location.operator}".strip()
        number = 1
        while name in found and found[name][0] != estimate:
            number += 1
            name = f"{base} #{number}"
        _, count, places = found.get(name, (estimate, 0, []))
        place = op.location.place
        found[name] = (estimate, count + times, [*places, place] if place and place not in places else places)
    return found


def _constant_bytes(module: Module) -> int:
    constants = {op.constant: op for op in module.main.body.walk() if isinstance(op, Constant)}
    total = 0.0
    for op in constants.values():
        elements = math.prod(size.constant for size in op.result.shape if size.is_constant)
        total += elements * op.result.type.dtype.bytes
    return int(total)
