"""What a group needs after a merge: dead members out, single-use ones inlined, copies folded, loops over one tensor shared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence, Set

from codesign.ir.analysis import contraction
from codesign.ir.core import Value
from codesign.ir.index import Bounds, Index, product
from codesign.ir.location import Location
from codesign.ir.location import merge as merge_locations
from codesign.ir.precision import precision_of
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute
from codesign.ir.tiling.strands import nests, outer_dims
from codesign.passes.algebra import Rewriting, simplify_scalar
from codesign.passes.fusion.group import Group, NotFusable, shown
from codesign.passes.rebase import rebased
from codesign.passes.views import inline

WHOLE = 512
"""Points along which one program may have all of a loop nest of which results lack the dim, statistics of rows or totals of blocks: as wide as
values of attention are (those of a latent, 512). Not so of what a product sums over: each tile of its columns would make that again."""


def tidy(computes: list[Compute], outputs: dict[Value, Value], location: Location, outer: Bounds) -> Group:
    """The group without dead members, and with element-wise members inlined where one reader alone wants them at its own points."""
    provided = set(outputs.values())
    live = set(provided)
    alive: list[Compute] = []
    for op in reversed(computes):
        if op.result in live:
            live.update(op.operands())
            alive.append(op)
    alive.reverse()
    readers: dict[Value, list[Compute]] = {}
    for op in alive:
        for value in op.operands():
            readers.setdefault(value, []).append(op)
    single_use: dict[Value, Compute] = {}
    kept: list[Compute] = []
    for op in alive:
        mine = [value for value in op.operands() if value in single_use]
        if mine:
            bounds = op.bounds(outer)
            op.body = simplify_scalar(inline(op.body, single_use, bounds), Rewriting(bounds))
        users = readers.get(op.result, [])
        if not op.reductions and op.result not in provided and len(users) == 1 and _same_points(op, users[0]):
            single_use[op.result] = op
            users[0].location = merge_locations((op.location, users[0].location))
        else:
            kept.append(op)
    group = with_shared_loops(Group(tuple(_without_copies(kept, outputs)), outputs, location), outer)
    _check_results(group)
    return group


def _check_results(group: Group) -> None:
    """Each result has every outer dim of its loop nest but such as one program can have whole: else many would make one element."""
    provided = set(group.outputs.values())
    for nest in nests(group.computes):
        _check_nest(nest, provided)


def _check_nest(nest: list[Compute], provided: Set[Value]) -> None:
    outer = outer_dims(nest)
    wide = {dim.name: dim.extent for op in nest for dim in op.dims if dim.name in outer}
    multiplied = {dim.name for op in nest if contraction(op) is not None for dim in op.reductions}
    for op in nest:
        if op.result in provided:
            mine = {dim.name for dim in op.dims}
            lacking = [name for name in wide if name not in mine]
            points = product(wide[name] for name in lacking)
            operand = mine & multiplied - {dim.name for dim in op.dims if dim.extent == 1}
            if points != 1 and (operand or not points.is_constant or points.constant > WHOLE):
                dims = ", ".join(shown(name) for name in lacking if wide[name] != 1)
                raise NotFusable(f"%{op.result.name} is also needed outside, and would be written again along {dims}")


def with_shared_loops(group: Group, outer: Bounds) -> Group:
    """Two dims become one loop where members read one tensor at indices that are then equal, and no member has both dims.

    `s[i] = sum(k) x[i, k]; o[i, j] = x[i, j] * s[i]  ->  o[i, k] = x[i, k] * s[i]`: the row is read once.
    """
    for _ in range(len(group.computes)):
        names = _same_loops(group.computes)
        if not names:
            break
        computes, mapping = rebased(group.computes, names, {}, outer)
        group = Group(tuple(computes), {v: mapping[inner] for v, inner in group.outputs.items()}, group.location)
    return group


def _same_loops(computes: tuple[Compute, ...]) -> dict[str, str]:
    """New names for dims that a read shared by two members shows to be the same loop; empty when there are none left."""
    together: dict[str, set[str]] = {}
    extents: dict[str, Index] = {}
    seen: dict[Value, dict[tuple[Index, ...], None]] = {}
    for op in computes:
        mine = {dim.name for dim in op.domain}
        extents.update(op.extents())
        for name in mine:
            together.setdefault(name, set()).update(mine)
        for read in op.body.reads():
            seen.setdefault(read.source, {})[read.indices] = None
    inside = {op.result for op in computes}
    apart = nests(computes)
    nest_of = {dim.name: number for number, nest in enumerate(apart) for op in nest for dim in op.domain}
    for source, places in seen.items():
        if source in inside:
            continue
        for one, other in itertools.combinations(places, 2):
            pairs = {_renaming(b, a) for a, b in zip(one, other, strict=True) if a != b}
            if len(pairs) != 1:
                continue
            ((old, new),) = pairs
            if old not in extents or new not in extents:
                continue
            if extents[old] != extents[new] or new in together[old]:
                continue
            if nest_of[old] != nest_of[new] and spread_apart(apart[nest_of[old]], apart[nest_of[new]], {old: new}):
                continue
            return {old: new}
    return {}


def _renaming(before: Index, after: Index) -> tuple[str, str]:
    """The one variable whose other name makes an index into another, and that name; empty names where none does."""
    old, new = before.variables() - after.variables(), after.variables() - before.variables()
    if len(old) != 1 or len(new) != 1:
        return "", ""
    (one,), (other,) = old, new
    return (one, other) if before.substitute({one: other}) == after else ("", "")


def spread_apart(first: Sequence[Compute], second: Sequence[Compute], names: Mapping[str, str]) -> bool:
    """Whether each of two nests has a dim for the grid that the other lacks, with the `names` that some of the first's dims get.

    In one nest each would do its work again for every tile of the other's dim.
    """
    reduced = {dim.name for op in (*first, *second) for dim in op.reductions}
    reduced |= {names.get(name, name) for name in reduced}
    mine = {names.get(dim.name, dim.name) for op in first for dim in op.domain} - reduced
    theirs = {dim.name for op in second for dim in op.domain} - reduced
    return bool(mine - theirs) and bool(theirs - mine)


def _without_copies(computes: list[Compute], outputs: dict[Value, Value]) -> list[Compute]:
    """`%s = sum(..) ..; %o = compute[n, m] {%s[m, n]}  ->  %o = compute[n, m] sum(..) ..` when nobody else reads %s."""
    uses: dict[Value, int] = {}
    for op in computes:
        for value in op.operands():
            uses[value] = uses.get(value, 0) + 1
    provided = set(outputs.values())
    made = {op.result: position for position, op in enumerate(computes)}
    kept: list[Compute | None] = list(computes)
    for position, op in enumerate(computes):
        body = op.body
        if not isinstance(body, Read) or op.reductions or body.source not in made or body.source in provided:
            continue
        source = kept[made[body.source]]
        if source is None or uses[body.source] != 1:
            continue
        read = {name for i in body.indices for name in i.variables()}
        if any(dim.name not in read and dim.extent != 1 for dim in op.dims):
            continue
        if op.dtype is not source.dtype and source.accumulate is not source.dtype:
            continue  # two roundings
        place = merge_locations((source.location, op.location))
        new = source.with_domain(
            op.dims, source.reductions, source.body, dtype=op.dtype, name=op.result.name, location=place
        )
        new.results = op.results
        op.result.owner = new
        kept[made[body.source]] = None
        kept[position] = new
    return [op for op in kept if op is not None]


def _same_points(op: Compute, reader: Compute) -> bool:
    """Inlining repeats no work: the reader has no further dims, or is a sum of products, whose factors each have their own."""
    mine = {dim.name for dim in op.dims}
    if all(dim.name in mine or dim.extent == 1 for dim in reader.domain):
        return True
    return (
        reader.monoid == "sum"
        and any(dim.name in mine for dim in reader.reductions)
        and _is_factor(op.result, reader.body)
    )


def _is_factor(value: Value, body: Scalar) -> bool:
    """The value enters a product at the top of the body (through casts), so that inlining keeps it a product of two factors."""
    while getattr(body, "function", "") == "cast":
        body = body.children()[0]
    if precision_of(getattr(body, "function", "")) is None:
        return False
    left, right = (any(read.source is value for read in arg.reads()) for arg in body.children())
    return left != right
