"""From torch's recorded program to core ATen: each distinct call is decomposed once, and what it becomes takes the place of all calls like it.

`run_decompositions` traces the whole program anew, twice; in a model of 80 equal layers that is most of what capturing takes. A program in which
nothing is written in place is the sum of its calls: those with the same operator, arguments and kinds of tensors become the same operators. They
go through `run_decompositions` in one small program. Programs with writes, loops, symbols in their sizes or state go through it whole.
"""

from __future__ import annotations

import copy
import dataclasses
import operator
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from codesign.frontend.reserved import decomposed_whole

FEWEST = 64
"""Calls below which a program goes through as a whole: the small one would not be smaller."""

_REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
_STATISTICS = ("batch_norm", "instance_norm")
_PLACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


@dataclass
class _Call:
    """One distinct call: an operator and its arguments, with `Slot`s where tensors go, and stand-ins of those tensors."""

    target: Any
    arguments: Any
    tensors: list[torch.Tensor]
    results: Any
    """As the recorded program has them: a tensor, or several."""
    inputs: list[Node] = field(default_factory=list)
    """The small program's placeholders of the tensors."""
    body: list[Node] = field(default_factory=list)
    """What the call becomes there, in order."""
    outputs: list[Node] = field(default_factory=list)
    """What is returned for it there; a placeholder for a tensor that is given back."""


@dataclass(frozen=True)
class _Slot:
    """The place of a tensor among the arguments of a call."""

    position: int


class _NotSeparable(Exception):
    """The program is more than the sum of its calls."""


def decomposed(program: ExportedProgram, table: Any) -> ExportedProgram:
    """The program in core ATen by a table of decompositions, as `program.run_decompositions(table)` gives it."""
    with _by_the_table_alone():
        try:
            calls, keys = _distinct(program)
            if len(keys) >= FEWEST and 2 * len(calls) <= len(keys):
                _decompose(list(calls.values()), table, _mode_of(program))
                return _assembled(program, {node: calls[key] for node, key in keys.items()})
        except _NotSeparable:
            pass
        return decomposed_whole(program, table)


@contextmanager
def _by_the_table_alone() -> Iterator[None]:
    """While it lasts, multilabel_margin_loss is not taken apart where torch records gradients, which it does without asking the table, and wrong."""
    operator = torch.ops.aten.multilabel_margin_loss_forward.default
    key = torch._C.DispatchKey.Autograd
    kernel = operator.py_kernels.pop(key, None)
    operator._dispatch_cache.clear()
    try:
        yield
    finally:
        if kernel is not None:
            operator.py_kernels[key] = kernel
            operator._dispatch_cache.clear()


# -- what is alike ------------------------------------------------------------------------------------------------------
def _distinct(program: ExportedProgram) -> tuple[dict[Any, _Call], dict[Node, Any]]:
    """The distinct calls of a program by what makes them alike, and the key of each of its calls."""
    signature = program.graph_signature
    plain = (InputKind.USER_INPUT, InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    if any(spec.kind not in plain for spec in signature.input_specs):
        raise _NotSeparable
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs):
        raise _NotSeparable
    calls: dict[Any, _Call] = {}
    keys: dict[Node, Any] = {}
    for node in _nodes(program.graph_module):
        if _is_structure(node):
            continue
        _check(node)
        arguments, tensors = _abstracted(node)
        key = (node.target, repr(arguments), tuple(map(_kind, tensors)))
        keys[node] = key
        if key not in calls:
            stand_ins = [_stand_in(tensor) for tensor in tensors]
            calls[key] = _Call(node.target, arguments, stand_ins, node.meta.get("val"))
    return calls, keys


def _nodes(module: GraphModule) -> Iterator[Node]:
    """All nodes that compute something, those of regions that only set a mode included."""
    for node in module.graph.nodes:
        if node.op == "call_function":
            inner = _region(module, node)
            if inner is None:
                yield node
            else:
                yield from _nodes(inner[0])
        elif node.op == "get_attr":
            if not all(_region(module, user) for user in node.users):
                raise _NotSeparable
        elif node.op not in ("placeholder", "output"):
            raise _NotSeparable


def _region(module: GraphModule, node: Node) -> tuple[GraphModule, Sequence[Any]] | None:
    """The graph and the arguments of a region in which autograd or autocast is off, as it is here anyway; None for another node."""
    name = str(getattr(node.target, "__name__", ""))
    if name not in _REGIONS:
        return None
    count = 1 if name == "wrap_with_set_grad_enabled" else 4
    if name == "wrap_with_autocast" and node.args[2]:
        raise _NotSeparable
    body = node.args[count]
    if not isinstance(body, Node) or body.op != "get_attr":
        raise _NotSeparable
    found = module.get_submodule(str(body.target))
    assert isinstance(found, GraphModule)
    return found, node.args[count + 1 :]


def _is_structure(node: Node) -> bool:
    """Whether a node takes a result of another apart, or only checks what torch was told of a tensor."""
    return node.target in (operator.getitem, torch.ops.aten._assert_tensor_metadata.default)


def _check(node: Node) -> None:
    """_NotSeparable for a call that does more than make its results from its arguments."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        raise _NotSeparable
    name = target._schema.name.partition("::")[2]
    if target._schema.is_mutable and name != "detach_":
        raise _NotSeparable
    if any(word in name for word in _STATISTICS) and True in node.args:
        raise _NotSeparable
    for value in pytree.tree_leaves(node.meta.get("val")):
        if not isinstance(value, torch.Tensor):
            raise _NotSeparable
        sizes = (*value.shape, *value.stride(), value.storage_offset())
        if not all(isinstance(size, int) for size in sizes):
            raise _NotSeparable


def _abstracted(node: Node) -> tuple[Any, list[torch.Tensor]]:
    """The arguments of a call with slots for its tensors, one for each tensor however often it is given."""
    slots = {argument: _Slot(position) for position, argument in enumerate(node.all_input_nodes)}
    given: Any = (node.args, node.kwargs)
    map_arg: Any = torch.fx.node.map_arg
    arguments = map_arg(given, slots.__getitem__)
    tensors: list[torch.Tensor] = []
    for argument in slots:
        tensor = argument.meta.get("val")
        if not isinstance(tensor, torch.Tensor):
            raise _NotSeparable
        tensors.append(tensor)
    return arguments, tensors


def _kind(tensor: torch.Tensor) -> tuple[Any, ...]:
    sizes = (*tensor.shape, *tensor.stride())
    if tensor.layout is not torch.strided or not all(isinstance(size, int) for size in sizes):
        raise _NotSeparable
    flags = (tensor.is_conj(), tensor.is_neg())
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, *flags


def _stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same kind, whose memory nobody touches."""
    if tensor.is_conj() or tensor.is_neg():
        raise _NotSeparable
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


# -- the small program --------------------------------------------------------------------------------------------------
class _Calls(torch.nn.Module):
    """The distinct calls one after the other, on tensors of their own."""

    def __init__(self, calls: Sequence[_Call]) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, tensors: list[list[torch.Tensor]]) -> list[Any]:
        return [_run(call, own) for call, own in zip(self.calls, tensors, strict=True)]


def _run(call: _Call, tensors: Sequence[torch.Tensor]) -> Any:
    def value(argument: Any) -> Any:
        return tensors[argument.position] if isinstance(argument, _Slot) else argument

    args, kwargs = pytree.tree_map(value, call.arguments, is_leaf=lambda item: isinstance(item, _Slot))
    if call.target is torch.ops.aten.detach_.default:
        return args[0]
    return call.target(*args, **kwargs)


def _mode_of(program: ExportedProgram) -> Any:
    """The mode that the program's tensors without values were made in, of which a program has one."""
    values = (leaf for node in program.graph.nodes for leaf in pytree.tree_leaves(node.meta.get("val")))
    return next((value.fake_mode for value in values if isinstance(value, FakeTensor)), nullcontext())


def _decompose(calls: Sequence[_Call], table: Any, mode: Any) -> None:
    """Fill in what each call becomes, in tensors of a mode."""
    program = torch.export.export(_Calls(calls), ([call.tensors for call in calls],), strict=False)
    small = program.run_decompositions(table)
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in small.graph_signature.output_specs):
        raise _NotSeparable
    nodes = list(small.graph.nodes)
    if any(node.op not in ("placeholder", "call_function", "output") for node in nodes):
        raise _NotSeparable
    placeholders = iter(node for node in nodes if node.op == "placeholder")
    outputs = iter(nodes[-1].args[0])
    place = {node: position for position, node in enumerate(nodes)}
    for call in calls:
        call.inputs = [next(placeholders) for _ in call.tensors]
        call.outputs = [next(outputs) for _ in pytree.tree_leaves(call.results)]
        needed: set[Node] = set()
        stack = [node for node in call.outputs if isinstance(node, Node)]
        while stack:
            node = stack.pop()
            if node not in needed and node.op == "call_function":
                needed.add(node)
                stack.extend(node.all_input_nodes)
        call.body = sorted(needed, key=place.__getitem__)
        with mode:
            for node in call.body:
                node.meta["val"] = pytree.tree_map_only(torch.Tensor, _stand_in, node.meta["val"])
        if not all(isinstance(node, Node) for node in call.outputs):
            raise _NotSeparable


# -- the whole again ----------------------------------------------------------------------------------------------------
class _Assembly:
    """The program in core ATen, as it grows."""

    def __init__(self, calls: dict[Node, _Call]) -> None:
        self.calls = calls
        self.graph = Graph()
        self.made: dict[Node, Any] = {}
        """What each node of the recorded program became: a node, or several where the node has several results."""

    def add(self, module: GraphModule) -> Any:
        """All that a graph computes, whose placeholders are there; what it returns."""
        for node in module.graph.nodes:
            if node.op == "output":
                return torch.fx.node.map_arg(node.args[0], self.made.__getitem__)
            if node.op != "call_function":
                continue
            region = _region(module, node)
            if region is not None:
                body, given = region
                places = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
                for inner, argument in zip(places, given, strict=True):
                    self.made[inner] = self.made[argument] if isinstance(argument, Node) else argument
                self.made[node] = self.add(body)
            elif node.target is operator.getitem:
                self.made[node] = self.made[node.args[0]][node.args[1]]
            elif not _is_structure(node):
                self.made[node] = self._spliced(self.calls[node], node)
        raise AssertionError("a graph without an output")

    def _spliced(self, call: _Call, node: Node) -> Any:
        own: dict[Node, Node] = {}
        for inner, argument in zip(call.inputs, node.all_input_nodes, strict=True):
            own[inner] = self.made[argument]
        where = {key: node.meta[key] for key in _PLACES if key in node.meta}
        for inner in call.body:
            args = torch.fx.node.map_arg(inner.args, own.__getitem__)
            kwargs = torch.fx.node.map_arg(inner.kwargs, own.__getitem__)
            name = re.sub(r"_\d+$", "", inner.name)
            new = self.graph.create_node("call_function", inner.target, args, kwargs, name)
            new.meta = {**inner.meta, **where}
            own[inner] = new
        leaves = [own[inner] for inner in call.outputs]
        return pytree.tree_unflatten(leaves, pytree.tree_structure(call.results))


def _assembled(program: ExportedProgram, calls: dict[Node, _Call]) -> ExportedProgram:
    assembly = _Assembly(calls)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            new = assembly.graph.placeholder(node.name)
            new.meta = dict(node.meta)
            assembly.made[node] = new
    results = assembly.add(program.graph_module)
    assembly.graph.output(tuple(results))
    assembly.graph.eliminate_dead_code()
    signature = copy.copy(program.graph_signature)
    signature.output_specs = [
        dataclasses.replace(spec, arg=TensorArgument(name=made.name)) if isinstance(made, Node) else spec
        for spec, made in zip(signature.output_specs, results, strict=True)
    ]
    return ExportedProgram(
        root=torch.nn.Module(),
        graph=assembly.graph,
        graph_signature=signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
    )
