"""Functions over arrays of numbers, run as machine code where there is a C compiler.

What loops over millions of numbers is written once, in a small part of Python: functions of a record and of numbers, whose statements are
assignments, `if`, `while`, `break`, `continue`, `return` and calls of each other, on numbers and on elements of the record's arrays. A
`Routine` translates them to C, and compiles that once for each version of their text; without a compiler Python runs them as they stand.
Division and remainder are of numbers not below zero, on which both languages agree.

A record may have arrays `by row`: then the functions are of one row, and machine code takes the rows one after the other. Python takes all of them at
once, as NumPy vectors; so what differs from row to row is chosen by `where`, looked up by `at` and `put`, and a loop goes on while
it does for `some` row, under a `mask` of those. Both do the same operations on each row, so that their results are equal.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from codesign.costmodel.cache import cache_folder, write_atomically

R = TypeVar("R")
_FLAGS = ("-O2", "-std=c99", "-shared", "-fPIC", "-ffp-contract=off")
_C_TYPES = {int: "int64_t", float: "double"}
_CTYPES: dict[type, Any] = {int: ctypes.c_int64, float: ctypes.c_double}
_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "/", ast.Mod: "%"}
_BINARY |= {ast.BitAnd: "&", ast.BitOr: "|"}
_COMPARED = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}


FloatsByRow: TypeAlias = Annotated[npt.NDArray[np.float64], "by row"]
"""A field [rows, n]: each row has n numbers; with a single row, all have these, and what is written there is scratch."""
TableByRow: TypeAlias = Annotated[npt.NDArray[np.float64], "by row", "at places of its own"]
"""The same, of which each row has its own place each time: only for `at`, `put`, `fill` and `shift`."""
IntsByRow: TypeAlias = Annotated[npt.NDArray[np.int64], "by row"]
RowFloat: TypeAlias = Annotated[Any, float]
"""A number of a row."""
RowInt: TypeAlias = Annotated[Any, int]
"""A whole number of a row, or whether something holds for it."""


def larger(a: Any, b: Any) -> Any:
    """The larger of two numbers, row by row."""
    return np.maximum(a, b)


def smaller(a: Any, b: Any) -> Any:
    """The smaller of two numbers, row by row."""
    return np.minimum(a, b)


def where(holds: Any, a: Any, b: Any) -> Any:
    """One number for rows for which something holds, another one for the others."""
    return a if holds is True else np.where(holds, a, b)


def mask(holds: Any) -> Any:
    """What holds for rows, made simple where it does for all."""
    return True if np.all(holds) else holds


def some(holds: Any) -> bool:
    """Whether something holds for some row."""
    return bool(np.any(holds))


def at(array: Any, place: Any) -> Any:
    """What each row has at a place of its own."""
    if isinstance(array, np.ndarray):
        return array[place, np.arange(array.shape[1])]
    first, last = int(np.min(place)), int(np.max(place))
    found = array[first]
    for other in range(first + 1, last + 1):
        found = np.where(place == other, array[other], found)
    return found


def put(array: npt.NDArray[np.float64], place: Any, value: Any) -> None:
    """Put a number where each row has a place of its own."""
    array[place, np.arange(array.shape[1])] = value


def fill(array: Any, begin: int, end: int, value: float) -> None:
    """Give all places from one to another the same number."""
    array[begin:end] = value if isinstance(array, np.ndarray) else [value] * (end - begin)


def shift(array: Any, begin: int, end: int, by: Any) -> None:
    """Add a number of the row to all places from one to another."""
    if isinstance(array, np.ndarray):
        array[begin:end] += by
    else:
        array[begin:end] = [value + by for value in array[begin:end]]


_HELP: dict[Callable[..., Any], tuple[str, type | None]] = {
    larger: ("row_larger({0}, {1})", float),
    smaller: ("row_smaller({0}, {1})", float),
    where: ("({0} ? {1} : {2})", None),
    mask: ("({0})", int),
    some: ("({0})", int),
    at: ("{0}[{1}]", None),
    put: ("{0}[{1}] = {2}", None),
    fill: ("row_fill({0}, {1}, {2}, {3})", int),
    shift: ("row_shift({0}, {1}, {2}, {3})", int),
}
"""The functions above as calls in C, and the type of the result where it isn't that of the arguments."""
_HELPERS = """\
static inline double row_larger(double a, double b) { return a > b ? a : b; }
static inline double row_smaller(double a, double b) { return a < b ? a : b; }
static inline void row_fill(double *array, int64_t begin, int64_t end, double value) {
  for (int64_t place = begin; place < end; place++) array[place] = value;
}
static inline void row_shift(double *array, int64_t begin, int64_t end, double by) {
  for (int64_t place = begin; place < end; place++) array[place] += by;
}
"""


@dataclass(frozen=True)
class _Field:
    """A number of a record, or an array of them."""

    number: type
    many: bool
    by_row: bool
    table: bool = False

    @classmethod
    def of(cls, hint: Any) -> _Field:
        if hint in (int, float):
            return cls(hint, False, False)
        by_row = get_origin(hint) is Annotated
        array, *said = get_args(hint) if by_row else (hint,)
        (dtype,) = get_args(get_args(array)[1])
        return cls({np.int64: int, np.float64: float}[dtype], True, by_row, len(said) > 1)

    def side_by_side(self, array: npt.NDArray[Any], rows: int) -> Any:
        """An array as Python takes it for all rows at once: by row a list of vectors, which are never changed in place."""
        if self.table:
            return np.array(np.broadcast_to(array.T, (array.shape[1], rows)))
        return list(np.ascontiguousarray(array.T)) if self.by_row else array.tolist()


class Routine(Generic[R]):
    """Functions of a record, the last of which is called with it: `Routine(Record, helper, main)(record)`.

    The record is a dataclass of `int`, `float`, and arrays of int64 and float64; it is changed in place. With arrays by row it has their number,
    `rows`, and only what is in those arrays is changed.
    """

    def __init__(self, record: type[R], *functions: Callable[..., Any]) -> None:
        self.fields = {name: _Field.of(hint) for name, hint in get_type_hints(record, include_extras=True).items()}
        self.functions = functions
        self.by_row = any(field.by_row for field in self.fields.values())
        self._entry: Any = None
        self._structure: Any = None

    def __call__(self, record: R, *, compiled: bool = True) -> None:
        """Run it; `compiled` false in Python even where there is a compiler."""
        entry = self._compiled() if compiled else None
        if entry is None:
            if self.by_row:
                self._side_by_side(record)
            else:
                self._interpret(record)
            return
        structure = self.structure()
        for name, field in self.fields.items():
            value = getattr(record, name)
            if field.many:
                if not (value.dtype == np.dtype(field.number) and value.flags.c_contiguous):
                    raise TypeError(f"field {name}: an array of {np.dtype(field.number)} without gaps is asked for")
                if field.by_row:
                    setattr(structure, f"{name}_step", 0 if len(value) == 1 else value.shape[1])
                value = value.ctypes.data
            setattr(structure, name, value)
        entry(ctypes.byref(structure))
        for name, field in self.fields.items():
            if not field.many and not self.by_row:
                setattr(record, name, getattr(structure, name))

    def _interpret(self, record: Any) -> None:
        arrays = {name: getattr(record, name) for name, field in self.fields.items() if field.many}
        lists = replace(record, **{name: array.tolist() for name, array in arrays.items()})
        self.functions[-1](lists)
        for name, field in self.fields.items():
            if field.many:
                arrays[name][:] = getattr(lists, name)
            else:
                setattr(record, name, getattr(lists, name))

    def _side_by_side(self, record: Any) -> None:
        """All rows at once."""
        arrays = {name: getattr(record, name) for name, field in self.fields.items() if field.many}
        lists = {name: self.fields[name].side_by_side(array, record.rows) for name, array in arrays.items()}
        with np.errstate(all="ignore"):  # of rows for which what is worked out is not asked for
            self.functions[-1](replace(record, **lists))
        for name, array in arrays.items():
            if self.fields[name].by_row and len(array) == record.rows:
                for place, values in enumerate(lists[name]):
                    array[:, place] = values

    def _compiled(self) -> Any:
        """The last function as machine code; None without a compiler."""
        if self._entry is None:
            path = compiled_library(self.text())
            self._entry = path and getattr(ctypes.CDLL(str(path)), self.entry)
            if path is None:
                self._entry = False
        return self._entry or None

    @property
    def entry(self) -> str:
        """The function in C that does it all."""
        return "for_each_row" if self.by_row else self.functions[-1].__name__

    def structure(self) -> ctypes.Structure:
        """The record as C sees it."""
        if self._structure is None:
            fields = [
                (name, ctypes.c_void_p if field.many else _CTYPES[field.number]) for name, field in self.fields.items()
            ]
            fields += [(f"{name}_step", ctypes.c_int64) for name, field in self.fields.items() if field.by_row]
            self._structure = type("Record", (ctypes.Structure,), {"_fields_": fields})
        made: ctypes.Structure = self._structure()
        return made

    def text(self) -> str:
        """The functions in C."""
        rows = [name for name, field in self.fields.items() if field.by_row]
        members = "".join(
            f"  {_C_TYPES[field.number]} {'*' if field.many else ''}{name};\n" for name, field in self.fields.items()
        )
        members += "".join(f"  int64_t {name}_step;\n" for name in rows)
        results = {f.__name__: _result(f) for f in self.functions}
        parts = [_Translation(f, self.fields, results).text() for f in self.functions]
        if rows:
            moved = "".join(f"    one.{name} += row * all->{name}_step;\n" for name in rows)
            loop = "  for (int64_t row = 0; row < all->rows; row++) {\n    Record one = *all;\n"
            call = f"    {self.functions[-1].__name__}(&one);\n  }}\n"
            parts.append(f"void {self.entry}(Record *all) {{\n{loop}{moved}{call}}}\n")
        last = parts.pop()
        head = f"#include <stdint.h>\n\n{_HELPERS}\ntypedef struct {{\n{members}}} Record;\n\n"
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


def _number(hint: Any) -> Any:
    """The type of number that a parameter or a result is of."""
    return get_args(hint)[1] if get_origin(hint) is Annotated else hint


def _result(function: Callable[..., Any]) -> type | None:
    hint = _number(get_type_hints(function, include_extras=True)["return"])
    return hint if hint in (int, float) else None


class _Translation:
    """One function in C. An expression is translated to its text and type; a variable has the type of what is first put into it."""

    def __init__(
        self,
        function: Callable[..., Any],
        fields: Mapping[str, _Field],
        results: Mapping[str, type | None],
    ) -> None:
        self.function, self.fields, self.results = function, fields, results
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(tree, ast.FunctionDef)
        self.tree = tree
        hints = {name: _number(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
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
                return f"{self.record}->{name}", self.fields[name].number
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
                others = "".join(f", {self._expression(value)[0]}" for value in rest)
                return f"{name}({self.record}{others})", self.results[name] or int
            case ast.Call(func=ast.Name(id=name), args=arguments) if self.function.__globals__.get(name) in _HELP:
                text, number = _HELP[self.function.__globals__[name]]
                given = [self._expression(argument) for argument in arguments]
                kinds = {kind for _, kind in given[name == "where" : 1 if name == "at" else None]}
                return text.format(*(part for part, _ in given)), number or (float if float in kinds else int)
        raise self._unknown(node)

    def _unknown(self, node: ast.AST) -> TypeError:
        return TypeError(
            f"{self.function.__name__}: `{ast.unparse(node)}` is not of the part of Python that is translated"
        )
