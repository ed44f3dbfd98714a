"""A graph of ATen calls into a function of the tensor IR, node by node through the table of lowering rules."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, statically_known_true
from torch.utils import _pytree as pytree

import codesign.frontend.lowering  # noqa: F401  (fills the table of rules)
from codesign.frontend import random_state
from codesign.frontend.arrays import TensorData, as_real, from_torch_dtype, has_data
from codesign.frontend.externals import call_external
from codesign.frontend.flex import dense_graph, only_for_tables
from codesign.frontend.flex_nodes import is_flex
from codesign.frontend.locations import location_of
from codesign.frontend.loops import Step, empty_results, part_of, scanned, with_part
from codesign.frontend.lowering.builder import Builder
from codesign.frontend.lowering.products import EXACT, Allowed
from codesign.frontend.lowering.registry import rule_for
from codesign.frontend.symbols import SIZE_BY_DATA, SymbolTable
from codesign.ir.core import Block, Function, Module, Value, tensor_type
from codesign.ir.dtypes import BOOL, I64
from codesign.ir.errors import CodesignError, UnsupportedError
from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Constant, If, While
from codesign.ir.types import TensorType

_IGNORED = {
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten._assert_async.msg",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
    "aten._functional_assert_async.msg",
    "aten._functional_assert_scalar.default",
    "aten._linalg_check_errors.default",
}
"""Checks of the program that torch adds; they compute nothing."""


def _only_for_checks(graph: GraphModule) -> set[Node]:
    """Numbers of which nothing but checks is made."""
    unneeded: set[Node] = set()
    for node in reversed(graph.graph.nodes):
        is_number = isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool))
        if node.op == "call_function" and node.users and is_number:
            if all(user in unneeded or str(user.target) in _IGNORED for user in node.users):
                unneeded.add(node)
    return unneeded


@dataclass
class Translation:
    """What translating one graph gives: the module under construction, and the value of every graph node."""

    module: Module
    builder: Builder
    symbols: SymbolTable
    env: dict[Node, Any] = field(default_factory=dict)
    constants: dict[str, Value] = field(default_factory=dict)

    # -- types ------------------------------------------------------------------------------------------------------
    def type_of(self, meta: Any) -> TensorType:
        """The tensor type of what torch recorded for a value."""
        if meta.layout is not torch.strided:
            hint = "use dense tensors (for an Embedding's gradient leave sparse=True out)"
            raise UnsupportedError(f"tensors of layout {meta.layout} are not supported", hint=hint)
        shape = tuple(self.symbols.to_index(size) for size in meta.shape)
        if any(size.data() for size in shape):
            raise UnsupportedError("a size depends on a number in a tensor", hint=SIZE_BY_DATA)
        return TensorType(from_torch_dtype(meta.dtype), shape)

    def named_type(self, meta: Any, what: str, node: Node) -> TensorType:
        """The same for a tensor that the graph gets from outside; a type without a form here is refused by what it is of and where it is used."""
        try:
            return self.type_of(meta)
        except UnsupportedError as error:
            user = next(iter(node.users), node)
            place = location_of(user.meta, str(user.target)) if user.meta.get("stack_trace") else None
            raise UnsupportedError(f"{what}: {error.message}", place=place, hint=error.hint) from error

    def _types(self, node: Node) -> tuple[TensorType | None, ...]:
        meta = node.meta.get("val")
        values = meta if isinstance(meta, (list, tuple)) else (meta,)
        return tuple(self.type_of(value) if isinstance(value, torch.Tensor) else None for value in values)

    # -- values -----------------------------------------------------------------------------------------------------
    def constant(self, name: str, tensor: torch.Tensor, meta: Any = None) -> Value:
        """A `constant` op for a tensor of the model, made once per name; the data stays where it is, complex data in real form."""
        tensor = as_real(tensor)
        if name not in self.constants:
            kind = self.type_of(tensor if meta is None else meta)
            op = Constant(name, kind, name=name.replace(".", "_"))
            self.builder.ops.append(op)
            self.constants[name] = op.result
            if has_data(tensor):
                self.module.constants[name] = TensorData(tensor)
        return self.constants[name]

    def argument(self, value: Any) -> Any:
        """A node's argument as rules take it: Values, run-time scalars, index expressions, numbers, and lists of them."""
        if isinstance(value, Node):
            return self.env[value]
        if isinstance(value, (list, tuple)):
            return [self.argument(item) for item in value]
        if isinstance(value, dict):
            return {key: self.argument(item) for key, item in value.items()}
        if isinstance(value, torch.SymInt):
            return self._plain(self.symbols.to_index(value))
        if isinstance(value, complex):
            raise self.builder.unsupported("complex numbers", "use real tensors")
        return value

    @staticmethod
    def _plain(value: Index) -> Index | int:
        return value.constant if value.is_constant else value

    # -- nodes ------------------------------------------------------------------------------------------------------
    def run(self, graph: GraphModule) -> Any:
        """Translate every node; gives the arguments of the graph's output, translated."""
        unneeded = only_for_tables(graph, _IGNORED) | _only_for_checks(graph)
        for node in graph.graph.nodes:
            if node in unneeded:
                continue
            if node.op == "placeholder":
                if node not in self.env:
                    raise RuntimeError(f"placeholder {node.name} has no value")
            elif node.op == "get_attr":
                self.env[node] = self._attribute(graph, node)
            elif node.op == "call_function":
                self.env[node] = self._call(graph, node)
            elif node.op == "output":
                return self.argument(node.args[0])
            else:
                raise UnsupportedError(f"graph node {node.op} {node.target} is not an ATen call")
        return None

    def _attribute(self, graph: GraphModule, node: Node) -> Any:
        found: Any = graph
        for part in str(node.target).split("."):
            found = getattr(found, part)
        if isinstance(found, torch.Tensor):
            self.builder.location = location_of(node.meta, "")
            return self.constant(str(node.target), found)
        return found  # a sub-graph

    def _call(self, graph: GraphModule, node: Node) -> Any:
        target = node.target
        if target is operator.getitem:
            source, position = self.argument(node.args[0]), node.args[1]
            return source[position]
        meta = node.meta.get("val")
        name = str(target) if not callable(target) or isinstance(target, torch._ops.OpOverload) else target.__name__
        b = self.builder
        b.location, b.name, b.target, b.types = location_of(node.meta, name), node.name, name, ()
        b.products.exact = EXACT in node.meta
        if name in _IGNORED or name.startswith("sym_constrain"):
            return None
        if isinstance(meta, torch.SymInt):
            return self._symbolic(node, name, meta)
        if isinstance(meta, (bool, int, float)) and not isinstance(target, torch._ops.OpOverload):
            return meta
        if isinstance(meta, (torch.SymFloat, torch.SymBool)) and self.symbols.is_fixed(meta):
            return self.symbols.to_number(meta)
        if isinstance(meta, (torch.SymFloat, torch.SymBool)) and name != "aten._local_scalar_dense.default":
            return None if not node.users else self._symbolic_number(node, name)
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._higher_order(node, name)
        return self._lower(node, name)

    def _lower(self, node: Node, name: str) -> Any:
        b = self.builder
        try:
            if isinstance(node.target, torch._ops.OpOverload) and torch.Tag.dynamic_output_shape in node.target.tags:
                made = [leaf for leaf in pytree.tree_leaves(node.meta.get("val")) if isinstance(leaf, torch.Tensor)]
                self.symbols.declare_made(size for tensor in made for size in tensor.shape)
            b.types = self._types(node)
            b.layout, b.from_start = _layout(node), _from_start(node)
            args, kwargs = _bind(node, self.argument)
            if name == "aten._local_scalar_dense.default":
                return Read(args[0], (index(0),) * len(tensor_type(args[0]).shape))
            rule = rule_for(name)
            if rule is None:
                return call_external(b, name, node, args, kwargs)
            result = rule(b, *args, **kwargs)
            if result is NotImplemented:
                return call_external(b, name, node, args, kwargs)
        except UnsupportedError as error:
            if error.place is None:
                raise b.unsupported(error.message, error.hint) from error
            raise
        except Exception as error:
            error.add_note(f"while lowering {name} at {b.location}")
            raise
        _check(b, name, result)
        return result

    def _symbolic(self, node: Node, name: str, meta: Any) -> Any:
        """A size: torch knows its expression; one read from data (`.item()`) becomes an index that reads the data."""
        if name == "aten._local_scalar_dense.default":
            source = self.argument(node.args[0])
            value = Read(source, (index(0),) * len(tensor_type(source).shape))
            if meta.node.expr.is_Symbol:
                self.symbols.read(str(meta.node.expr), value.as_index())
            return value
        try:
            return self._plain(self.symbols.to_index(meta))
        except UnsupportedError as error:
            if free_unbacked_symbols(meta):
                return self._symbolic_number(node, name).as_index()
            raise self.builder.unsupported(error.message, error.hint) from error

    def _symbolic_number(self, node: Node, name: str) -> Any:
        """Arithmetic on run-time numbers (`x.item() * 2`), as scalar expressions."""
        from codesign.frontend.lowering.scalars import number_expression

        return number_expression(self.builder, name, [self.argument(arg) for arg in node.args])

    # -- regions ----------------------------------------------------------------------------------------------------
    def _higher_order(self, node: Node, name: str) -> Any:
        b = self.builder
        if name in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            position = next(k for k, arg in enumerate(node.args) if isinstance(arg, Node) and arg.op == "get_attr")
            inner = self.argument(node.args[position])
            return self._inline(inner, [self.argument(arg) for arg in node.args[position + 1 :]])
        if name == "cond":
            condition, then, otherwise, operands = (self.argument(arg) for arg in node.args)
            blocks = [self._region(branch, operands, ()) for branch in (then, otherwise)]
            op = b.add(If(self._as_condition(condition), blocks[0], blocks[1]))
            return list(op.results)
        if name == "while_loop":
            condition, body, carried, extra = (self.argument(arg) for arg in node.args)
            start = [self._as_tensor(value) for value in carried]
            tests, steps = (self._region(part, [*start, *extra], start) for part in (condition, body))
            results = b.add(While(start, tests, steps, names=[b.name] * len(start))).results
            return [self._as_given(value, meta) for value, meta in zip(results, node.meta["val"], strict=True)]
        if name == "scan":
            return self._scan(node, *(self.argument(arg) for arg in node.args))
        if name == "map_impl":
            graph, sources, extra = (self.argument(arg) for arg in node.args)
            return self._scan(node, graph, [], sources, extra)
        if name == "associative_scan":
            return self._associative_scan(node, *(self.argument(arg) for arg in node.args))
        if name == "with_effects" and str(node.args[1]) in _IGNORED:
            return [None, None]  # the token that orders checks, and what the check gives
        if name in (random_state.SAVE, random_state.RESTORE):
            return self._with_state(node, name)
        if is_flex(node):
            dense, operands = dense_graph(node)
            return self._inline(dense, [self.argument(operand) for operand in operands])
        raise b.unsupported("this higher-order operator has no lowering", "write the loop or branch in plain operators")

    def _scan(self, node: Node, graph: GraphModule, first: Sequence[Any], sources: Sequence[Any], extra: Any) -> Any:
        """A loop along the first dim of the sources: the last carried values, and the results of all steps."""
        b, kinds = self.builder, [kind for kind in self._types(node) if kind is not None]
        carried = [self._as_tensor(value) for value in first]
        results = empty_results(b, kinds[len(carried) :])
        steps = tensor_type(sources[0]).shape[0]
        return scanned(b, steps, 0, carried, sources, results, self._step(graph, extra))

    def _associative_scan(self, node: Node, graph: GraphModule, sources: Sequence[Value], extra: Any = ()) -> Any:
        """Step by step: each result is the one before combined with the part at its place, the first the first part."""
        b, kinds = self.builder, [kind for kind in self._types(node) if kind is not None]
        if _ranks(graph)[: len(sources)] != [len(kind.shape) - 1 for kind in kinds]:
            raise b.unsupported("an associative scan of single elements", "scan with combine_mode='generic'")
        firsts = [part_of(b, x, index(0)) for x in sources]
        combine = self._step(graph, extra)

        def step(state: list[Value], parts: list[Value]) -> list[Value]:
            made = list(combine(state, parts))
            return [*made, *made]

        results = [
            with_part(b, whole, part, index(0)) for whole, part in zip(empty_results(b, kinds), firsts, strict=True)
        ]
        steps = tensor_type(sources[0]).shape[0]
        return scanned(b, steps, 1, firsts, sources, results, step)[len(firsts) :]

    def _step(self, graph: GraphModule, extra: Any) -> Step:
        def step(state: list[Value], parts: list[Value]) -> list[Value]:
            known = dict(self.constants)
            found = self._inline(graph, [*state, *parts, *extra])
            self.constants = known  # constants first met inside belong to the loop
            return [self._as_tensor(value) for value in found]

        return step

    def _with_state(self, node: Node, name: str) -> Any:
        """A draw whose state is saved, or taken from a saved one."""
        call, known = random_state.inner_call(node, self.env)
        self.env.update(known)

        def draw() -> Any:
            return self._lower(call, str(call.target))

        b = self.builder
        b.target = str(call.target)
        if name == random_state.SAVE:
            return random_state.saved(b, draw)
        return random_state.restored(b, self.argument(node.args[0]), draw)

    def _as_tensor(self, value: Any) -> Value:
        """A value as a tensor: integers that loops carry are tensors of no dims."""
        b = self.builder
        if isinstance(value, Value):
            return value
        if isinstance(value, (int, Index)) and not isinstance(value, bool):
            return b.compute((), lambda i: b.number(value, I64), name=f"{b.name}_number")
        raise self.builder.unsupported("a condition or carried value that is not a tensor", "make it a tensor")

    def _as_condition(self, value: Any) -> Value:
        """A truth value as a tensor: data, or a comparison of sizes (`x.shape[0] > 4`)."""
        if isinstance(value, (bool, Scalar)):
            b = self.builder
            return b.compute((), lambda i: b.number(value, BOOL), name=f"{b.name}_condition")
        return self._as_tensor(value)

    def _as_given(self, value: Value, meta: Any) -> Any:
        """A carried value as torch has it: a number is read from its tensor, here and wherever torch writes its symbol."""
        if not isinstance(meta, torch.SymInt):
            return value
        number = Read(value, ()).as_index()
        if meta.node.expr.is_Symbol:
            self.symbols.read(str(meta.node.expr), number)
        return number

    def _inline(self, graph: GraphModule, args: Sequence[Any]) -> Any:
        """The nodes of a sub-graph in place of the call; they see the same builder."""
        placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        self.env.update(zip(placeholders, args, strict=True))
        return self.run(graph)

    def _region(self, graph: GraphModule, args: Sequence[Any], carried: Sequence[Value]) -> Block:
        """A sub-graph as a block; `carried` values become its arguments, everything else is seen from outside."""
        b = self.builder
        outer, b.ops = b.ops, []
        known, place = dict(self.constants), (b.location, b.name, b.target)
        inner_args = [Value(value.type, f"carried_{k}") for k, value in enumerate(carried)]
        metas = [node.meta.get("val") for node in graph.graph.nodes if node.op == "placeholder"]
        given = [*map(self._as_given, inner_args, metas), *args[len(carried) :]]
        yielded = self._inline(graph, given)
        values = yielded if isinstance(yielded, (list, tuple)) else [yielded]
        yields = [self._as_condition(value) for value in values]
        block = Block(inner_args, b.ops, yields)
        b.ops, self.constants = outer, known  # constants first met inside belong to the block
        b.location, b.name, b.target = place
        return block


def _ranks(graph: GraphModule) -> list[int]:
    """Dims of the tensors that a sub-graph takes."""
    return [node.meta["val"].dim() for node in graph.graph.nodes if node.op == "placeholder"]


def _bind(node: Node, convert: Callable[[Any], Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments in the order of the operator's schema: positional ones first, keyword-only ones by name."""
    args = [convert(arg) for arg in node.args]
    kwargs = {key: convert(value) for key, value in node.kwargs.items()}
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and kwargs:
        for argument in target._schema.arguments[len(args) :]:
            if argument.kwarg_only:
                break
            if argument.name in kwargs:
                args.append(kwargs.pop(argument.name))
            elif any(a.name in kwargs and not a.kwarg_only for a in target._schema.arguments):
                args.append(argument.default_value)
            else:
                break
    return args, kwargs


def _check(b: Builder, name: str, result: Any) -> None:
    """The rule's result must have the types that torch says; a difference is our mistake and must not go unseen."""
    results = result if isinstance(result, (list, tuple)) else (result,)
    for value, kind in zip(results, b.types, strict=False):
        if not isinstance(value, Value) or kind is None:
            continue
        found = tensor_type(value)
        same = found.dtype is kind.dtype and len(found.shape) == len(kind.shape)
        if same:
            pairs = zip(found.shape, kind.shape, strict=True)
            same = all(x == y or not (x.is_constant and y.is_constant) for x, y in pairs)
        if not same:
            raise RuntimeError(f"the lowering rule of {name} gives {found}, torch says {kind} (at {b.location})")


Lowering = Callable[[Translation, GraphModule], Any]
"""What makes a graph's ops in the translation's builder, where placeholders have values; gives the arguments of its output."""


def translate(
    graph: GraphModule,
    bind: Callable[[Translation, Node], Any],
    *,
    name: str = "module",
    symbols: SymbolTable | None = None,
    key: Value | None = None,
    products: Allowed | None = None,
    lowering: Lowering = Translation.run,
) -> tuple[Module, Any, list[str]]:
    """A graph as a module with one function `main`.

    `bind(translation, placeholder)` gives each placeholder's value: a new `Value` is an input of the function, anything else (a
    constant, a number) is not. `key`: what random numbers depend on, the function's last argument where it draws some. `products`: what
    may be rounded of those of float32 (nothing by default). `lowering`: what makes ops of the nodes, by default the rules of ATen. Returns
    the module, the translated outputs (the function yields nothing yet) and warnings.
    """
    table = symbols or SymbolTable()
    module = Module(name, symbols=table.symbols)
    bounds = Bounds({}, _Ranges(table))
    translation = Translation(module, Builder(bounds, key, products), table)
    inputs: list[Value] = []
    for node in graph.graph.nodes:
        if node.op != "placeholder":
            continue
        value = bind(translation, node)
        translation.env[node] = value
        if isinstance(value, Value) and value.owner is None:
            inputs.append(value)
    outputs = lowering(translation, graph)
    if key is not None and translation.builder.draws:
        inputs.append(key)
    module.functions["main"] = Function("main", Block(inputs, translation.builder.ops))
    return module, outputs, translation.builder.warnings


class _Ranges(Mapping[str, tuple[int, int | None]]):
    """The ranges of a table's symbols as bounds, kept up to date while symbols are being declared."""

    def __init__(self, table: SymbolTable) -> None:
        self.table = table

    def __getitem__(self, name: str) -> tuple[int, int | None]:
        symbol = self.table.symbols[name]
        return symbol.low, symbol.high

    def __iter__(self) -> Any:
        return iter(self.table.symbols)

    def __len__(self) -> int:
        return len(self.table.symbols)


def as_output(translation_result: Any, what: str) -> Value:
    """A translated output as a tensor value; CodesignError when it is something else."""
    if isinstance(translation_result, Value):
        return translation_result
    kind = "a number read from data" if isinstance(translation_result, Scalar) else type(translation_result).__name__
    raise CodesignError(f"{what} is {kind}, not a tensor", hint="return tensors only")


def _from_start(node: Node) -> bool:
    """Whether no number from data among a call's arguments is negative, as torch knows them."""
    values = (arg.meta.get("val") for arg in node.all_input_nodes)
    open_ones = [value for value in values if isinstance(value, torch.SymInt) and free_unbacked_symbols(value)]
    return bool(open_ones) and all(statically_known_true(value >= 0) for value in open_ones)


def _layout(node: Node) -> tuple[tuple[int, ...], int] | None:
    """Strides and offset of a node's first argument, when it is a strided tensor whose layout is known."""
    first = node.args[0] if node.args else None
    meta = first.meta.get("val") if isinstance(first, Node) else None
    if not isinstance(meta, torch.Tensor) or meta.layout is not torch.strided:
        return None
    numbers = (*meta.stride(), meta.storage_offset())
    if not all(isinstance(number, int) for number in numbers):
        return None
    return tuple(int(number) for number in numbers[:-1]), int(numbers[-1])
