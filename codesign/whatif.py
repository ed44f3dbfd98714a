"""`python -m codesign.whatif model.py --target FILE`: what a model's time hangs on in a machine.

Sensitivities of every figure with schedules held and chosen again, crossovers, sweeps, Pareto fronts, and what assumed figures are to blame
for. The file model.py is your own code and is run; an exported model.pt2 is data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from codesign import command
from codesign.ir.errors import CodesignError
from codesign.lab.choices import Engine, Jobs, RayAddress

if TYPE_CHECKING:
    from codesign.costmodel.machine import Machine
    from codesign.lab.machines.ask import Questions
    from codesign.lab.machines.document import WhatIf

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command(help=__doc__)
def _whatif(
    model: Annotated[Path, typer.Argument(help="model.py, which is run, or an exported model.pt2.", show_default=False)],
    target: Annotated[str, typer.Option("--target", "-t", help="Machine name or machine file.")] = "h100_sxm",
    sensitivities: Annotated[
        bool, typer.Option("--sensitivities/--no-sensitivities", help="Change every figure a little, one at a time.")
    ] = True,
    step: Annotated[float, typer.Option(help="By which share.", min=1e-4, max=0.5)] = 0.1,
    crossover: Annotated[
        list[str] | None,
        typer.Option(
            help="Where on FIGURE=LOW:HIGH another schedule or bound wins (repeatable; the most sensitive figures by default).",
            show_default=False,
        ),
    ] = None,
    fusion: Annotated[
        bool, typer.Option("--fusion", help="Fuse anew along the ranges of crossovers too, which compiles the model often.")
    ] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="FIGURE=LOW:HIGH[:POINTS], values or factors as in x0.5:x2 (repeatable: all combinations).", show_default=False),
    ] = None,
    pareto: Annotated[
        list[str] | None, typer.Option(help="FIGURE=LOW:HIGH to search for a front of time, energy and price.", show_default=False)
    ] = None,
    price: Annotated[
        list[str] | None, typer.Option(help="FIGURE=PRICE of one unit of it (repeatable), for --pareto.", show_default=False)
    ] = None,
    trials: Annotated[int, typer.Option(help="Machines that --pareto tries.", min=8, max=100_000)] = 100,
    sobol: Annotated[
        int | None, typer.Option(help="Samples (a power of two) for Sobol indices of assumed figures.", min=2, show_default=False)
    ] = None,
    chosen: Annotated[bool, typer.Option("--chosen", help="Choose schedules again for each sample of --sobol.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of --pareto and --sobol.", min=0, max=2**32 - 1)] = 0,
    database: Annotated[
        Path | None,
        typer.Option(help="Where each answer is kept. [default, of --fusion, --sweep, --pareto, --sobol: MODEL.whatif.db]", show_default=False),
    ] = None,
    jobs: Jobs = 1,
    engine: Annotated[
        Engine,
        typer.Option(help="Who prices the variants: processes here, or workers of Ray (extra `ray`), as many as --jobs."),
    ] = Engine.processes,
    ray_address: RayAddress = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write one self-contained HTML page.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:  # fmt: skip
    from codesign.costmodel.machine import load_machine

    machine = load_machine(target)
    command.page_at(report)
    many = fusion or sweep or pareto or sobol or jobs > 1 or engine is Engine.ray
    kept = database or (Path(f"{model.stem}.whatif.db") if many else None)
    _need(database=kept, ray=engine is Engine.ray, optuna=bool(pareto))
    from codesign.lab.machines.ask import Questions

    asked = Questions(
        slopes=sensitivities,
        step=step,
        crossed=Questions.ranges(crossover, machine),
        fused=fusion,
        swept=Questions.ranges(sweep, machine),
        searched=Questions.ranges(pareto, machine),
        prices=_prices(price or [], machine),
        trials=trials,
        samples=_power_of_two(sobol),
        chosen=chosen,
        seed=seed,
    )
    answers = _answered(
        model, machine, asked, kept, not as_json, jobs=jobs, ray=engine is Engine.ray, address=ray_address
    )
    if report is not None:
        from codesign.lab.machines.page import whatif_page

        command.write_text(report, whatif_page(answers))
    if as_json:
        command.print_json(answers.model_dump(mode="json"))
    else:
        _print(answers, report)


def _power_of_two(sobol: int | None) -> int | None:
    if sobol is not None and sobol & (sobol - 1):
        raise CodesignError(f"--sobol {sobol} is not a power of two", hint="as in --sobol 32")
    return sobol


def _need(*, database: Path | None, ray: bool, optuna: bool) -> None:
    """Extras that what was asked for takes, and a place for the database."""
    if database is not None:
        command.need("lab", "sqlalchemy")
        from codesign.lab.database import usable

        usable(database)
    if ray:
        command.need("ray", "ray")
    if optuna:
        command.need("lab", "optuna")


def _answered(
    model: Path,
    machine: Machine,
    asked: Questions,
    kept: Path | None,
    shown: bool,
    *,
    jobs: int,
    ray: bool,
    address: str | None,
) -> WhatIf:
    """The answers about a model on a machine; `kept`: the database that they go through, where there is one."""
    from codesign.lab.machines.ask import answer
    from codesign.lab.machines.workload import workload

    with command.progress(shown) as steps:
        steps.step(f"compiling {model.name} for {machine.name}")
        plain = workload(model, machine)
        if kept is None:
            return answer(plain, asked, steps)
        from codesign.lab.machines.recorded import recorded

        with recorded(plain, kept, repr(asked), jobs=jobs, ray=ray, address=address) as workers:
            return answer(workers, asked, steps)


def _prices(given: list[str], machine: Machine) -> dict[str, float]:
    from codesign.lab.machines.variants import changer

    weights = {}
    for text in given:
        figure, equals, value = text.partition("=")
        changer(machine, figure)  # which says what is wrong with it
        try:
            weights[figure] = float(value if equals else "")
        except ValueError:
            raise CodesignError(
                f"--price {text!r} is not FIGURE=PRICE", hint="as in levels.l2.capacity_bytes=2e-6"
            ) from None
    return weights


def _print(answers: WhatIf, report: Path | None) -> None:
    from codesign.lab.machines.document import DIGITS, NOTHING_WINS
    from codesign.report import joules_text, seconds_text

    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    console.print(f"{answers.model} on {answers.target}: {seconds_text(answers.seconds)}")

    def show(title: str, heads: list[str], rows: list[list[Any]]) -> None:
        table = Table(box=None, title=title, title_justify="left")
        for position, head in enumerate(heads):
            table.add_column(head, justify="left" if position == 0 else "right")
        for row in rows:
            table.add_row(
                *("–" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row)
            )
        if rows:
            console.print(table)

    moving = [s for s in answers.sensitivities if s.held or s.chosen or s.why]
    rows = [[s.figure, s.value, s.held, s.chosen, s.joules, s.why] for s in moving]
    show("d ln(time) / d ln(figure)", ["figure", "value", "held", "chosen again", "energy", ""], rows)
    still = len(answers.sensitivities) - len(moving)
    if still:
        console.print(f"{still} other figures do not change the time", style="dim")
    rows = [
        [c.figure, f"x{c.factor:.3g}", c.kernel, c.what, c.before, c.after, seconds_text(c.seconds)]
        for c in answers.crossovers
    ]
    show("crossovers", ["figure", "from", "kernel", "what", "before", "after", "time"], rows)
    for figure, (low, high) in answers.uncrossed.items():
        console.print(NOTHING_WINS.format(figure=figure, low=low, high=high), style="dim")
    names = list(answers.sweep[0].figures) if answers.sweep else []
    rows = [
        [
            *(p.figures[n] for n in names),
            None if p.held is None else seconds_text(p.held, DIGITS),
            seconds_text(p.chosen, DIGITS),
        ]
        for p in answers.sweep
    ]
    show("sweep", [*names, "held", "chosen again"], rows)
    names = list(answers.front[0].figures) if answers.front else []
    rows = [
        [seconds_text(p.seconds), None if p.joules is None else joules_text(p.joules), p.price, *(p.figures[n] for n in names)]
        for p in answers.front
    ]  # fmt: skip
    show("Pareto front", ["time", "energy", "price", *names], rows)
    show(
        "assumed figures (Sobol)",
        ["figure", "by itself", "with others"],
        [[s.figure, s.first, s.total] for s in answers.sobol],
    )
    if answers.sobol_seconds:
        low, high = answers.sobol_seconds
        console.print(f"over their ranges: {seconds_text(low)} to {seconds_text(high)}")
    if report is not None:
        console.print(f"the page is {report}")


def main() -> NoReturn:
    """Entry point of the command."""
    command.run(application, name="python -m codesign.whatif")


if __name__ == "__main__":
    main()
