"""The way of a model through the house: capture, optimise, fuse, schedule, tile, emit, check; one document per machine."""

from __future__ import annotations

import difflib
import inspect
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codesign import compiled_truth
from codesign.backend import Backend, backend_for, backend_name
from codesign.backends.cache import choices_file
from codesign.backends.triton.names import file_names
from codesign.backends.triton.runner import write_runner
from codesign.command import Steps, write_text
from codesign.costmodel.external import external_seconds
from codesign.costmodel.features import features
from codesign.costmodel.ledger import Ledger
from codesign.costmodel.ledger import explain as ledger
from codesign.costmodel.machine import Machine
from codesign.costmodel.models import cost_model_for, informed
from codesign.costmodel.roofline import Roofline, kernel_flops, points_of
from codesign.document import Compiled, ExternalCall, Issued, KernelDocument, ModelDocument, Verified
from codesign.frontend import Captured, ModelSource, load_model
from codesign.frontend import capture as capture_model
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.location import Location
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Call, Collective, Constant, Random, Scan, Scatter, Sort
from codesign.ir.text import print_module
from codesign.ir.tile import Kernel
from codesign.passes import Context, Pass, optimize
from codesign.passes.lowering import KernelInfo, tile_module
from codesign.passes.memory import MemoryPlan, plan
from codesign.passes.observers import Verifier
from codesign.passes.pipeline import compilation
from codesign.passes.schedule.replay import Schedules, write_schedules
from codesign.passes.schedule.tuner import Tuner

EXTERNAL = (Call, Collective, Random, Scan, Scatter, Sort)


@dataclass(frozen=True)
class Options:
    """What a user chose.

    `policy`, `budget`: of the schedule search. `fusion`: policy of fusion. `verify`: run kernels and the model. `kernels`: compile kernels for
    the target. `sizes`: values of dynamic sizes when costing. `dynamic`: make the first size of every input dynamic.
    `schedules`: by kernel name, replayed instead of searched for. `passes`: run after clean-up and before fusion.
    `reuse`: take over what earlier runs chose.
    """

    policy: str = "default"
    budget: int | None = None
    fusion: str = "greedy"
    verify: bool = True
    kernels: bool = True
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    dynamic: bool = False
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    passes: Sequence[Pass] = ()
    reuse: bool = True


@dataclass
class Model:
    """A captured model with what is needed to run it again."""

    source: ModelSource
    captured: Captured
    seconds: dict[str, float]


@dataclass
class Compilation:
    """A model compiled for one machine: the IR at each level, the kernels, and the document that is printed."""

    machine: Machine
    tensor: Module
    tiled: Module
    kernels: dict[str, KernelInfo]
    backend: Backend
    memory: MemoryPlan
    captured: Captured
    document: ModelDocument
    sources: Path | None = None


class Clock:
    """Seconds of named phases, in order."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def capture(path: Path, options: Options, steps: Steps) -> Model:
    """Load `model.py` (which runs it) and capture the model."""
    clock = Clock()
    steps.step(f"loading {path.name}")
    with clock.phase("load"):
        source = load_model(path)
    if options.dynamic and source.dynamic_shapes is None:
        source.dynamic_shapes = _first_sizes_dynamic(source)
    steps.step(f"capturing {source.name} with torch.export")
    captured = capture_model(source)
    return Model(source, captured, {**clock.seconds, **captured.seconds})


def _first_sizes_dynamic(source: ModelSource) -> Any:
    import torch
    from torch.utils import _pytree as pytree

    batch = torch.export.Dim("batch", min=1, max=65536)

    def first(leaf: Any) -> Any:
        return {0: batch} if isinstance(leaf, torch.Tensor) and leaf.dim() else None

    shapes = pytree.tree_map(first, source.inputs)
    if not source.kwargs:
        return shapes
    signature = inspect.signature(source.model.forward)
    named = pytree.tree_map(first, source.kwargs)
    try:
        bound = signature.bind_partial(*shapes, **named)
    except TypeError:
        return (*shapes, *named.values())  # torch.export says what doesn't fit
    return dict(bound.arguments)


def compile_for(model: Model, machine: Machine, options: Options, steps: Steps) -> Compilation:
    """Optimise, schedule, tile, emit and check a captured model for one machine."""
    clock = Clock()
    module = model.captured.module
    sizes = _sizes(module, options.sizes)
    remarks: list[str] = list(model.captured.warnings)
    kept = choices_file() if options.reuse else None
    bounds = module.bounds()
    tuner = Tuner(
        machine, policy=options.policy, budget=options.budget, sizes=sizes, bounds=bounds, seed=options.seed, kept=kept
    )
    context = Context(machine=machine, pricer=tuner.price, sizes=sizes, remarks=remarks)
    steps.step(f"fusing for {machine.name}")
    with clock.phase("passes"):
        observers = [Verifier()] if options.passes else []
        passes = compilation(options.passes, options.fusion)
        fused = optimize(module, context, pipeline=passes, observers=observers)
    steps.step(f"scheduling for {machine.name}")
    with clock.phase("schedule"):
        tiled = fused
        kernels = tile_module(tiled, tuner, options.schedules, remarks)
        tuner.keep()
    with clock.phase("memory"):
        memory = plan(tiled.main, sizes, tiled.kernels)
    sources = model.source.path.parent if model.source.path else None
    backend = backend_for(machine, tiled, sizes, sources)
    compiled: dict[str, Compiled] = {}
    if options.kernels:
        with clock.phase("kernels"):
            tick = steps.each(f"building kernels for {machine.name}", len(kernels))
            compiled = compiled_truth.build(tiled, kernels, tuner, backend, tick)
    verified: dict[str, Verified] = {}
    whole: Verified | None = None
    if options.verify:
        with clock.phase("verify"):
            tick = steps.each("verifying kernels", len(kernels))
            for info in kernels.values():
                verified[info.kernel.name] = backend.verify(info, options.seed)
                tick()
            steps.step("verifying the whole model against torch")
            whole = _verify_model(model, tiled, kernels, backend, sizes, memory, options, remarks)
    for name, outcome in compiled.items():
        outcome.simulated_seconds = backend.simulated_seconds(name)
    documents = [
        _kernel_document(info, machine, sizes, verified.get(name), compiled.get(name)) for name, info in kernels.items()
    ]
    calls = _external_calls(tiled, machine, sizes)
    seconds = sum(k.seconds * k.count for k in documents) + sum(e.seconds * c for e, c, _ in calls.values())
    low = sum(k.seconds_low * k.count for k in documents) + sum(e.low * c for e, c, _ in calls.values())
    high = sum(k.seconds_high * k.count for k in documents) + sum(e.high * c for e, c, _ in calls.values())
    joules = [k.energy_joules for k in documents]
    phases = {**model.seconds, **clock.seconds}
    constants = _constant_bytes(tiled)
    peak = memory.peak_bytes + memory.input_bytes + memory.output_bytes + constants
    capacity = machine.levels[0].capacity_bytes.value
    if capacity is not None and peak > capacity:
        remarks.append(f"the model needs {peak:,} B of memory, {machine.name} has {capacity:,.0f}: it does not fit")
    document = ModelDocument(
        model=model.source.name,
        target=machine.name,
        seconds=seconds,
        seconds_low=low,
        seconds_high=high,
        energy_joules=sum((k.energy_joules or 0.0) * k.count for k in documents) if None not in joules else None,
        peak_memory_bytes=peak,
        input_bytes=memory.input_bytes,
        output_bytes=memory.output_bytes,
        constant_bytes=constants,
        compile_seconds=sum(phases.values()),
        phases=phases,
        kernels=documents,
        external_calls=[
            ExternalCall(op=op, count=count, seconds=estimate.seconds, source=places)
            for op, (estimate, count, places) in calls.items()
        ],
        symbols=sizes,
        verified=whole,
        warnings=list(dict.fromkeys(remarks)),
    )
    return Compilation(machine, module, tiled, kernels, backend, memory, model.captured, document, sources)


def _sizes(module: Module, given: Mapping[str, int]) -> dict[str, int]:
    """A value for every size symbol: given by the user, else what the model was captured at."""
    unknown = [name for name in given if name not in module.symbols]
    if unknown:
        known = ", ".join(module.symbols) or "none: --dynamic or dynamic_shapes in the model file makes some"
        raise CodesignError(f"the model has no dynamic size {unknown[0]!r}", hint=f"it has {known}")
    sizes: dict[str, int] = {}
    for name, symbol in module.symbols.items():
        value = given.get(name, symbol.example or max(symbol.low, 1))
        if value < symbol.low or (symbol.high is not None and value > symbol.high):
            raise CodesignError(f"{name} = {value} is outside its range {symbol.low} to {symbol.high or 'any'}")
        sizes[name] = value
    return sizes


def _kernel_document(
    info: KernelInfo, machine: Machine, sizes: Mapping[str, int], verified: Verified | None, compiled: Compiled | None
) -> KernelDocument:
    tuned = info.tuned
    bound = Roofline().predict(tuned.summary, machine, ScheduleBatch.of([tuned.schedule]), sizes)
    roofline = float(bound.seconds[0])
    least = float(tuned.summary.read_bytes.evaluate(sizes) + tuned.summary.write_bytes.evaluate(sizes))
    leaves = [leaf for compute in info.fusion.computes for leaf in compute.location.leaves()]
    flops = kernel_flops(tuned.summary, sizes) or _scalar_operations(info, sizes)
    runner_up = None
    if tuned.runners_up:
        other = tuned.runners_up[0]
        runner_up = {"schedule": other.schedule.to_json(), "seconds": float(other.seconds)}
    return KernelDocument(
        name=info.kernel.name,
        count=info.count,
        ops=list(dict.fromkeys(_short_origin(leaf) for leaf in leaves if leaf.origin)),
        source=list(dict.fromkeys(_place(leaf) for leaf in leaves if leaf.file or leaf.module)),
        seconds=tuned.seconds,
        seconds_low=tuned.low,
        seconds_high=tuned.high,
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


def _short_origin(leaf: Location) -> str:
    """An operator's own name, without its namespace and overload: `aten.add.Tensor` is `add`."""
    parts = leaf.origin.split(".")
    return parts[1] if len(parts) > 2 or (parts[0] == "aten" and len(parts) > 1) else parts[0]


def _place(leaf: Location) -> str:
    text = f"{Path(leaf.file).name}:{leaf.line}" if leaf.file else ""
    return f"{text} {leaf.module}".strip()


def _external_calls(module: Module, machine: Machine, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Costed ops that stay calls, grouped by operator and cost: name -> (estimate, count, places)."""
    found: dict[str, tuple[Any, int, list[str]]] = {}
    for op in module.main.body.walk():
        if not isinstance(op, EXTERNAL):
            continue
        estimate = external_seconds(op, machine, sizes)
        base = name = op.target if isinstance(op, Call) else f"{op.opcode} {_short_origin(op.location)}".strip()
        number = 1
        while name in found and found[name][0] != estimate:
            number += 1
            name = f"{base} #{number}"
        _, count, places = found.get(name, (estimate, 0, []))
        place = _place(op.location)
        found[name] = (estimate, count + 1, [*places, place] if place and place not in places else places)
    return found


def _constant_bytes(module: Module) -> int:
    constants = {op.constant: op for op in module.main.body.walk() if isinstance(op, Constant)}
    total = 0.0
    for op in constants.values():
        elements = math.prod(size.constant for size in op.result.shape if size.is_constant)
        total += elements * op.result.type.dtype.bytes
    return int(total)


VERIFY_FLOPS = 2e9
"""Work beyond which the whole model is not run in an interpreter (its kernels still are, at shorter extents)."""

VERIFY_ELEMENTS = 1 << 26
"""The same for elements computed, each time that one is."""

VERIFY_BYTES = 1 << 30
"""The same for the memory of inputs, weights, intermediates and results, of which a check holds a few copies."""


def _verify_model(
    model: Model,
    tiled: Module,
    kernels: Mapping[str, KernelInfo],
    backend: Backend,
    sizes: Mapping[str, int],
    memory: MemoryPlan,
    options: Options,
    remarks: list[str],
) -> Verified | None:
    """The compiled model against torch; None, with a remark, when it can't be run here."""
    from codesign import execution
    from codesign.frontend.inputs import stored_bytes

    captured = model.captured
    missing = [
        op.constant for op in tiled.main.body.walk() if isinstance(op, Constant) and op.constant not in tiled.constants
    ]
    if missing:
        remarks.append("the model is on the meta device and has no weights: only its kernels were verified")
        return None
    flops = sum(kernel_flops(info.tuned.summary, sizes) * info.count for info in kernels.values())
    elements = sum(_points(info, sizes) * info.count for info in kernels.values())
    held = memory.total_bytes + stored_bytes((model.source.inputs, model.source.kwargs))
    for amount, limit, what in (
        (flops, VERIFY_FLOPS, "operations"),
        (elements, VERIFY_ELEMENTS, "elements"),
        (held, VERIFY_BYTES, "bytes"),
    ):
        if amount > limit:
            remarks.append(
                f"the whole model was not run: {amount:.3g} {what} are too many to interpret; its kernels were verified"
            )
            return None
    return execution.verify(model.source, captured, tiled, kernels, backend, sizes, options.seed, remarks)


def _points(info: KernelInfo, sizes: Mapping[str, int]) -> float:
    """Elements that a kernel computes, those reduced over counted too; the terms of a contraction are its operations."""
    contracts = kernel_flops(info.tuned.summary, sizes) > 0
    total = 0.0
    for compute in info.normalized.fusion.computes:
        dims = compute.dims if contracts else (*compute.dims, *compute.reductions)
        total += math.prod(float(dim.extent.evaluate(dict(sizes))) for dim in dims)
    return total


# -- artifacts ---------------------------------------------------------------------------------------------------------


def default_forms(machine: Machine) -> set[str]:
    """What `-o DIR` writes when no form is asked for."""
    return {"tensor", "tile", backend_name(machine)}


def texts(compilation: Compilation, form: str) -> dict[str, str]:
    """The files of one form: name -> text."""
    if form == "tensor":
        return {"model.tensor.tile": print_module(compilation.tensor)}
    if form == "tile":
        return {"model.tile": print_module(compilation.tiled)}
    if form != compilation.backend.form:
        raise CodesignError(
            f"{compilation.machine.name} has no {form} form", hint=f"use --emit {compilation.backend.form}"
        )
    return compilation.backend.texts()


def write(compilation: Compilation, folder: Path, forms: set[str]) -> list[Path]:
    """Write the forms, what the compiler left, and `report.json`; records the files in the document, and names all of them."""
    written: list[Path] = []
    document = compilation.document
    owners = {kernel.name: kernel for kernel in document.kernels}
    stems = file_names(owners)
    by_stem = {stems[name]: kernel for name, kernel in owners.items()}
    for form in sorted(forms):
        for name, text in texts(compilation, form).items():
            path = write_text(folder / name, text)
            written.append(path)
            owner = by_stem.get(Path(name).stem) if "/" in name else None
            (document.files if owner is None else owner.files)[form] = str(path)
    if "triton" in forms:
        runner = write_runner(
            compilation.tiled,
            compilation.memory,
            folder,
            target=compilation.machine.name,
            input_names=compilation.captured.input_names,
            sources=compilation.sources,
            complex_inputs=compilation.captured.complex_inputs,
            complex_results=compilation.captured.complex_results,
        )
        document.files["runner"] = str(runner.path)
        constants = {op.constant for op in compilation.tiled.main.body.walk() if isinstance(op, Constant)}
        weights = [folder / "weights.pt"] if constants - set(runner.missing) else []
        written.extend([runner.path, *weights])
    for name, files in compilation.backend.binaries().items():
        for kind, file in files.items():
            path = folder / "kernels" / f"{stems[name]}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read_bytes())
            written.append(path)
            owners[name].files[kind] = str(path)
    kernels_made = compilation.kernels.items()
    schedules = Schedules({n: k.tuned.schedule for n, k in kernels_made}, {n: k.structure for n, k in kernels_made})
    write_schedules(folder / "schedules.json", schedules)
    document.files["schedules"] = str(folder / "schedules.json")
    report = write_text(folder / "report.json", document.model_dump_json(indent=1))
    return [*written, folder / "schedules.json", report]


def explain(compilation: Compilation, kernel: str) -> Ledger:
    """The ledger of a kernel's prediction: its terms with their values, what-if questions, and the runner-up schedule.

    CodesignError lists the nearest names when there is no such kernel.
    """
    info = compilation.kernels.get(kernel)
    if info is None:
        near = difflib.get_close_matches(kernel, list(compilation.kernels), n=4, cutoff=0.2) or list(
            compilation.kernels
        )
        raise CodesignError(f"no kernel {kernel!r}", hint=f"the kernels are {', '.join(near)}")
    tuned = info.tuned
    schedules = [tuned.schedule, *(candidate.schedule for candidate in tuned.runners_up)]
    model = cost_model_for(compilation.machine)
    if tuned.reported is not None:
        model = informed(model, {tuned.schedule: tuned.reported})
    sizes = {k: v for k, v in compilation.document.symbols.items() if k in tuned.summary.symbols}
    return ledger(tuned.summary, compilation.machine, ScheduleBatch.of(schedules), 0, model, sizes)
