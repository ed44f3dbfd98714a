"""torch's flexible attention (`flex_attention`, and its gradient) as the ATen operators of torch's own dense rule.

In a graph it is one node that holds its score and mask functions as sub-graphs. What it means is said by torch's dense rule, which applies both to
every score; the rule is traced here over the node's own sub-graphs, so that rows without an entry, groups of heads and the logsumexp are torch's.
As in that rule, the tables of a block mask, which say where a kernel need not look, have no part in the result: the mask function has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from codesign.frontend.export import decompositions
from codesign.frontend.flex_nodes import (
    arguments_of,
    attribute_of,
    is_flex,
    make_number,
    name_literals,
    nodes_in,
    operator_of,
)
from codesign.frontend.locations import location_of


def only_for_tables(graph: GraphModule, checks: Collection[str]) -> set[Node]:
    """Nodes of which nothing but the tables of block masks is made; `checks`: targets that compute nothing."""
    flex = {node: set(nodes_in(arguments_of(node))) for node in graph.graph.nodes if is_flex(node)}
    unneeded: set[Node] = set()
    if not flex:
        return unneeded
    for node in reversed(graph.graph.nodes):
        if node.op == "call_function" and not node.users and str(node.target) in checks:
            unneeded.add(node)
        elif node.op == "call_function" and node.users:
            if all(user in unneeded or node not in flex.get(user, (node,)) for user in node.users):
                unneeded.add(node)
    return unneeded


def dense_graph(node: Node) -> tuple[GraphModule, list[Node]]:
    """The node's dense rule as a graph of ATen calls at the places of the user's own statements, and the nodes that it takes."""
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.traceback import preserve_node_meta

    args = arguments_of(node)
    operands = [found for found in nodes_in(args) if not isinstance(attribute_of(found), GraphModule)]
    mode = next(operand.meta["val"].fake_mode for operand in operands if "val" in operand.meta)
    examples = [_example(operand, mode) for operand in operands]
    rule = _rule(node)

    def dense(*values: Any) -> Any:
        known = dict(zip(operands, values, strict=True))

        def given(leaf: Any) -> Any:
            if not isinstance(leaf, Node):
                return leaf
            return known[leaf] if leaf in known else _Function(attribute_of(leaf)).run

        found = rule(*pytree.tree_map(given, args))
        return pytree.tree_map(_as_recorded, found, node.meta["val"])

    guards = nullcontext() if mode.shape_env is None else mode.shape_env.suppress_guards()
    with torch.no_grad(), guards, preserve_node_meta():
        traced = make_fx(dense, decomposition_table=_table(), tracing_mode="symbolic")(*examples)
    return _tidied(traced, node), operands


def _as_recorded(value: Any, recorded: Any) -> Any:
    """A result of the rule in the type that torch recorded for the node: the logsumexp of float64 is float32 there."""
    return value.to(recorded.dtype) if isinstance(value, torch.Tensor) else value


def _rule(node: Node) -> Callable[..., Any]:
    from torch._higher_order_ops.flex_attention import math_attention, sdpa_dense_backward

    if operator_of(node) == "flex_attention":
        return math_attention
    wanted = [gradient is not None for gradient in node.meta["val"][3]]

    def backward(*args: Any) -> Any:
        captured = [_asking(value, asks) for value, asks in zip(args[12], wanted, strict=True)]
        rule: Callable[..., Any] = sdpa_dense_backward
        return rule(*args[:12], tuple(captured), args[13])

    return backward


def _asking(value: Any, asks: bool) -> Any:
    """A captured tensor that asks for its gradient as torch recorded it: the rule gives one to those that do."""
    return value.detach().requires_grad_(asks) if isinstance(value, torch.Tensor) else value


def _example(node: Node, mode: Any) -> Any:
    return node.meta["val"] if "val" in node.meta else mode.from_tensor(attribute_of(node))


class _Function(torch.fx.Interpreter):
    """A score or mask function, which hands the places of its nodes on to what is traced of it."""

    def run(self, *args: Any, **options: Any) -> Any:
        found = super().run(*args, **options)
        return list(found) if isinstance(found, list) else found  # not fx's own kind of list, which vmap does not take

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An open size among the tensors of an operator as a tensor: torch's rules for batches take numbers only there."""
        if isinstance(target, torch._ops.OpOverload):
            kinds = [str(argument.type) for argument in target._schema.arguments]
            args = tuple(
                torch.ops.aten.scalar_tensor(arg, dtype=torch.int64)
                if kind == "Tensor" and isinstance(arg, torch.SymInt)
                else arg
                for arg, kind in zip(args, kinds, strict=False)
            )
        return super().call_function(target, args, kwargs)


def _table() -> dict[Any, Any]:
    """Decompositions of what the dense rule calls; its softmax, that gives zeros for a row without an entry, has a lowering rule."""
    from torch._dynamo import _trace_wrapped_higher_order_op as _  # noqa: F401  (defines the operator below)

    table = dict(decompositions().items())
    table.pop(torch.ops.aten._safe_softmax.default, None)
    table[torch.ops.flex_lib.zeros_and_scatter.default] = _scattered
    return table


def _scattered(shape: Sequence[int], indices: Sequence[torch.Tensor], values: torch.Tensor) -> Any:
    """The gradient of reading a captured tensor at these indices."""
    return torch.ops.aten.index_put(values.new_zeros(tuple(shape)), list(indices), values, True)


def _tidied(graph: GraphModule, origin: Node) -> GraphModule:
    """The traced graph without writes, with its numbers as numbers and the place of `origin` where it has none of its own."""
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.copy_.default:
            _made_a_value(graph, node)
        elif node.target is torch.ops.aten._to_copy.default and not isinstance(node.args[0], Node):
            make_number(graph, node, node.args[0], node.meta["val"].dtype)
    name_literals(graph)
    graph.graph.eliminate_dead_code()
    for node in graph.graph.nodes:
        own = location_of(node.meta, "").file
        for key in ("stack_trace", "nn_module_stack"):
            if key in origin.meta and not (own and node.meta.get(key)):
                node.meta[key] = origin.meta[key]
    return graph


def _made_a_value(graph: GraphModule, copy: Node) -> None:
    """A write into a tensor that the rule has just made, for its layout, as the value written."""
    target, source = copy.args[:2]
    assert isinstance(target, Node)
    with graph.graph.inserting_before(copy):
        value = graph.graph.call_function(
            torch.ops.aten._to_copy.default, (source,), {"dtype": target.meta["val"].dtype}
        )
    value.meta = dict(copy.meta)
    later = {user for user in target.users if copy < user}
    copy.replace_all_uses_with(value)
    target.replace_all_uses_with(value, delete_user_cb=later.__contains__)
    graph.graph.erase_node(copy)
