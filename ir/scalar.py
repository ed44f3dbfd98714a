"""Scalar expressions: what one point of an iteration domain computes.

The same expressions are the body of a tensor-level `compute` and of a tile-level `map`. They are immutable directed
acyclic graphs: sharing a node shares the work, and every walk over them is memoised by node.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import is_
from typing import TYPE_CHECKING

from codesign.ir.dtypes import BOOL, F32, I64, DType
from codesign.ir.functions import FUNCTIONS, result_dtype
from codesign.ir.index import Datum, Index, IndexLike, index

if TYPE_CHECKING:
    from codesign.ir.core import Value

Number = bool | int | float


class Scalar:
    """Base of scalar expressions; `dtype` is the element type of the value."""

    __slots__ = ("_below", "_digest", "_hash", "_reads", "_text", "_variables", "dtype")
    dtype: DType

    def __init__(self, dtype: DType, identity: tuple[object, ...]) -> None:
        self.dtype = dtype
        self._hash = hash((type(self).__name__, dtype.name, identity))
        self._text: str | None = None
        self._below: tuple[Scalar, ...] | None = None
        self._reads: tuple[Read, ...] | None = None
        self._variables: frozenset[str] | None = None
        self._digest: str | None = None

    def children(self) -> tuple[Scalar, ...]:
        """Direct sub-expressions, those inside indices (gathers) included."""
        return ()

    def index_expressions(self) -> tuple[Index, ...]:
        """Index expressions that this node holds itself."""
        return ()

    def rebuild(self, children: tuple[Scalar, ...]) -> Scalar:
        """The same node over other children (same order as `children()`)."""
        return self

    def same(self, other: Scalar) -> bool:
        """Whether two nodes of one class and dtype hold the same, their `operands` aside."""
        raise NotImplementedError

    def operands(self) -> tuple[Scalar, ...]:
        """Sub-expressions that are operands of the node itself (those inside its indices left out)."""
        return ()

    def digest(self) -> str:
        """A content hash that is the same in every run: what orders data reads in index expressions. Numbers behind a dot, which tell dims of one
        name apart, decide only between what is else the same."""
        if self._digest is None:
            for node in self.walk():
                if node._digest is None:
                    inner = [child.digest() for child in node.operands()]
                    content = type(node).__name__, node.dtype.name, node.content(), inner
                    plain, whole = (
                        hashlib.blake2b(repr(each).encode(), digest_size=8).hexdigest()
                        for each in (_without_numbers(content), content)
                    )
                    node._digest = f"{plain}.{whole}"
        assert self._digest is not None
        return self._digest

    def content(self) -> tuple[object, ...]:
        """What the node holds beside operands, as plain data."""
        raise NotImplementedError

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Scalar) or self._hash != other._hash:
            return False
        stack: list[tuple[Scalar, Scalar]] = [(self, other)]
        seen: set[tuple[int, int]] = set()
        while stack:  # each pair once: shared parts do not multiply the work
            a, b = stack.pop()
            if a is b or (id(a), id(b)) in seen:
                continue
            seen.add((id(a), id(b)))
            if type(a) is not type(b) or a._hash != b._hash or a.dtype != b.dtype or not a.same(b):
                return False
            stack.extend(zip(a.operands(), b.operands(), strict=True))
        return True

    # -- walking ----------------------------------------------------------------------------------------------------
    def walk(self) -> Iterator[Scalar]:
        """Every distinct node below and including this one, children first."""
        if self._below is None:
            children = self.children()
            first = children[0] if children else None
            if first is None:
                self._below = ()
            elif len(children) == 1 and first._below is not None:
                self._below = (*first._below, first)
            else:
                self._below = tuple(self._descend())
        return iter((*self._below, self))

    def _descend(self) -> list[Scalar]:
        """Every distinct node below this one, children first."""
        found: list[Scalar] = []
        seen = {id(self)}
        stack: list[Scalar | None] = [*reversed(self.children())]  # None: of the node under it, all children are found
        while stack:
            node = stack.pop()
            if node is None:
                done = stack.pop()
                assert done is not None
                found.append(done)
            elif id(node) not in seen:
                seen.add(id(node))
                below = node.children()
                if below:
                    stack += (node, None, *reversed(below))
                else:
                    found.append(node)
        return found

    def reads(self) -> tuple[Read, ...]:
        """The distinct reads in it, in order of evaluation."""
        if self._reads is None:
            self._reads = tuple(dict.fromkeys(node for node in self.walk() if isinstance(node, Read)))
        return self._reads

    def variables(self) -> frozenset[str]:
        """Names of all dimensions and symbols that it depends on."""
        if self._variables is None:
            expressions = (i for node in self.walk() for i in node.index_expressions())
            self._variables = frozenset(name for i in expressions for name in i.variables())
        return self._variables

    def rewrite(self, change: Callable[[Scalar], Scalar | None]) -> Scalar:
        """The expression with `change` applied bottom-up to each node (None keeps the node)."""
        done: dict[int, Scalar] = {}
        keep: list[Scalar] = []
        for node in self.walk():
            children, rebuilt = node.children(), node
            if children:
                new = tuple([done[id(child)] for child in children])
                rebuilt = node if all(map(is_, children, new)) else node.rebuild(new)
            changed = change(rebuilt)
            done[id(node)] = last = rebuilt if changed is None else changed
            keep.append(last)
        return done[id(self)]

    def substitute(self, values: Mapping[str, IndexLike]) -> Scalar:
        """The expression with dimensions or symbols replaced by index expressions (all at once)."""
        if not values:
            return self
        done: dict[int, Scalar] = {}
        keep: list[Scalar] = []
        for node in self.walk():
            new: Scalar = node
            if isinstance(node, Read):
                indices = tuple([i.substitute(values) for i in node.indices])
                otherwise = None if node.otherwise is None else done[id(node.otherwise)]
                if otherwise is not node.otherwise or not all(map(is_, indices, node.indices)):
                    new = Read(node.source, indices, otherwise)
            elif isinstance(node, IndexValue):
                new = IndexValue(node.index.substitute(values), node.dtype)
            else:
                children = node.children()
                fresh = tuple([done[id(child)] for child in children])
                if not all(map(is_, children, fresh)):
                    new = node.rebuild(fresh)
            done[id(node)] = new
            keep.append(new)
        return done[id(self)]

    def replace_sources(self, mapping: Mapping[Value, Value]) -> Scalar:
        """The expression reading other values in place of some."""
        if not any(read.source in mapping for read in self.reads()):
            return self

        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Read) and node.source in mapping:
                return Read(mapping[node.source], node.indices, node.otherwise)
            return None

        return self.rewrite(change)

    def as_index(self) -> Index:
        """The value as an index expression: itself where it is index arithmetic, else a data-dependent atom."""
        return Index.atom(Datum(self))

    def __str__(self) -> str:
        """The expression for people, cut where sharing makes it very long (`codesign.ir.text` prints everything)."""
        if self._text is None:
            for node in self.walk():
                if node._text is None:
                    text = node._format()
                    node._text = text if len(text) <= 4000 else f"{text[:4000]} ..."
        assert self._text is not None
        return self._text

    def _format(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self.dtype}>({self})"


_NUMBERED = re.compile(r"[A-Za-z_]\w*\.\w+|[0-9a-f]{16}\.[0-9a-f]{16}")
"""Names of dims that are told apart by numbers, and digests, of which the first part is without such."""


def _without_numbers(content: object) -> object:
    """Plain data with names as they are before a dot."""
    if isinstance(content, str):
        return content.partition(".")[0] if _NUMBERED.fullmatch(content) else content
    if isinstance(content, tuple):
        return tuple(map(_without_numbers, content))
    return [_without_numbers(each) for each in content] if isinstance(content, list) else content


class Literal(Scalar):
    """A constant."""

    __slots__ = ("value",)
    value: Number

    def __init__(self, value: Number, dtype: DType) -> None:
        self.value = bool(value) if dtype is BOOL else float(value) if dtype.is_float else int(value)
        super().__init__(dtype, (repr(self.value),))

    def __reduce__(self) -> tuple[object, ...]:
        return Literal, (self.value, self.dtype)

    def same(self, other: Scalar) -> bool:
        return isinstance(other, Literal) and repr(self.value) == repr(other.value)

    def content(self) -> tuple[object, ...]:
        return (repr(self.value),)

    def as_index(self) -> Index:
        return index(int(self.value)) if not self.dtype.is_float else super().as_index()

    def _format(self) -> str:
        if self.dtype is BOOL:
            return "true" if self.value else "false"
        if self.dtype.is_float:
            text = "inf" if self.value == math.inf else "-inf" if self.value == -math.inf else repr(float(self.value))
            return text if self.dtype is F32 else f"{self.dtype}({text})"
        return str(self.value) if self.dtype is I64 else f"{self.dtype}({self.value})"


class IndexValue(Scalar):
    """An index expression used as a value, as in `j < i` for a causal mask."""

    __slots__ = ("index",)
    index: Index

    def __init__(self, expression: IndexLike, dtype: DType = I64) -> None:
        self.index = index(expression)
        super().__init__(dtype, (self.index,))

    def __reduce__(self) -> tuple[object, ...]:
        return IndexValue, (self.index, self.dtype)

    def same(self, other: Scalar) -> bool:
        return isinstance(other, IndexValue) and self.index == other.index

    def content(self) -> tuple[object, ...]:
        return (self.index.key,)

    def children(self) -> tuple[Scalar, ...]:
        return self.index.data()

    def index_expressions(self) -> tuple[Index, ...]:
        return (self.index,)

    def rebuild(self, children: tuple[Scalar, ...]) -> Scalar:
        return IndexValue(_swap_data(self.index, self.children(), children), self.dtype)

    def as_index(self) -> Index:
        return self.index

    def _format(self) -> str:
        return f"index({self.index})" if self.dtype is I64 else f"index<{self.dtype}>({self.index})"


class Read(Scalar):
    """One element of a tensor or tile value: `%x[i, k + 1]`, or `otherwise` where an index falls outside the tensor.

    Without `otherwise` the verifier wants every index inside (data-dependent indices are the data's promise).
    """

    __slots__ = ("_children", "indices", "otherwise", "source")
    source: Value
    indices: tuple[Index, ...]
    otherwise: Scalar | None

    def __init__(self, source: Value, indices: Iterable[IndexLike], otherwise: Scalar | None = None) -> None:
        self.source = source
        self.indices = tuple([index(i) for i in indices])
        self.otherwise = otherwise
        data = tuple(dict.fromkeys([scalar for i in self.indices for scalar in i.data()]))
        self._children = data if otherwise is None else (*data, otherwise)
        super().__init__(source.type.dtype, (id(source), self.indices, otherwise))

    def __reduce__(self) -> tuple[object, ...]:
        return Read, (self.source, self.indices, self.otherwise)

    def same(self, other: Scalar) -> bool:
        return (
            isinstance(other, Read)
            and self.source is other.source
            and self.indices == other.indices
            and (self.otherwise is None) == (other.otherwise is None)
        )

    def operands(self) -> tuple[Scalar, ...]:
        return () if self.otherwise is None else (self.otherwise,)

    def content(self) -> tuple[object, ...]:
        return self.source.name, str(self.source.type), tuple(i.key for i in self.indices)

    def children(self) -> tuple[Scalar, ...]:
        return self._children

    def index_expressions(self) -> tuple[Index, ...]:
        return self.indices

    def rebuild(self, children: tuple[Scalar, ...]) -> Scalar:
        old = self.children()
        otherwise = None if self.otherwise is None else children[-1]
        return Read(self.source, tuple(_swap_data(i, old, children) for i in self.indices), otherwise)

    def _format(self) -> str:
        text = f"%{self.source.name}[{', '.join(map(str, self.indices))}]"
        return text if self.otherwise is None else f"({text} else {self.otherwise})"


class Apply(Scalar):
    """A scalar function of `codesign.ir.functions` applied to arguments."""

    __slots__ = ("args", "function")
    function: str
    args: tuple[Scalar, ...]

    def __init__(self, function: str, args: Iterable[Scalar], dtype: DType) -> None:
        self.function = function
        self.args = tuple(args)
        super().__init__(dtype, (function, self.args))

    def __reduce__(self) -> tuple[object, ...]:
        return Apply, (self.function, self.args, self.dtype)

    def same(self, other: Scalar) -> bool:
        return isinstance(other, Apply) and self.function == other.function and len(self.args) == len(other.args)

    def operands(self) -> tuple[Scalar, ...]:
        return self.args

    def content(self) -> tuple[object, ...]:
        return (self.function,)

    def children(self) -> tuple[Scalar, ...]:
        return self.args

    def rebuild(self, children: tuple[Scalar, ...]) -> Scalar:
        return Apply(self.function, children, self.dtype)

    def as_index(self) -> Index:
        if self.dtype.is_integer:
            a = [arg.as_index() for arg in self.args] if self.function in ("add", "sub", "mul", "neg", "cast") else []
            if self.function == "add":
                return a[0] + a[1]
            if self.function == "sub":
                return a[0] - a[1]
            if self.function == "neg":
                return -a[0]
            if self.function == "mul" and (a[0].is_constant or a[1].is_constant):
                return a[0] * a[1]
            if self.function == "cast" and self.args[0].dtype.is_integer and self.dtype.bits >= self.args[0].dtype.bits:
                return a[0]
        return super().as_index()

    def _format(self) -> str:
        if self.function == "cast":
            return f"{self.dtype}({self.args[0]})"
        if self.function == "bitcast":
            return f"bitcast_{self.dtype}({self.args[0]})"
        symbol = FUNCTIONS[self.function].symbol
        if symbol and len(self.args) == 2:
            return f"({self.args[0]} {symbol} {self.args[1]})"
        return f"{self.function}({', '.join(map(str, self.args))})"


def _swap_data(expression: Index, old: tuple[Scalar, ...], new: tuple[Scalar, ...]) -> Index:
    if not expression.data():
        return expression
    mapping = dict(zip(old, new, strict=True))
    return expression.substitute({}, lambda scalar: mapping.get(scalar, scalar))


def literal(value: Number, dtype: DType | None = None) -> Literal:
    """A constant; the dtype defaults to bool, i64 or f32 by the Python type."""
    if dtype is None:
        dtype = BOOL if isinstance(value, bool) else I64 if isinstance(value, int) else F32
    return Literal(value, dtype)


def apply(function: str, *args: Scalar) -> Scalar:
    """A function applied to arguments of matching dtypes; the result dtype follows the function's rule."""
    return Apply(function, args, result_dtype(function, tuple(arg.dtype for arg in args)))


def cast(value: Scalar, dtype: DType) -> Scalar:
    """The value converted to a dtype (itself when it has it)."""
    if value.dtype is dtype:
        return value
    if (
        isinstance(value, Literal)
        and math.isfinite(value.value)
        and (value.dtype.kind == dtype.kind or dtype.bits >= 32)
    ):
        if (dtype.is_float and dtype.bits >= 32) or (
            not value.dtype.is_float and dtype.is_integer and dtype.bits == 64
        ):
            return Literal(value.value, dtype)
    return Apply("cast", (value,), dtype)


def bitcast(value: Scalar, dtype: DType) -> Scalar:
    """The bits of the value as a dtype of the same width (itself when it has it); printed `bitcast_i32(x)`."""
    return value if value.dtype is dtype else Apply("bitcast", (value,), dtype)


def select(condition: Scalar, yes: Scalar, no: Scalar) -> Scalar:
    """`yes` where the condition holds, else `no`; both of one dtype."""
    return apply("select", condition, yes, no)


def conjunction(conditions: Sequence[Scalar]) -> Scalar:
    """All of the conditions, of which there is one at least."""
    total = conditions[0]
    for condition in conditions[1:]:
        total = apply("and", total, condition)
    return total
