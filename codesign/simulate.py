"""`python -m codesign.simulate program.casm --machine maia100`: run accelerator programs on a simulated machine.

Computes values and time together; `--no-values` gives time alone. `--set levels.dram.bandwidth=3e12` asks what if.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from codesign import command
from codesign.arrays import read_arrays
from codesign.backends.accelerator import SimulationResult, check, simulate
from codesign.backends.accelerator.trace import write_trace
from codesign.costmodel.launches import launch_seconds
from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.errors import CodesignError, MachineError, ScheduleError
from codesign.ir.numerics import Array, held
from codesign.ir.program import ENGINES, Program, buffer_shape
from codesign.ir.text.program import parse_programs
from codesign.ir.verify import verify_program

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command(help=__doc__)
def _simulate(
    file: Annotated[Path, typer.Argument(help="A .casm file of one or more programs.", show_default=False)],
    machine: Annotated[
        str, typer.Option("--machine", "-m", help="A dataflow machine: a name or a .toml file.")
    ] = "maia100",
    program: Annotated[
        str | None, typer.Option("--program", help="Run only the program of this name.", show_default=False)
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIGURE=VALUE", help="Change a figure of the machine.", show_default=False),
    ] = None,
    values: Annotated[bool, typer.Option("--values/--no-values", help="Compute values, or time alone.")] = True,
    inputs: Annotated[
        Path | None, typer.Option(help="An .npz of input buffers by name (random otherwise).", show_default=False)
    ] = None,
    outputs: Annotated[Path | None, typer.Option(help="Write the results to this .npz.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Seed of random inputs.", min=0, max=2**32 - 1)] = 0,
    trace: Annotated[Path | None, typer.Option(help="Write a Perfetto trace to this file.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write trace and results of each program here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    target = _changed(load_machine(machine), change or [])
    if target.kind != "dataflow":
        raise CodesignError(f"{target.name} is not a dataflow machine", hint="try maia100, tpu_v4 or systolic_16x16")
    folder = command.output_directory(output)
    chosen = _read(file, program)
    if len(chosen) > 1 and (trace or inputs or outputs):
        raise CodesignError(
            f"{file} has {len(chosen)} programs", hint="choose one with --program, or write all into a folder with -o"
        )
    given = _load(inputs) if inputs else {}
    launch = launch_seconds(target)
    documents = []
    for item in chosen:
        _check_buffers(item, target)
        buffers = _buffers(item, given, seed) if values else None
        started = time.perf_counter()
        if not values:  # else simulate does
            check(item, target)
        result = simulate(item, buffers, target, values=values, trace=bool(trace or folder))
        elapsed = time.perf_counter() - started
        files = _write(result, values, trace, outputs, folder)
        documents.append(_document(result, elapsed, launch, files))
        if not as_json:
            _report(result, elapsed, target, files)
    if as_json:
        command.print_json(documents[0] if len(documents) == 1 else documents)
    return 0


def _changed(machine: Machine, changes: list[str]) -> Machine:
    figures: dict[str, float] = {}
    for text in changes:
        path, sign, value = text.partition("=")
        try:
            figures[path.strip()] = float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise CodesignError(f"--set {text}: needs FIGURE=NUMBER", hint="as in --set levels.dram.bandwidth=3e12")
    try:
        return machine.with_figures(figures) if figures else machine
    except MachineError as error:
        raise MachineError(error.message, place="--set") from None


def _read(file: Path, name: str | None) -> list[Program]:
    found = parse_programs(command.read_text(file), str(file))
    chosen = [p for p in found if name is None or p.name == name.removeprefix("@")]
    if not chosen and name is not None:
        raise CodesignError(f"no program @{name}", place=str(file), hint=f"it has {', '.join(p.name for p in found)}")
    for program in chosen:
        verify_program(program)
    return chosen


def _load(path: Path) -> dict[str, Array]:
    try:
        return read_arrays(path)
    except FileNotFoundError as error:
        raise CodesignError("no such file", place=str(path)) from error
    except ValueError as error:
        raise CodesignError(str(error), place=str(path)) from error


def _check_buffers(program: Program, machine: Machine) -> None:
    """ScheduleError when what a program reads and writes is more than the machine's outermost memory holds."""
    outer = machine.levels[0]
    limit = machine.need(outer.capacity_bytes, f"levels.{outer.name}.capacity_bytes")
    values = (*program.inputs, *program.results)
    needed = sum(math.prod(buffer_shape(value)) * value.type.dtype.bits // 8 for value in values)
    if needed > limit:
        raise ScheduleError(
            f"@{program.name}: {outer.name} memory: its inputs and results need {needed:,} B, limit {limit:,.0f} B of {machine.name}"
        )


def _buffers(program: Program, given: dict[str, Array], seed: int) -> list[Array]:
    """Input arrays in order: the given ones, and random values (integers 0 or 1, so that they are fit to be indices)."""
    rng = np.random.default_rng(seed)
    unknown = set(given) - {value.name for value in program.inputs}
    if unknown:
        have = ", ".join(value.name for value in program.inputs)
        raise CodesignError(f"@{program.name} has no input {', '.join(sorted(unknown))}", hint=f"inputs: {have}")
    arrays: list[Array] = []
    for value in program.inputs:
        dtype, shape = value.type.dtype, buffer_shape(value)
        if value.name in given:
            if given[value.name].shape != shape:
                raise CodesignError(
                    f"input {value.name} has shape {list(given[value.name].shape)}, the program wants {list(shape)}"
                )
            arrays.append(held(given[value.name], dtype))
        elif dtype.is_float:
            arrays.append(held(rng.standard_normal(shape), dtype))
        else:
            arrays.append(held(rng.integers(0, 2, shape), dtype))
    return arrays


def _write(
    result: SimulationResult, values: bool, trace: Path | None, outputs: Path | None, folder: Path | None
) -> dict[str, str]:
    files: dict[str, str] = {}
    name = result.program.name
    where = trace or (folder / f"{name}.trace.json" if folder else None)
    if where is not None:
        write_trace(result, where)
        files["trace"] = str(where)
    place = outputs or (folder / f"{name}.npz" if folder and values else None)
    if place is not None:
        if not values:
            raise CodesignError("--outputs needs values", hint="leave out --no-values")
        named = {v.name: a for v, a in zip(result.program.results, result.outputs, strict=True)}
        try:
            with place.open("wb") as stream:
                np.savez(stream, **named)  # type: ignore[arg-type]
        except OSError as error:
            raise CodesignError(f"the results can't be written: {error.strerror}", place=str(place)) from error
        files["outputs"] = str(place)
    return files


def _document(result: SimulationResult, elapsed: float, launch_seconds: float, files: dict[str, str]) -> dict[str, Any]:
    """The document; `seconds` are `cycles / clock_hz + launch_seconds`, or more where the power limit throttles."""
    return {
        "program": result.program.name,
        "machine": result.machine,
        "cores": result.program.cores,
        "cycles": result.cycles,
        "seconds": result.seconds,
        "clock_hz": result.clock_hz,
        "launch_seconds": launch_seconds,
        "energy_joules": result.joules if math.isfinite(result.joules) else None,
        "energy_by": {name: j if math.isfinite(j) else None for name, j in result.joules_by.items()},
        "dram_bytes": result.dram_bytes,
        "instructions": result.instructions,
        "engines": {
            engine: {
                "busy_cycles": result.busy[engine],
                "stalled_cycles": result.stalled[engine],
                "utilisation": result.utilisation(engine),
            }
            for engine in ENGINES
        },
        "scratchpad_bytes": {
            level: result.program.scratch_bytes(level)
            for level in dict.fromkeys(s.level for s in result.program.scratches)
        },
        "simulation_seconds": elapsed,
        "remarks": result.remarks,
        "files": files,
    }


def _report(result: SimulationResult, elapsed: float, machine: Machine, files: dict[str, str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    program = result.program
    console.print(
        f"[bold]@{program.name}[/] on {result.machine}: {result.cycles:,.0f} cycles ({result.cycles / result.clock_hz * 1e6:,.2f} µs), "
        f"{result.seconds * 1e6:,.2f} µs with launch, "
        f"{result.instructions:,} instructions on {program.cores} cores"
    )
    table = Table(box=None, pad_edge=False)
    for title in ("engine", "busy", "stalled for semaphores"):
        table.add_column(title, justify="left" if title == "engine" else "right")
    whole = max(result.cycles * program.cores, 1.0)
    for engine in ENGINES:
        table.add_row(engine, f"{result.busy[engine] / whole:.1%}", f"{result.stalled[engine] / whole:.1%}")
    console.print(table)
    bandwidth = machine.need(machine.levels[0].bandwidth, f"levels.{machine.levels[0].name}.bandwidth")
    run = max(result.cycles / result.clock_hz, 1e-30)
    console.print(f"dram    {result.dram_bytes:,.0f} B, {result.dram_bytes / run / bandwidth:.1%} of its bandwidth")
    if math.isfinite(result.joules):
        parts = ", ".join(f"{name} {joules * 1e6:,.3g} µJ" for name, joules in result.joules_by.items())
        console.print(f"energy  {result.joules * 1e6:,.3g} µJ ({parts})")
    for remark in result.remarks:
        console.print(f"note    {remark}", style="yellow")
    for kind, path in files.items():
        console.print(f"{kind:7s} {path}")
    console.print(f"simulated in {elapsed:.2f} s", style="dim")


def main() -> NoReturn:
    """Run the command."""
    command.run(application, name="python -m codesign.simulate")


if __name__ == "__main__":
    main()
