"""Scattered writes and running reductions as loops that carry a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from codesign.backends.mlir.writer import Writer, element, tensor
from codesign.ir.core import Value, tensor_type
from codesign.ir.errors import UnsupportedError
from codesign.ir.scalar import cast
from codesign.ir.tensor import Dim, Scan, Scatter
from codesign.ir.tiling.monoids import FUNCTIONS, identity

if TYPE_CHECKING:
    from codesign.backends.mlir.module import Emitter


class Nest:
    """Loops over dims, from zero to their extents, that carry values of these names and types.

    `names`: of the dims. `carried`: of the values, in the innermost loop. What is written next is its body, until `close`.
    """

    def __init__(self, e: Emitter, dims: Sequence[Dim], state: Sequence[tuple[str, str]]) -> None:
        self.w: Writer = e.w
        self.names: dict[str, str] = {}
        self.carried = [name for name, _ in state]
        self._kinds = ", ".join(kind for _, kind in state)
        self._results: list[list[str]] = []
        for dim in dims:
            low, high, step = e.w.index(0), e.index(dim.extent), e.w.index(1)
            loop = e.w.fresh("i")
            results, inner = ([e.w.fresh(prefix) for _ in state] for prefix in ("v", "carried"))
            starts = ", ".join(f"{a} = {b}" for a, b in zip(inner, self.carried, strict=True))
            head = f"{', '.join(results)} = scf.for {loop} = {low} to {high} step {step}"
            e.w.line(f"{head} iter_args({starts}) -> ({self._kinds}) {{")
            e.w.depth += 1
            self.names[dim.name], self.carried = loop, inner
            self._results.append(results)

    def close(self, state: Sequence[str]) -> list[str]:
        """End the loops, of which the innermost carries on with these values; what the outermost gives."""
        for results in reversed(self._results):
            self.w.line(f"scf.yield {', '.join(state)} : {self._kinds}")
            self.w.depth -= 1
            self.w.line("}")
            state = results
        return list(state)


def scatter(e: Emitter, op: Scatter) -> None:
    """Every point in turn: combined into its element, skipped where that is outside."""
    kind, dtype = tensor(op.init.type), tensor_type(op.init).dtype
    nest = Nest(e, op.dims, [(e.values[op.init], kind)])
    (old,) = nest.carried
    scalars = e.scalars(nest.names, e.bounds.with_extents(op.extents()))
    value = scalars.scalar(cast(op.body, dtype))
    places = [scalars.index(i) for i in op.target]
    where = ", ".join(places)
    inside = "" if op.within else _inside(e, places, op.result)
    result = e.w.fresh() if inside else ""
    if inside:
        e.w.line(f"{result} = scf.if {inside} -> ({kind}) {{")
        e.w.depth += 1
    if op.combine != "set":
        before = e.w.value(f"tensor.extract {old}[{where}] : {kind}")
        value = scalars.apply(op.combine, [before, value], dtype)
    new = e.w.value(f"tensor.insert {value} into {old}[{where}] : {kind}")
    if inside:
        e.w.line(f"scf.yield {new} : {kind}")
        e.w.depth -= 1
        with e.w.block("} else {"):
            e.w.line(f"scf.yield {old} : {kind}")
    (e.values[op.result],) = nest.close([result or new])


def _inside(e: Emitter, places: Sequence[str], value: Value) -> str:
    """Whether a point lies in a tensor."""
    found = ""
    for place, size in zip(places, value.shape, strict=True):
        for test, bound in (("sge", e.w.index(0)), ("slt", e.index(size))):
            one = e.w.value(f"arith.cmpi {test}, {place}, {bound} : index")
            found = e.w.value(f"arith.andi {found}, {one} : i1") if found else one
    return found


def scan(e: Emitter, op: Scan) -> None:
    """The dim that runs is the innermost loop, which carries what was reduced so far."""
    if op.monoid == "logsumexp" or op.monoid not in FUNCTIONS:
        raise UnsupportedError(f"a running {op.monoid} has no form in MLIR")
    kind, dtype, sums = tensor(op.result.type), tensor_type(op.result).dtype, op.accumulate
    over = next(dim for dim in op.dims if dim.name == op.over)
    outer = Nest(e, [dim for dim in op.dims if dim is not over], [(e.empty(op.result.type), kind)])
    first = e.w.constant(identity(op.monoid, sums).value, sums)
    inner = Nest(e, [over], [(outer.carried[0], kind), (first, element(sums))])
    names = {**outer.names, **inner.names}
    scalars = e.scalars(names, e.bounds.with_extents(op.extents()))
    total = scalars.apply(FUNCTIONS[op.monoid], [inner.carried[1], scalars.scalar(cast(op.body, sums))], sums)
    value = scalars.converted(total, sums, dtype)
    where = ", ".join(names[dim.name] for dim in op.dims)
    new = e.w.value(f"tensor.insert {value} into {inner.carried[0]}[{where}] : {kind}")
    made, _ = inner.close([new, total])
    (e.values[op.result],) = outer.close([made])
