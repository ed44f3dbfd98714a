"""Questions that several rooms ask of IR: is this a matrix product, are two things the same, what does one cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from codesign.ir.core import Block, Op, Value, uses_of
from codesign.ir.dtypes import BF16, F16, F32, I8, I32, DType
from codesign.ir.functions import FUNCTIONS, Unit
from codesign.ir.index import Datum, Extremum, FloorDiv, Index, Mod
from codesign.ir.precision import Precision, precision_of
from codesign.ir.scalar import Apply, IndexValue, Literal, Scalar
from codesign.ir.structure import equal, structural_hash
from codesign.ir.tensor import Compute

__all__ = [
    "ContractionForm",
    "contraction",
    "dependence",
    "dot_dtype",
    "equal",
    "index_operation_count",
    "is_exact_cast",
    "operation_counts",
    "slot_of",
    "strip_exact_casts",
    "structural_hash",
    "topological_order",
    "users",
    "uses_of",
]


@dataclass(frozen=True)
class ContractionForm:
    """A compute as a sum of products of two factors.

    `left`, `right`: the factors, without the exact casts around them, so that their dtypes are those that a matrix unit
    is fed. Dims by role: `m` only in left, `n` only in right, `k` summed (in both), `batch` in both and kept;
    `accumulate`: dtype of the sum. `allowed`: what a unit may round of factors in f32.
    """

    left: Scalar
    right: Scalar
    m: tuple[str, ...]
    n: tuple[str, ...]
    k: tuple[str, ...]
    batch: tuple[str, ...]
    accumulate: DType
    allowed: Precision = "ieee"

    @property
    def precision(self) -> Precision:
        """How the factors are multiplied: as allowed where they come in f32, else with all their bits."""
        return self.allowed if self.operand is F32 else "ieee"

    @property
    def operand(self) -> DType | None:
        """The dtype in which the factors go into a matrix unit without loss; None when no unit takes them."""
        return dot_dtype(self.left.dtype, self.right.dtype, self.accumulate)


def contraction(compute: Compute, *, vector: bool = False) -> ContractionForm | None:
    """The compute as a matrix product, or None when it isn't one.

    It is when it sums `a * b`, whose rounding the sum's dtype does not lose, over dims that both factors have, and
    each factor has a kept dim of its own; with `vector`, one of the two is enough (matrix times vector).
    """
    body = compute.body
    if compute.monoid != "sum" or not isinstance(body, Apply) or body.dtype.bits < 32:
        return None
    precision = precision_of(body.function)
    if precision is None:
        return None
    if not (body.dtype is compute.accumulate or is_exact_cast(body.dtype, compute.accumulate)):
        return None
    left, right = body.args
    in_left, in_right = left.variables(), right.variables()
    k = tuple(dim.name for dim in compute.reductions)
    if any(name not in in_left or name not in in_right for name in k):
        return None
    kept = [dim.name for dim in compute.dims]
    m = tuple(name for name in kept if name in in_left and name not in in_right)
    n = tuple(name for name in kept if name in in_right and name not in in_left)
    batch = tuple(name for name in kept if name in in_left and name in in_right)
    if len(m) + len(n) + len(batch) != len(kept) or not k:
        return None
    if not (m and n) and not (vector and (m or n)):
        return None
    factors = strip_exact_casts(left), strip_exact_casts(right)
    return ContractionForm(*factors, m, n, k, batch, compute.accumulate, precision)


_DOT_FLOATS = (F16, BF16, F32)


def dot_dtype(left: DType, right: DType, accumulate: DType) -> DType | None:
    """The dtype in which two factors go into a matrix unit without loss, for a sum in a dtype; None when none does."""
    if not accumulate.is_float:
        return I8 if left is I8 and right is I8 and accumulate is I32 else None
    if accumulate.bits > 32:
        return None
    if left is right and left.is_float and left.bits == 8:
        return left
    exact = (dtype for dtype in _DOT_FLOATS if is_exact_cast(left, dtype) and is_exact_cast(right, dtype))
    return next(exact, None)


def is_exact_cast(source: DType, target: DType) -> bool:
    """Whether every value of the source dtype is a value of the target."""
    if source is target or source.kind == "bool":
        return True
    if source.is_float:
        if not target.is_float:
            return False
        if target.bits == 8:
            return False
        return target.mantissa >= source.mantissa and target.exponent >= source.exponent
    magnitude = source.bits - (source.kind == "int")
    if target.is_float:
        return target.mantissa + 1 >= magnitude and 2 ** (target.exponent - 1) > magnitude
    if target.kind == "uint":
        return source.kind == "uint" and target.bits >= source.bits
    return target.kind == "int" and target.bits - 1 >= magnitude


def strip_exact_casts(scalar: Scalar) -> Scalar:
    """What is under the outermost casts that lose nothing."""
    while isinstance(scalar, Apply) and scalar.function == "cast" and is_exact_cast(scalar.args[0].dtype, scalar.dtype):
        scalar = scalar.args[0]
    return scalar


def slot_of(node: Apply) -> tuple[Unit, DType, float]:
    """The unit that does a function, the dtype that it works on (that of the operands for a comparison), and issue slots of it.

    A quotient by a constant is a product: Triton 3.9.0 and its ptxas make one FMUL of it for sm_80 and sm_90. A power by a small
    whole number is products, by a half a root.
    """
    row = FUNCTIONS[node.function]
    if node.function == "div" and isinstance(node.args[1], Literal):
        return "fma", node.dtype, 1.0
    if node.function == "pow" and isinstance(node.args[1], Literal):
        exponent = abs(float(node.args[1].value))
        if exponent == 0.5 and node.dtype.is_float:
            return "special", node.dtype, FUNCTIONS["sqrt" if node.args[1].value > 0 else "rsqrt"].cost
        if 1.0 <= exponent <= 4.0 and exponent.is_integer() and node.args[1].value > 0:
            return "fma", node.dtype, max(exponent - 1.0, 1.0)
    return row.unit, node.args[0].dtype if row.result == "bool" else node.dtype, row.cost


def dependence(body: Scalar, names: Set[str]) -> Iterator[tuple[Scalar, frozenset[str]]]:
    """Each node of an expression, operands first, with those of the names that it depends on; of equal ones the first, as they are computed once."""
    depends: dict[int, frozenset[str]] = {}
    seen: set[Scalar] = set()
    for node in body.walk():
        used = _NONE
        for expression in node.index_expressions():
            used |= expression.variables()
        if used:
            used &= names
        for child in node.children():
            further = depends[id(child)]
            if not further <= used:
                used |= further
        depends[id(node)] = used
        if node not in seen:
            seen.add(node)
            yield node, used


_NONE: frozenset[str] = frozenset()


def operation_counts(scalar: Scalar) -> dict[tuple[Unit, DType], float]:
    """Issue slots per point by unit and dtype; what is written twice is computed once.

    The dtype is that of the first operand for comparisons and casts, else that of the result. Index expressions used
    as values count as integer work; those inside reads are addresses and don't count here.
    """
    return operations_of(scalar.walk())


def operations_of(nodes: Iterable[Scalar]) -> dict[tuple[Unit, DType], float]:
    """Issue slots of some nodes, as `operation_counts` has them."""
    slots: dict[tuple[Unit, DType], float] = {}
    for node in dict.fromkeys(nodes):
        found = _issued(node)
        if found is not None:
            key, cost = found
            slots[key] = slots.get(key, 0.0) + cost
    return slots


def _issued(node: Scalar) -> tuple[tuple[Unit, DType], float] | None:
    """Unit, dtype and issue slots of one node; None where it takes none."""
    if isinstance(node, Apply):
        unit, dtype, cost = slot_of(node)
        key = unit, node.args[0].dtype if node.function == "cast" else dtype
    elif isinstance(node, IndexValue):
        key, cost = ("integer", node.dtype), float(index_operation_count(node.index))
    else:
        return None
    return (key, cost) if cost and key[0] != "free" else None


def index_operation_count(expression: Index) -> int:
    """Integer operations of computing an index expression: adds, multiplies, and 6 for each division or remainder."""
    count = max(len(expression.terms) - 1, 0)
    for monomial, c in expression.terms:
        count += max(len(monomial) - 1, 0) + (1 if monomial and abs(c) != 1 else 0)
        for atom in monomial:
            if isinstance(atom, (FloorDiv, Mod)):
                count += 6 + index_operation_count(atom.numerator) + index_operation_count(atom.denominator)
            elif isinstance(atom, Extremum):
                count += len(atom.args) - 1 + sum(index_operation_count(arg) for arg in atom.args)
            elif isinstance(atom, Datum):
                continue
    return count


def users(block: Block) -> Mapping[Value, list[Op]]:
    """For each value, the ops of this block that use it, directly or in their regions, in order."""
    return uses_of(block)


def topological_order(block: Block) -> list[Op]:
    """The block's ops, each after those that it depends on, otherwise in their present order; ValueError on a cycle."""
    producer = {value: op for op in block.ops for value in op.results}
    order: list[Op] = []
    state: dict[Op, int] = {}
    for start in block.ops:
        stack: list[tuple[Op, bool]] = [(start, False)]
        while stack:
            op, done = stack.pop()
            if done:
                state[op] = 2
                order.append(op)
                continue
            if state.get(op):
                if state[op] == 1:
                    raise ValueError(f"{op!r} depends on its own result")
                continue
            state[op] = 1
            stack.append((op, True))
            needed = dict.fromkeys(producer[value] for value in op.uses() if value in producer)
            if any(state.get(other) == 1 for other in needed):
                raise ValueError(f"{op!r} depends on its own result")
            stack.extend((other, False) for other in reversed(needed) if not state.get(other))
    return order
