"""Errors that a user can act on: one line of cause, the place, and what to do."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codesign.ir.location import Location


class CodesignError(Exception):
    """Base of every error that is the input's fault; commands print it as one line and exit with code 2."""

    def __init__(self, message: str, *, place: str | Location | None = None, hint: str | None = None) -> None:
        self.message = message
        self.place = str(place) if place else None
        self.hint = hint
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """The error as `place: cause; hint`, on a single line."""
        text = f"{self.place}: {self.message}" if self.place else self.message
        if self.hint:
            text = f"{unended(text)}; {self.hint}"
        return " ".join(text.split())


def unended(text: str) -> str:
    """A text after which something else comes: without the stop that other people's messages end with."""
    text = text.rstrip()
    return text if text.endswith("..") else text.removesuffix(".")


def raised_at(error: BaseException) -> str:
    """`file.py:12`, the line that raised an exception."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def failed(what: str, error: Exception, kind: type[CodesignError] | None = None) -> CodesignError:
    """The error that says that code of the user's failed, and on which line."""
    text = f"{what} failed: {type(error).__name__}: {error}"
    return (kind or CodesignError)(text, place=raised_at(error), hint="see all of it by --debug")


@contextmanager
def blamed(what: str, code: object, kind: type[CodesignError] | None = None) -> Iterator[None]:
    """What code of the user's (a class, or an object of one) does wrong meanwhile is one line with its place; what code of ours does is a fault
    of ours, and a CodesignError says already what it is."""
    try:
        yield
    except CodesignError:
        raise
    except Exception as error:
        if code.__module__.startswith("codesign."):
            raise
        raise failed(what, error, kind) from error


class ParseError(CodesignError):
    """A `.tile` text that does not parse: carries line, column and a caret picture.

    `line` and `column` count from 1; `source_line` is the offending line of text.
    """

    def __init__(self, message: str, *, file: str, line: int, column: int, source_line: str = "") -> None:
        self.line = line
        self.column = column
        self.source_line = source_line
        super().__init__(message, place=f"{file}:{line}:{column}")

    def picture(self) -> str:
        """The offending line with a caret under the column."""
        return f"{self.source_line}\n{' ' * (self.column - 1)}^"


class VerificationError(CodesignError):
    """IR that breaks a rule of its level; names the op, the value and the source line of the user's model."""


class UnsupportedError(CodesignError):
    """Something valid that this version can't do: names the op, its place, and what to do instead."""


class ScheduleError(CodesignError):
    """A schedule that does not apply to a kernel or does not fit a machine, and by how much."""


class MachineError(CodesignError):
    """A machine file that is malformed or inconsistent; the place is `file: field.path`."""


class EvaluationError(CodesignError):
    """What the interpreter can't run: an index outside a tensor, a constant without data, a missing external."""
