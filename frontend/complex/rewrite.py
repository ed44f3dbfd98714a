"""A graph of ATen calls with every complex tensor carried as real ones; its inputs and outputs that were complex get a last dim of 2."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

import codesign.frontend.complex.elementwise
import codesign.frontend.complex.fourier
import codesign.frontend.complex.inverses
import codesign.frontend.complex.structure  # noqa: F401  (fill the table of rules)
from codesign.frontend.complex.planes import Complex, Emitter, Real, aten
from codesign.frontend.complex.registry import RULES
from codesign.frontend.locations import location_of
from codesign.ir.errors import UnsupportedError

HINT = "compute it on torch.view_as_real(...)"

_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
"""Regions that only say how their nodes were traced."""


class _AsReal:
    """What `view_as_real` gave; a plane of it needs no tensor of both."""

    def __init__(self, of: Complex) -> None:
        self.of = of


def real_form(module: GraphModule) -> GraphModule:
    """The graph over real tensors; the graph itself where nothing is complex.

    Placeholders and outputs keep their order. UnsupportedError, with the user's line, for an operator on complex numbers that has no rule.
    """
    if not has_complex(module):
        return module
    return _Rewrite(module).run()


def complex_outputs(module: GraphModule) -> list[bool]:
    """Which outputs of a graph, as torch traced it, are complex."""
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    found = output.args[0]
    metas = [node.meta.get("val") if isinstance(node, Node) else None for node in pytree.tree_leaves(found)]
    return [isinstance(meta, torch.Tensor) and meta.is_complex() for meta in metas]


def has_complex(module: GraphModule) -> bool:
    """Whether some value of the graph, or of a graph in it, is complex."""
    for node in module.graph.nodes:
        if node.op == "get_attr":
            found = _attribute(module, str(node.target))
            if isinstance(found, GraphModule) and has_complex(found):
                return True
            if isinstance(found, torch.Tensor) and found.is_complex():
                return True
        if any(
            isinstance(leaf, torch.Tensor) and leaf.is_complex() for leaf in pytree.tree_leaves(node.meta.get("val"))
        ):
            return True
        if any(isinstance(leaf, complex) for leaf in pytree.tree_leaves((node.args, node.kwargs))):
            return True
    return False


def _attribute(module: GraphModule, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _fake_mode(module: GraphModule) -> FakeTensorMode:
    for node in module.graph.nodes:
        for leaf in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(leaf, FakeTensor):
                return leaf.fake_mode
    return FakeTensorMode(allow_non_fake_inputs=True)


class _Rewrite:
    """One graph on its way to a new one; `env`: what each old node is there."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.graph = Graph()
        self.emitter = Emitter(self.graph, _fake_mode(module))
        self.env: dict[Node, Any] = {}
        self.parts: dict[str, GraphModule] = {}

    def run(self) -> GraphModule:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.env[node] = self._whole(self.graph.node_copy(node), node)
        output = self._nodes(self.module, "")
        last = self.graph.output(self._joined(output.args[0]))
        last.meta = dict(output.meta)
        made = GraphModule(self.module, self.graph)
        for name, part in self.parts.items():
            made.set_submodule(name, part)
        return made

    def _nodes(self, module: GraphModule, prefix: str) -> Node:
        """All nodes of a graph whose placeholders are known; gives its output node."""
        for node in module.graph.nodes:
            if node.op == "get_attr":
                self.env[node] = self._get_attr(module, node, prefix)
            elif node.op == "output":
                assert isinstance(node, Node)
                return node
            elif node.op != "placeholder":
                self.emitter.origin = node
                try:
                    self.env[node] = self._call(node, prefix)
                except UnsupportedError as error:
                    raise _placed(node, error) from error
        raise RuntimeError("a graph without an output")

    def _whole(self, new: Node, old: Node) -> Any:
        """A new node that gives what the old one gave, in real form where that is complex."""
        meta = old.meta.get("val")
        if not any(isinstance(leaf, torch.Tensor) and leaf.is_complex() for leaf in pytree.tree_leaves(meta)):
            return new
        new.meta = dict(new.meta)
        new.meta["val"] = pytree.tree_map(self._real_value, meta)
        return Complex(self.emitter, joined=new) if isinstance(meta, torch.Tensor) else new

    def _real_value(self, value: Any) -> Any:
        return self.emitter.as_real(value) if isinstance(value, torch.Tensor) and value.is_complex() else value

    def _get_attr(self, module: GraphModule, node: Node, prefix: str) -> Any:
        found = _attribute(module, str(node.target))
        new = self.graph.node_copy(node)
        new.target = f"{prefix}{node.target}"
        if not isinstance(found, torch.Tensor):
            return new
        if "val" not in new.meta:
            new.meta["val"] = self.emitter.mode.from_tensor(found)
        return self._whole(new, new)

    # -- calls ------------------------------------------------------------------------------------------------------
    def _call(self, node: Node, prefix: str) -> Any:
        target = node.target
        if target is operator.getitem:
            return self._getitem(node)
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._region(node, str(target), prefix)
        args, kwargs = self._seen((node.args, node.kwargs))
        leaves = pytree.tree_leaves((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, (Complex, _AsReal)))
        results = [leaf for leaf in pytree.tree_leaves(node.meta.get("val")) if isinstance(leaf, torch.Tensor)]
        is_complex = any(isinstance(leaf, (Complex, complex)) for leaf in leaves) or any(
            r.is_complex() for r in results
        )
        if target is aten.view_as_real.default:
            return _AsReal(args[0])
        if target is aten.select.int and isinstance(args[0], _AsReal) and args[1] in (-1, results[0].dim()):
            return (args[0].of.re, args[0].of.im)[args[2]]
        if not is_complex:
            return self.graph.node_copy(node, lambda old: self._joined(old))
        if not node.users and not results:
            return None  # a check of torch's own
        return self._apply(node, args, kwargs, leaves, results)

    def _apply(self, node: Node, args: Any, kwargs: Any, leaves: list[Any], results: list[torch.Tensor]) -> Any:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or not target._schema.name.startswith("aten::"):
            raise UnsupportedError("there is no rule for complex numbers", hint=HINT)
        name = target._schema.name.removeprefix("aten::")
        if name not in RULES:
            raise UnsupportedError("there is no rule for complex numbers", hint=HINT)
        bound = dict(_bound(target, self._settled(args), self._settled(kwargs)))
        self.emitter.real = _working_type(leaves, results)
        result = RULES[name](self.emitter, bound)
        result = result.value if isinstance(result, Real) else result
        if isinstance(result, Node) and results and result.meta["val"].dtype is not results[0].dtype:
            result = self.emitter.call(aten._to_copy.default, result, dtype=results[0].dtype)
        return result

    def _getitem(self, node: Node) -> Any:
        source, position = self.env[node.args[0]], node.args[1]  # type: ignore[index]
        if isinstance(source, (list, tuple)):
            return source[position]  # type: ignore[index]
        if isinstance(source, Complex):
            first, second = (self.emitter.call(operator.getitem, plane, position) for plane in (source.re, source.im))
            return Complex(self.emitter, planes=(first, second))
        return self._whole(self.graph.node_copy(node, lambda _: source), node)

    def _region(self, node: Node, name: str, prefix: str) -> Any:
        """A branch or loop with its operands in real form; a region that only changes how torch traced is opened."""
        if name in _INLINED:
            position = next(k for k, arg in enumerate(node.args) if isinstance(arg, Node) and arg.op == "get_attr")
            inner = node.args[position]
            assert isinstance(inner, Node)
            target = f"{prefix}{inner.target}"
            part = _attribute(self.module, target)
            assert isinstance(part, GraphModule)
            inputs = [n for n in part.graph.nodes if n.op == "placeholder"]
            self.env.update(zip(inputs, (self._seen(arg) for arg in node.args[position + 1 :]), strict=True))
            return self._seen(self._nodes(part, f"{target}.").args[0])
        if name in ("cond", "while_loop"):
            for operand in node.all_input_nodes:
                path = f"{prefix}{operand.target}"
                part = _attribute(self.module, path) if operand.op == "get_attr" else None
                if isinstance(part, GraphModule):
                    self.parts[path] = real_form(part)
        elif _takes_complex(node):
            raise UnsupportedError("there is no rule for complex numbers", hint=HINT)
        return self._whole(self.graph.node_copy(node, lambda old: self._joined(old)), node)

    # -- arguments --------------------------------------------------------------------------------------------------
    def _seen(self, value: Any) -> Any:
        """Arguments with what their nodes are in the new graph."""
        if isinstance(value, Node):
            return self.env[value]
        if isinstance(value, (list, tuple)):
            return [self._seen(item) for item in value]
        if isinstance(value, dict):
            return {key: self._seen(item) for key, item in value.items()}
        return value

    def _settled(self, value: Any) -> Any:
        if isinstance(value, _AsReal):
            return value.of.whole
        if isinstance(value, (list, tuple)):
            return [self._settled(item) for item in value]
        if isinstance(value, dict):
            return {key: self._settled(item) for key, item in value.items()}
        return value

    def _joined(self, value: Any) -> Any:
        """Arguments in nodes of the new graph, complex ones in real form."""

        def convert(leaf: Any) -> Any:
            if not isinstance(leaf, Node):
                return leaf
            found = self._settled(self.env[leaf])
            return found.whole if isinstance(found, Complex) else found

        return map_aggregate(value, convert)


def _takes_complex(node: Node) -> bool:
    """Whether an operand or a result of the node is complex."""
    metas = [operand.meta.get("val") for operand in (*node.all_input_nodes, node)]
    return any(isinstance(leaf, torch.Tensor) and leaf.is_complex() for leaf in pytree.tree_leaves(metas))


def _bound(target: torch._ops.OpOverload, args: Any, kwargs: Any) -> Any:
    """Name and value of every argument of the operator's schema."""
    for position, argument in enumerate(target._schema.arguments):
        if position < len(args):
            yield argument.name, args[position]
        elif argument.name in kwargs:
            yield argument.name, kwargs[argument.name]
        else:
            yield argument.name, argument.default_value if argument.has_default_value() else None


def _working_type(leaves: list[Any], results: list[torch.Tensor]) -> torch.dtype:
    """The dtype of the planes in which an operator computes: of its complex result, else of its complex operands."""
    for result in results:
        if result.is_complex():
            return result.dtype.to_real()
    planes = [leaf.re if leaf.joined is None else leaf.joined for leaf in leaves if isinstance(leaf, Complex)]
    types = [plane.meta["val"].dtype for plane in planes if isinstance(plane.meta["val"], torch.Tensor)]
    types += [leaf.meta["val"].dtype for leaf in leaves if _is_float(leaf)]
    return reduce(torch.promote_types, types) if types else torch.get_default_dtype()


def _is_float(leaf: Any) -> bool:
    value = leaf.meta.get("val") if isinstance(leaf, Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 0


def _placed(node: Node, error: UnsupportedError) -> UnsupportedError:
    if error.place is not None:
        return error
    name = str(node.target)
    return UnsupportedError(error.message, place=location_of(node.meta, name), hint=error.hint or HINT)
