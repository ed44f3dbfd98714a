"""`python -m codesign.calibrate`: fit a GPU's physical parameters to measured tables."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from codesign.command import need_tables, output_directory, print_json, progress, run, write_text
from codesign.costmodel.gpu.parameters import FITTED, TYPICAL, calibration_to, load_calibration
from codesign.costmodel.machine import load_machine

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command()
def _calibrate(
    machine: Annotated[str, typer.Option(help="name of a machine, or the path of its .toml file")],
    table: Annotated[list[Path], typer.Option(help="measured table (parquet or CSV); repeatable")],
    folds: Annotated[int, typer.Option(min=2, help="folds of the cross-validation, by site")] = 5,
    rows: Annotated[int, typer.Option(min=50, help="rows of each kernel that a fit sees")] = 1000,
    output: Annotated[Path | None, typer.Option("-o", help="directory for <machine>.json")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="traceback on failure")] = False,
) -> None:
    """Fit the physical parameters of a machine's tile model to tables, with cross-validated error by site."""
    need_tables(*table)
    from codesign.costmodel.calibration import calibrate, fitted_of
    from codesign.costmodel.tables import machine_rows, read_table

    target = load_machine(machine)
    folder = output_directory(output)
    tables = [read_table(path) for path in table]
    with progress(not as_json) as steps:
        found = calibrate(target, tables, load_calibration(target), folds=folds, limit=rows, progress=steps.step)
    provenance = {
        "date": date.today().isoformat(),
        "tables": [
            {"file": path.name, "rows": len(machine_rows(data, target.name))}
            for path, data in zip(table, tables, strict=True)
        ],
        "ops": found.ops,
        "method": f"bounded robust least squares on log time, {folds}-fold cross-validation by site",
    }
    calibration = replace(found.calibration, provenance=provenance)
    document = {**calibration_to(calibration), "fitted": list(FITTED), "ops": found.ops}
    if folder is not None:
        write_text(folder / f"{target.name}.json", json.dumps(calibration_to(calibration), indent=1) + "\n")
    if as_json:
        print_json(document)
        return
    console = Console()
    console.print(f"{target.name}: {len(FITTED)} fitted parameters")
    for name in FITTED:
        console.print(f"  {name:26} {getattr(calibration.parameters, name):.4g}")
    for name, own in calibration.implementations.items():
        if name != TYPICAL:
            console.print(f"{name}: {', '.join(f'{key} {own[key]:.4g}' for key in fitted_of(own))}")
    view = Table("op", "rows", "MAPE", "cross-validated", box=None)
    for op in found.ops:
        view.add_row(op["op"], f"{op['rows']:,}", f"{op['mape']:.1%}", f"{op['mape_cross_validated']:.1%}")
    console.print(view)


def main() -> NoReturn:
    """Run the command."""
    run(application, name="python -m codesign.calibrate")


if __name__ == "__main__":
    main()
