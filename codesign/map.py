"""`python -m codesign.map`: the mapping of a product onto an accelerator that costs least, or what a given one costs.

A product (`--gemm 4096,4096,4096` or `--product "c[b, m, n] = a[b, m, k] * w[b, k, n]" --size b=32 ...`) is split in space, tiled, ordered and staged
on every level of the machine. `--against FILE` does it for the workload of an AccelForge result and sets both side by side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from codesign import command
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.mapping import (
    COUNTINGS,
    OBJECTIVES,
    Counting,
    Hierarchy,
    Problem,
    gemm,
    hierarchy_of,
    parse_problem,
    search,
    search_filled,
)
from codesign.costmodel.mapping.accelforge import Result, read_mapping, read_result
from codesign.costmodel.mapping.given import mapping_of, schedule_of
from codesign.costmodel.mapping.machines import described
from codesign.costmodel.mapping.report import mapping_document
from codesign.costmodel.mapping.search import costs_of, pricing_rate
from codesign.ir.dtypes import DTYPES
from codesign.ir.errors import CodesignError, ScheduleError
from codesign.ir.schedule import Schedule

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command(help=__doc__)
def _map(
    machine: Annotated[
        str,
        typer.Option("--machine", "-m", help="name of a machine, or the path of its .toml file", show_default=False),
    ] = "",
    sides: Annotated[str, typer.Option("--gemm", help="M,N,K of a product of matrices", show_default=False)] = "",
    product: Annotated[
        str, typer.Option(help="a product as text; its first factor is the input, its second the weight")
    ] = "",
    size: Annotated[list[str] | None, typer.Option(help="DIM=SIZE (repeatable)", show_default=False)] = None,
    dtype: Annotated[str, typer.Option(help="of the operands")] = "i8",
    objective: Annotated[str, typer.Option(help=f"what is made least: {', '.join(OBJECTIVES)}")] = "latency",
    count: Annotated[str, typer.Option(help=f"conventions of counting: {', '.join(COUNTINGS)}")] = "own",
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="price this one: a schedule (JSON), or a mapping as AccelForge prints it", show_default=False
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="an AccelForge result (repeatable): its workload, metric and counting", show_default=False),
    ] = None,
    slack: Annotated[
        float, typer.Option(help="a share by which the best mapping may be missed, for speed", min=0.0, max=0.1)
    ] = 0.005,
    rate: Annotated[
        int, typer.Option(help="price so many mappings of the space, one by one, and say how fast", min=0)
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="traceback on failure")] = False,
) -> None:
    if against:
        beside = [_beside(path, machine) for path in against]
        command.print_json(beside) if as_json else _print_beside(beside)
        return
    if not machine:
        raise CodesignError("which machine?", hint=f"--machine maia100, or one of {', '.join(described())}")
    for name, value, known in (
        ("objective", objective, OBJECTIVES),
        ("count", count, COUNTINGS),
        ("dtype", dtype, DTYPES),
    ):
        if value not in known:
            raise CodesignError(f"--{name}: no {value!r}", hint=f"known: {', '.join(known)}")
    target, counting = _machine(machine), COUNTINGS[count]
    problem = _problem(sides, product, size or [], dtype)
    hierarchy = hierarchy_of(target, dtype)
    if rate:
        priced, seconds = pricing_rate(problem, hierarchy, counting, rate)
        document: dict[str, Any] = {
            "machine": target.name,
            "mappings": priced,
            "seconds": seconds,
            "mappings_per_second": priced / seconds,
        }
        command.print_json(document) if as_json else Console().print(
            f"{priced:,} mappings in {seconds:.2f} s: {priced / seconds:,.0f} a second"
        )
        return
    document = (
        _priced(problem, hierarchy, counting, mapping)
        if mapping
        else _best(problem, hierarchy, counting, objective, slack)
    )
    command.print_json(document) if as_json else _print(document)


def _machine(name: str) -> Machine:
    """A machine by its name, those that are described for mapping only among them, or by its file."""
    return load_machine(str(described().get(name, name)))


def _problem(sides: str, product: str, sizes: list[str], dtype: str) -> Problem:
    width = DTYPES[dtype].bits / 8
    if bool(sides) == bool(product):
        raise CodesignError(
            "which product?", hint='--gemm 4096,4096,4096, or --product "c[m, n] = a[m, k] * w[k, n]" --size m=4096 ...'
        )
    if sides:
        parts = sides.split(",")
        if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise CodesignError(f"--gemm: needs three sizes, got {sides!r}", hint="--gemm 4096,4096,4096")
        m, n, k = map(int, parts)
        return gemm(m, n, k, dtype, width)
    return parse_problem(product, command.sizes("--size", sizes, "m=4096"), dtype, width)


def _best(problem: Problem, hierarchy: Hierarchy, counting: Counting, objective: str, slack: float) -> dict[str, Any]:
    found = search_filled(problem, hierarchy, counting, objective, slack)
    searched = {
        "objective": objective,
        "seconds": found.elapsed,
        "mappings": found.space,
        "nests": found.templates,
        "nests_searched": found.searched,
        "priced_in_whole": found.evaluated,
        "priced_in_part": found.bounded,
    }
    schedule = schedule_of(found.nest, found.factors, counting)
    return {**mapping_document(found.nest, counting, found.costs, schedule, problem), "search": searched}


def _priced(problem: Problem, hierarchy: Hierarchy, counting: Counting, path: Path) -> dict[str, Any]:
    text = command.read_text(path)
    try:
        if text.lstrip().startswith("{"):
            data = json.loads(text)
            schedule = Schedule.from_json(data.get("schedule", data) if isinstance(data, dict) else data)
        else:
            schedule = read_mapping(text, problem, hierarchy)
        nest, factors = mapping_of(schedule, problem, hierarchy)
    except json.JSONDecodeError as error:
        raise CodesignError(f"not valid JSON: {error}", place=str(path)) from None
    except ScheduleError as error:
        raise ScheduleError(error.message, place=str(path), hint=error.hint) from None
    return mapping_document(nest, counting, costs_of(nest, factors, counting), schedule)


def _beside(path: Path, machine: str) -> dict[str, Any]:
    """Our best mapping and AccelForge's for the workload of its result."""
    result: Result = read_result(path)
    hierarchy = hierarchy_of(_machine(machine or f"accelforge_{result.machine}"), result.problem.dtype)
    found = search(result.problem, hierarchy, COUNTINGS["accelforge"], result.objective)
    joules, seconds = found.costs.joules.item(), found.costs.seconds.item()
    return {
        "file": path.name,
        "machine": hierarchy.name,
        "objective": result.objective,
        "joules": joules,
        "joules_of_accelforge": result.joules,
        "joules_ratio": joules / result.joules,
        "seconds": seconds,
        "seconds_of_accelforge": result.seconds,
        "seconds_ratio": seconds / result.seconds,
        "search_seconds": found.elapsed,
        "search_seconds_of_accelforge": result.wall_seconds,
        "mapping": schedule_of(found.nest, found.factors, COUNTINGS["accelforge"]).to_json(),
    }


def _print_beside(rows: list[dict[str, Any]]) -> None:
    console = Console()
    names = (
        "result",
        "least",
        "energy, J",
        "AccelForge",
        "ratio",
        "latency, s",
        "AccelForge",
        "ratio",
        "search, s",
        "AccelForge",
    )
    view = Table(
        *(Column(name, no_wrap=True, justify="left" if i < 2 else "right") for i, name in enumerate(names)), box=None
    )
    for row in rows:
        view.add_row(
            row["file"].removesuffix(".json"),
            row["objective"],
            *(f"{row[key]:.4g}" for key in ("joules", "joules_of_accelforge")),
            f"{row['joules_ratio']:.4f}",
            *(f"{row[key]:.4g}" for key in ("seconds", "seconds_of_accelforge")),
            f"{row['seconds_ratio']:.4f}",
            *(f"{row[key]:.1f}" for key in ("search_seconds", "search_seconds_of_accelforge")),
        )
    Console(width=max(console.width, 130)).print(view)


def _print(document: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    fits = "" if document["fits"] else f"  [bold red]does not fit: {document['reason']}[/]"
    console.print(
        f"{document['machine']}, counting {document['counting']}: {document['seconds']:.4g} s, {document['joules']:.4g} J{fits}"
    )
    console.print(
        f"{document['dataflow']}; bound by {document['bound']}; {document['utilisation']:.1%} of the multipliers' peak"
    )
    if document["filled"]:
        sizes = {**document["extents"], **document["filled"]}
        console.print(
            f"the product is filled up with zeros to {', '.join(f'{dim} {size}' for dim, size in sizes.items())}, "
            "which has more parts: --mapping reads the schedule for those sizes"
        )
    view = Table(
        *(
            Column(name, justify="right")
            for name in ("level", "busy, s", "held, B", "read, B", "written, B", "by operand")
        ),
        box=None,
    )
    for level in document["levels"]:
        operands = ", ".join(
            f"{name} {entry['read'] + entry['written']:,.0f}" for name, entry in level["operands"].items()
        )
        numbers = (
            f"{level['busy_seconds']:.3g}",
            *(f"{level[key]:,.0f}" for key in ("held_bytes", "read_bytes", "written_bytes")),
        )
        view.add_row(level["name"], *numbers, operands)
    console.print(view)
    traffic = document["dram"]
    console.print(
        f"DRAM traffic {traffic['bytes']:,.0f} B; at least {traffic['least_bytes']:,.0f} for {traffic['capacity_bytes']:,.0f} B "
        f"inside, {traffic['compulsory_bytes']:,.0f} compulsory"
    )
    if "search" in document:
        found = document["search"]
        console.print(
            f"best {found['objective']} of {found['mappings']:.3g} mappings in {found['nests']} nests: {found['priced_in_whole']:,} priced in whole, "
            f"{found['priced_in_part']:,} in part, {found['seconds']:.2f} s"
        )
    console.print(json.dumps(document["schedule"]))


def main() -> NoReturn:
    """Run the command."""
    command.run(application, name="python -m codesign.map")


if __name__ == "__main__":
    main()
