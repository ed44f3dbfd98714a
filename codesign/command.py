"""What every command shares: exit codes, one-line errors, JSON output, output directories, progress."""

from __future__ import annotations

import atexit
import gc
import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from codesign.ir.errors import CodesignError, ParseError, raised_at

INPUT_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130

# typer's own base of errors of usage: click's class, or the copy of it that newer versions carry.
_USAGE_ERROR: type = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """One line on stderr that begins with `error:`."""
    errors.print("[bold red]error:[/] ", end="")
    errors.print(" ".join(text.split()), markup=False)


def run(application: typer.Typer, *, name: str) -> NoReturn:
    """Run a command and exit: 0 on success, 2 on bad usage or input (one line of cause), 1 on our own failure."""
    debug = "--debug" in sys.argv[1:]
    try:
        code = typer.main.get_command(application).main(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # as newer versions of typer answer a Ctrl-C
            errors.print("interrupted")
        sys.exit(code if isinstance(code, int) else 0)
    except CodesignError as error:
        if debug:
            traceback.print_exc()
        complain(error.one_line())
        if isinstance(error, ParseError) and error.source_line:
            errors.print(error.picture(), markup=False)
        sys.exit(INPUT_ERROR)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        errors.print("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError as error:
        complain(f"this computer's memory does not hold it: {error}")
        sys.exit(INPUT_ERROR)
    except Exception as error:
        if isinstance(error, _USAGE_ERROR):
            message = error.format_message()  # type: ignore[attr-defined]
            complain(" ".join(message.split()).removesuffix(".") + f"; see `{name} --help`")
            sys.exit(INPUT_ERROR)
        # the last resort: our own failure, never a bare traceback unless asked for
        if debug:
            traceback.print_exc()
        errors.print("[bold red]internal failure:[/] ", end="")
        text = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        errors.print(f"{text} ({raised_at(error)}); run again with --debug", markup=False)
        sys.exit(INTERNAL_ERROR)


YOUNG = 20_000
"""Objects made before Python's collector looks through them: of Python's own 700 most are still in use then."""


@contextmanager
def importing() -> Iterator[None]:
    """Imports at length: what they make stays as long as the process, and Python's collector does not look through it, now nor later."""
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
            gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
            atexit.register(gc.unfreeze)  # else extension modules find their types in use at the end, and say so
        gc.enable()


def need(extra: str, *modules: str) -> None:
    """CodesignError naming the extra that brings them where one of these modules is not installed."""
    for name in modules:
        try:
            __import__(name)
        except ImportError as error:
            hint = f'pip install "codesign[{extra}]"'
            raise CodesignError(f"{name} is not installed, and this needs it", hint=hint) from error


def need_tables(*files: Path, pictures: bool = False) -> None:
    """What reads the tables, and draws them."""
    need("tables", "pandas")
    if any(file.suffix == ".parquet" for file in files):
        need("tables", "pyarrow")
    if pictures:
        need("tables", "matplotlib")


def page_at(path: Path | None) -> None:
    """See, before the work that it is to show, that a page can be drawn and written there; CodesignError otherwise."""
    if path is not None:
        need("lab", "jinja2", "matplotlib")
        file_at(path, "--report")


def file_at(path: Path | None, option: str = "-o") -> None:
    """See, before the work that it is to hold, that a file can be written there; CodesignError names the option that says where."""
    if path is not None:
        output_directory(path.parent, option)
        if path.is_dir():
            raise CodesignError("a folder, where a file is to be written", place=str(path))


def sizes(option: str, given: Iterable[str], example: str) -> dict[str, int]:
    """Sizes by name from a repeatable option; CodesignError names what is none."""
    found: dict[str, int] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name or not value.isdecimal() or int(value) < 1:
            raise CodesignError(f"{option} {item!r} is not NAME=SIZE", hint=f"as in {option} {example}")
        if found.setdefault(name, int(value)) != int(value):
            raise CodesignError(f"{option} gives {name} twice: {found[name]} and {value}", hint="leave one out")
    return found


def points(option: str, given: Iterable[str], example: str) -> list[dict[str, int]]:
    """Every combination of the sizes by name, of which each may have several (`batch=1,8`), as the options are given; one at least."""
    columns: dict[str, list[int]] = {}
    for item in given:
        name, equals, values = item.partition("=")
        each = [f"{name}={value}" for value in values.split(",")] if equals else [item]
        column = [sizes(option, [one], example)[name] for one in each]
        if columns.setdefault(name, column) != column:
            both = ",".join(map(str, dict.fromkeys(columns[name] + column)))
            raise CodesignError(f"{option} gives {name} twice", hint=f"for several sizes write {option} {name}={both}")
    return [dict(zip(columns, row, strict=True)) for row in itertools.product(*columns.values())]


def read_text(path: Path) -> str:
    """The text of a file; CodesignError where it can't be read or is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CodesignError("not a text file", place=str(path)) from error
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or "can't be read").lower()
        raise CodesignError(reason, place=str(path)) from error


def print_json(document: Any) -> None:
    """One JSON document on stdout, and nothing else there."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def output_directory(path: Path | None, option: str = "-o") -> Path | None:
    """Make the directory and see that it can be written; CodesignError names the option that says where."""
    if path is None:
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise CodesignError(
            f"the output directory can't be written: {error.strerror}",
            place=str(path),
            hint=f"choose another with {option}",
        ) from error
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a whole file or nothing: into a neighbour first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


class Steps:
    """Progress of long work, on the terminal only: `step` names what is being done, `each` counts through a list."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None) if progress else None

    def step(self, text: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=text, total=None, completed=0)

    def each(self, text: str, total: int, done: int = 0) -> Callable[[], None]:
        """Start counting, from what is done already on; the returned function ticks."""
        if self._progress is None or self._task is None:
            return lambda: None
        progress, task = self._progress, self._task
        progress.reset(task, description=text, total=total, completed=done)
        return lambda: progress.advance(task)


@contextmanager
def progress(show: bool) -> Iterator[Steps]:
    """A progress display on stderr while the block runs; silent when stderr is no terminal."""
    if not show or not errors.is_terminal:
        yield Steps(None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        yield Steps(bar)
