"""A functional graph of ATen calls, as AOTAutograd hands it to a backend, as a module of the tensor IR.

Such a graph is flat: every input, weights and sizes included, is a placeholder, nothing is written in place, and its values carry what torch
recorded of them (`node.meta["val"]`). Its sizes may be open; they are fixed here by those of one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from codesign.frontend.capture import Output
from codesign.frontend.complex import complex_outputs, real_form
from codesign.frontend.export import decompositions as export_decompositions
from codesign.frontend.symbols import SymbolTable
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


@dataclass
class FunctionalGraph:
    """A graph in the IR: `module.main` takes the placeholders at `arguments`, in this order.

    With `draws` there is one argument more, an i64[] that seeds this call's random numbers. Complex arguments and results are in real form.
    `outputs`: of the graph; a result of `main`, a constant, or an input passed on. `strides`: of each, in elements, as torch expects them
    (None for what is not a tensor). `warnings`: what a user should know.
    """

    module: Module
    arguments: list[int]
    outputs: list[Output | PassedOn]
    strides: list[tuple[int, ...] | None]
    warnings: list[str]
    draws: bool = False


def decompositions() -> dict[Any, Any]:
    """torch's decompositions to core ATen, as AOTAutograd takes them."""
    return dict(export_decompositions().items())


def sizes_of_call(graph: GraphModule, inputs: Sequence[Any]) -> dict[str, Number]:
    """The value of each size symbol (and open number) of the graph in a call, by torch's name."""
    import sympy

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


def has_open_sizes(graph: GraphModule) -> bool:
    """Whether a size or number of the graph's inputs is left open."""
    symbolic = (torch.SymInt, torch.SymFloat, torch.SymBool)
    for node in _placeholders(graph):
        meta = node.meta.get("val")
        if isinstance(meta, symbolic):
            return True
        if isinstance(meta, torch.Tensor):
            if any(isinstance(s, symbolic) for s in (*meta.shape, *meta.stride(), meta.storage_offset())):
                return True
    return False


def from_functional(graph: GraphModule, sizes: Mapping[str, Number], name: str = "graph") -> FunctionalGraph:
    """The graph with its open sizes fixed; UnsupportedError, with the user's line, for an operator that has no form in the IR."""
    table = SymbolTable(values=sizes)
    real = real_form(graph)
    placeholders = _placeholders(real)
    arguments: list[int] = []

    def bind(translation: Translation, node: Node) -> Any:
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
    module, results, notes = translate(real, bind, name=name, symbols=table, key=key)
    draws = key in module.main.args
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    nodes = _as_list(output.args[0])
    inputs = dict(zip(module.main.args, arguments, strict=not draws))
    outputs: list[Output | PassedOn] = []
    yields: list[Value] = []
    for value, is_complex in zip(_as_list(results), complex_outputs(graph), strict=True):
        if isinstance(value, Value) and value in inputs:
            outputs.append(PassedOn(inputs[value]))
        elif isinstance(value, Value):
            outputs.append(Output(len(yields), is_complex=is_complex))
            yields.append(value)
        elif value is None or isinstance(value, (bool, int, float, str)):
            outputs.append(Output(None, value))
        else:
            as_output(value, "an output of the graph")
    module.main.body.yields = tuple(yields)
    return FunctionalGraph(module, arguments, outputs, [_strides(node, table) for node in nodes], notes, draws)


def _strides(node: Any, table: SymbolTable) -> tuple[int, ...] | None:
    meta = node.meta.get("val") if isinstance(node, Node) else None
    if not isinstance(meta, torch.Tensor):
        return None
    found = [_plain(table.to_index(stride)) for stride in meta.stride()]
    return tuple(s for s in found if isinstance(s, int)) if all(isinstance(s, int) for s in found) else None


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _placeholders(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


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
