"""Names that leave a module: of kernels, programs and calls, which become file names and identifiers further down.

A module may come from a stranger. What it calls things is checked once, here, so that a name can be neither a path nor a piece of code; texts
that are shown only (locations, notes) may be anything printable and are made harmless where they are written.
"""

from __future__ import annotations

import keyword
import re
from typing import Any

from codesign.ir.dtypes import DTYPES
from codesign.ir.errors import VerificationError
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.tensor import Call
from codesign.ir.verify.expressions import fail

LONGEST = 200
"""Letters of a name: with an ending it fits into a file name of any file system."""

_NAME = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_.$-]*", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TARGET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)
_INPUT = re.compile(r"%([0-9]{1,5})(?::([0-9]{1,2}(?:,[0-9]{1,2})*))?", re.ASCII)
_CONSTANT = re.compile(r"torch\.[a-z_][a-z0-9_]*", re.ASCII)


def check_name(kind: str, name: str, location: Location = UNKNOWN) -> None:
    """A name of something that becomes a file or a function: letters, digits, `_ . $ -`, not beginning with `.` or `-`."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise VerificationError(
            f"{kind} has the name {_shown(name)}",
            place=location,
            hint=f"names are up to {LONGEST} letters, digits, _, ., $ and -, and begin with none of . and -",
        )


def check_call(op: Call) -> None:
    """The target of a call is a dotted path of identifiers, its keywords are identifiers, and its texts say what they may."""
    if not _TARGET.fullmatch(op.target) or any(_hidden(part) for part in op.target.split(".")):
        fail(op, f"calls {_shown(op.target)}, which is no operator", hint="as in aten.sort.default")
    for key, value in op.attributes.items():
        if not _IDENTIFIER.fullmatch(key) or keyword.iskeyword(key):
            fail(op, f"has an argument named {_shown(key)}, which is no identifier")
        _check_value(op, key, value)


def _hidden(part: str) -> bool:
    """`__class__` and its like: attributes of Python's objects. Operators such as `__and__` are called by overloads of `aten`."""
    return part.startswith("__") and part.endswith("__") and part not in _DUNDER_OPERATORS


_DUNDER_OPERATORS = frozenset(
    f"__{inplace}{name}__" for name in ("and", "or", "xor", "lshift", "rshift") for inplace in ("", "i", "r")
)


def _check_value(op: Call, key: str, value: Any) -> None:
    if isinstance(value, tuple | list):
        for item in value:
            _check_value(op, key, item)
    elif isinstance(value, str):
        known = True
        if value.startswith("%"):
            known = _names_an_input(op, value)
        elif value.startswith("dtype:"):
            known = value.removeprefix("dtype:") in DTYPES
        elif value.startswith("torch."):
            known = _CONSTANT.fullmatch(value) is not None
        if not known:
            fail(op, f"has the argument {key} = {_shown(value)}, which names nothing")


def _names_an_input(op: Call, text: str) -> bool:
    """`%0`, or `%0:1,0` with an order of its dims."""
    found = _INPUT.fullmatch(text)
    if found is None or int(found[1]) >= len(op.inputs):
        return False
    rank = len(op.inputs[int(found[1])].shape)
    return found[2] is None or sorted(map(int, found[2].split(","))) == list(range(rank))


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
