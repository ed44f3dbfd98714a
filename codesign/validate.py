"""`python -m codesign.validate`: how right the cost models are on a table of measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from codesign.command import errors, need_tables, output_directory, print_json, progress, run
from codesign.costmodel.attention import sources
from codesign.costmodel.dataflow.target import target_of
from codesign.costmodel.gpu.parameters import calibration_like, load_calibration
from codesign.costmodel.machine import load_machine
from codesign.ir.errors import CodesignError

if TYPE_CHECKING:
    import pandas as pd

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command()
def _validate(
    file: Annotated[Path, typer.Argument(help="measured table (parquet or CSV)")],
    machine: Annotated[str, typer.Option(help="name of a machine, or the path of its .toml file")],
    like: Annotated[
        str | None,
        typer.Option(help="take the parameters of this calibrated machine, as if --machine had only its spec sheet"),
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="write predicted against measured as a picture (needs -o)")
    ] = False,
    output: Annotated[Path | None, typer.Option("-o", help="directory for the picture and the predictions")] = None,
    worst: Annotated[int, typer.Option(min=0, help="worst rows to list for each op")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="traceback on failure")] = False,
) -> None:
    """Compare the analytic model with a table: errors per op and regime, interval coverage; rank quality for tuning
    spaces. Accelerators are compared with matrix products, in seconds or cycles."""
    need_tables(file, pictures=plot)
    from codesign.accelerator_tables import accelerator_predictions
    from codesign.costmodel.ranking import is_ranking, rankings
    from codesign.costmodel.rows import of_its_file
    from codesign.costmodel.tables import kind_of, machine_rows, read_table, remark_of, unknown_sources
    from codesign.costmodel.validation import predictions, report, unit_remark

    target = load_machine(machine)
    is_gpu = target.kind == "gpu"
    if like is not None and not is_gpu:
        raise CodesignError("--like is of GPUs, whose parameters are calibrated", hint="leave it out")
    folder = output_directory(output if output is not None or not plot else Path())
    table = read_table(file, None if is_gpu else target_of(target).clock_hz)
    if is_ranking(table):
        if not is_gpu:
            raise CodesignError(
                f"{target.name} is a {target.kind} machine", hint="tuning spaces are of GPUs", place=str(file)
            )
        with of_its_file(table):
            document: dict[str, Any] = {"machine": target.name, "spaces": rankings(table, target)}
        print_json(document) if as_json else _print_rankings(document)
        return
    with of_its_file(table):
        kind = kind_of(table)
    unknown = unknown_sources(table)
    remarks = [
        *remark_of(machine_rows(table, target.name), kind),
        *(
            f"kernel_source {name} is not known: taken as FlashAttention 3, its intervals are wider; known: {', '.join(sources())}"
            for name in unknown
        ),
    ]
    if not as_json:
        errors.print(f"{file.name}: taken for a table of kind {kind}", markup=False)
        for remark in remarks:
            errors.print(remark, markup=False)
    with progress(not as_json) as steps, of_its_file(table):
        steps.step(f"predicting {file.name} on {target.name}")
        if is_gpu:
            calibration = load_calibration(target) if like is None else calibration_like(like, target)
            frame = predictions(table, target, calibration)
            origin = f"transferred from {calibration.transferred}" if calibration.transferred else "calibrated"
        else:
            frame, origin = accelerator_predictions(table, kind, target, steps.each), "the machine file's figures"
    for remark in unit_remark(frame):
        remarks.append(remark)
        errors.print(remark, markup=False)
    document = {
        "machine": target.name,
        "kind": kind,
        "remarks": remarks,
        "parameters": origin,
        "ops": report(frame, table, worst),
    }
    if folder is not None:
        frame.to_csv(folder / f"{file.stem}_{target.name}.csv", index=False)
        if plot:
            _plot(frame, folder / f"{file.stem}_{target.name}.png", f"{file.stem} on {target.name}")
    print_json(document) if as_json else _print_report(document)


def _print_report(document: dict[str, Any]) -> None:
    console = Console()
    console = Console(width=max(console.width, 110))
    console.print(f"{document['machine']} ({document['parameters']})")
    headings = ("op", "regime", "rows", "MAPE", "median", "p90", "bias", "Spearman", "coverage")
    view = Table(*(Column(heading, no_wrap=True) for heading in headings), box=None)
    for op in document["ops"]:
        for name, entry in [("", op), *((part["regime"], part) for part in op["regimes"])]:
            rank = "" if entry["spearman"] is None else f"{entry['spearman']:.3f}"
            figures = (f"{entry[key]:.1%}" for key in ("mape", "median", "p90", "bias"))
            view.add_row(
                "" if name else op["op"], name, f"{entry['rows']:,}", *figures, rank, f"{entry['coverage']:.1%}"
            )
    console.print(view)


def _print_rankings(document: dict[str, Any]) -> None:
    console = Console()
    for space in document["spaces"]:
        console.print(
            ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in space.items()
            )
        )


def _plot(frame: pd.DataFrame, path: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from codesign.costmodel.validation import as_arrays

    figure, axes = pyplot.subplots(figsize=(6, 6))
    for op, part in frame.groupby("op"):
        measured, predicted = as_arrays(part)
        axes.loglog(measured, predicted, ".", markersize=2, alpha=0.4, label=str(op))
    ends = [frame.measured.min(), frame.measured.max()]
    axes.loglog(ends, ends, "k-", linewidth=0.7)
    axes.set(xlabel="measured (s)", ylabel="predicted (s)", title=title)
    axes.legend(fontsize=7, markerscale=4)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main() -> NoReturn:
    """Run the command."""
    run(application, name="python -m codesign.validate")


if __name__ == "__main__":
    main()
