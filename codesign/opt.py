"""`python -m codesign.opt file.tile --passes "canonicalize,fuse{policy=greedy}"`: run passes over a module and print the result.

Each pass can be timed, printed before and after, verified, compared with the interpreter on random inputs, and bisected.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from codesign import command
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.text import parse, print_module
from codesign.passes import DEFAULT, PASSES, Context, PassManager, parse_pipeline, print_pipeline
from codesign.passes.manager import Observer, Pass, Timing, first_failure
from codesign.passes.observers import Equivalence, Printer, Verifier, example_sizes

application = typer.Typer(add_completion=False, rich_markup_mode=None)


def _names(option: str, given: list[str] | None) -> frozenset[str]:
    names = frozenset(name for item in given or [] for name in item.split(","))
    for name in names:
        if name != "*" and name not in PASSES:
            raise CodesignError(
                f"{option}: unknown pass {name!r}", hint=f"known: {', '.join(sorted(PASSES))}, or * for all"
            )
    return names


@application.command(help=__doc__)
def _opt(
    file: Annotated[
        Path | None, typer.Argument(help="A .tile file (- reads standard input).", show_default=False)
    ] = None,
    passes: Annotated[str, typer.Option(help="The pipeline: name{option=value,...},package.module:Class")] = DEFAULT,
    target: Annotated[str, typer.Option("--target", "-t", help="The machine that prices are for.")] = "h100_sxm",
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Verify the module after each pass.")] = True,
    verify_each: Annotated[
        bool, typer.Option("--verify-each", help="Compare results on random inputs before and after each pass.")
    ] = False,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Find the first pass that changes the results of the module.")
    ] = False,
    stop_after: Annotated[
        int | None, typer.Option(help="Run only the first so many passes.", min=0, show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random inputs.", min=0, max=2**32 - 1)] = 0,
    timings: Annotated[bool, typer.Option("--timings", help="Print the time of each pass on stderr.")] = False,
    print_before: Annotated[
        list[str] | None, typer.Option(help="Print the module before these passes (* for all).", show_default=False)
    ] = None,
    print_after: Annotated[
        list[str] | None, typer.Option(help="Print the module after these passes (* for all).", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write module.tile into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    list_passes: Annotated[bool, typer.Option("--list", help="List the passes and their options.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    if list_passes:
        return _list(as_json)
    if file is None:
        raise CodesignError("no file given", hint="python -m codesign.opt file.tile --passes canonicalize,dce")
    from codesign.costmodel.machine import load_machine

    pipeline = parse_pipeline(passes)
    folder = command.output_directory(output)
    module = _read(file)
    context = Context(load_machine(target), sizes=example_sizes(module))
    if bisect:
        return _bisect(pipeline, module, context, seed, as_json)
    observers: list[Observer] = [
        Printer(_to_stderr, print_module, _names("--print-before", print_before), _names("--print-after", print_after))
    ]
    if verify or verify_each:
        Verifier().check(module)
        observers.append(Verifier())
    equivalence = Equivalence(seed)
    if verify_each:
        observers.append(equivalence)
    manager = PassManager(pipeline, observers, stop_after)
    result = manager.run(module, context)
    text = print_module(result)
    written = str(command.write_text(folder / "module.tile", text)) if folder else None
    if as_json:
        command.print_json(
            {
                "file": str(file),
                "pipeline": print_pipeline(pipeline[:stop_after]),
                "passes": [dataclasses.asdict(timing) for timing in manager.timings],
                "differences": [{"pass": name, "largest": worst} for name, worst in equivalence.worst],
                "remarks": context.remarks,
                "fusion": [edge.to_json() for edge in context.fusion],
                "output": written,
                "module": None if written else text,
            }
        )
        return 0
    if timings:
        _print_timings(manager.timings)
    for remark in (*context.remarks, *map(str, context.fusion)):
        _to_stderr(remark)
    if written is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    return 0


def _to_stderr(text: str) -> None:
    sys.stderr.write(text.rstrip("\n") + "\n")


def _read(file: Path) -> Module:
    if str(file) == "-":
        return parse(sys.stdin.read(), "<stdin>")
    if file.suffix in (".py", ".pt2"):
        hint = f"python -m codesign.compile {file} --emit tensor > {file.stem}.tile makes one"
        raise CodesignError("a model, and not a .tile file", place=str(file), hint=hint)
    return parse(command.read_text(file), str(file))


def _bisect(pipeline: list[Pass], module: Module, context: Context, seed: int, as_json: bool) -> int:
    reference = Equivalence(seed)
    reference.start(module)

    def broken(changed: Module) -> bool:
        try:
            Verifier().check(changed)
            reference.check(changed, "the passes so far")
        except CodesignError:
            return True
        return False

    first = first_failure(pipeline, module, broken, context)
    fine = first > len(pipeline)
    name = None if fine or first == 0 else str(pipeline[first - 1])
    if as_json:
        command.print_json(
            {"pipeline": print_pipeline(pipeline), "fine": fine, "position": None if fine else first, "pass": name}
        )
    elif fine:
        sys.stdout.write(f"all {len(pipeline)} passes keep the results\n")
    else:
        sys.stdout.write(f"pass {first} ({name}) is the first to change the results\n")
    return 0 if fine else command.INTERNAL_ERROR


def _options(cls: type[Pass]) -> list[dict[str, Any]]:
    return [{"name": f.name, "type": str(f.type), "default": f.default} for f in dataclasses.fields(cls)]


def _list(as_json: bool) -> int:
    rows: list[dict[str, Any]] = [
        {"name": name, "doc": (cls.__doc__ or "").strip(), "options": _options(cls)}
        for name, cls in sorted(PASSES.items())
    ]
    if as_json:
        command.print_json({"passes": rows, "default": DEFAULT})
        return 0
    table = Table(box=None, pad_edge=False)
    for column in ("pass", "options", "what it does"):
        table.add_column(column, overflow="fold")
    for row in rows:
        options = ", ".join(f"{o['name']}={o['default']}" for o in row["options"])
        table.add_row(str(row["name"]), options, str(row["doc"]).split("\n\n")[0].replace("\n", " "))
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"default pipeline: {DEFAULT}")
    return 0


def _print_timings(timings: list[Timing]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("pass")
    table.add_column("ms", justify="right")
    table.add_column("ops after", justify="right")
    for timing in timings:
        table.add_row(timing.name, f"{timing.seconds * 1e3:.2f}", f"{timing.ops:,}")
    table.add_row("total", f"{sum(t.seconds for t in timings) * 1e3:.2f}", "")
    Console(stderr=True, highlight=False, markup=False).print(table)


def main() -> NoReturn:
    """Entry point of the command."""
    command.run(application, name="python -m codesign.opt")


if __name__ == "__main__":
    main()
