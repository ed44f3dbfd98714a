"""What `-o DIR` gets of a compiled model: the IR at each level, code, the runner, the plan, and the report."""

from __future__ import annotations

from pathlib import Path

from codesign.backend import backend_name
from codesign.backends.mlir import mlir_text
from codesign.backends.triton.names import file_names
from codesign.backends.triton.runner import write_runner
from codesign.command import write_text
from codesign.costmodel.machine import Machine
from codesign.ir.errors import CodesignError
from codesign.ir.tensor import Constant
from codesign.ir.text import print_module
from codesign.passes.lowering import schedules_of
from codesign.passes.schedule.replay import write_schedules
from codesign.pipeline import Compilation


def default_forms(machine: Machine) -> set[str]:
    """What `-o DIR` writes when no form is asked for."""
    return {"tensor", "tile", backend_name(machine)}


def texts(compilation: Compilation, form: str) -> dict[str, str]:
    """The files of one form: name -> text."""
    if form == "tensor":
        return {"model.tensor.tile": print_module(compilation.tensor)}
    if form == "mlir":
        return {"model.mlir": mlir_text(compilation.tensor)}
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
    write_schedules(folder / "schedules.json", schedules_of(compilation.kernels))
    document.files["schedules"] = str(folder / "schedules.json")
    plan = write_text(folder / "plan.json", compilation.plan.to_text())
    document.files["plan"] = str(plan)
    report = write_text(folder / "report.json", document.model_dump_json(indent=1))
    return [*written, folder / "schedules.json", plan, report]
