"""Running reductions as reductions: short ones over all that comes before, long ones in blocks, in any monoid.

rewrite:
    %r = scan f32[i: M, j: N] sum over j { f(i, j) }
    ->  %r = compute f32[i: M, j: N] sum(n: N) { select(n <= j, f(i, n), 0) }                                            (short)
    ->  %total = compute f32[i: M, p: N/B] sum(n: B) { f(i, p*B + n) };  %earlier = exclusive scan of %total over p      (in blocks of B)
        %within = compute f32[i: M, p: N/B, l: B] sum(n: B) { select(n <= l, f(i, p*B + n), 0) }
        %r[i, j] = %earlier[i, j // B] + %within[i, j // B, j % B]

Reduce, then scan (Merrill and Garland, "Single-pass parallel prefix scan with decoupled look-back", 2016, section 2): what is scanned is read twice
and the totals of blocks, a Bth of it, are scanned the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from codesign.ir.core import Value
from codesign.ir.dtypes import BOOL, I64, DType
from codesign.ir.index import Index, index
from codesign.ir.location import Location
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim, Monoid, Scan
from codesign.ir.tiling.monoids import combine, identity
from codesign.passes.tiling.cut import Beyond

BLOCKS = (8, 16, 32, 64, 128)
"""Elements of a block: a power of two, as tiles are, few enough to compare each with all others."""

SEVERAL = 32
"""Elements of a block where nobody knows how many rows there are."""

SHORT = 64
"""Elements that are compared with all others where nobody knows how many rows there are."""

Body = Callable[[Index], Scalar]
"""What is combined, at a place along the scanned dim."""


def running(op: Scan, steps: int, sizes: Mapping[str, int]) -> list[Compute]:
    """The computes of a running reduction, of which the last makes its result; none where it has no such form.

    `steps`: elements combined in about the time of a launch.
    """
    over = next(position for position, dim in enumerate(op.dims) if dim.name == op.over)
    extent = op.dims[over].extent
    if not extent.is_constant or extent.constant == 0 or op.body.dtype is BOOL:
        return []
    known = all(size.variables() <= sizes.keys() for size in op.result.shape)
    rows = math.prod(int(d.extent.evaluate(dict(sizes))) for d in op.dims if d.name != op.over) if known else None
    plan = Plan(steps, rows)
    name, accumulate, dtype = op.result.name, op.accumulate, op.result.type.dtype

    def body(place: Index) -> Scalar:
        return cast(op.body.substitute({op.over: place}), accumulate)

    if op.monoid not in ("argmax", "argmin"):
        family = Family("max", logs=True) if op.monoid == "logsumexp" else Family(op.monoid)
        line = Line(op.dims, over, family, accumulate, name, op.location)
        line.result(body, dtype, plan)
        return line.made
    extremes = Line(op.dims, over, Family(_EXTREME[op.monoid]), accumulate, f"{name}_extreme", op.location)
    extreme = extremes.result(body, accumulate, plan)

    def hit(place: Index) -> Scalar:
        """The place, where the running extreme is there: of such places the last is the position of the extreme."""
        at = [place if position == over else index(dim.name) for position, dim in enumerate(op.dims)]
        element = body(place)
        here = apply("eq", element, Read(extreme, at))
        if accumulate.is_float:
            here = apply("or", here, apply("isnan", element))
        return select(here, IndexValue(place, I64), Literal(0, I64))

    places = replace(extremes, family=Family("max"), dtype=I64, name=name)
    places.result(hit, dtype, plan)
    return places.made


_EXTREME: dict[str, Monoid] = {"argmax": "max", "argmin": "min"}


@dataclass(frozen=True)
class Plan:
    """How long blocks are, by what it costs in launches: steps and rows as in `running`."""

    steps: int
    rows: int | None

    def short(self, extent: int) -> bool:
        """Whether comparing each element with all others costs no more than a launch, or than blocks would."""
        if extent <= BLOCKS[0]:
            return True
        return extent <= min(SHORT, self.steps) if self.rows is None else extent * extent * self.rows <= self.steps

    def block(self, extent: int) -> int:
        if self.rows is None:
            return SEVERAL
        return min(BLOCKS, key=lambda block: self._cost(extent, block))

    def _cost(self, extent: int, block: int) -> float:
        """Launches that it takes, or takes as long as."""
        assert self.rows is not None
        combining = 2 * extent * block * self.rows / self.steps
        parts = -(-extent // block)
        above = 1.0 if self.short(parts) else min(self._cost(parts, other) for other in BLOCKS)
        return combining + above + 2 + (extent % block != 0)


@dataclass(frozen=True)
class Family:
    """A monoid, or with `logs` that of the logarithms of sums of exponentials."""

    monoid: Monoid
    logs: bool = False

    def identity(self, dtype: DType) -> Literal:
        return identity(self.monoid, dtype)

    def combine(self, a: Scalar, b: Scalar) -> Scalar:
        if not self.logs:
            return combine(self.monoid, a, b)
        most = _finite(apply("max", a, b))
        return apply("add", most, apply("log", apply("add", *(apply("exp", apply("sub", x, most)) for x in (a, b)))))


def _finite(extreme: Scalar) -> Scalar:
    """What is subtracted before exponentials are taken: zero where all are minus infinity, or some infinity."""
    return select(apply("isinf", extreme), Literal(0, extreme.dtype), extreme)


@dataclass(frozen=True)
class Line:
    """What is scanned: along dim number `over` of `dims`, in a family of combinations and a dtype. `made`: the computes so far."""

    dims: tuple[Dim, ...]
    over: int
    family: Family
    dtype: DType
    name: str
    location: Location
    made: list[Compute] = field(default_factory=list, compare=False)

    def result(self, body: Body, dtype: DType, plan: Plan) -> Value:
        """The scan over the line's dims, in the dtype."""
        found = self.scanned(body, plan, dtype, inclusive=True)
        if self.made[-1].dims != self.dims:
            self.compute(self.dims, found, self.name)
        return self.made[-1].result

    def scanned(self, body: Body, plan: Plan, dtype: DType, *, inclusive: bool) -> Scalar:
        """The running combination at the line's dims; exclusive of its own element where that is asked."""
        dim = self.dims[self.over]
        extent = dim.extent.constant
        if plan.short(extent):
            return self.reduced(self.dims, dim, body, self.name, upto=dim.name, inclusive=inclusive, dtype=dtype)
        block = plan.block(extent)
        part, inside = Dim(f"{dim.name}_part", index(-(-extent // block))), Dim(f"{dim.name}_in", index(block))

        def element(place: Index) -> Scalar:
            """Of the block, the identity beyond the end."""
            at = index(part.name) * block + place
            if extent % block == 0:
                return body(at)
            within = apply("lt", IndexValue(at), IndexValue(dim.extent))
            return select(within, Beyond(at, extent).safe(body(at)), self.family.identity(self.dtype))

        around, rest = self.dims[: self.over], self.dims[self.over + 1 :]
        blocks, elements = (*around, part, *rest), (*around, part, inside, *rest)
        total = self.reduced(blocks, inside, element, f"{self.name}_total")
        above = replace(self, dims=blocks, name=f"{self.name}_earlier")
        earlier = above.scanned(lambda p: total.substitute({part.name: p}), plan, self.dtype, inclusive=False)
        within = self.reduced(elements, inside, element, f"{self.name}_within", upto=inside.name, inclusive=inclusive)
        both = self.compute(elements, cast(self.family.combine(earlier, within), dtype), f"{self.name}_blocks")
        return both.substitute({part.name: index(dim.name) // block, inside.name: index(dim.name) % block})

    def reduced(
        self,
        dims: tuple[Dim, ...],
        along: Dim,
        body: Body,
        name: str,
        *,
        upto: str = "",
        inclusive: bool = True,
        dtype: DType | None = None,
    ) -> Scalar:
        """The elements along a dim combined: all of them, or those up to a place."""
        before = Dim(f"{along.name}_before", along.extent)
        place = index(before.name)
        asked = apply("le" if inclusive else "lt", IndexValue(place), IndexValue(index(upto))) if upto else None

        def reached(element: Scalar, neutral: Literal) -> Scalar:
            return element if asked is None else select(asked, element, neutral)

        monoid, logs = self.family.monoid, self.family.logs
        inside = reached(body(place), self.family.identity(self.dtype))
        if not logs:
            return self.compute(dims, inside, name, before, monoid, dtype)
        shift = _finite(self.compute(dims, inside, f"{name}_most", before, monoid))
        scaled = reached(apply("exp", apply("sub", body(place), shift)), Literal(0, self.dtype))
        summed = self.compute(dims, scaled, f"{name}_sum", before, "sum")
        return self.compute(dims, cast(apply("add", shift, apply("log", summed)), dtype or self.dtype), name)

    def compute(
        self,
        dims: tuple[Dim, ...],
        body: Scalar,
        name: str,
        along: Dim | None = None,
        monoid: Monoid | None = None,
        dtype: DType | None = None,
    ) -> Read:
        """One more compute, as it is read at its own dims."""
        reductions = () if along is None else (along,)
        made = Compute(dims, body, dtype=dtype, reductions=reductions, monoid=monoid, name=name, location=self.location)
        self.made.append(made)
        return Read(made.result, [dim.name for dim in dims])
