"""Scalar expressions as torch text over a whole domain: how a runner does the few operations that are not kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from codesign.backends.triton.names import torch_type
from codesign.ir.core import Value
from codesign.ir.errors import UnsupportedError
from codesign.ir.functions import FUNCTIONS
from codesign.ir.index import Atom, Datum, Extremum, FloorDiv, Index, Mod, Var
from codesign.ir.precision import ARITHMETIC
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar
from codesign.ir.tensor import Dim

TORCH_FUNCTIONS: dict[str, str] = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    **{row.function: "({0} * {1})" for row in ARITHMETIC.values()},
    "div": "({0} / {1})",
    "floordiv": "torch.floor_divide({0}, {1})",
    "truncdiv": 'torch.div({0}, {1}, rounding_mode="trunc")',
    "mod": "torch.remainder({0}, {1})",
    "fmod": "torch.fmod({0}, {1})",
    "pow": "torch.pow({0}, {1})",
    "min": "torch.minimum({0}, {1})",
    "max": "torch.maximum({0}, {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "and": "({0} & {1})",
    "or": "({0} | {1})",
    "xor": "({0} ^ {1})",
    "shl": "({0} << {1})",
    "shr": "({0} >> {1})",
    "not": "torch.bitwise_not({0})",
    "select": "torch.where({0}, {1}, {2})",
}
"""Spellings that are not `torch.<name>(...)`; every other scalar function has torch's own name."""

LACKING = frozenset({"philox"})
"""Functions that torch has nothing for."""

TORCH_NAMES: dict[str, str] = {"erf": "special.erf", "erfc": "special.erfc", "erfinv": "special.erfinv"}


class TorchText:
    """Renders expressions over a domain; each dim is an axis of the broadcast result, in order.

    `values`: tensor value -> the name that holds it. `device`: text of the device. `sizes`: size symbol -> text.
    """

    def __init__(self, values: Mapping[Value, str], sizes: Mapping[str, str], device: str) -> None:
        self.values = values
        self.sizes = sizes
        self.device = device

    def tensor(self, body: Scalar, dims: Sequence[Dim]) -> str:
        """The body at every point of the domain, as a tensor of its full shape."""
        shape = ", ".join(self.size(dim.extent) for dim in dims)
        return f"{self.scalar(body, dims)}.expand({shape})" if dims else self.scalar(body, dims)

    def size(self, value: Index) -> str:
        """A size expression as a Python integer."""
        return self._sum(value, ())

    def index(self, value: Index, dims: Sequence[Dim]) -> str:
        """An index expression as an integer tensor that broadcasts over the domain."""
        text = self._sum(value, dims)
        used = value.variables() & {dim.name for dim in dims}
        return text if used or value.data() else f"torch.full([], {text}, device={self.device})"

    def scalar(self, node: Scalar, dims: Sequence[Dim]) -> str:
        """A scalar expression as a tensor that broadcasts over the domain."""
        if isinstance(node, Literal):
            value = node.value
            text = repr(value) if math.isfinite(value) else f'float("{value}")'
            return f"torch.full([], {text}, dtype={torch_type(node.dtype)}, device={self.device})"
        if isinstance(node, IndexValue):
            return f"{self.index(node.index, dims)}.to({torch_type(node.dtype)})"
        if isinstance(node, Read):
            return self._read(node, dims)
        if not isinstance(node, Apply):
            raise UnsupportedError(f"{type(node).__name__} has no torch spelling")
        args = [self.scalar(arg, dims) for arg in node.args]
        if node.function == "cast":
            return f"{args[0]}.to({torch_type(node.dtype)})"
        if node.function == "bitcast":
            return f"{args[0]}.view({torch_type(node.dtype)})"
        if node.function in TORCH_FUNCTIONS:
            return TORCH_FUNCTIONS[node.function].format(*args)
        if node.function not in FUNCTIONS or node.function in LACKING:
            raise UnsupportedError(f"the scalar function {node.function!r} has no torch spelling")
        return f"torch.{TORCH_NAMES.get(node.function, node.function)}({', '.join(args)})"

    def _read(self, node: Read, dims: Sequence[Dim]) -> str:
        name = self.values[node.source]
        if not node.indices:
            return name
        if node.otherwise is None and [i.variable for i in node.indices] == [dim.name for dim in dims]:
            return name
        places = [self.index(i, dims) for i in node.indices]
        if node.otherwise is None:
            return f"{name}[{', '.join(places)}]"
        sizes = [self.size(size) for size in node.source.shape]
        inside = " & ".join(f"({p} >= 0) & ({p} < {s})" for p, s in zip(places, sizes, strict=True))
        clamped = ", ".join(f"{p}.clamp(0, {s} - 1)" for p, s in zip(places, sizes, strict=True))
        return f"torch.where({inside}, {name}[{clamped}], {self.scalar(node.otherwise, dims)})"

    def _sum(self, value: Index, dims: Sequence[Dim]) -> str:
        if not value.terms:
            return "0"
        parts = []
        for monomial, c in value.terms:
            factors = [self._atom(atom, dims) for atom in monomial]
            if c != 1 or not factors:
                factors.append(str(c))
            parts.append(" * ".join(factors))
        return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"

    def _atom(self, atom: Atom, dims: Sequence[Dim]) -> str:
        if isinstance(atom, Var):
            for position, dim in enumerate(dims):
                if dim.name == atom.name:
                    line = f"torch.arange({self.size(dim.extent)}, device={self.device})"
                    later = len(dims) - position - 1
                    return f"{line}.view(-1{', 1' * later})" if later else line
            return self.sizes[atom.name]
        if isinstance(atom, (FloorDiv, Mod)):
            symbol = "//" if isinstance(atom, FloorDiv) else "%"
            return f"({self._sum(atom.numerator, dims)} {symbol} {self._sum(atom.denominator, dims)})"
        if isinstance(atom, Extremum):
            args = [self._sum(arg, dims) for arg in atom.args]
            if not dims:
                return f"{atom.kind}({', '.join(args)})"
            text = args[0]
            for arg in args[1:]:
                as_tensor = (f"torch.as_tensor({x}, device={self.device})" for x in (text, arg))
                text = f"torch.{atom.kind}imum({', '.join(as_tensor)})"
            return text
        if isinstance(atom, Datum):
            return f"{self.scalar(atom.scalar, dims)}.long()"
        raise TypeError(f"unknown atom {atom!r}")
