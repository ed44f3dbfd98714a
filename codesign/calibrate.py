"""`python -m codesign.calibrate`: fit a GPU's physical parameters to measured tables, and say what these tell of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Column, Table

from codesign.command import need_tables, output_directory, print_json, progress, run, write_text
from codesign.costmodel.gpu.parameters import FITTED, calibration_to, load_calibration
from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.errors import CodesignError

if TYPE_CHECKING:
    from codesign.costmodel.calibration import Calibrated
    from codesign.costmodel.information import Identified

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command()
def _calibrate(
    machine: Annotated[str, typer.Option(help="name of a machine, or the path of its .toml file")] = "",
    table: Annotated[list[Path] | None, typer.Option(help="measured table (parquet or CSV); repeatable")] = None,
    folds: Annotated[int, typer.Option(min=2, help="folds of the cross-validation, by site")] = 5,
    rows: Annotated[int, typer.Option(min=50, help="rows of each kernel that a fit sees")] = 1000,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="say which measurements would help most; the tables may be left out")
    ] = False,
    measurements: Annotated[int, typer.Option(min=1, help="how many to suggest")] = 50,
    distances: Annotated[
        bool,
        typer.Option("--distances", help="learn what widens intervals by leaving out what the tables hold "),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", help="directory for <machine>.json and what is suggested")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="traceback on failure")] = False,
) -> None:
    """Fit the physical parameters of a machine's tile model to tables, with cross-validated error by site and what the tables tell of
    each parameter."""
    given = table or []
    need_tables(*given)
    folder = output_directory(output)
    if distances:
        _learn_distances(given, rows, folder, as_json)
        return
    if not machine:
        raise CodesignError("no machine is named", hint="give --machine NAME, or the path of its .toml file")
    if not given and not suggest:
        raise CodesignError("no table is given", hint="give --table FILE, or --suggest for what to measure")
    target = load_machine(machine)
    if target.kind != "gpu":
        raise CodesignError(f"{target.name} is a {target.kind} machine", hint="calibrations are of GPUs")
    document, found = _fitted(target, given, folds, rows, as_json) if given else _before(target)
    advised = None
    if suggest:
        from codesign.costmodel.suggestions import suggest as suggested

        advised = suggested(target, found.calibration.parameters, found.fits, measurements)
        document["suggested"] = advised.to_dict("records")
    if folder is not None:
        if given:
            text = json.dumps(calibration_to(found.calibration), indent=1) + "\n"
            write_text(folder / f"{target.name}.json", text)
        if advised is not None:
            write_text(folder / f"{target.name}_suggested.csv", advised.to_csv(index=False))
    if as_json:
        print_json(document)
        return
    _print(target, document, found)


def _fitted(
    target: Machine, given: list[Path], folds: int, rows: int, as_json: bool
) -> tuple[dict[str, Any], Calibrated]:
    """The document of a fit to tables, and the fit."""
    from codesign.costmodel.calibration import calibrate
    from codesign.costmodel.information import identify
    from codesign.costmodel.tables import machine_rows, read_table

    tables = [read_table(path) for path in given]
    with progress(not as_json) as steps:
        start = load_calibration(target)
        found = calibrate(target, tables, start, folds=folds, limit=rows, progress=steps.step)
        steps.step("asking what the tables tell of each parameter")
        told = {fitted.what: identify(fitted, target) for fitted in found.fits}
    used = [
        {"file": path.name, "rows": len(machine_rows(data, target.name))}
        for path, data in zip(given, tables, strict=True)
    ]
    before = start.provenance if start.machine == target.name and not start.transferred else {}
    provenance = {
        "date": date.today().isoformat(),
        "tables": _kept(before.get("tables", []), used, "file"),
        "ops": _kept(before.get("ops", []), found.ops, "op"),
        "method": f"bounded robust least squares on log time, {folds}-fold cross-validation by site",
    }
    found.calibration = replace(found.calibration, provenance=provenance)
    document = {**calibration_to(found.calibration), "fitted": list(FITTED), "ops": found.ops}
    document["identified"] = {what: [_plain(each) for each in parts] for what, parts in told.items()}
    silent = [name for name in FITTED if not any(each.name == name for parts in told.values() for each in parts)]
    document["not_spoken_of"] = silent
    return document, found


def _kept(before: list[dict[str, Any]], now: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """What a fit says of its tables or operators, after what earlier fits say of others."""
    said = {each[key] for each in now}
    return [each for each in before if each[key] not in said] + now


def _before(target: Machine) -> tuple[dict[str, Any], Calibrated]:
    """The same where nothing was measured yet."""
    from codesign.costmodel.calibration import Calibrated

    found = Calibrated(load_calibration(target))
    return {"machine": target.name, "ops": [], "identified": {}, "not_spoken_of": list(FITTED)}, found


def _plain(each: Identified) -> dict[str, Any]:
    return {**asdict(each), "unit": each.unit, "identified": each.identified}


def _print(target: Machine, document: dict[str, Any], found: Calibrated) -> None:
    console = Console()
    for what, parts in document["identified"].items():
        headings = (what, "value", "90 % interval", "unit", "told by the table", "not told apart from")
        view = Table(
            *(Column(heading, no_wrap=True) for heading in headings[:4]),
            *(Column(heading, overflow="fold") for heading in headings[4:]),
            box=None,
        )
        for each in parts:
            told = (
                "at its bound"
                if each["at_bound"]
                else f"{each['told']:.0%}" + ("" if each["identified"] else ": not identified")
            )
            others = ", ".join(f"{name} ({share:+.2f})" for name, share in each["confused"].items())
            ends = f"{each['low']:.3g} to {each['high']:.3g}"
            view.add_row(each["name"], f"{each['value']:.4g}", ends, each["unit"], told, others)
        console.print(view)
    if document["not_spoken_of"]:
        console.print(f"the tables do not speak of {', '.join(document['not_spoken_of'])}: kept as they were")
    view = Table("op", "rows", "MAPE", "cross-validated", box=None)
    for op in found.ops:
        view.add_row(op["op"], f"{op['rows']:,}", f"{op['mape']:.1%}", f"{op['mape_cross_validated']:.1%}")
    if found.ops:
        console.print(view)
    if "suggested" in document:
        view = Table("m", "n", "k", "dtype", "informs most", title=f"measure next on {target.name}", box=None)
        for row in document["suggested"]:
            view.add_row(str(row["m"]), str(row["n"]), str(row["k"]), row["dtype"], row["informs"])
        console.print(view)
        console.print(f"benchmarks/gpu/measure.py measures them: -o writes {target.name}_suggested.csv", markup=False)


def _learn_distances(given: list[Path], rows: int, folder: Path | None, as_json: bool) -> None:
    """What widens intervals, learned anew."""
    if not given:
        raise CodesignError("no table is given", hint="give --table FILE for each table to leave parts of out")
    from codesign.costmodel.distances import common_shares, document, learn
    from codesign.costmodel.leaving_out import left_out
    from codesign.costmodel.tables import read_table

    tables = [read_table(path) for path in given]
    with progress(not as_json) as steps:
        left = list(left_out(tables, rows, steps.step))
    learned, common = learn(left), common_shares(left)
    names = " ".join(f"--table {path.name}" for path in given)
    text = document(learned, common, f"python -m codesign.calibrate --distances --rows {rows} {names} -o DIR")
    if folder is not None:
        write_text(folder / "distances.toml", text)
    if as_json:
        print_json({"distances": [asdict(one) for one in learned], "residual": {"common": common}})
    elif folder is None:
        Console().print(text, markup=False, highlight=False)


def main() -> NoReturn:
    """Run the command."""
    run(application, name="python -m codesign.calibrate")


if __name__ == "__main__":
    main()
