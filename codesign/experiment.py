"""`python -m codesign.experiment A B --models model.py`: two pass pipelines over models and machines, compared pair by pair.

A and B are pipelines as `codesign.opt` takes them (`lab:FastExp`, `canonicalize,fuse{policy=none}`), run after clean-up and before fusion;
`default` is the compiler's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from codesign import command
from codesign.ir.errors import CodesignError

if TYPE_CHECKING:
    from codesign.lab.passes.experiment import Experiment

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command(help=__doc__)
def _experiment(
    first: Annotated[str, typer.Argument(help="A pipeline, or `default`.", show_default=False)],
    second: Annotated[str, typer.Argument(help="Another.", show_default=False)],
    models: Annotated[list[Path], typer.Option("--models", "-m", help="model.py, which is run, or model.pt2 (repeatable).", show_default=False)],
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="Machine name or file (repeatable). [default: h100_sxm]", show_default=False),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Run the kernels and the model.")] = True,
    kernels: Annotated[bool, typer.Option("--kernels/--no-kernels", help="Build the kernels too.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write one self-contained HTML page.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:  # fmt: skip
    from codesign.costmodel.machine import load_machines

    machines = load_machines(target or ["h100_sxm"])
    for path in models:
        if not path.is_file():
            raise CodesignError("no such file" if not path.exists() else "not a file", place=str(path))
    command.page_at(report)
    from codesign.lab.passes.experiment import Pipeline, experiment, failures
    from codesign.pipeline import Options

    sides = [Pipeline.parse(text) for text in (first, second)]
    options = Options(verify=verify, kernels=kernels, reuse=False)
    with command.progress(not as_json) as steps:
        outcome = experiment(sides[0], sides[1], models, machines, options, steps)
    if report is not None:
        from codesign.lab.passes.page import experiment_page

        command.write_text(report, experiment_page(outcome))
    if as_json:
        command.print_json(outcome.model_dump(mode="json"))
    else:
        _print(outcome, report)
    wrong = failures(outcome)
    for where, why in wrong.items():
        command.complain(f"{where}: {why}")
    return command.INTERNAL_ERROR if wrong else 0


def _print(outcome: Experiment, report: Path | None) -> None:
    from codesign.lab.passes.experiment import HEADS, cells

    console = Console(width=None if Console().is_terminal else 160, highlight=False, markup=False)
    table = Table(box=None)
    for position, head in enumerate(HEADS):
        table.add_column(head, justify="left" if position < 3 else "right")
    for pair in outcome.pairs:
        table.add_row(pair.model, pair.machine, outcome.first, *cells(pair.first))
        table.add_row("", "", outcome.second, *cells(pair.second))
    console.print(table)
    for entry in outcome.summary:
        if entry.ratio is not None:
            chance = "" if entry.probability is None else f", p = {entry.probability:.4f}"
            console.print(
                f"{entry.figure}: second over first {entry.ratio:.4g} ({entry.better} less, {entry.worse} more{chance})"
            )
    for pair in outcome.pairs:
        if pair.kernels:
            console.print(f"\n{pair.model} on {pair.machine}: {len(pair.kernels)} kernels changed")
        for kernel in pair.kernels[:12]:
            name = " -> ".join(dict.fromkeys(name for name in (kernel.first, kernel.second) if name))
            console.print(f"  {kernel.kind}: {name} ({', '.join(kernel.ops)})")
    diff = next((pair.diff for pair in outcome.pairs if pair.diff), "")
    if diff:
        console.print(f"\n{diff}", soft_wrap=True)
    if report is not None:
        console.print(f"the page is {report}")


def main() -> NoReturn:
    """Entry point of the command."""
    command.run(application, name="python -m codesign.experiment")


if __name__ == "__main__":
    main()
