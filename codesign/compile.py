"""`python -m codesign.compile model.py`: from a PyTorch model to verified kernels with costed schedules.

The file model.py is your own code and is run. It holds `model` and `example_inputs`, or `get_model()` and `get_inputs()`, or a
class `Model` with `get_inputs()` and `get_init_inputs()`; an optional `dynamic_shapes` goes to `torch.export`. A model.pt2, as
`torch.export.save` writes it, is read as data.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from codesign import command
from codesign.ir.errors import CodesignError

if TYPE_CHECKING:
    from codesign.costmodel.ledger import Ledger
    from codesign.costmodel.machine import Machine
    from codesign.pipeline import Compilation

application = typer.Typer(add_completion=False, rich_markup_mode=None)


def _forms(emit: list[str], machines: list[Machine]) -> set[str]:
    """The forms asked for; CodesignError for one that no backend of these machines makes."""
    known = ["tensor", "tile", "mlir", *sorted({"triton", "accelerator", *(m.backend for m in machines if m.backend)})]
    for form in emit:
        if form not in known:
            raise CodesignError(f"--emit {form}: no such form", hint=f"forms: {', '.join(known)}")
    return set(emit)


_ModelFile = Annotated[
    Path | None, typer.Argument(help="model.py, which is run, or an exported model.pt2, as data.", show_default=False)
]
_Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", "-t", help="Machine name or machine file (repeatable). [default: h100_sxm]", show_default=False
    ),
]
_Forms = Annotated[
    list[str] | None,
    typer.Option(
        help="Write this form (repeatable): into -o DIR, or on stdout when there is no DIR.", show_default=False
    ),
]
_Passes = Annotated[
    str | None,
    typer.Option(
        help="Passes to run after clean-up and before fusion: name{option=value,...},package.module:Class",
        show_default=False,
    ),
]
_Schedules = Annotated[
    Path | None,
    typer.Option(
        help="Replay schedules by kernel name from this JSON, such as the schedules.json of -o.", show_default=False
    ),
]
_Why = Annotated[
    list[str] | None,
    typer.Option(help="Explain the predicted time of this kernel (repeatable; `all` for each).", show_default=False),
]
_Page = Annotated[
    Path | None,
    typer.Option("--report", help="Write one self-contained HTML page (one for each target).", show_default=False),
]
_Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace", help="Write the predicted run as a Perfetto trace (one for each target).", show_default=False
    ),
]


class Frontend(StrEnum):
    """What lowers the exported model."""

    TORCH = "torch"
    TORCH_MLIR = "torch-mlir"


class Optimizer(StrEnum):
    """What makes new weights of gradients."""

    SGD = "sgd"
    MOMENTUM = "momentum"
    ADAM = "adam"
    ADAMW = "adamw"


_Backward = Annotated[
    bool,
    typer.Option(
        "--backward",
        help="A step of training: the model with the gradients of its weights, of its loss where it gives one.",
    ),
]
_Optimizer = Annotated[
    Optimizer | None,
    typer.Option(help="With --backward's step, the new weights of this optimiser too.", show_default=False),
]
_Frontend = Annotated[
    Frontend,
    typer.Option(help="What lowers the exported model: our rules, or torch-mlir's passes, whose linalg is read."),
]
_Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Run every kernel on random inputs, the whole model on its example and on others.",
    ),
]


@application.command(help=__doc__)
def _compile(
    model: _ModelFile = None,
    target: _Targets = None,
    emit: _Forms = None,
    verify: _Verify = True,
    kernels: Annotated[
        bool, typer.Option("--kernels/--no-kernels", help="Compile the kernels ahead of time for the target.")
    ] = True,
    policy: Annotated[str, typer.Option(help="Scheduling policy: a name or package.module:Class.")] = "default",
    budget: Annotated[int | None, typer.Option(help="Schedules to price per kernel at the most.", min=1)] = None,
    fusion: Annotated[
        str, typer.Option(help="Fusion policy: none, greedy, beam, dp, exhaustive, or package.module:Class.")
    ] = "greedy",
    explain_fusion: Annotated[
        bool, typer.Option("--explain-fusion", help="Say of each producer and consumer why they are one kernel or not.")
    ] = False,
    passes: _Passes = None,
    reuse: Annotated[
        bool,
        typer.Option(
            "--reuse/--no-reuse", help="Take over what earlier runs chose, where nothing differs that it follows from."
        ),
    ] = True,
    schedules: _Schedules = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Make the first size of every input one dynamic symbol, `batch`.")
    ] = False,
    bind: Annotated[
        list[str] | None,
        typer.Option(
            help="Value of a dynamic size when costing, NAME=SIZE, or several to price it at, NAME=SIZE,SIZE (repeatable).",
            show_default=False,
        ),
    ] = None,
    backward: _Backward = False,
    optimizer: _Optimizer = None,
    frontend: _Frontend = Frontend.TORCH,
    seed: Annotated[int, typer.Option(help="Seed of the random inputs and of the policy.", min=0, max=2**32 - 1)] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write files into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    why: _Why = None,
    show_all: Annotated[bool, typer.Option("--all", help="Report every kernel.")] = False,
    page: _Page = None,
    trace: _Trace = None,
    list_ops: Annotated[bool, typer.Option("--list-ops", help="List the operators that the front end claims.")] = False,
    list_targets: Annotated[bool, typer.Option("--list-targets", help="List the machines that are shipped.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    if list_ops:
        return _list_operators(as_json)
    if list_targets:
        return _list_targets(as_json)
    if model is None:
        raise CodesignError("no model given", hint="python -m codesign.compile model.py --target h100_sxm")
    search = {"policy": policy, "budget": budget, "fusion": fusion, "seed": seed, "reuse": reuse, "dynamic": dynamic}
    search["frontend"] = frontend.value
    search |= {"backward": backward or optimizer is not None, "optimizer": optimizer.value if optimizer else ""}
    search["explain_fusion"] = explain_fusion or page is not None
    points = command.points("--bind", bind or [], "batch=8 or batch=1,8,64")
    checks = {"verify": verify, "kernels": kernels, "sizes": points[0]}
    shown = _Shown(emit or [], output, as_json, show_all, why or [], explain_fusion, page, trace, points)
    return _run(model, target or ["h100_sxm"], {**search, **checks}, passes, schedules, shown)


def _there_is(chosen: dict[str, Any]) -> None:
    """See, before the model is loaded, that there are the policies and the front end that were chosen; CodesignError otherwise."""
    from codesign.passes.fusion.policy import policy_named
    from codesign.passes.schedule.policy import make_policy

    make_policy(chosen["policy"])
    policy_named(chosen["fusion"])
    if chosen["frontend"] == Frontend.TORCH_MLIR:
        command.need("torch-mlir", "torch_mlir")


@dataclass
class _Shown:
    """What is written and printed: forms of the code, the folder, JSON, all kernels, the kernels to explain, why what is fused, a page, a trace,
    prices at these sizes (of which the first is compiled for)."""

    emit: list[str]
    output: Path | None
    as_json: bool
    all: bool
    why: list[str]
    edges: bool
    page: Path | None
    trace: Path | None
    points: list[dict[str, int]]


def _run(
    path: Path,
    targets: list[str],
    chosen: dict[str, Any],
    passes: str | None,
    schedules: Path | None,
    shown: _Shown,
) -> int:
    from codesign.costmodel.machine import load_machines
    from codesign.report import complaints

    machines = load_machines(targets)  # before the slow imports: a wrong name answers at once
    forms = _forms(shown.emit, machines)
    folder = command.output_directory(shown.output)
    to_stdout = bool(forms) and folder is None
    command.page_at(shown.page)
    command.file_at(shown.trace)
    if to_stdout and shown.as_json:
        raise CodesignError("--emit with --json needs a folder for the files", hint="add -o DIR")
    if not path.is_file():
        raise CodesignError("no such file" if not path.exists() else "not a file", place=str(path))
    _there_is(chosen)

    with command.importing():
        import torch._dynamo  # noqa: F401  torch.export brings it in at its first call

        from codesign import artifacts, pipeline
        from codesign.at_sizes import prices_at
        from codesign.manifest import claim, settle
        from codesign.passes.pipeline import own_passes
        from codesign.passes.planning import sizes_of
        from codesign.passes.schedule.replay import read_schedules

    chosen["passes"] = own_passes(passes) if passes else []
    chosen["schedules"] = read_schedules(schedules) if schedules is not None else {}

    options = pipeline.Options(**chosen)
    compilations: list[Compilation] = []
    written: list[Path] = []
    aside = redirect_stdout(sys.stderr) if shown.as_json or to_stdout else nullcontext()  # what the user's model prints
    with aside, command.progress(not shown.as_json) as steps:
        captured = pipeline.capture(path, options, steps)
    for point in shown.points:  # before the first is compiled for: that may take long
        sizes_of(captured.captured.module, point)
    for machine in machines:
        with aside, command.progress(not shown.as_json) as steps:
            compiled = pipeline.compile_for(captured, machine, options, steps)
            if len(shown.points) > 1:
                compiled.document.at_sizes = prices_at(compiled.compiled, shown.points)
            if folder is not None:
                where = folder if len(machines) == 1 else folder / machine.name
                made = artifacts.write(compiled, where, forms or artifacts.default_forms(machine))
                claim(folder, made)
                written.extend(made)
        compilations.append(compiled)
        if not (to_stdout or shown.as_json):
            _show(compiled, shown)
    if folder is not None:
        settle(folder, written)
    _write_beside(compilations, shown)
    if to_stdout:
        for compiled in compilations:
            for form in sorted(forms):
                for text in artifacts.texts(compiled, form).values():
                    typer.echo(text)
    elif shown.as_json:
        _print_json(compilations, shown)
    else:
        _say_where(shown, folder)
    wrong = [(compiled.document, text) for compiled in compilations for text in complaints(compiled.document)]
    for document, text in wrong:
        command.complain(f"{document.model} on {document.target}: {text}")
    return command.INTERNAL_ERROR if wrong else 0


def _write_beside(compilations: list[Compilation], shown: _Shown) -> None:
    """The page and the trace, one each, or one for each target with its name before the suffix."""
    if shown.page is not None:
        from codesign.lab.compile_page import compile_page

        for compiled in compilations:
            command.write_text(_of_target(shown.page, compiled, compilations), compile_page(compiled))
    if shown.trace is not None:
        from codesign.trace import write_trace

        for compiled in compilations:
            write_trace(compiled, _of_target(shown.trace, compiled, compilations))


def _of_target(path: Path, compiled: Compilation, compilations: list[Compilation]) -> Path:
    return path if len(compilations) == 1 else path.with_suffix(f".{compiled.machine.name}{path.suffix}")


def _explained(compiled: Compilation, shown: _Shown) -> list[Ledger]:
    """The ledgers of the kernels to explain."""
    from codesign.pipeline import explain

    return [explain(compiled, name) for name in (compiled.kernels if "all" in shown.why else shown.why)]


def _print_json(compilations: list[Compilation], shown: _Shown) -> None:
    """The documents, with the ledgers in them."""
    plain: list[Any] = [compiled.document.model_dump(mode="json") for compiled in compilations]
    if shown.why:
        for data, compiled in zip(plain, compilations, strict=True):
            data["why"] = [ledger.to_json() for ledger in _explained(compiled, shown)]
    command.print_json(plain[0] if len(plain) == 1 else plain)


def _show(compiled: Compilation, shown: _Shown) -> None:
    """One target's report, for people, as soon as there is one."""
    from codesign.report import report, sizes_table

    document, console = compiled.document, _console()
    ledgers = _explained(compiled, shown)
    report(document, console, limit=None if shown.all else 24)
    if document.at_sizes:
        console.print(sizes_table(document))
    for edge in compiled.compiled.planned.edges if shown.edges else ():
        console.print(str(edge), highlight=False, markup=False)
    for ledger in ledgers:
        console.print(ledger.to_tree())
    sys.stdout.flush()


def _say_where(shown: _Shown, folder: Path | None) -> None:
    console = _console()
    if folder is not None:
        console.print(f"files are in {folder}", highlight=False)
    if shown.page is not None:
        console.print(f"the page is {shown.page}", highlight=False)
    if shown.trace is not None:
        console.print(f"the trace is {shown.trace}", highlight=False)


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 200)


def _list_operators(as_json: bool) -> int:
    from codesign.frontend import claimed_operators

    names = sorted(claimed_operators())
    if as_json:
        command.print_json(names)
    else:
        typer.echo("\n".join(names))
    return 0


def _list_targets(as_json: bool) -> int:
    from codesign.costmodel.machine import load_machine, machine_names

    machines = [load_machine(name) for name in machine_names()]
    if as_json:
        command.print_json([{"name": m.name, "kind": m.kind, "description": m.description} for m in machines])
    else:
        for machine in machines:
            typer.echo(f"{machine.name:<22} {machine.kind:<9} {machine.description}")
    return 0


def main() -> NoReturn:
    """Entry point."""
    command.run(application, name="python -m codesign.compile")


if __name__ == "__main__":
    main()
