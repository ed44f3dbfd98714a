"""From an exported graph to `linalg` by torch-mlir's own importer and passes, and on into the tensor IR.

Parameters and buffers stay arguments of the graph, as torch.export has them, so that weights are bound by name and never inlined.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.shape_prop import TensorMetadata

from codesign.frontend.arrays import from_torch_dtype
from codesign.frontend.mlir.mended import mended
from codesign.frontend.mlir.passes import lowered
from codesign.frontend.mlir.reader import Reader
from codesign.frontend.translate import Translation
from codesign.ir.core import Block
from codesign.ir.errors import UnsupportedError
from codesign.passes.cleanup import remove_dead


def installed() -> bool:
    """Whether the package is there."""
    try:
        import torch_mlir.fx  # noqa: F401
    except ImportError:
        return False
    return True


def decompositions() -> Any:
    """torch-mlir's own table, with what stands in for operators that it gets wrong."""
    from torch_mlir.extras.fx_decomp_util import get_decomposition_table

    return {**get_decomposition_table(), **mended()}


def by_torch_mlir(translation: Translation, graph: GraphModule) -> Any:
    """Lower a graph by torch-mlir and read the result: its outputs, in order, as `Translation.run` gives them."""
    plain = copy.deepcopy(graph.graph)
    _set_metadata(plain)
    inputs = _drop_unused_inputs(graph.graph, plain)
    outputs = _keep_tensors_only(plain)
    module = linalg_of(GraphModule(graph, plain))
    function = next(op for op in module.body.operations if op.operation.name == "func.func")
    given = [translation.env[node] for node in inputs]
    reader = Reader(translation.builder, translation.module.constants)
    types = [from_torch_dtype(node.meta["val"].dtype) for node in outputs]
    results = reader.function(function, given, types)
    body = Block([], translation.builder.ops, results)
    remove_dead(body)  # fills before reductions, the values beside places, index tables of gathers
    translation.builder.ops = body.ops
    by_name = {node.name: result for node, result in zip(outputs, results, strict=True)}
    nodes = {node.name: node for node in graph.graph.nodes}
    returned: Any = graph.graph.output_node().args[0]

    def output(argument: Any) -> Any:
        if isinstance(argument, Node) and argument.name in by_name:
            return by_name[argument.name]
        return translation.env[nodes[argument.name]] if isinstance(argument, Node) else argument

    return [output(argument) for argument in returned]


def _set_metadata(graph: Graph) -> None:
    """Make `tensor_meta` agree with `val`: torch-mlir reads it first, and it is stale where complex tensors became real ones."""
    for node in graph.nodes:
        node.meta.pop("tensor_meta", None)
        if isinstance(value := node.meta.get("val"), torch.Tensor):
            node.meta["tensor_meta"] = TensorMetadata(
                value.shape, value.dtype, value.requires_grad, (), None, value.is_quantized, {}
            )


def _drop_unused_inputs(graph: Graph, plain: Graph) -> list[Node]:
    """Remove placeholders of the copy that nothing uses; those of the original that are left."""
    kept = []
    for node, twin in zip(list(graph.nodes), list(plain.nodes), strict=True):
        if node.op == "placeholder" and not twin.users:
            plain.erase_node(twin)
        elif node.op == "placeholder":
            kept.append(node)
    return kept


def _keep_tensors_only(graph: Graph) -> list[Node]:
    """Make the copy give each tensor once and nothing else; these, in order."""
    last: Any = graph.output_node()
    tensors = dict.fromkeys(
        argument
        for argument in last.args[0]
        if isinstance(argument, Node) and isinstance(argument.meta.get("val"), torch.Tensor)
    )
    last.args = (tuple(tensors),)
    return list(tensors)


def linalg_of(graph: GraphModule) -> Any:
    """The graph as a module of `linalg.generic`; UnsupportedError with torch-mlir's own reason where it refuses.

    Strided windows become index tensors, which torch-mlir keeps as buffers of the graph's module.
    """
    from torch_mlir import ir
    from torch_mlir.dialects import torch as torch_dialect
    from torch_mlir.extras.fx_importer import FxImporter

    context = ir.Context()
    torch_dialect.register_dialect(context)
    importer = FxImporter(context=context)
    try:
        importer.import_stateless_graph(graph.graph)
        return lowered(importer.module)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnsupportedError(
            f"torch-mlir does not take this model: {reason[:200]}", hint="leave --frontend torch-mlir out"
        ) from error
