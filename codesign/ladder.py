"""`python -m codesign.ladder`: the same kernels through every fidelity of the GPU cost model.

Reports how fast each fidelity is, how far it is from measurement where a table is given, whether the quick model picks
the schedules that the fine one would, and where the two disagree most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from codesign import command
from codesign.costmodel import workloads
from codesign.costmodel.attention import attention_space
from codesign.costmodel.events import plan_columns, simulate, simulate_plan
from codesign.costmodel.gpu.library import Columns, library, library_space
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import CodesignError, MachineError, ScheduleError
from codesign.ir.schedule import Schedule, ScheduleBatch

if TYPE_CHECKING:
    from codesign.costmodel.rows import Rows

application = typer.Typer(add_completion=False, rich_markup_mode=None)

FIDELITIES = ("roofline", "tile model", "event simulation")
WIDTH = 110
SPEED_BATCH = 65536
"""Schedules in the batch that the speed of the vectorised fidelities is taken on."""


@dataclass(frozen=True)
class Case:
    """A kernel at given sizes; `columns`: its space of schedules, when that is not the library's for a kernel of its
    form.
    """

    name: str
    kernel: KernelSummary
    sizes: Mapping[str, int]
    columns: Columns | None = None

    def space(self, machine: Machine) -> ScheduleBatch:
        """All schedules to choose from."""
        return batch_of(self.columns if self.columns is not None else library_space(self.kernel, machine))


@dataclass(frozen=True)
class Rung:
    """One kernel at every fidelity, under the schedule that the tile model likes best.

    `tau`: Kendall's rank correlation of fidelities 1 and 2 over a sample of `sampled` schedules; `regret`: how much
    longer fidelity 2 finds fidelity 1's choice than its own, as a fraction, over the same sample. `terms`: seconds by
    cause.
    """

    name: str
    sizes: dict[str, int]
    schedule: dict[str, Any]
    seconds: tuple[float, float, float]
    bound: tuple[str, str, str]
    terms: tuple[dict[str, float], dict[str, float], dict[str, float]]
    sampled: int
    tau: float | None
    regret: float

    @property
    def disagreement(self) -> float:
        """Fidelity 2 over fidelity 1, less one."""
        return self.seconds[2] / self.seconds[1] - 1.0


def suite() -> list[Case]:
    """The default kernels: compute-bound, memory-bound and launch-bound, with waves, tails and reductions of every
    kind.
    """
    g, conv = workloads.gemm("bf16"), workloads.convolution("bf16")
    gemms = [
        (8192, 8192, 8192), (4096, 4096, 4096), (2048, 2048, 16384), (1000, 3000, 777), (512, 11008, 4096),
        (128, 8192, 8192), (16, 4096, 4096), (1, 8192, 28672), (256, 256, 65536),
    ]  # fmt: skip
    found = [Case(f"gemm.{m}x{n}x{k}", g, {"M": m, "N": n, "K": k}) for m, n, k in gemms]
    found.append(Case("gemm.f16.4096", workloads.gemm("f16"), {"M": 4096, "N": 4096, "K": 4096}))
    attention = workloads.attention("bf16", "bf16")
    for name, batch, queries, keys in (("prefill.2048", 4, 2048, 2048), ("prefill.512", 1, 512, 512)):
        sizes = {"B": batch, "G": 8, "R": 4, "Q": queries, "J": keys}
        found.append(Case(f"attention.{name}", attention, sizes, attention_space(128, decode=False)))
    for batch, keys in ((64, 4096), (1, 16384)):
        sizes = {"B": batch, "G": 8, "R": 4, "Q": 1, "J": keys}
        space = attention_space(128, decode=True)
        found.append(Case(f"attention.decode.{batch}x{keys}", attention, sizes, space))
    for tokens in (64, 8192):
        found.append(Case(f"rms_norm.{tokens}", workloads.rms_norm(), {"T": tokens, "N": 4096}))
        found.append(Case(f"softmax.{tokens}", workloads.softmax(), {"T": tokens, "N": 4096}))
        found.append(Case(f"add.{tokens}", workloads.add(), {"T": tokens, "N": 8192}))
        found.append(Case(f"gelu.{tokens}", workloads.gelu(), {"T": tokens, "N": 8192}))
        found.append(Case(f"silu_and_multiply.{tokens}", workloads.silu_and_multiply(), {"T": tokens, "N": 8192}))
    found.append(Case("embedding.8192", workloads.embedding(), {"T": 8192, "N": 4096, "V": 128256}))
    found.append(Case("convolution.256", conv, {"N": 16, "C": 256, "O": 256, "H": 28, "W": 28, "R": 3, "S": 3}))
    return found


def select(cases: list[Case], patterns: list[str]) -> list[Case]:
    """The cases whose name matches one of the patterns (`gemm*`); CodesignError when a pattern matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in cases):
            names = ", ".join(dict.fromkeys(case.name.split(".")[0] for case in cases))
            raise CodesignError(
                f"--kernels {pattern!r} matches no kernel", hint=f"as in --kernels 'gemm*'; kinds: {names}"
            )
    return [case for case in cases if not patterns or any(fnmatchcase(case.name, pattern) for pattern in patterns)]


def batch_of(columns: Columns, rows: Any = None) -> ScheduleBatch:
    """Columns of a space, or some of their rows, as a batch of schedules."""
    whole = {name: np.asarray(column).astype(np.int64) for name, column in columns.items()}
    batch = ScheduleBatch(whole, Schedule())
    return batch if rows is None else batch.take(rows)


def climb(case: Case, machine: Machine, sample: int) -> Rung:
    """One kernel at every fidelity: the tile model's best schedule, and the ranks of `sample` schedules spread over the
    space.
    """
    models = [cost_model_for(machine, fidelity) for fidelity in range(3)]
    space = case.space(machine)
    quick = models[1].predict(case.kernel, machine, space, case.sizes)
    order = np.argsort(quick.seconds, kind="stable")
    order = order[np.isfinite(quick.seconds[order])]
    if not len(order):
        raise CodesignError(f"{case.name}: no schedule of the space fits on {machine.name}")
    best = quick.seconds[order[0]]
    order = order[quick.seconds[order] <= 4.0 * best]  # schedules that nobody would run say little about ranks
    picked = order[np.unique(np.linspace(0, len(order) - 1, min(sample, len(order))).astype(int))]
    few = space.take(picked)
    fine = models[2].predict(case.kernel, machine, few, case.sizes)
    coarse = models[0].predict(case.kernel, machine, few, case.sizes)
    found: tuple[CostBatch, CostBatch, CostBatch] = (
        coarse,
        models[1].predict(case.kernel, machine, few, case.sizes),
        fine,
    )
    tau = float(kendalltau(found[1].seconds, fine.seconds).statistic) if len(picked) > 2 else math.nan
    return Rung(
        name=case.name,
        sizes={name: int(size) for name, size in case.sizes.items()},
        schedule=few.row(0).to_json(),
        seconds=_three(float(costs.seconds[0]) for costs in found),
        bound=_three(costs.bound(0) for costs in found),
        terms=_three(dict(zip(costs.term_names, costs.terms[0].tolist(), strict=True)) for costs in found),
        sampled=len(picked),
        tau=None if math.isnan(tau) else tau,
        regret=float(fine.seconds[0] / fine.seconds.min() - 1.0),
    )


def _three(values: Any) -> Any:
    first, second, third = values
    return first, second, third


def speeds(case: Case, machine: Machine) -> list[float]:
    """Schedules per second of each fidelity on one kernel, wall-clock, on this computer and one core."""
    space = case.space(machine)
    found = []
    for fidelity, count in ((0, SPEED_BATCH), (1, SPEED_BATCH), (2, 8)):
        batch = space.take(np.linspace(0, len(space) - 1, count).astype(int))
        model = cost_model_for(machine, fidelity)
        model.predict(case.kernel, machine, batch.take(np.arange(2)), case.sizes)
        start = time.perf_counter()
        model.predict(case.kernel, machine, batch, case.sizes)
        found.append(count / (time.perf_counter() - start))
    return found


# -- against measurement --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Measured:
    """Predicted over measured seconds, less one, of each fidelity on rows of one op of a table: mean absolute and
    median.
    """

    op: str
    rows: int
    mape: tuple[float, float, float]
    bias: tuple[float, float, float]
    worst: dict[str, Any]


def against(table: Path, machine: Machine, limit: int, tick: Any = None) -> list[Measured]:
    """Every fidelity on a table of measured times, at most `limit` rows of each op (evenly spaced); library routines
    run under the schedule that the tile model likes best.
    """
    from codesign.costmodel.tables import kernels_of, machine_rows, read_table

    measured = machine_rows(read_table(table), machine.name)
    if not len(measured):
        raise CodesignError(
            f"{table} has no rows of {machine.name}", hint="choose the machine that was measured with -m"
        )
    found: dict[str, list[tuple[float, tuple[float, ...], dict[str, int]]]] = {}
    for rows in kernels_of(measured):
        entries = found.setdefault(rows.op, [])
        for position in np.unique(np.linspace(0, len(rows.seconds) - 1, min(limit, len(rows.seconds))).astype(int)):
            sizes, seconds = _row(rows, int(position), machine)
            if seconds is not None:
                entries.append((float(rows.seconds[position]), seconds, sizes))
            if tick is not None:
                tick()
    return [_measured(op, entries) for op, entries in found.items() if entries]


def _row(rows: Rows, position: int, machine: Machine) -> tuple[dict[str, int], tuple[float, ...] | None]:
    """Sizes of a row, and its seconds at every fidelity (None when no schedule of the space fits)."""
    # means over queries or experts are no whole numbers; models calculate with them all the same
    sizes: Any = {name: _whole(float(values[position])) for name, values in rows.sizes.items()}
    columns = rows.columns
    if rows.method == "schedule" and columns is not None:
        columns = {name: values[position : position + 1] for name, values in columns.items()}
    known = load_calibration(machine)
    calibration = replace(known, parameters=known.of(rows.implementation, rows.method))
    arrays = {name: np.array([size]) for name, size in sizes.items()}
    best = library(rows.kernel, machine, arrays, calibration.parameters, columns)
    if not np.isfinite(best.seconds[0]):
        return sizes, None
    space = columns if columns is not None else library_space(rows.kernel, machine)
    knobs = {name: float(column[best.choice[0]]) for name, column in space.items()}
    try:
        planned = plan_columns(rows.kernel, machine, knobs, (), sizes, calibration.parameters, compiled=False)
    except ScheduleError:
        return sizes, None
    seconds = (
        max(roofline_bounds(rows.kernel, machine, sizes)),
        float(best.seconds[0]),
        simulate_plan(planned).seconds,
    )
    return sizes, tuple(rows.launches * each for each in seconds)


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _measured(op: str, entries: list[tuple[float, tuple[float, ...], dict[str, int]]]) -> Measured:
    errors = np.array([[value / truth - 1.0 for value in seconds] for truth, seconds, _ in entries])
    worst = int(np.argmax(np.abs(errors[:, 2])))
    truth, seconds, sizes = entries[worst]
    return Measured(
        op=op,
        rows=len(entries),
        mape=_three(np.abs(errors).mean(axis=0).tolist()),
        bias=_three(np.median(errors, axis=0).tolist()),
        worst={"sizes": sizes, "measured": truth, "predicted": list(seconds)},
    )


# -- the command ----------------------------------------------------------------------------------------------------
@application.command(help=__doc__)
def _ladder(
    machine: Annotated[str, typer.Option("--machine", "-m", help="GPU: a machine's name or file.")] = "h100_sxm",
    kernels: Annotated[
        list[str] | None,
        typer.Option(
            "--kernels", "-k", help="Only kernels of this name (repeatable, as in 'gemm*').", show_default=False
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="A table of measured times to compare every fidelity with.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each op of the table to price.")] = 60,
    sample: Annotated[int, typer.Option(min=1, help="Schedules of each kernel to compare the ranks of.")] = 16,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", help="Directory for ladder.json and traces.", show_default=False)
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Write a Perfetto trace of each kernel's simulation into -o DIR.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Tracebacks of failures.")] = False,
) -> None:
    found = load_machine(machine)
    if found.kind != "gpu":
        raise MachineError(
            f"{found.name} is not a GPU: its fidelity 2 runs programs", hint="see python -m codesign.simulate"
        )
    if trace and output is None:
        raise CodesignError("--trace needs a directory to write to", hint="give one with -o DIR")
    if table is not None:
        command.need_tables(table)
    directory = command.output_directory(output)
    cases = select(suite(), kernels or [])
    with command.progress(not json) as steps:
        tick = steps.each("kernels", len(cases))
        rungs = []
        for case in cases:
            rungs.append(climb(case, found, sample))
            if trace and directory is not None:
                _write_trace(directory / f"{case.name}.trace.json", case, found, rungs[-1])
            tick()
        steps.step("speed")
        speed = speeds(cases[0], found)
        if table is not None:
            steps.step(f"measured times of {table.name}")
        measured = against(table, found, rows) if table is not None else []
    document = _document(found, rungs, speed, table, measured)
    if directory is not None:
        command.write_text(directory / "ladder.json", dumps(document, indent=1, allow_nan=False) + "\n")
    if json:
        command.print_json(document)
    else:
        console = Console()
        _show(console if console.is_terminal else Console(width=WIDTH), found, rungs, speed, measured)


def _write_trace(path: Path, case: Case, machine: Machine, rung: Rung) -> None:
    """The simulation of a rung's schedule, for ui.perfetto.dev."""
    seen = simulate(case.kernel, machine, Schedule.from_json(rung.schedule), case.sizes)
    command.write_text(path, dumps(seen.to_perfetto(), allow_nan=False) + "\n")


def _document(
    machine: Machine, rungs: list[Rung], speed: list[float], table: Path | None, measured: list[Measured]
) -> dict[str, Any]:
    ordered = sorted(rungs, key=lambda rung: -abs(math.log(rung.seconds[2] / rung.seconds[1])))
    return {
        "machine": machine.name,
        "fidelities": [
            {"fidelity": f, "name": name, "schedules_per_second": rate}
            for f, (name, rate) in enumerate(zip(FIDELITIES, speed, strict=True))
        ],
        "kernels": [{**asdict(rung), "disagreement": rung.disagreement} for rung in rungs],
        "disagree_most": [
            {"name": rung.name, "disagreement": rung.disagreement, "bound": [rung.bound[1], rung.bound[2]]}
            for rung in ordered[:5]
        ],
        "table": {"file": table.name, "ops": [asdict(entry) for entry in measured]} if table is not None else None,
    }


def _show(console: Console, machine: Machine, rungs: list[Rung], speed: list[float], measured: list[Measured]) -> None:
    console.print(f"[bold]{machine.name}[/]: {machine.description}")
    for f, (name, rate) in enumerate(zip(FIDELITIES, speed, strict=True)):
        console.print(f"  fidelity {f}  {name:<17} {rate:>14,.0f} schedules a second")
    view = Table(title="the same schedule at every fidelity (us)", title_justify="left", box=SIMPLE_HEAD)
    view.add_column("kernel", no_wrap=True)
    for heading in ("roofline", "tile model", "events", "2 over 1", "rank tau", "regret"):
        view.add_column(heading, justify="right", no_wrap=True)
    view.add_column("bound by", no_wrap=True)
    for rung in rungs:
        view.add_row(
            rung.name,
            *(f"{seconds * 1e6:,.1f}" for seconds in rung.seconds),
            f"{rung.disagreement:+.1%}",
            "-" if rung.tau is None else f"{rung.tau:.2f}",
            f"{rung.regret:.1%}",
            " / ".join(dict.fromkeys(rung.bound[1:])),
        )
    console.print(view)
    ordered = sorted(rungs, key=lambda rung: -abs(math.log(rung.seconds[2] / rung.seconds[1])))
    console.print("where fidelities 1 and 2 disagree most:")
    for rung in ordered[:5]:
        apart = {name: rung.terms[2].get(name, 0.0) - seconds for name, seconds in rung.terms[1].items()}
        name = max(apart, key=lambda term: abs(apart[term]))
        console.print(f"  {rung.name:<28} {rung.disagreement:+.1%}, most in {name} ({apart[name] * 1e6:+,.1f} us)")
    if measured:
        view = Table(title="error against measurement: mean absolute (median)", title_justify="left", box=SIMPLE_HEAD)
        view.add_column("op", no_wrap=True)
        view.add_column("rows", justify="right")
        for name in FIDELITIES:
            view.add_column(name, justify="right")
        for entry in measured:
            errors = (f"{m:.1%} ({b:+.1%})" for m, b in zip(entry.mape, entry.bias, strict=True))
            view.add_row(entry.op, str(entry.rows), *errors)
        console.print(view)


def main() -> NoReturn:
    """Run the command."""
    command.run(application, name="python -m codesign.ladder")


if __name__ == "__main__":
    main()
