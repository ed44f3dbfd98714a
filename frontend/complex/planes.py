"""What rules for complex operators build with: a complex tensor as two real ones, and the graph that their calls go to."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.node import map_arg

aten: Any = torch.ops.aten

_FOLD: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
}


class Emitter:
    """Adds real calls to a graph, each with what torch knows of its result and with the place of `origin`, the node they stand for.

    `real`: the dtype of both planes of the complex dtype in which the operator of `origin` works.
    """

    def __init__(self, graph: Graph, mode: FakeTensorMode) -> None:
        self.graph = graph
        self.mode = mode
        self.origin: Node
        self.real = torch.float32

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A call; its arguments may hold nodes, planes and numbers."""
        args, kwargs = _plain(args), _plain(kwargs)
        name = f"{self.origin.name}_{getattr(target, '__name__', 'call').split('.')[0]}"
        node = self.graph.create_node("call_function", target, args, kwargs, name=name)
        node.meta = {key: value for key, value in self.origin.meta.items() if key in ("stack_trace", "nn_module_stack")}
        with self.mode, torch.no_grad():
            given, named = map_arg((args, kwargs), lambda argument: argument.meta["val"])
            node.meta["val"] = target(*given, **named)
        return node

    def plane_call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A call that gives a plane of what `origin` gives; where data decides the sizes, they are those of `origin`."""
        node, known = self.call(target, *args, **kwargs), self.origin.meta["val"]
        if isinstance(known, torch.Tensor) and has_open_size(known):
            node.meta["val"] = self.as_real(known).select(-1, 0) if known.is_complex() else known
        return node

    def as_real(self, value: torch.Tensor) -> torch.Tensor:
        """What torch would know of a complex tensor in its real form, with a last dim of 2."""
        with self.mode, torch.no_grad():
            return torch.view_as_real(value.resolve_conj())

    def plane(self, value: Any) -> Real:
        """A real tensor or number as an operand, tensors in the dtype of the planes."""
        if isinstance(value, Real):
            value = value.value
        if isinstance(value, Node) and isinstance(value.meta["val"], torch.Tensor):
            if value.meta["val"].dtype is not self.real:
                value = self.call(aten._to_copy.default, value, dtype=self.real)
        return Real(self, value)

    def operand(self, value: Any) -> tuple[Real, Real]:
        """Both planes of an operand: of a complex or real tensor, or of a number."""
        if isinstance(value, Complex):
            return self.plane(value.re), self.plane(value.im)
        if isinstance(value, complex):
            return Real(self, value.real), Real(self, value.imag)
        if isinstance(value, (bool, int, float)):
            return Real(self, float(value)), Real(self, 0.0)
        re = self.plane(value)
        return re, re.constant(0.0) if isinstance(value.meta["val"], torch.Tensor) else Real(self, 0.0)

    def complex(self, re: Real | Node, im: Real | Node) -> Complex:
        """A complex result of its two planes."""
        x, y = (part if isinstance(part, Real) else Real(self, part) for part in (re, im))
        planes = x.over(y).value, y.over(x).value
        return Complex(self, planes=cast("tuple[Node, Node]", planes))


@dataclass
class Complex:
    """A complex tensor: in two planes, or as one real tensor with a last dim of 2; either is made of the other when it is asked for."""

    emitter: Emitter
    planes: tuple[Node, Node] | None = None
    joined: Node | None = field(default=None)

    def _both(self) -> tuple[Node, Node]:
        if self.planes is None:
            first, second = (self.emitter.call(aten.select.int, self.joined, -1, k) for k in (0, 1))
            self.planes = first, second
        return self.planes

    @property
    def re(self) -> Node:
        return self._both()[0]

    @property
    def im(self) -> Node:
        return self._both()[1]

    @property
    def whole(self) -> Node:
        """The real form: both planes along a last dim of 2."""
        if self.joined is None:
            parts = [self.emitter.call(aten.unsqueeze.default, plane, -1) for plane in self._both()]
            self.joined = self.emitter.call(aten.cat.default, parts, -1)
        return self.joined


@dataclass(frozen=True)
class Real:
    """A real tensor, or a number, that Python's operators apply to."""

    emitter: Emitter
    value: Any

    @property
    def is_number(self) -> bool:
        return not isinstance(self.value, Node)

    def constant(self, number: float) -> Real:
        """A tensor like this one, with this number everywhere."""
        return Real(self.emitter, self.emitter.call(aten.full_like.default, self.value, number))

    def over(self, other: Real) -> Real:
        """Itself, as a tensor where it is a number and the other is not."""
        return other.constant(self.value) if self.is_number and not other.is_number else self

    def function(self, name: str, *others: Real) -> Real:
        """An operator of ATen by name, of this and other tensors."""
        packet = getattr(aten, name)
        overload = packet.Tensor if "Tensor" in packet.overloads() else packet.default
        return Real(self.emitter, self.emitter.call(overload, self, *others))

    def _arithmetic(self, name: str, other: Real | float) -> Real:
        right = other if isinstance(other, Real) else Real(self.emitter, other)
        if self.is_number and right.is_number:
            return Real(self.emitter, _FOLD[name](self.value, right.value))
        return Real(self.emitter, self.emitter.call(getattr(aten, name).Tensor, self.over(right), right))

    def _comparison(self, name: str, other: Real | float) -> Real:
        right = other if isinstance(other, Real) else Real(self.emitter, other)
        left = self.over(right)
        packet = getattr(aten, name)
        return Real(self.emitter, self.emitter.call(packet.Scalar if right.is_number else packet.Tensor, left, right))

    def __add__(self, other: Real | float) -> Real:
        return self._arithmetic("add", other)

    def __sub__(self, other: Real | float) -> Real:
        return self._arithmetic("sub", other)

    def __mul__(self, other: Real | float) -> Real:
        return self._arithmetic("mul", other)

    def __truediv__(self, other: Real | float) -> Real:
        return self._arithmetic("div", other)

    def __neg__(self) -> Real:
        return Real(self.emitter, -self.value) if self.is_number else self.function("neg")

    def __ge__(self, other: Real | float) -> Real:
        return self._comparison("ge", other)

    def __gt__(self, other: Real | float) -> Real:
        return self._comparison("gt", other)

    def equals(self, other: Real | float) -> Real:
        return self._comparison("eq", other)

    def differs(self, other: Real | float) -> Real:
        return self._comparison("ne", other)

    def __and__(self, other: Real) -> Real:
        return self.function("logical_and", other)

    def __or__(self, other: Real) -> Real:
        return self.function("logical_or", other)

    def choose(self, yes: Real | float, no: Real | float) -> Real:
        """`yes` where this condition holds, else `no`; one of the two is a tensor."""
        left, right = (side if isinstance(side, Real) else Real(self.emitter, side) for side in (yes, no))
        return Real(self.emitter, self.emitter.call(aten.where.self, self, left.over(right), right.over(left)))


def has_open_size(value: torch.Tensor) -> bool:
    """Whether data decides a size: torch makes a new symbol for it with every call."""
    sizes: list[Any] = list(value.shape)
    return any(free_unbacked_symbols(size) for size in sizes if not isinstance(size, int))


def _plain(value: Any) -> Any:
    """Arguments with the nodes and numbers of planes in place of them."""
    if isinstance(value, Real):
        return value.value
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
