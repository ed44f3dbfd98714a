"""The commands of `python -m codesign.study`: run, show, compare, export, report."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from codesign import command
from codesign.ir.errors import CodesignError
from codesign.lab.board import HEADS, Leaderboard, cells, read_leaderboard
from codesign.lab.choices import Engine, Jobs, RayAddress
from codesign.lab.plan import read_plan
from codesign.report import counted

application = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

StudyFile = Annotated[Path, typer.Argument(help="The study: a TOML file.", show_default=False)]
DatabaseFile = Annotated[
    Path, typer.Argument(help="A database of studies, or a leaderboard's JSON.", show_default=False)
]
StudyName = Annotated[str | None, typer.Option("--study", help="Which study of the database.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Report = Annotated[
    Path | None, typer.Option("--report", help="Write one self-contained HTML page.", show_default=False)
]


class Form(str, Enum):
    """What a study is exported as."""

    csv = "csv"
    parquet = "parquet"
    cache = "cache"
    t4 = "t4"


@application.callback()
def _group() -> None:
    """Studies: policies against each other on kernels, machines and measured spaces; recorded, scored and drawn."""


@application.command("run")
def _run(
    study: StudyFile,
    database: Annotated[
        Path | None, typer.Option(help="Where rows go. [default: the study's name with .db]", show_default=False)
    ] = None,
    jobs: Jobs = 1,
    engine: Annotated[
        Engine,
        typer.Option(help="Who does the runs: processes here, or workers of Ray (extra `ray`), as many as --jobs."),
    ] = Engine.processes,
    ray_address: RayAddress = None,
    report: Report = None,
    output: Annotated[Path | None, typer.Option("-o", help="Write leaderboard.json here.", show_default=False)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Do a study, or what is left of one that was stopped; any number of processes may share one database."""
    command.page_at(report)
    plan = read_plan(study)
    folder = command.output_directory(output)
    lab = _laboratory()
    path = database if database is not None else study.with_suffix(".db")
    with command.progress(not as_json and not quiet) as steps:
        base = lab.run_study(plan, path, jobs=jobs, steps=steps, ray=engine is Engine.ray, address=ray_address)
        board = lab.leaderboard(lab.Scores(base, plan.name), f"python -m codesign.study run {study.name}")
        base.close()
    if folder is not None:
        command.write_text(folder / "leaderboard.json", board.model_dump_json(indent=1) + "\n")
    _give(board, as_json, report, quiet=quiet)


@application.command("show")
def _show(
    file: DatabaseFile, study: StudyName = None, report: Report = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """The leaderboard of a study that is in a database or a file."""
    command.page_at(report)
    _give(_board(file, study), as_json, report)


@application.command("compare")
def _compare(
    database: DatabaseFile,
    first: Annotated[str, typer.Argument(help="A policy of the study.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Another.", show_default=False)],
    study: StudyName = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Two policies of a study: the difference of their scores on each problem, and whether it is more than chance."""
    compare = _laboratory().compare
    scores = _scores(database, study)
    policies = {policy for policy, _ in scores.groups}
    for name in (first, second):
        if name not in policies:
            raise CodesignError(f"no policy {name!r} in the study", hint=f"it has {', '.join(sorted(policies))}")
    budgets = [budget for policy, budget in scores.groups if policy == first and (second, budget) in scores.groups]
    found = [compare(scores, first, second, budget) for budget in budgets]
    names = {key: f"{p['name']} on {p['machine']}" for key, p in scores.problems.items()}
    documents = [
        {"first": c.first, "second": c.second, "budget": c.budget, "difference": c.difference, "probability": c.probability,
         "problems": {names[key]: value for key, value in c.problems.items()}}
        for c in found
    ]  # fmt: skip
    if as_json:
        command.print_json(documents)
        return
    console = Console()
    for comparison in found:
        table = Table(box=None, title=f"{first} less {second}, {comparison.budget}", title_justify="left")
        table.add_column("problem")
        table.add_column("difference of scores", justify="right")
        for key, value in comparison.problems.items():
            table.add_row(names[key], f"{value:+.3f}")
        table.add_row("mean", f"{comparison.difference:+.3f}  (p = {comparison.probability:.4f})", style="bold")
        console.print(table)


@application.command("export")
def _export(
    database: DatabaseFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write into.")] = Path("."),
    form: Annotated[
        Form, typer.Option("--format", help="Rows as csv or parquet; spaces as Kernel Tuner's cache or t4.")
    ] = Form.csv,
    study: StudyName = None,
    debug: Debug = False,
) -> None:
    """Write every evaluation as a table, or every space in Kernel Tuner's formats."""
    from codesign.lab.export import write

    folder = command.output_directory(output)
    assert folder is not None
    lab = _laboratory()
    base = lab.Database(database, read_only=True)
    for path in write(base, _name(base.studies(), study), form.value, folder):
        typer.echo(str(path))


def _give(board: Leaderboard, as_json: bool, report: Path | None, *, quiet: bool = False) -> None:
    if report is not None:
        from codesign.lab.study_page import study_page

        command.write_text(report, study_page(board))
    if as_json:
        command.print_json(board.model_dump(mode="json"))
    elif not quiet:
        console = Console(width=None if Console().is_terminal else 160)
        table = Table(
            box=None,
            title=f"{board.study}: {counted(len(board.problems), 'problem', 'problems')}",
            title_justify="left",
        )
        for position, head in enumerate(HEADS):
            table.add_column(head, justify="left" if position < 2 else "right")
        for row in board.rows:
            table.add_row(*cells(row))
        console.print(table)
        if board.unfinished:
            console.print(f"{board.unfinished} runs are not done yet", style="yellow")
        if report is not None:
            console.print(f"the page is {report}", highlight=False)


def _board(file: Path, study: str | None) -> Leaderboard:
    if file.suffix == ".json":
        return read_leaderboard(file)
    board: Leaderboard = _laboratory().leaderboard(_scores(file, study))
    return board


def _scores(file: Path, study: str | None) -> Any:
    lab = _laboratory()
    base = lab.Database(file, read_only=True)
    studies = base.studies()
    name = _name(studies, study)
    if not studies[name]:  # without a plan
        hint = "python -m codesign.study export writes them as a table, codesign.whatif --database shows them"
        raise CodesignError(f"{name!r} is a study of variants of a machine, which have no scores", hint=hint)
    return lab.Scores(base, name)


def _name(studies: Iterable[str], wanted: str | None) -> str:
    names = list(studies)
    if wanted is None and len(names) == 1:
        return str(names[0])
    if wanted not in names:
        said = f"no study {wanted!r} in it" if wanted else f"{len(names)} studies in it" if names else "no study in it"
        raise CodesignError(said, hint=f"name one by --study: {', '.join(map(repr, names))}" if names else None)
    return str(wanted)


def _laboratory() -> Any:
    """What needs the extra: the module `codesign.lab.laboratory`."""
    command.need("lab", "sqlalchemy")
    return importlib.import_module("codesign.lab.laboratory")
