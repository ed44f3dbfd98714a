"""What a node of torch's flexible attention holds: its arguments, its score and mask functions, and the literals that those make tensors of."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

_BLOCK_MASK = {"flex_attention": 4, "flex_attention_backward": 9}
"""Where each operator has its block mask: tables, block sizes and, last, the mask function."""


def is_flex(node: Node) -> bool:
    """Whether the node is flexible attention or its gradient."""
    return isinstance(node.target, torch._ops.HigherOrderOperator) and operator_of(node) in _BLOCK_MASK


def operator_of(node: Node) -> str:
    return str(getattr(node.target, "__name__", ""))


def arguments_of(node: Node) -> list[Any]:
    """The node's arguments with no more of the block mask than its function, and without the options of torch's kernels."""
    args: list[Any] = [*node.args]
    position = _BLOCK_MASK[operator_of(node)]
    args[position] = (args[position][-1],)
    args[position + 2] = {}
    return [tuple(arg) if isinstance(arg, list) else arg for arg in args]


def nodes_in(args: Any) -> list[Node]:
    return list(dict.fromkeys(leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Node)))


def attribute_of(node: Node) -> Any:
    """What a `get_attr` node stands for; None for another node."""
    if node.op != "get_attr":
        return None
    found: Any = node.graph.owning_module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found


def name_literals(graph: GraphModule) -> None:
    """Tensors that the graph makes of literals, as operators where they are numbers, else under names that tell them from all others."""
    found = [(node, attribute_of(node)) for node in graph.graph.nodes]
    literals = [(node, tensor) for node, tensor in found if isinstance(tensor, torch.Tensor)]
    for name in {str(node.target) for node, _ in literals}:
        delattr(graph, name)
    for node, tensor in literals:
        if tensor.dim() == 0:
            make_number(graph, node, tensor.item(), tensor.dtype)
            continue
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + data).hexdigest()[:16]
        node.target = f"literal_{digest}"
        setattr(graph, node.target, tensor)


def make_number(graph: GraphModule, node: Node, value: Any, dtype: torch.dtype) -> None:
    """An operator that makes the number, in place of the node."""
    with graph.graph.inserting_before(node):
        number = graph.graph.call_function(torch.ops.aten.scalar_tensor.default, (value,), {"dtype": dtype})
    number.meta = dict(node.meta)
    node.replace_all_uses_with(number)
    graph.graph.erase_node(node)


def name_literals_of_functions(graph: GraphModule) -> None:
    """The same for all score and mask functions in a graph; torch's decomposition fails at those it has made buffers of."""
    for part in list(graph.modules()):
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            if is_flex(node):
                for function in map(attribute_of, nodes_in(arguments_of(node))):
                    if isinstance(function, GraphModule):
                        name_literals(function)
                        function.recompile()
