"""Writes into a part of a tensor around fusion: their values are groups' work like any other, and the group that makes one writes it."""

from __future__ import annotations

from collections.abc import Mapping

from codesign.ir.core import Block, Op, Value
from codesign.ir.index import Bounds, Index, index
from codesign.ir.scalar import Read
from codesign.ir.tensor import Compute, Dim, Fusion, Scatter
from codesign.ir.writes import Write
from codesign.passes.cleanup import remove_dead
from codesign.passes.views import inline_index
from codesign.passes.writes.memory import Ownership, first_place


def write_values_apart(block: Block, outer: Bounds) -> None:
    """Before fusion: what a write writes becomes a compute, and the write moves its elements to places that it works out itself.

    rewrite:
        %r = scatter set %b over (i: N) at [t(i)] { f(i) }  ->  %v = compute[i: N] { f(i) }; %r = scatter set %b over (i: N) at [t(i)] { %v[i] }
    """
    ops: list[Op] = []
    makers = {op.result: op for op in block.ops if isinstance(op, Compute) and not op.reductions}
    for op in block.ops:
        if isinstance(op, Scatter) and _by_groups(op):
            op.target = tuple(_worked_out(i, op, makers, outer) for i in op.target)
        if isinstance(op, Scatter) and _by_groups(op) and not _moves_a_compute(op):
            name = f"{op.result.name}_new"
            new = Compute(op.dims, op.body, dtype=op.init.type.dtype, name=name, location=op.location)
            op.body = Read(new.result, [dim.name for dim in op.dims])
            ops.append(new)
        ops.append(op)
    block.ops = ops
    remove_dead(block)  # what only made places


def _worked_out(place: Index, op: Scatter, makers: Mapping[Value, Compute], outer: Bounds) -> Index:
    """A place in terms of what element-wise work starts from, unless that is the memory that is written."""
    bounds, found, base = outer.with_extents(op.extents()), place, op.init
    written = {base}
    while isinstance(base.owner, Scatter):
        base = base.owner.init
        written.add(base)
    while any(source in makers for source in _read_by(found)):
        found = inline_index(found, makers, bounds)
    return place if written & _read_by(found) else found


def _read_by(place: Index) -> set[Value]:
    return {read.source for scalar in place.data() for read in scalar.reads()}


def _by_groups(op: Scatter) -> bool:
    """Whether groups make a write: no machine combines elements of fewer than 16 bits in its memory, and where there is nothing to write into
    there is nothing to combine with."""
    if op.combine == "set":
        return True
    return op.init.type.dtype.bits >= 16 and all(size != 0 for size in op.init.shape)


def _moves_a_compute(op: Scatter) -> bool:
    moved = _moved(op)
    return moved is not None and isinstance(moved.owner, Compute)


def _moved(op: Scatter) -> Value | None:
    """The tensor whose elements, all of them, a write moves as they are, each from its own point."""
    body = op.body
    if not isinstance(body, Read) or body.otherwise is not None:
        return None
    if body.source.shape != tuple(dim.extent for dim in op.dims):  # the first columns of it
        return None
    return body.source if body.indices == tuple(index(dim.name) for dim in op.dims) else None


def write_in_groups(block: Block, updates: Mapping[int, int | str]) -> None:
    """After fusion: each write is done by the group that makes what it writes, or by a group of its own, in the memory of the tensor or,
    where its old value is still wanted, of a copy of it."""
    for op in [op for op in block.ops if isinstance(op, Scatter)]:
        moved = _moved(op)
        if moved is None or not _by_groups(op):
            continue
        owned = Ownership(block, updates)
        if not owned.may_overwrite(op):
            copy = _copied(op.init)
            block.ops.insert(_early(block, op, moved), copy)
            op.init = copy.result
            owned = Ownership(block, updates)
        maker = moved.owner
        if isinstance(maker, Fusion) and _can_write(maker, moved, op, owned):
            _hosted(block, maker, moved, op)
        else:
            alone = _group_of(Compute(op.dims, op.body, name=moved.name, location=op.location), op)
            _replace(block, {op: alone}, {op.result: alone.result})


def _early(block: Block, op: Scatter, moved: Value) -> int:
    """Where a copy goes: before the group that makes what is written, which may then write it, if what is copied is there by then."""
    place = {other: position for position, other in enumerate(block.ops)}
    here, maker = place[op], first_place(moved, place)
    return maker if first_place(op.init, place) < maker < here else here


def _copied(value: Value) -> Fusion:
    dims = [Dim(f"i{k}", size) for k, size in enumerate(value.shape)]
    copy = Compute(dims, Read(value, [dim.name for dim in dims]), name=f"{value.name}_copy")
    return Fusion(Block([], [copy], [copy.result]), names=[copy.result.name])


def _group_of(compute: Compute, op: Scatter) -> Fusion:
    write = Write(op.init, op.target, op.within, op.combine)
    body = Block([], [compute], [compute.result])
    return Fusion(body, names=[op.result.name], writes={0: write}, location=op.location)


def _can_write(maker: Fusion, moved: Value, op: Scatter, owned: Ownership) -> bool:
    """Whether the group that makes the values can write them: all that the write needs is there before, nobody wants the old value between,
    and the group itself reads it at most where it writes, and not at all where others may write before it reads."""
    here, there = owned.place[maker], owned.place[op]
    if maker.shapes:  # its dims are not those of what is written
        return False
    write = _for_results(maker, moved, op)
    if any(first_place(value, owned.place) >= here for value in write.operands()):
        return False
    root = owned.root(op.init)
    between = [other for other in owned.block.ops[here + 1 : there] if root in map(owned.root, other.uses())]
    own = {owned.root(value) for w in maker.writes.values() for value in w.operands()}
    if between or root in own:
        return False
    made = maker.body.yields[maker.results.index(moved)].owner
    assert isinstance(made, Compute)
    extents = {dim.name for dim in made.dims}
    return all(
        op.combine == "set"
        and read.indices == write.at
        and extents >= {name for i in read.indices for name in i.variables()}
        for compute in maker.computes
        for read in compute.body.reads()
        if owned.root(read.source) is root
    )


def _for_results(maker: Fusion, moved: Value, op: Scatter) -> Write:
    """The write over the dims that the group has for what is written."""
    made = maker.body.yields[maker.results.index(moved)].owner
    assert isinstance(made, Compute)
    names: dict[str, Index] = {a.name: index(b.name) for a, b in zip(op.dims, made.dims, strict=True)}
    return Write(op.init, tuple(i.substitute(names) for i in op.target), op.within, op.combine)


def _hosted(block: Block, maker: Fusion, moved: Value, op: Scatter) -> None:
    """The group with the write; where others want the values as well, it gives both."""
    write = _for_results(maker, moved, op)
    position = maker.results.index(moved)
    wanted = moved in block.yields or any(moved in other.uses() for other in block.ops if other is not op)
    ops, yields, writes = list(maker.body.ops), list(maker.body.yields), dict(maker.writes)
    names = [value.name for value in maker.results]
    if wanted:
        made = yields[position].owner
        assert isinstance(made, Compute)
        again = Compute(made.dims, Read(made.result, [dim.name for dim in made.dims]), name=op.result.name)
        ops.append(again)
        position = len(yields)
        yields.append(again.result)
        names.append(op.result.name)
    else:
        names[position] = op.result.name
    writes[position] = write
    new = Fusion(Block([], ops, yields), names=names, label=maker.label, writes=writes, location=maker.location)
    mapping = dict(zip(maker.results, new.results, strict=False))
    mapping[op.result] = new.results[position]
    _replace(block, {maker: new, op: None}, mapping)


def _replace(block: Block, instead: Mapping[Op, Op | None], mapping: Mapping[Value, Value]) -> None:
    ops = [instead.get(op, op) for op in block.ops]
    block.ops = [op for op in ops if op is not None]
    for op in block.ops:
        op.replace(mapping)
    block.yields = tuple(mapping.get(value, value) for value in block.yields)
