"""A module of the tensor IR as text of MLIR: one function on tensors, with dynamic sizes where the IR has symbols.

Weights are globals that are bound from outside (`#ml_program.extern`), small constants with data are written out. Sorting, random numbers
and external routines are calls of functions that the module declares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codesign.backends.mlir.compute import compute
from codesign.backends.mlir.loops import scan, scatter
from codesign.backends.mlir.scalars import Scalars
from codesign.backends.mlir.writer import Writer, dense, tensor
from codesign.ir.core import Block, Module, Op, Value, tensor_type
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, Index
from codesign.ir.tensor import Call, Collective, Compute, Constant, Empty, If, Random, Scan, Scatter, Sort, While

INLINE = 64
"""Elements up to which a constant with data is written out."""


@dataclass
class Emitter:
    """Writes ops in order; `names` of values and of size symbols, `globals` of weights by their name."""

    module: Module
    w: Writer
    inline: int
    values: dict[Value, str] = field(default_factory=dict)
    sizes: dict[str, str] = field(default_factory=dict)
    globals: dict[str, str] = field(default_factory=dict)

    @property
    def bounds(self) -> Bounds:
        return self.module.bounds()

    def scalars(self, names: dict[str, str] | None = None, bounds: Bounds | None = None) -> Scalars:
        """A writer of scalar expressions; `names`: of dims beside those of sizes."""
        return Scalars(self.w, {**self.sizes, **(names or {})}, self.values, bounds or self.bounds)

    def index(self, expression: Index) -> str:
        return self.scalars().index(expression)

    def empty(self, kind: Any) -> str:
        """An uninitialised tensor."""
        dynamic = ", ".join(self.index(size) for size in kind.shape if not size.is_constant)
        return self.w.value(f"tensor.empty({dynamic}) : {tensor(kind)}")

    # -- ops ----------------------------------------------------------------------------------------------------------
    def block(self, block: Block) -> list[str]:
        """The ops of a block; the names of what it yields."""
        for op in block.ops:
            self.op(op)
        return [self.values[value] for value in block.yields]

    def op(self, op: Op) -> None:
        rule = _RULES.get(type(op))
        if rule is None:
            raise UnsupportedError(f"{op.opcode} has no form in MLIR", place=op.location)
        try:
            rule(self, op)
        except UnsupportedError as error:
            raise UnsupportedError(error.message, place=error.place or op.location, hint=error.hint) from error


def mlir_text(module: Module, *, inline: int = INLINE) -> str:
    """The main function of a module, and what it needs beside it; `inline`: elements up to which constants are written out."""
    emitter = Emitter(module, Writer(depth=2), inline)
    main = module.main
    arguments = []
    for k, value in enumerate(main.args):
        emitter.values[value] = f"%arg{k}"
        arguments.append(f"%arg{k}: {tensor(value.type)}")
    for value in main.args:
        _bind_sizes(emitter, value)
    missing = sorted(set(module.symbols) - set(emitter.sizes))
    used = {name for op in main.body.walk() for result in op.results for n in result.shape for name in n.variables()}
    if used & set(missing):
        raise UnsupportedError(f"the size {missing[0]} is that of no argument", hint="give MLIR a tensor of that size")
    results = emitter.block(main.body)
    kinds = ", ".join(tensor(value.type) for value in main.results)
    emitter.w.line(f"return {', '.join(results)} : {kinds}" if results else "return")
    lines = ["module {"]
    lines += [f"  {text}" for text in emitter.globals.values()]
    lines += [f"  func.func private @{_symbol(name)}{kind}" for name, kind in sorted(emitter.w.declared.items())]
    lines += [f"  func.func @main({', '.join(arguments)}) -> ({kinds}) {{", *emitter.w.lines, "  }", "}"]
    return "\n".join(lines) + "\n"


def _bind_sizes(emitter: Emitter, value: Value) -> None:
    """Symbols by the sizes of an argument: a size `a s + b` gives s."""
    for axis, size in enumerate(value.shape):
        names = sorted(size.variables() - set(emitter.sizes))
        factor = size.coefficient(names[0]) if len(names) == 1 else None
        if factor is None or not factor.is_constant or factor == 0:
            continue
        w = emitter.w
        found = w.value(f"tensor.dim {emitter.values[value]}, {w.index(axis)} : {tensor(value.type)}", "size")
        rest = size - factor * names[0]
        if rest != 0:
            found = w.value(f"arith.subi {found}, {emitter.index(rest)} : index")
        if factor != 1:
            found = w.value(f"arith.floordivsi {found}, {w.index(factor.constant)} : index")
        emitter.sizes[names[0]] = found


def _symbol(name: str) -> str:
    """A name after `@`, quoted where it has to be."""
    return name if re.fullmatch(r"[A-Za-z_][\w$.]*", name) else '"' + re.sub(r'[\\"]', "_", name) + '"'


def _constant(e: Emitter, op: Constant) -> None:
    kind = tensor(op.result.type)
    data = e.module.constants.get(op.constant)
    count = int(np.prod(data.shape)) if data is not None else 0
    if data is not None and count <= e.inline:
        values = dense(np.asarray(data), tensor_type(op.result).dtype) if count else ""
        e.values[op.result] = e.w.value(f"arith.constant dense<{values}> : {kind}")
        return
    name = _symbol(op.constant)
    e.globals[op.constant] = f"ml_program.global private @{name}(#ml_program.extern : {kind}) : {kind}"
    e.values[op.result] = e.w.value(f"ml_program.global_load_const @{name} : {kind}")


def _empty(e: Emitter, op: Empty) -> None:
    e.values[op.result] = e.empty(op.result.type)


def _called(e: Emitter, op: Op, name: str, inputs: Iterable[Value]) -> None:
    """A call of a declared function on tensors; one name for each signature."""
    given = list(inputs)
    signature = f"({', '.join(tensor(v.type) for v in given)}) -> ({', '.join(tensor(v.type) for v in op.results)})"
    unique, k = name, 0
    while e.w.declared.get(unique, signature) != signature:
        k += 1
        unique = f"{name}_{k}"
    e.w.declared[unique] = signature
    names = [e.w.fresh() for _ in op.results]
    e.w.line(
        f"{', '.join(names)} = func.call @{_symbol(unique)}({', '.join(e.values[v] for v in given)}) : {signature}"
    )
    e.values.update(zip(op.results, names, strict=True))


def _call(e: Emitter, op: Call) -> None:
    attributes = "".join(f" {key}={value}" for key, value in op.attributes.items())
    _called(e, op, f"{op.target}{attributes}", op.inputs)


def _sort(e: Emitter, op: Sort) -> None:
    order = "descending" if op.descending else "ascending"
    _called(e, op, f"sort_{order}_dim{op.dim}", (op.source,))


def _random(e: Emitter, op: Random) -> None:
    _called(e, op, f"random_{op.distribution}_{op.seed}_{op.offset}", op.operands())


def _collective(e: Emitter, op: Collective) -> None:
    _called(e, op, f"{op.kind}_{op.combine}_{op.devices}", op.inputs)


def _if(e: Emitter, op: If) -> None:
    (condition,) = op.inputs
    test = e.w.value(f"tensor.extract {e.values[condition]}[] : {tensor(condition.type)}")
    kinds = ", ".join(tensor(value.type) for value in op.results)
    names = [e.w.fresh() for _ in op.results]
    outer = dict(e.values)
    opening = f"{', '.join(names)} = scf.if {test} -> ({kinds}) {{" if names else f"scf.if {test} {{"
    with e.w.block(opening, None):
        _yield(e, "scf.yield", e.block(op.then), kinds)
    e.values = dict(outer)
    with e.w.block("} else {"):
        _yield(e, "scf.yield", e.block(op.otherwise), kinds)
    e.values = outer
    e.values.update(zip(op.results, names, strict=True))


def _yield(e: Emitter, what: str, values: list[str], kinds: str) -> None:
    e.w.line(f"{what} {', '.join(values)} : {kinds}" if values else what)


def _while(e: Emitter, op: While) -> None:
    kinds = ", ".join(tensor(value.type) for value in op.results)
    names = [e.w.fresh() for _ in op.results]
    outer = dict(e.values)
    first = [e.w.fresh("carried") for _ in op.results]
    starts = ", ".join(f"{a} = {e.values[v]}" for a, v in zip(first, op.inputs, strict=True))
    with e.w.block(f"{', '.join(names)} = scf.while ({starts}) : ({kinds}) -> ({kinds}) {{", None):
        e.values.update(zip(op.condition.args, first, strict=True))
        (test,) = e.block(op.condition)
        flag = e.w.value(f"tensor.extract {test}[] : {tensor(op.condition.yields[0].type)}")
        e.w.line(f"scf.condition({flag}) {', '.join(first)} : {kinds}")
    e.values = dict(outer)
    with e.w.block("} do {"):
        again = [e.w.fresh("carried") for _ in op.results]
        arguments = ", ".join(f"{a}: {tensor(v.type)}" for a, v in zip(again, op.results, strict=True))
        e.w.line(f"^bb0({arguments}):")
        e.values.update(zip(op.body.args, again, strict=True))
        _yield(e, "scf.yield", e.block(op.body), kinds)
    e.values = outer
    e.values.update(zip(op.results, names, strict=True))


_RULES: dict[type[Op], Callable[[Emitter, Any], None]] = {
    Compute: compute,
    Constant: _constant,
    Empty: _empty,
    Scatter: scatter,
    Scan: scan,
    Call: _call,
    Sort: _sort,
    Random: _random,
    Collective: _collective,
    If: _if,
    While: _while,
}
