"""A functional graph of ATen calls, as AOTAutograd hands it to a backend, as a module of the tensor IR.

Such a graph is flat: every input, weights and sizes included, is a placeholder, nothing is written in place, and its values carry what torch
recorded of them (`node.meta["val"]`). Its sizes may be open; those that are the size of some input may stay so, the others are fixed by one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node

from codesign.frontend.capture import Output
from codesign.frontend.complex import complex_outputs, real_form
from codesign.frontend.export import decompositions as export_decompositions
from codesign.frontend.lowering.products import allowed_by_torch
from codesign.frontend.symbols import SymbolTable, range_of
from codesign.frontend.translate import Translation, as_output, translate
from codesign.ir.core import Module, Value
from codesign.ir.dtypes import I64
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Index
from codesign.ir.types import TensorType

Number = bool | int | float


@dataclass(frozen=True)
class PassedOn:
    """An output that is an input of the graph, by the position of its placeholder."""

    placeholder: int


@dataclass(frozen=True)
class Size:
    """An output that is a number made of open sizes."""

    value: Index


@dataclass
class FunctionalGraph:
    """A graph in the IR: `module.main` takes the placeholders at `arguments`, in this order.

    With `draws` there is one argument more, an i64[] that seeds this call's random numbers. Complex arguments and results are in real form.
    `outputs`: of the graph; a result of `main`, a constant, an input passed on, or a size. `strides`: of each, in elements, as torch expects
    them, as numbers or expressions of torch's (None for what is not a tensor). `warnings`: what a user should know. `fixed`: the open sizes
    and numbers of the graph that it holds for alone; `symbols`: our names of those that it holds for whatever they are.
    """

    module: Module
    arguments: list[int]
    outputs: list[Output | PassedOn | Size]
    strides: list[tuple[Any, ...] | None]
    warnings: list[str]
    draws: bool = False
    fixed: dict[str, Number] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)

    def takes(self, sizes: Mapping[str, Number]) -> bool:
        """Whether it holds for a call of these sizes."""
        if any(type(sizes[name]) is not type(value) or sizes[name] != value for name, value in self.fixed.items()):
            return False
        ranges = ((self.module.symbols[name], sizes[theirs]) for theirs, name in self.symbols.items())
        return all(limits.low <= size <= (limits.high or size) for limits, size in ranges)

    def strides_of(self, output: int, sizes: Mapping[str, Number]) -> tuple[int, ...] | None:
        """Strides of an output in a call of these sizes."""
        found = self.strides[output]
        if found is None or all(isinstance(stride, int) for stride in found):
            return found
        values = {name: int(value) for name, value in sizes.items()}
        return tuple(s if isinstance(s, int) else int(s.xreplace(_numbers(s, values))) for s in found)


def decompositions() -> dict[Any, Any]:
    """torch's decompositions to core ATen, as AOTAutograd takes them."""
    return dict(export_decompositions().items())


def sizes_of_call(graph: GraphModule, inputs: Sequence[Any]) -> dict[str, Number]:
    """The value of each size symbol (and open number) of the graph in a call, by torch's name."""
    found: dict[str, Number] = {}
    for node, value in zip(_placeholders(graph), inputs, strict=True):
        meta = node.meta.get("val")
        if isinstance(meta, torch.Tensor) and isinstance(value, torch.Tensor):
            pairs: list[tuple[Any, Any]] = [
                *zip(meta.shape, value.shape, strict=True),
                *zip(meta.stride(), value.stride(), strict=True),
            ]
            pairs.append((meta.storage_offset(), value.storage_offset()))
        else:
            pairs = [(meta, value)]
        for open_size, size in pairs:
            if isinstance(open_size, (torch.SymInt, torch.SymFloat, torch.SymBool)):
                expression = open_size.node.expr
                if isinstance(expression, sympy.Symbol):
                    found.setdefault(str(expression), _number(size))
    return found


def open_sizes(graph: GraphModule) -> dict[str, tuple[int, int | None]]:
    """The open sizes that are sizes of inputs as they stand, by torch's name, and their ranges."""
    found: dict[str, tuple[int, int | None]] = {}
    for node in _placeholders(graph):
        meta = node.meta.get("val")
        sizes: tuple[Any, ...] = tuple(meta.shape) if isinstance(meta, torch.Tensor) else ()
        for size in sizes:
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                limits = size.node.shape_env.bound_sympy(size.node.expr)
                found[str(size.node.expr)] = range_of(limits)
    return found


def from_functional(
    graph: GraphModule,
    sizes: Mapping[str, Number],
    name: str = "graph",
    keep: Mapping[str, tuple[int, int | None]] | None = None,
) -> FunctionalGraph:
    """The graph at the sizes of a call, of which those in `keep` stay open within their ranges.

    UnsupportedError, with the user's line, for an operator that has no form in the IR.
    """
    table = SymbolTable(values={name: value for name, value in sizes.items() if name not in (keep or {})})
    for symbol, (low, high) in (keep or {}).items():
        table.declare(symbol, low, high, int(sizes[symbol]))
    real = real_form(graph)
    placeholders = _placeholders(real)
    tokens = _tokens(real)
    arguments: list[int] = []

    def bind(translation: Translation, node: Node) -> Any:
        if node in tokens:
            return None
        meta = node.meta.get("val")
        if isinstance(meta, torch.Tensor):
            arguments.append(placeholders.index(node))
            return Value(translation.named_type(meta, f"input {node.name}", node), node.name)
        if isinstance(meta, torch.SymInt):
            return _plain(translation.symbols.to_index(meta))
        if isinstance(meta, (torch.SymFloat, torch.SymBool)):
            return translation.symbols.to_number(meta)
        return meta

    key = Value(TensorType(I64, ()), "seed_of_call")
    metas = [node.meta.get("val") for node in placeholders]
    on_gpu = any(isinstance(meta, torch.Tensor) and meta.is_cuda for meta in metas)
    products = allowed_by_torch() if on_gpu else None  # a CPU keeps all bits, whatever GPUs may do
    module, results, notes = translate(real, bind, name=name, symbols=table, key=key, products=products)
    draws = key in module.main.args
    _refuse_open_emptiness(module)
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    nodes = _as_list(output.args[0])
    inputs = dict(zip(module.main.args, arguments, strict=not draws))
    outputs: list[Output | PassedOn | Size] = []
    yields: list[Value] = []
    for value, is_complex in zip(_as_list(results), complex_outputs(graph), strict=True):
        if isinstance(value, Value) and value in inputs:
            outputs.append(PassedOn(inputs[value]))
        elif isinstance(value, Value):
            outputs.append(Output(len(yields), is_complex=is_complex))
            yields.append(value)
        elif isinstance(value, Index) and not value.data():
            outputs.append(Size(value))
        elif value is None or isinstance(value, (bool, int, float, str)):
            outputs.append(Output(None, value))
        else:
            as_output(value, "an output of the graph")
    module.main.body.yields = tuple(yields)
    fixed = {name: sizes[name] for name in table.used}
    symbols = {symbol: table.names[symbol] for symbol in keep or {}}
    strides = [_strides(node) for node in nodes]
    return FunctionalGraph(module, arguments, outputs, strides, notes, draws, fixed, symbols)


def _refuse_open_emptiness(module: Module) -> None:
    """UnsupportedError for a tensor without elements one of whose sizes is open: it is a constant, and constants have numbers for sizes."""
    for op in module.main.body.walk():
        for value in op.results:
            sizes = value.type.shape if isinstance(value.type, TensorType) else ()
            if any(size == 0 for size in sizes) and not all(size.is_constant for size in sizes):
                raise UnsupportedError(f"%{value.name} has no elements and an open size", place=op.location)


def _strides(node: Any) -> tuple[Any, ...] | None:
    meta = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(meta, torch.Tensor):
        return None
    return tuple(stride if isinstance(stride, int) else stride.node.expr for stride in meta.stride())


def _numbers(expression: Any, values: Mapping[str, int]) -> dict[Any, Any]:
    return {symbol: sympy.Integer(values[str(symbol)]) for symbol in expression.free_symbols}


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _placeholders(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _tokens(graph: GraphModule) -> set[Node]:
    """Placeholders that order checks and prints, such as that of `linalg.inv`; calls give None for them."""
    effects = graph.graph.find_nodes(op="call_function", target=torch.ops.higher_order.with_effects)
    tokens = {node.args[0] for node in effects}
    return {node for node in _placeholders(graph) if node in tokens}


def _plain(value: Index) -> Index | int:
    return value.constant if value.is_constant else value


def _number(value: Any) -> Number:
    if isinstance(value, torch.Tensor):
        value = value.item()
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        hint = value.node.hint
        if hint is None:
            raise UnsupportedError(
                f"the size {value} is not known when the graph is compiled", hint="fix the dimension"
            )
        return int(hint) if isinstance(value, torch.SymInt) else float(hint)
    return value if isinstance(value, (bool, float)) else int(value)
