"""`python -m codesign.reduce file.tile --passes P`: the smallest module on which a pass still breaks, or something of yours still holds.

A pass breaks a module when it fails, leaves invalid IR or changes results on random inputs. With --predicate package.module:function that
function is asked instead: it gets a module and says whether it is still interesting. A model.py (which is run) or an
exported model.pt2 is captured first.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from codesign import command
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError, failed
from codesign.ir.text import parse, print_module

application = typer.Typer(add_completion=False, rich_markup_mode=None)


@application.command(help=__doc__)
def _reduce(
    file: Annotated[Path, typer.Argument(help="A .tile file, a model.py or a model.pt2.", show_default=False)],
    passes: Annotated[str | None, typer.Option(help="The pipeline that breaks it.", show_default=False)] = None,
    predicate: Annotated[
        str | None, typer.Option(help="package.module:function from a module to whether it is interesting.", show_default=False)
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="The machine that prices are for.")] = "h100_sxm",
    seed: Annotated[int, typer.Option(help="Seed of the random inputs.", min=0, max=2**32 - 1)] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write reduced.tile into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:  # fmt: skip
    from codesign.lab.passes.reducer import reduce_module

    if (passes is None) == (predicate is None):
        raise CodesignError("give either --passes or --predicate", hint='as in --passes "canonicalize,lab:FastExp"')
    how = _predicate(predicate) if predicate is not None else breaks(passes or "", target, seed)
    folder = command.output_directory(output)
    module = _module(file)
    otherwise = f"{file}: --predicate {predicate} does not hold of it"
    if passes is not None:
        same = f"what it leaves is valid, and results on random inputs (--seed {seed}) are the same"
        otherwise = f"{file}: --passes {passes} breaks nothing: {same}"
    with command.progress(not as_json) as steps:
        steps.step("reducing")
        found = reduce_module(module, lambda candidate: bool(how(candidate)), otherwise=otherwise)
        why = how(found.module)
    text = print_module(found.module)
    written = str(command.write_text(folder / "reduced.tile", text)) if folder else None
    if as_json:
        command.print_json(
            {"file": str(file), "ops_before": found.ops_before, "ops_after": found.ops_after, "tried": found.tried,
             "why": why, "output": written, "module": None if written else text}
        )  # fmt: skip
        return
    sys.stderr.write(f"{found.ops_before} operations became {found.ops_after}, {found.tried} modules tried\n")
    sys.stderr.write(f"what is left: {why}\n")
    sys.stdout.write(f"{written}\n" if written else text)


def breaks(passes: str, target: str, seed: int) -> Callable[[Module], str]:
    """How a pipeline fails on a module, in a sentence, in the way that it fails on the first one asked about: by the same kind of error, or by
    wrong results; empty where it does not. CodesignError where the first can't be run before the passes."""
    from codesign.costmodel.machine import load_machine
    from codesign.passes import Context, PassManager, parse_pipeline
    from codesign.passes.observers import Equivalence, Verifier, example_sizes

    pipeline, machine = parse_pipeline(passes), load_machine(target)
    kinds: list[str] = []
    started = False

    def failure(module: Module) -> tuple[str, str] | None:
        """The kind of it and a sentence."""
        context = Context(machine, sizes=example_sizes(module))
        reference = Equivalence(seed)
        nonlocal started
        try:
            reference.start(module)
        except Exception as error:  # what can't be run before the passes says nothing about them
            if not started:
                raise failed("running it before the passes", error) from error
            return None
        started = True
        try:
            left = PassManager(pipeline).run(module, context)
            Verifier().check(left)
        except Exception as error:
            cause = error.__cause__ if isinstance(error, CodesignError) and error.__cause__ else error
            said = error.one_line() if isinstance(error, CodesignError) else f"{type(error).__name__}: {error}"
            return type(cause).__name__, said
        try:
            reference.check(left, f"--passes {passes}")
        except CodesignError as error:
            return "results", error.message
        return None

    def how(module: Module) -> str:
        kind, said = failure(module) or ("", "")
        if kind and not kinds:
            kinds.append(kind)
        return said if kind in kinds else ""

    return how


def _predicate(name: str) -> Callable[[Module], str]:
    """What holds of a module, in a sentence; empty where the function says that it does not."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a file of the user's may fail in any way
        raise CodesignError(f"--predicate {name}: {error}", hint="give package.module:function") from error
    if not callable(found):
        raise CodesignError(f"--predicate {name} is not a function", hint="give package.module:function")

    answered = False

    def holds(candidate: Module) -> str:
        nonlocal answered
        try:
            answer = bool(found(candidate))
        except Exception as error:
            if answered:  # it was not written for what is left of the module
                return ""
            raise failed(f"--predicate {name}", error) from error
        answered = True
        return f"--predicate {name} holds" if answer else ""

    return holds


def _module(file: Path) -> Module:
    if file.suffix in (".py", ".pt2"):
        from codesign.lab.models import captured

        return captured(file).captured.module
    return parse(command.read_text(file), str(file))


def main() -> NoReturn:
    """Entry point of the command."""
    command.run(application, name="python -m codesign.reduce")


if __name__ == "__main__":
    main()
