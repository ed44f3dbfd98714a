"""Values of one program instance: tiles, the scopes (program body, loop bodies) they live in, and loads and maps made on demand.

A value is asked for in the scope that needs it and made in the outermost scope that has every loop it depends on, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from codesign.ir.core import Op, Value
from codesign.ir.dtypes import I32, I64
from codesign.ir.filled import Filled
from codesign.ir.index import Datum, Index, index
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.precision import precision_of
from codesign.ir.scalar import IndexValue, Literal, Read, Scalar, apply, cast, conjunction, select
from codesign.ir.tensor import Compute
from codesign.ir.tile import Guard, Load, Map
from codesign.ir.tiling.domain import DimPlan, Domain

_SMALL = 1 << 30
"""Extents below this are compared in 32 bits: a tile's idle lanes cannot overflow."""


@dataclass(frozen=True)
class Tile:
    """A tile value with the names of its axes; lanes beyond the extent of the `filled` dims are known to hold `fill`."""

    value: Value
    axes: tuple[str, ...]
    fill: Literal | None = None
    filled: frozenset[str] = frozenset()

    def read(self) -> Read:
        return Read(self.value, self.axes)


@dataclass(eq=False)
class Scope:
    """The program body or the body of a loop: ops made there, the loop variable of each looped dim, and what is memoised.

    `binds`: the dim that the loop goes along. `bound`: tiles of values that stand for what a loop carries. `filled`: what is known in its
    steps, where masks leave everything in them.
    """

    parent: Scope | None = None
    binds: str = ""
    loops: Mapping[str, str] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    memo: dict[object, Tile] = field(default_factory=dict)
    lanes: dict[str, Index] = field(default_factory=dict)
    bound: dict[Value, Tile] = field(default_factory=dict)
    filled: Filled | None = None

    def simplified(self, scalar: Scalar) -> Scalar:
        """The expression without the conditions that are decided here."""
        return scalar if self.filled is None else self.filled.scalar(scalar)

    def sticks_out(self, plan: DimPlan) -> bool:
        """Whether some lanes along a dim may lie outside of its extent here."""
        return plan.remainder and not (self.filled is not None and plan.name in self.filled.whole)

    def times(self, dim: str) -> int:
        """How many of the loops around go along a dim."""
        scope: Scope | None = self
        found = 0
        while scope is not None:
            found, scope = found + (scope.binds == dim), scope.parent
        return found

    def carried(self, value: Value) -> Tile | None:
        """The tile that a value stands for here."""
        scope: Scope | None = self
        while scope is not None and value not in scope.bound:
            scope = scope.parent
        return None if scope is None else scope.bound[value]


class Values:
    """Makes tiles for scalar expressions of the group; `make` is asked for values that the group computes itself."""

    def __init__(self, domain: Domain, buffers: Mapping[Value, Value], members: Mapping[Value, Compute]) -> None:
        self.domain = domain
        self.buffers = buffers
        self.members = members
        self.extents = {name: plan.extent for name, plan in domain.plans.items()}
        self.point_bounds = domain.bounds.with_extents(self.extents)
        self.root = Scope()
        self._tiles: dict[Value, Tile] = {}

    # -- where things live ------------------------------------------------------------------------------------------
    def outermost(self, dims: Iterable[str], scope: Scope) -> Scope:
        """The outermost scope, from `scope` outwards, in which these dims have the values that they have here.

        A loop may go again along a dim that a loop around it goes along (a result per column that reads sums over columns), so
        what depends on a dim stays inside the innermost loop along it.
        """
        need = set(self.domain.looped(dims))
        while scope.parent is not None and scope.binds not in need:
            scope = scope.parent
        return scope

    def position(self, plan: DimPlan, scope: Scope) -> Index:
        """The coordinate of a lane along a dim, over program, loop and axis variables."""
        found = scope.lanes.get(plan.name)
        if found is None:
            found = index(plan.name) if plan.tiled else index(0)
            if plan.kind == "grid" and not plan.sole:
                found = found + index(plan.variable) * plan.size
            elif plan.kind == "loop":
                found = found + index(scope.loops[plan.name])
            scope.lanes[plan.name] = found
        return found

    def lane(self, expression: Index, scope: Scope) -> Index:
        """An index expression over the group's dims, as one over program, loop and axis variables; data it reads becomes tiles."""
        names = expression.variables() & self.domain.plans.keys()
        values: dict[str, Index] = {}
        data = expression.data()
        if data:
            stand_ins: dict[Scalar, str] = {}
            for scalar in data:
                tile = self.tile(scalar, self.axes_of(scalar.variables()), self.outermost(scalar.variables(), scope))
                stand_ins[scalar] = f"?{len(stand_ins)}"
                values[stand_ins[scalar]] = Index.atom(Datum(tile.read()))
            expression = expression.substitute({}, lambda s: IndexValue(stand_ins[s]) if s in stand_ins else s)
        values.update({name: self.position(self.domain.plans[name], scope) for name in names})
        return expression.substitute(values)

    def axes_of(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names of the tile axes of these dims, in the group's order."""
        wanted = set(names)
        return tuple(name for name, plan in self.domain.plans.items() if plan.tiled and name in wanted)

    # -- making tiles -----------------------------------------------------------------------------------------------
    def make(self, value: Value, scope: Scope) -> Tile:
        """The tile of a value that the group computes, in a scope that binds its looped dims."""
        raise NotImplementedError

    def remember(self, tile: Tile) -> Tile:
        self._tiles[tile.value] = tile
        return tile

    def known(self, value: Value) -> Tile | None:
        """What is known of a tile value made here."""
        return self._tiles.get(value)

    def expression(self, scalar: Scalar, scope: Scope) -> Scalar:
        """A scalar over the group's dims and tensors as the same over axes and tiles, making the tiles that it reads."""
        scalar = scope.simplified(scalar)
        done: dict[int, Scalar] = {}
        for node in scalar.walk():
            new: Scalar
            if isinstance(node, Read):
                new = (scope.carried(node.source) or self._source(node, scope)).read()
            elif isinstance(node, IndexValue):
                new = IndexValue(self.lane(node.index, scope), node.dtype)
            else:
                children = node.children()
                new = node.rebuild(tuple(done[id(child)] for child in children)) if children else node
            done[id(node)] = new
        return done[id(scalar)]

    def _source(self, read: Read, scope: Scope) -> Tile:
        return self.make(read.source, scope) if read.source in self.members else self.load(read, scope)

    def tile(self, scalar: Scalar, axes: tuple[str, ...], scope: Scope, name: str = "") -> Tile:
        """A tile with exactly these axes that holds a scalar given over the group's dims and tensors."""
        if isinstance(scalar, Read) and scalar.source not in self.members:
            self.load(scalar, scope, order=axes)
        return self.materialise(self.expression(scalar, scope), axes, scope, name=name)

    def materialise(
        self, body: Scalar, axes: tuple[str, ...], scope: Scope, *, name: str = "", location: Location = UNKNOWN
    ) -> Tile:
        """A tile with exactly these axes that holds a scalar already over tiles (no op when it is one already)."""
        if isinstance(body, Read):
            known = self._tiles.get(body.source)
            if known is not None and known.axes == axes:
                return known
        key = ("map", body, axes)
        if key not in scope.memo:
            op = Map(self.domain.axes(axes), body, name=name, location=location)
            scope.ops.append(op)
            scope.memo[key] = self.remember(Tile(op.result, axes))
        return scope.memo[key]

    def load(
        self, read: Read, scope: Scope, *, order: tuple[str, ...] | None = None, fill: Literal | None = None
    ) -> Tile:
        """The tile that a read of an outside tensor touches; the first to ask chooses the axes' order and the fill of idle lanes."""
        names = _lane_variables(read)
        place = self.outermost(names, scope)
        key = ("load", read)
        if key in place.memo:
            return place.memo[key]
        plans = [self.domain.plans[name] for name in self.domain.plans if name in names]
        axes = self._order(read, plans, order)
        guards = [Guard(self.position(p, place), None, p.extent) for p in plans if place.sticks_out(p)]
        inside: list[Guard] = []
        if read.otherwise is not None:
            inside = self.inside(read.indices, read.source.shape, place)
        substitute = read.otherwise if isinstance(read.otherwise, Literal) else None
        dtype = read.source.type.dtype
        otherwise = substitute or (fill if fill is not None and fill.dtype is dtype else Literal(0, dtype))
        buffer = self.buffers[read.source]
        indices = [self.lane(i, place) for i in read.indices]
        op = Load(
            buffer,
            self.domain.axes(axes),
            indices,
            guards=(*guards, *inside),
            otherwise=otherwise,
            name=read.source.name,
        )
        place.ops.append(op)
        filled = frozenset(p.name for p in plans if p.remainder)
        tile = self.remember(Tile(op.result, axes, otherwise, filled))
        if inside and read.otherwise is not None and substitute is None:
            condition = conjunction([_holds(guard) for guard in inside])
            body = select(condition, tile.read(), self.expression(read.otherwise, place))
            tile = self.materialise(body, self.axes_of(names | read.otherwise.variables()), place)
        place.memo[key] = tile
        return tile

    def _order(self, read: Read, plans: list[DimPlan], order: tuple[str, ...] | None) -> tuple[str, ...]:
        wanted = {plan.name for plan in plans if plan.tiled}
        if order is not None and set(order) == wanted:
            return order
        seen = dict.fromkeys(name for i in read.indices for name in sorted(i.variables()) if name in wanted)
        seen.update(dict.fromkeys(plan.name for plan in plans if plan.name in wanted))
        return tuple(seen)

    def inside(self, indices: Iterable[Index], shape: Iterable[Index], scope: Scope) -> list[Guard]:
        """Guards for the indices of an access that are not provably inside its tensor."""
        guards: list[Guard] = []
        for expression, size in zip(indices, shape, strict=True):
            low = None if expression.proves_at_least(0, self.point_bounds) else index(0)
            high = None if expression.proves_less(size, self.point_bounds) else size
            if low is not None or high is not None:
                guards.append(Guard(self.lane(expression, scope), low, high))
        return guards

    # -- lanes outside the domain -----------------------------------------------------------------------------------
    def holds(self, body: Scalar, dim: str, value: Literal) -> bool:
        """True when lanes beyond the extent of a dim are known to hold a value (0, 1 or an infinity)."""
        if isinstance(body, Read):
            tile = self._tiles.get(body.source)
            return (
                tile is not None
                and tile.fill is not None
                and dim in tile.filled
                and float(tile.fill.value) == float(value.value)
            )
        function = getattr(body, "function", "")
        if function == "cast":
            same_kind = body.children()[0].dtype.kind == body.dtype.kind or value.value in (0, 1)
            return same_kind and self.holds(body.children()[0], dim, value)
        if (precision_of(function) or function == "add") and value.value == 0:
            return all(self.holds(child, dim, Literal(0, child.dtype)) for child in body.children())
        return False

    def mask(self, body: Scalar, dims: Iterable[str], value: Literal, scope: Scope) -> Scalar:
        """The body with a value in the lanes that lie outside the extents of the dims."""
        conditions = []
        for name in dims:
            plan = self.domain.plans[name]
            if not plan.remainder or self.holds(body, name, value):
                continue
            if not scope.sticks_out(plan):
                assert scope.filled is not None
                scope.filled.spared = True
            else:
                conditions.append(_holds(Guard(self.position(plan, scope), None, plan.extent)))
        return select(conjunction(conditions), body, cast(value, body.dtype)) if conditions else body


def _holds(guard: Guard) -> Scalar:
    constant = all(
        side is None or (side.is_constant and abs(side.constant) < _SMALL) for side in (guard.low, guard.high)
    )
    dtype = I32 if constant and not guard.value.data() else I64
    sides: list[Scalar] = []
    if guard.low is not None:
        sides.append(apply("ge", IndexValue(guard.value, dtype), IndexValue(guard.low, dtype)))
    if guard.high is not None:
        sides.append(apply("lt", IndexValue(guard.value, dtype), IndexValue(guard.high, dtype)))
    return conjunction(sides)


def _lane_variables(read: Read) -> frozenset[str]:
    """Variables that the element read depends on (not those of what replaces it outside the tensor)."""
    return frozenset(name for i in read.indices for name in i.variables())
