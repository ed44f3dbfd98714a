"""What a parsed accelerator program means: the tree of its text to a `Program`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import lark

from codesign.ir.core import Value
from codesign.ir.dtypes import DTYPES, F1E1M0, F4E2M1, F4X2, F8E4M3, F8E8M0, F32, I64, DType
from codesign.ir.functions import FUNCTIONS, result_dtype
from codesign.ir.index import Index, index, maximum, minimum
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.precision import PRECISIONS
from codesign.ir.program import (
    ENGINES,
    Instruction,
    Keep,
    Load,
    Loop,
    Matmul,
    Program,
    Scratch,
    Semaphore,
    Set,
    Share,
    Stage,
    Statement,
    Store,
    Sync,
    Vector,
    Wait,
    buffer_shape,
    scratch,
)
from codesign.ir.scalar import Apply, IndexValue, Read, Scalar
from codesign.ir.scalar import Literal as ScalarLiteral
from codesign.ir.tensor import MONOIDS
from codesign.ir.tile import Atomic, Axis, Guard
from codesign.ir.types import BufferType, row_major

_AnyInstruction = TypeVar("_AnyInstruction", bound=Instruction)
_SYMBOLS = {row.symbol: row.name for row in FUNCTIONS.values() if row.symbol}


def _dtype(name: str) -> DType:
    if name not in DTYPES:
        raise ValueError(f"unknown element type '{name}'; known: {', '.join(DTYPES)}")
    return DTYPES[name]


def _listed(items: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(item for item in items if item is not None)


@lark.v_args(inline=True)
class ProgramBuilder(lark.Transformer[Any, Any]):
    """Builds a program from its tree; declarations are met before the statements that use them."""

    def __init__(self) -> None:
        super().__init__()
        self._reset()

    def _reset(self) -> None:
        self.buffers: dict[str, Value] = {}
        self.resting: dict[str, str] = {}
        self.scratches: dict[str, Scratch] = {}
        self.semaphores_known: dict[str, Semaphore] = {}
        self.lets: dict[str, Scalar] = {}

    def start(self, *programs: Program) -> list[Program]:
        return list(programs)

    def program(
        self, name: str, inputs: Any, results: Any, cores: str, joined: str | None, dataflow: str | None, *rest: Any
    ) -> Program:
        body = [item for item in rest if isinstance(item, Instruction | Set | Loop)]
        program = Program(
            name[1:],
            [*inputs, *results],
            len(results),
            int(cores),
            list(self.scratches.values()),
            list(self.semaphores_known.values()),
            body,
            dataflow or "",
            resting=dict(self.resting),
            joined=joined is not None,
        )
        self._reset()
        return program

    # declarations
    def params(self, *items: Any) -> list[Value]:
        return list(_listed(items))

    def param(self, name: str, dtype: str, sizes: Any, strides: Any, place: str | None) -> Value:
        shape = tuple(index(size) for size in sizes)
        steps = row_major(shape) if strides is None else tuple(index(s) for s in strides)
        value = Value(BufferType(_dtype(dtype), shape, steps), str(name[1:]))
        if value.name in self.buffers:
            raise ValueError(f"buffer %{value.name} is declared twice")
        self.buffers[value.name] = value
        if place is not None:
            self.resting[value.name] = str(place)
        return value

    def sizes(self, *items: Any) -> tuple[int, ...]:
        return tuple(int(item) for item in _listed(items))

    def dataflow(self, name: str | None) -> str | None:
        return None if name is None else str(name)

    def scratch(self, name: str, dtype: str, sizes: Any, address: str, level: str | None, over: str | None) -> Scratch:
        if name in self.scratches:
            raise ValueError(f"scratch {name} is declared twice")
        self.scratches[str(name)] = scratch(str(name), _dtype(dtype), sizes, int(address), str(level or "core"))
        self.scratches[str(name)].over = int(over or 1)
        return self.scratches[str(name)]

    def semaphores(self, *names: Any) -> None:
        scope = str(names[-1] or "core")
        if scope not in ("core", "cluster", "chip"):
            raise ValueError(f"a semaphore is in core, cluster or chip, not in '{scope}'")
        for name in names[:-1]:
            if name in self.semaphores_known:
                raise ValueError(f"semaphore {name} is declared twice")
            self.semaphores_known[str(name)] = Semaphore(str(name), cast(Any, scope))

    # statements
    def loop(self, variable: str, lower: Index, upper: Index, step: Index, count: str | None, *body: Statement) -> Loop:
        return Loop(str(variable), lower, upper, step, list(body), str(count or ""))

    def set(self, name: str, value: Index) -> Set:
        return Set(str(name), value)

    def load(self, target: Read, axes: Any, memory: Any, *clauses: Any) -> Load:
        return self._load(Load, target, axes, memory, *clauses)

    def stage(self, target: Read, axes: Any, memory: Any, *clauses: Any) -> Load:
        return self._load(Stage, target, axes, memory, *clauses)

    def half(self, value: Index | None) -> Index | None:
        return value

    def _load(self, kind: type[Load], target: Read, axes: Any, memory: Any, *clauses: Any) -> Load:
        (source, indices), (half, guards, otherwise, share, keep, *rest) = memory, clauses
        pairs = (source.type.dtype, target.dtype) == (F4X2, F4E2M1)
        if pairs != (half is not None):
            raise ValueError(
                f"a load says `half` where it brings f4x2 into f4e2m1; {source.name} is {source.type.dtype}, "
                f"{target.source.name} is {target.dtype}"
            )
        return self._with(kind(target, axes, source, indices, guards, otherwise, share, keep, half), rest)

    def store(self, *items: Any) -> Store:
        atomic = None
        if isinstance(items[0], lark.Token):
            atomic = cast(Atomic, str(items[0]).removeprefix("atomic_"))
            items = items[1:]
        (target, indices), axes, source, guards, *rest = items
        return self._with(Store(target, indices, axes, source, guards, atomic), rest)

    def vector(self, target: Read, axes: Any, reduce: Any, body: Scalar, *rest: Any) -> Vector:
        monoid, reduced = reduce
        return self._with(Vector(target, axes, body, reduced, monoid), rest)

    def matmul(
        self, target: Read, sign: str, a: Any, b: Any, axes: Any, first: Any, precision: Any, *rest: Any
    ) -> Matmul:
        if len(axes) != 3:
            raise ValueError(f"matmul needs three axes (m, n, k), got {len(axes)}")
        (left, *left_scales), (right, *right_scales) = a, b
        for scale in (*left_scales, *right_scales):
            if scale.dtype not in (F8E8M0, F8E4M3, F1E1M0):
                raise ValueError(
                    f"a scale is of type f8e8m0 or f8e4m3, {scale.source.name} is {scale.dtype} (of pairs: f1e1m0)"
                )
        scales = (tuple(left_scales), tuple(right_scales))
        return self._with(Matmul(target, left, right, axes, sign == "+=", first, precision or "ieee", scales), rest)

    def factor(self, *places: Read) -> tuple[Read, ...]:
        return places

    def sync(self, engine: str, *rest: Any) -> Sync:
        if engine not in ENGINES:
            raise ValueError(f"unknown engine '{engine}'; engines are {', '.join(ENGINES)}")
        return self._with(Sync(cast(Any, str(engine))), rest)

    def _with(self, instruction: _AnyInstruction, rest: Sequence[Any]) -> _AnyInstruction:
        """The instruction with its last clauses: waits, signals, location."""
        instruction.waits, instruction.signals, instruction.location = rest
        return instruction

    def location(self, found: Location | None) -> Location:
        return found or UNKNOWN

    def place_in_source(self, file: str | None, line: str | None, module: str | None, origin: str | None) -> Location:
        texts = ["" if text is None else str(json.loads(text)) for text in (file, module, origin)]
        return Location(texts[0], int(line or 0), texts[1], texts[2])

    def places_in_source(self, *parts: Location) -> Location:
        return Location(parts=parts)

    # clauses
    def axes(self, *items: Any) -> tuple[Axis, ...]:
        return _listed(items)

    def axis(self, name: str, size: str) -> Axis:
        return Axis(str(name), int(size))

    def place(self, name: str, *indices: Any) -> Read:
        found = self.scratches.get(str(name))
        if found is None:
            raise ValueError(f"unknown scratch '{name}'")
        listed = _listed(indices)
        if len(listed) != len(found.shape):
            raise ValueError(f"scratch {name} has {len(found.shape)} dimensions but {len(listed)} indices")
        return Read(found.value, listed)

    def memory(self, name: str, *indices: Any) -> tuple[Value, tuple[Index, ...]]:
        listed = _listed(indices)
        if not name.startswith("%"):
            return self.place(name, *indices).source, listed
        value = self.buffers.get(name[1:])
        if value is None:
            raise ValueError(f"unknown buffer '{name}'")
        if len(listed) != len(buffer_shape(value)):
            raise ValueError(f"buffer {name} has {len(buffer_shape(value))} dimensions but {len(listed)} indices")
        return value, listed

    def guards(self, *items: Any) -> tuple[Guard, ...]:
        return _listed(items)

    def guard_both(self, low: Index, value: Index, high: Index) -> Guard:
        return Guard(value, low, high)

    def guard_below(self, value: Index, high: Index) -> Guard:
        return Guard(value, None, high)

    def guard_above(self, value: Index, low: Index) -> Guard:
        return Guard(value, low, None)

    def keep(self, place: Read | None, again: Index | None) -> Keep | None:
        return None if place is None or again is None else Keep(place, again)

    def share(self, key: Index | None, members: Index | None) -> Share | None:
        return None if key is None or members is None else Share(key, members)

    def otherwise(self, value: Any) -> ScalarLiteral | None:
        return cast(ScalarLiteral | None, value)

    def reduce(self, monoid: str | None, axes: Any) -> tuple[str | None, tuple[Axis, ...]]:
        if monoid is not None and monoid not in MONOIDS:
            raise ValueError(f"unknown reduction '{monoid}'; known: {', '.join(MONOIDS)}")
        return (None, ()) if monoid is None else (str(monoid), axes)

    def first(self, value: Any) -> Index | None:
        return cast(Index | None, value)

    def precision(self, name: str | None) -> str | None:
        if name is not None and name not in PRECISIONS:
            raise ValueError(f"unknown precision '{name}'; known: {', '.join(PRECISIONS)}")
        return None if name is None else str(name)

    def waits(self, *items: Any) -> tuple[Wait, ...]:
        return _listed(items)

    def wait(self, name: str, value: Index) -> Wait:
        self._semaphore(name)
        return Wait(str(name), value)

    def signals(self, *names: Any) -> tuple[str, ...]:
        for name in _listed(names):
            self._semaphore(name)
        return tuple(str(name) for name in _listed(names))

    def _semaphore(self, name: str) -> None:
        if name not in self.semaphores_known:
            raise ValueError(f"unknown semaphore '{name}'; declare it with `semaphore {name}`")

    # index expressions
    def index_integer(self, text: str) -> Index:
        return index(int(text))

    def index_name(self, name: str) -> Index:
        return index(str(name))

    def index_add(self, a: Index, b: Index) -> Index:
        return a + b

    def index_sub(self, a: Index, b: Index) -> Index:
        return a - b

    def index_mul(self, a: Index, b: Index) -> Index:
        return a * b

    def index_floordiv(self, a: Index, b: Index) -> Index:
        return a // b

    def index_mod(self, a: Index, b: Index) -> Index:
        return a % b

    def index_neg(self, a: Index) -> Index:
        return -a

    def index_min(self, *args: Index) -> Index:
        return minimum(*args)

    def index_max(self, *args: Index) -> Index:
        return maximum(*args)

    def index_data(self, value: Scalar) -> Index:
        return value.as_index()

    # scalar expressions
    def body(self, *items: Any) -> Scalar:
        self.lets = {}
        return cast(Scalar, items[-1])

    def binding(self, name: str, value: Scalar) -> None:
        self.lets[str(name)] = value

    def number(self, sign: Any, text: str) -> ScalarLiteral:
        digits, _, suffix = str(text).partition("_")
        real = not digits.isdigit()
        dtype = _dtype(suffix) if suffix else (F32 if real else I64)
        if real and not dtype.is_float:
            raise ValueError(f"{text} is not an integer")
        value = float(digits) if dtype.is_float else int(digits)
        return ScalarLiteral(-value if sign is not None else value, dtype)

    def boolean(self, text: str) -> ScalarLiteral:
        return ScalarLiteral(text == "true", DTYPES["bool"])

    def read(self, place: Read) -> Read:
        return place

    def name(self, name: str) -> Scalar:
        if str(name) not in self.lets:
            raise ValueError(f"unknown name '{name}' (indices as values are written index({name}))")
        return self.lets[str(name)]

    def call(self, name: str, *args: Any) -> Scalar:
        values = _listed(args)
        if name in DTYPES:
            if len(values) != 1:
                raise ValueError(f"conversion to {name} takes one argument")
            return Apply("cast", values, DTYPES[str(name)])
        if name.startswith("bitcast_") and name.removeprefix("bitcast_") in DTYPES:
            return Apply("bitcast", values, DTYPES[str(name.removeprefix("bitcast_"))])
        return Apply(str(name), values, result_dtype(str(name), tuple(v.dtype for v in values)))

    def infix(self, a: Scalar, symbol: str, b: Scalar) -> Scalar:
        name = _SYMBOLS[str(symbol)]
        return Apply(name, (a, b), result_dtype(name, (a.dtype, b.dtype)))

    def index_value(self, dtype: str | None, value: Index) -> IndexValue:
        return IndexValue(value, I64 if dtype is None else _dtype(str(dtype)))
