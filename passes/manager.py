"""Passes, their registry, pipelines as text, and the manager that runs them.

A pass takes valid IR and leaves valid IR. It is a frozen dataclass whose fields are its options, so `fuse{policy=greedy}` parses
into the class and prints back from it. Verification, timing and printing happen between passes in the manager's observers; no
pass knows of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
import time
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

from codesign.ir.core import Block, Function, Module, Op, Value
from codesign.ir.errors import CodesignError, blamed
from codesign.passes.clone import clone_module
from codesign.passes.context import Context


class PassError(CodesignError):
    """A pass that failed, changed what the module computes, or left it invalid."""


class PipelineError(CodesignError):
    """A pipeline text that names an unknown pass or option, or does not parse; `column` counts from 1."""

    def __init__(self, message: str, *, column: int, hint: str | None = None) -> None:
        self.column = column
        super().__init__(message, place=f"--passes column {column}", hint=hint)


@dataclass(frozen=True)
class Pass:
    """Base of passes: subclasses set `name`, declare options as fields with defaults, and implement `run`."""

    name: ClassVar[str] = ""
    after_fusion: ClassVar[bool] = False
    """Whether the pass makes or needs fused groups."""

    def run(self, module: Module, context: Context) -> Module:
        """Transform the module (in place or not) and return it."""
        raise NotImplementedError

    def __str__(self) -> str:
        changed = [
            f"{f.name}={_print_value(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}{{{','.join(changed)}}}" if changed else self.name


class FunctionPass(Pass):
    """Base of passes that treat each block of each tensor-level function on its own, inner blocks first."""

    def run(self, module: Module, context: Context) -> Module:
        for function in module.functions.values():
            self._descend(module, function, function.body, context)
        return module

    def _descend(self, module: Module, function: Function, block: Block, context: Context) -> None:
        for op in block.ops:
            if op.opcode != "fusion":
                for inner in op.blocks():
                    self._descend(module, function, inner, context)
        self.run_block(module, block, context)

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        raise NotImplementedError


def replace_ops(block: Block, change: Callable[[Op], Sequence[Op]]) -> None:
    """Put what is made of each op in its place; the results of the last ones made stand for its own. An op of which nothing is made stays."""
    mapping: dict[Value, Value] = {}
    ops: list[Op] = []
    for op in block.ops:
        if mapping:
            op.replace(mapping)
        made = change(op)
        ops.extend(made or [op])
        if made:
            results = [value for one in made for value in one.results]
            mapping.update(zip(op.results, results[-len(op.results) :], strict=True))
    block.ops = ops
    block.yields = tuple(mapping.get(value, value) for value in block.yields)


PASSES: dict[str, type[Pass]] = {}
"""Every registered pass by name."""

ENTRY_POINTS = "codesign.passes"
"""The group of entry points by which an installed package gives a pass its name in pipelines."""


def register(cls: type[Pass]) -> type[Pass]:
    """Class decorator: makes a pass known to pipelines under its name."""
    if not cls.name or not cls.__doc__:
        raise TypeError(f"pass {cls.__name__} needs a name and a docstring")
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"pass {cls.name} must be a frozen dataclass")
    PASSES[cls.name] = cls
    return cls


# -- pipelines as text ------------------------------------------------------------------------------------------------
_TOKEN = re.compile(r'\s*(?:(?P<word>[A-Za-z0-9_.:\-+*/]+)|(?P<text>"[^"]*")|(?P<sign>[{}=,]))')


def parse_pipeline(text: str) -> list[Pass]:
    """Passes from `name{option=value,...},name`; PipelineError points at the column that is wrong."""
    tokens: list[tuple[str, int]] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
            raise PipelineError(f"unexpected {text[column - 1]!r}", column=column)
        tokens.append((match.group().strip(), match.start(match.lastgroup or 0) + 1))
        position = match.end()
    tokens.append(("", len(text) + 1))
    passes: list[Pass] = []
    at = 0
    while tokens[at][0]:
        name, column = tokens[at]
        at += 1
        options: dict[str, tuple[str, int]] = {}
        if tokens[at][0] == "{":
            at += 1
            while tokens[at][0] != "}":
                if not tokens[at][0]:
                    raise PipelineError("missing '}'", column=tokens[at][1])
                key, place = tokens[at]
                if tokens[at + 1][0] != "=":
                    raise PipelineError(
                        f"option {key!r} needs a value", column=place, hint=f"write {name}{{{key}=value}}"
                    )
                value, value_at = tokens[at + 2]
                if not value or value in "{}=,":
                    raise PipelineError(f"option {key!r} needs a value, not {value!r}", column=value_at)
                options[key.replace("-", "_")] = (value.strip('"'), place)
                at += 3
                if tokens[at][0] == ",":
                    at += 1
            at += 1
        passes.append(_make(name, column, options))
        if tokens[at][0] == ",":
            at += 1
        elif tokens[at][0]:
            raise PipelineError(f"expected ',' between passes, found {tokens[at][0]!r}", column=tokens[at][1])
    return passes


def print_pipeline(passes: Iterable[Pass]) -> str:
    """The text that `parse_pipeline` reads back as the same passes."""
    return ",".join(str(one) for one in passes)


def make_pass(name: str, **options: Any) -> Pass:
    """A registered pass by name with option values; PipelineError when there is none."""
    return _lookup(name, 1)(**options)


def _lookup(name: str, column: int) -> type[Pass]:
    if name in PASSES:
        return PASSES[name]
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    try:
        if name in points:
            return _registered(points[name].load())
        if ":" in name:
            module, _, attribute = name.partition(":")
            return _registered(getattr(importlib.import_module(module), attribute))
    except Exception as error:  # a file of the user's may fail in any way
        hint = "give package.module:Class of a pass that can be imported from here"
        kind = "" if isinstance(error, (ImportError, AttributeError, TypeError)) else f"{type(error).__name__}: "
        raise PipelineError(f"pass {name!r}: {kind}{error}", column=column, hint=hint) from error
    known = [*PASSES, *points]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
    hint = f"nearest: {', '.join(near)}; or package.module:Class"
    raise PipelineError(f"unknown pass {name!r}", column=column, hint=hint)


def _registered(found: Any) -> type[Pass]:
    """A class from outside, known under its own name from now on, so that a pipeline with it prints and parses again."""
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise TypeError(f"{getattr(found, '__name__', found)} is not a subclass of codesign.passes.Pass")
    other = PASSES.get(found.name)
    if other is not None and other is not found:
        raise TypeError(f"its name {found.name!r} is taken by {other.__module__}.{other.__name__}")
    return register(found)


def _make(name: str, column: int, options: dict[str, tuple[str, int]]) -> Pass:
    cls = _lookup(name, column)
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, (text, place) in options.items():
        if key not in known:
            hint = f"options of {name}: {', '.join(known)}" if known else f"{name} takes no options"
            raise PipelineError(f"{name} has no option {key!r}", column=place, hint=hint)
        values[key] = _parse_value(text, hints[key], f"{name}.{key}", place)
    return cls(**values)


_KINDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def _parse_value(text: str, kind: Any, what: str, column: int) -> Any:
    try:
        if kind is bool:
            return {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}[text.lower()]
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
    except (ValueError, KeyError):
        raise PipelineError(f"{what} needs {_KINDS[kind]}, got {text!r}", column=column) from None
    return text


def _print_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text if re.fullmatch(r"[A-Za-z0-9_.:\-+*/]+", text) else f'"{text}"'


# -- running ----------------------------------------------------------------------------------------------------------
class Observer(Protocol):
    """What is told of each pass: verification, printing, snapshots."""

    def before(self, position: int, one: Pass, module: Module) -> None: ...

    def after(self, position: int, one: Pass, module: Module, seconds: float) -> None: ...


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one pass, and how many ops the module had after it."""

    name: str
    seconds: float
    ops: int


def count_ops(module: Module) -> int:
    """Ops of all functions, those in regions included."""
    return sum(1 for function in module.functions.values() for _ in function.body.walk())


@dataclass
class PassManager:
    """Runs passes in order on a copy of the module and tells its observers.

    `stop_after`: run only so many passes (bisection). `timings` holds one entry per pass of the last run.
    """

    passes: Sequence[Pass]
    observers: Sequence[Observer] = ()
    stop_after: int | None = None
    timings: list[Timing] = field(default_factory=list)

    def run(self, module: Module, context: Context | None = None) -> Module:
        """The transformed module; the given one is not changed."""
        context = context or Context()
        self.timings = []
        module = clone_module(module)
        for position, one in enumerate(self.passes[: self.stop_after]):
            for observer in self.observers:
                observer.before(position, one, module)
            start = time.perf_counter()
            module = _run(one, position, module, context)
            seconds = time.perf_counter() - start
            self.timings.append(Timing(str(one), seconds, count_ops(module)))
            for observer in self.observers:
                observer.after(position, one, module, seconds)
        return module


def _run(one: Pass, position: int, module: Module, context: Context) -> Module:
    """What the pass leaves; PassError, with the line that failed, for one from outside that fails or gives no module."""
    with blamed(f"pass {position + 1} ({one})", one, PassError):
        result = one.run(module, context)
    if not isinstance(result, Module):
        raise PassError(f"pass {position + 1} ({one}) returned {type(result).__name__}", hint="run returns the module")
    return result


def first_failure(
    passes: Sequence[Pass], module: Module, broken: Callable[[Module], bool], context: Context | None = None
) -> int:
    """How many passes it takes until `broken` holds, by bisection; 0 when the module is broken before any pass.

    Returns len(passes) + 1 when the whole pipeline is fine. Assumes that what is broken stays broken.
    """

    def bad(count: int) -> bool:
        return broken(PassManager(passes, stop_after=count).run(module, context))

    if bad(0):
        return 0
    if not bad(len(passes)):
        return len(passes) + 1
    good, wrong = 0, len(passes)
    while wrong - good > 1:
        middle = (good + wrong) // 2
        if bad(middle):
            wrong = middle
        else:
            good = middle
    return wrong
