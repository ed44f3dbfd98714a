"""Functions over arrays of numbers, run as machine code where there is a C compiler.

What loops over millions of numbers is written once, in a small part of Python: functions of a record and of numbers, whose statements are
assignments, `if`, `while`, `break`, `continue`, `return` and calls of each other, on numbers and on elements of the record's arrays. A
`Routine` translates them to C, and compiles that once for each version of their text; without a compiler Python runs them as they stand.
Division and remainder are of numbers not below zero, on which both languages agree.
"""

from __future__ import annotations

import ast
import ctypes
import hashlib
import inspect
import os
import platform
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import numpy as np

from codesign.backends.cache import cache_folder, write_atomically

R = TypeVar("R")
_FLAGS = ("-O2", "-std=c99", "-shared", "-fPIC", "-ffp-contract=off")
_C_TYPES = {int: "int64_t", float: "double"}
_CTYPES: dict[type, Any] = {int: ctypes.c_int64, float: ctypes.c_double}
_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "/", ast.Mod: "%"}
_COMPARED = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


class Routine(Generic[R]):
    """Functions of a record, the last of which is called with it: `Routine(Record, helper, main)(record)`.

    The record is a dataclass of `int`, `float`, and arrays of int64 and float64; it is changed in place.
    """

    def __init__(self, record: type[R], *functions: Callable[..., Any]) -> None:
        self.fields = {name: _field(hint) for name, hint in get_type_hints(record).items()}
        self.functions = functions
        self._entry: Any = None

    def __call__(self, record: R, *, compiled: bool = True) -> None:
        """Run it; `compiled` false in Python even where there is a compiler."""
        entry = self._compiled() if compiled else None
        if entry is None:
            self._interpret(record)
            return
        structure = self.structure()
        for name, (number, many) in self.fields.items():
            value = getattr(record, name)
            if many and not (value.dtype == np.dtype(number) and value.flags.c_contiguous):
                raise TypeError(f"field {name}: an array of {np.dtype(number)} without gaps is asked for")
            setattr(structure, name, value.ctypes.data_as(ctypes.POINTER(_CTYPES[number])) if many else value)
        entry(ctypes.byref(structure))
        for name, (_, many) in self.fields.items():
            if not many:
                setattr(record, name, getattr(structure, name))

    def _interpret(self, record: Any) -> None:
        arrays = {name: getattr(record, name) for name, (_, many) in self.fields.items() if many}
        lists = replace(record, **{name: array.tolist() for name, array in arrays.items()})
        self.functions[-1](lists)
        for name, (_, many) in self.fields.items():
            if many:
                arrays[name][:] = getattr(lists, name)
            else:
                setattr(record, name, getattr(lists, name))

    def _compiled(self) -> Any:
        """The last function as machine code; None without a compiler."""
        if self._entry is None:
            path = compiled_library(self.text())
            self._entry = path and getattr(ctypes.CDLL(str(path)), self.functions[-1].__name__)
            if path is None:
                self._entry = False
        return self._entry or None

    def structure(self) -> ctypes.Structure:
        """The record as C sees it."""
        fields = [
            (name, ctypes.POINTER(_CTYPES[number]) if many else _CTYPES[number])
            for name, (number, many) in self.fields.items()
        ]
        made: ctypes.Structure = type("Record", (ctypes.Structure,), {"_fields_": fields})()
        return made

    def text(self) -> str:
        """The functions in C."""
        members = "".join(
            f"  {_C_TYPES[number]} {'*' if many else ''}{name};\n" for name, (number, many) in self.fields.items()
        )
        results = {f.__name__: _result(f) for f in self.functions}
        parts = [_Translation(f, self.fields, results).text() for f in self.functions]
        last = parts.pop()
        head = f"#include <stdint.h>\n\ntypedef struct {{\n{members}}} Record;\n\n"
        return head + "".join(f"static {part}\n" for part in parts) + last


def compiled_library(text: str) -> Path | None:
    """The shared library of a C text, from the cache or made now; None where there is no compiler, or it fails."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        return None
    key = hashlib.sha256("\n".join([text, compiler, platform.machine(), *_FLAGS]).encode()).hexdigest()
    folder = cache_folder("native", key[:24])
    library, digest = folder / "routine.so", folder / "digest"
    try:
        if hashlib.sha256(library.read_bytes()).hexdigest() == digest.read_text():
            return library
    except OSError:
        pass
    with tempfile.TemporaryDirectory() as made:
        source, built = Path(made) / "routine.c", Path(made) / "routine.so"
        source.write_text(text)
        command = [compiler, *_FLAGS, "-o", str(built), str(source)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        data = built.read_bytes()
    write_atomically(library, data)
    write_atomically(digest, hashlib.sha256(data).hexdigest().encode())
    return library


def _field(hint: Any) -> tuple[type, bool]:
    """A field's type of number, and whether it is an array of them."""
    if hint in (int, float):
        return hint, False
    (dtype,) = get_args(get_args(hint)[1])
    return {np.int64: int, np.float64: float}[dtype], True


def _result(function: Callable[..., Any]) -> type | None:
    hint = get_type_hints(function)["return"]
    return hint if hint in (int, float) else None


class _Translation:
    """One function in C. An expression is translated to its text and type; a variable has the type of what is first put into it."""

    def __init__(
        self,
        function: Callable[..., Any],
        fields: Mapping[str, tuple[type, bool]],
        results: Mapping[str, type | None],
    ) -> None:
        self.function, self.fields, self.results = function, fields, results
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(tree, ast.FunctionDef)
        self.tree = tree
        hints = get_type_hints(function)
        self.record, *names = [argument.arg for argument in tree.args.args]
        self.known: dict[str, type] = {name: hints[name] for name in names}
        self.parameters = dict(self.known)

    def text(self) -> str:
        body = self._block(self.tree.body, 1)
        result = self.results[self.function.__name__]
        arguments = "".join(f", {_C_TYPES[kind]} {name}" for name, kind in self.parameters.items())
        own = {name: kind for name, kind in self.known.items() if name not in self.parameters}
        declared = "".join(f"  {_C_TYPES[kind]} {name} = 0;\n" for name, kind in own.items())
        return f"{_C_TYPES.get(result or object, 'void')} {self.tree.name}(Record *{self.record}{arguments}) {{\n{declared}{body}}}\n"

    def _block(self, body: list[ast.stmt], depth: int) -> str:
        return "".join(self._statement(statement, "  " * depth, depth) for statement in body)

    def _statement(self, node: ast.stmt, space: str, depth: int) -> str:
        match node:
            case ast.Expr(value=ast.Constant()):  # a docstring
                return ""
            case ast.Expr(value=value):
                return f"{space}{self._expression(value)[0]};\n"
            case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
                text, kind = self._expression(value)
                if isinstance(target, ast.Name):
                    kind = self.known.setdefault(target.id, kind)
                return f"{space}{self._expression(target)[0]} = {text};\n"
            case ast.AugAssign(target=target, op=op, value=value):
                return f"{space}{self._expression(target)[0]} {_BINARY[type(op)]}= {self._expression(value)[0]};\n"
            case ast.If(test=test, body=body, orelse=orelse):
                text = f"{space}if ({self._expression(test)[0]}) {{\n{self._block(body, depth + 1)}{space}}}"
                return text + (f" else {{\n{self._block(orelse, depth + 1)}{space}}}\n" if orelse else "\n")
            case ast.While(test=test, body=body, orelse=[]):
                return f"{space}while ({self._expression(test)[0]}) {{\n{self._block(body, depth + 1)}{space}}}\n"
            case ast.Break():
                return f"{space}break;\n"
            case ast.Continue():
                return f"{space}continue;\n"
            case ast.Return(value=value):
                return f"{space}return{'' if value is None else ' ' + self._expression(value)[0]};\n"
        raise self._unknown(node)

    def _expression(self, node: ast.expr) -> tuple[str, type]:
        match node:
            case ast.Constant(value=bool() | int() as value):
                return str(int(value)), int
            case ast.Constant(value=float() as value):
                return repr(value), float
            case ast.Name(id=name) if name in self.known:
                return name, self.known[name]
            case ast.Name(id=name) if isinstance(constant := self.function.__globals__.get(name), int | float):
                return repr(constant), type(constant)
            case ast.Attribute(value=ast.Name(id=self.record), attr=name) if name in self.fields:
                return f"{self.record}->{name}", self.fields[name][0]
            case ast.Subscript(value=ast.Attribute() as array, slice=place):
                text, kind = self._expression(array)
                return f"{text}[{self._expression(place)[0]}]", kind
            case ast.BinOp(left=left, op=op, right=right):
                (a, first), (b, second) = self._expression(left), self._expression(right)
                if isinstance(op, ast.Div):
                    return f"({a} / (double){b})", float
                return f"({a} {_BINARY[type(op)]} {b})", float if float in (first, second) else int
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return f"({self._expression(left)[0]} {_COMPARED[type(op)]} {self._expression(right)[0]})", int
            case ast.BoolOp(op=op, values=values):
                sign = " && " if isinstance(op, ast.And) else " || "
                return f"({sign.join(self._expression(value)[0] for value in values)})", int
            case ast.UnaryOp(op=op, operand=operand):
                text, kind = self._expression(operand)
                return f"({'!' if isinstance(op, ast.Not) else '-'}{text})", kind
            case ast.IfExp(test=test, body=body, orelse=orelse):
                (a, first), (b, second) = self._expression(body), self._expression(orelse)
                return f"({self._expression(test)[0]} ? {a} : {b})", float if float in (first, second) else int
            case ast.Call(func=ast.Name(id=name), args=[ast.Name(id=self.record), *rest]) if name in self.results:
                given = "".join(f", {self._expression(value)[0]}" for value in rest)
                return f"{name}({self.record}{given})", self.results[name] or int
        raise self._unknown(node)

    def _unknown(self, node: ast.AST) -> TypeError:
        return TypeError(
            f"{self.function.__name__}: `{ast.unparse(node)}` is not of the part of Python that is translated"
        )
