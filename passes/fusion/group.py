"""Groups of computes under construction, and the merge of two groups into one loop nest.

A group's dims are named so that equal names are the same loop. Merging renames the first group's dims after the second's, cuts
dims where a reshape lies between the two, and inlines element-wise producers that are read elsewhere than at their own point.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from codesign.ir.core import Block, Value
from codesign.ir.index import Bounds, FloorDiv, Index, Mod, index
from codesign.ir.location import Location
from codesign.ir.location import merge as merge_locations
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.passes.algebra import Rewriting, simplify_scalar
from codesign.passes.rebase import Split, digits_asked_for, mixed_radix, rebased
from codesign.passes.views import inline


class NotFusable(Exception):
    """Two groups can't be one kernel; the text says why."""


class _Clash(NotFusable):
    """A read of a producer that is not at the producer's own point; inlining the producer may help."""

    def __init__(self, producer: Compute, reason: str) -> None:
        self.producer = producer
        super().__init__(reason)


@dataclass(eq=False)
class Group:
    """Computes that one kernel will do.

    `computes`: private copies in order. `outputs`: values of the surrounding block that the group provides, and the private value
    that holds each. `external`: values of the surrounding block that it reads, in order of first use.
    """

    computes: tuple[Compute, ...]
    outputs: dict[Value, Value]
    location: Location
    external: tuple[Value, ...] = field(init=False)

    def __post_init__(self) -> None:
        inside = {op.result for op in self.computes}
        self.external = tuple(
            dict.fromkeys(value for op in self.computes for value in op.operands() if value not in inside)
        )

    def fusion(self) -> Fusion:
        """The group as an op over private copies, with plain names for its dims."""
        names = plain_names(self.computes)
        copies, mapping = rebased(self.computes, names, {}, Bounds())
        block = Block((), copies, (mapping[value] for value in self.outputs.values()))
        return Fusion(block, names=[value.name for value in self.outputs], location=self.location)


def _plain(text: object) -> str:
    """Names of dims in a message as the user knows them, without the numbers that tell groups' dims apart."""
    return re.sub(r"(?<=\w)\.\d+", "", str(text))


_counter = itertools.count()


def single(op: Compute) -> Group:
    """The group of one compute, with dim names that no other group has."""
    names = {dim.name: f"{dim.name.split('.')[0]}.{next(_counter)}" for dim in op.domain}
    (copy,), mapping = rebased([op], names, {}, Bounds())
    return Group((copy,), {op.result: mapping[op.result]}, op.location)


def plain_names(computes: Iterable[Compute]) -> dict[str, str]:
    """Short unique names for the dims of a group: the original one, or with a number where two would be the same."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for op in computes:
        for dim in op.domain:
            if dim.name in names:
                continue
            base = dim.name.split(".")[0]
            name, count = base, 1
            while name in taken:
                name, count = f"{base}{count}", count + 1
            taken.add(name)
            names[dim.name] = name
    return names


def merge(first: Group, second: Group, keep: Set[Value], outer: Bounds) -> Group:
    """One group that does the work of both; `first` comes before `second` (no value flows back).

    `keep`: values of the surrounding block that are used outside of both. Raises NotFusable with the reason.
    """
    first = _with_other_names(first, second)
    producers = {op.result: op for op in first.computes}
    flows = {value: producers[inner] for value, inner in first.outputs.items() if value in second.external}
    kept = {value for value in first.outputs if value in keep}
    inlined: dict[Value, Compute] = {}
    while True:
        consumers = _with_inlined(second, flows, inlined, producers, outer)
        try:
            return _join(first, consumers, flows, second, kept, outer)
        except _Clash as clash:
            if clash.producer.reductions or clash.producer.result in inlined:
                raise NotFusable(str(clash)) from None
            inlined[clash.producer.result] = clash.producer


def _with_other_names(first: Group, second: Group) -> Group:
    """The first group with fresh dim names where the two share some (both hold a copy of one producer)."""
    theirs = {dim.name for op in second.computes for dim in op.domain}
    clashing = {dim.name for op in first.computes for dim in op.domain} & theirs
    if not clashing:
        return first
    names = {name: f"{name.split('.')[0]}.{next(_counter)}" for name in sorted(clashing)}
    computes, mapping = rebased(first.computes, names, {}, Bounds())
    return Group(tuple(computes), {v: mapping[inner] for v, inner in first.outputs.items()}, first.location)


def _with_inlined(
    second: Group,
    flows: Mapping[Value, Compute],
    inlined: Mapping[Value, Compute],
    producers: Mapping[Value, Compute],
    outer: Bounds,
) -> list[Compute]:
    """Copies of the second group's computes that read the first's private values, with some of these inlined."""
    inner = {value: op.result for value, op in flows.items()}

    def change(op: Compute, body: Scalar) -> Scalar:
        if any(value in inner for value in op.operands()):
            body = body.replace_sources(inner)
            for _ in range(len(inlined)):
                if not any(read.source in inlined for read in body.reads()):
                    break
                body = simplify_scalar(inline(body, inlined, op.bounds(outer)), Rewriting(op.bounds(outer)))
        return body

    copies, _ = rebased(second.computes, {}, {}, outer, change)
    return copies


@dataclass
class _Basis:
    """What is decided about dims while two groups are joined."""

    names: dict[str, str] = field(default_factory=dict)
    first_splits: dict[str, Split] = field(default_factory=dict)
    second_splits: dict[str, Split] = field(default_factory=dict)


def _reads_between(
    producers: Mapping[Value, Compute], consumers: Iterable[Compute]
) -> list[tuple[Compute, Compute, Read]]:
    return [
        (producers[read.source], op, read) for op in consumers for read in op.body.reads() if read.source in producers
    ]


def _join(
    first: Group,
    consumers: list[Compute],
    flows: Mapping[Value, Compute],
    second: Group,
    kept: Set[Value],
    outer: Bounds,
) -> Group:
    producers = {op.result: op for op in first.computes}
    originals = dict(zip((op.result for op in second.computes), consumers, strict=True))
    outputs = {value: originals[inner] for value, inner in second.outputs.items()}
    consumers, outputs = _cut_consumers(producers, consumers, outputs, outer)
    basis = _Basis()
    fixed = {dim.name for value, inner in first.outputs.items() if value in kept for dim in producers[inner].dims}
    positions = _positions_only(first.computes)
    for producer, consumer, read in _reads_between(producers, consumers):
        _align(basis, producer, consumer, read, fixed, positions, outer)
    _check(basis, first.computes)
    leftover = {dim.name: dim.extent for op in first.computes for dim in op.domain}
    leftover = {k: v for k, v in leftover.items() if k not in basis.names and k not in basis.first_splits}
    if leftover:
        _share_loops(basis, leftover, first.computes, consumers)
        if not flows and not basis.names:
            _same_shapes(basis, leftover, first, second, consumers)
    moved, mapping = rebased(first.computes, basis.names, basis.first_splits, outer)
    dims_of = {op.result: tuple(index(dim.name) for dim in op.dims) for op in moved}

    def own(_: Compute, body: Scalar) -> Scalar:
        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Read) and node.source in mapping:
                new = mapping[node.source]
                return Read(new, dims_of[new])
            return None

        return body.rewrite(change)

    changed, second_mapping = rebased(consumers, {}, {}, outer, own)
    provided = {value: mapping[inner] for value, inner in first.outputs.items() if value in kept}
    provided.update({value: second_mapping[op.result] for value, op in outputs.items()})
    return tidy([*moved, *changed], provided, merge_locations((first.location, second.location)), outer)


def _cut_consumers(
    producers: Mapping[Value, Compute], consumers: list[Compute], outputs: dict[Value, Compute], outer: Bounds
) -> tuple[list[Compute], dict[Value, Compute]]:
    """Cut the second group's dims of which a read takes digits (`%v[c // T, c % T]`), where no output has that dim."""
    wanted: dict[str, tuple[Index, list[Index], Compute]] = {}
    for producer, consumer, read in _reads_between(producers, consumers):
        for expression in read.indices:
            if not any(isinstance(atom, (FloorDiv, Mod)) for atom in expression.atoms()):
                continue
            for name in expression.variables() & consumer.extents().keys():
                entry = wanted.setdefault(name, (consumer.extents()[name], [], producer))
                entry[1].append(expression)
    if not wanted:
        return consumers, outputs
    outside = {dim.name for op in outputs.values() for dim in op.dims}
    positions = _positions_only(consumers)
    splits: dict[str, Split] = {}
    for name, (extent, expressions, producer) in wanted.items():
        split = digits_asked_for(name, extent, expressions)
        if split is None:
            continue
        if name in outside:
            raise _Clash(producer, f"a reshape cuts dim {_plain(name)} of a result")
        if name in positions:
            raise _Clash(producer, "a reshape cuts the dim of an argmax or argmin")
        splits[name] = split
    if not splits:
        return consumers, outputs
    cut, mapping = rebased(consumers, {}, splits, outer)
    by_result = {op.result: op for op in cut}
    return cut, {value: by_result[mapping[op.result]] for value, op in outputs.items()}


def _positions_only(computes: Iterable[Compute]) -> set[str]:
    """Dims that can't be cut because a reduction reports positions along them."""
    return {dim.name for op in computes if op.monoid in ("argmax", "argmin") for dim in op.reductions}


def _align(
    basis: _Basis,
    producer: Compute,
    consumer: Compute,
    read: Read,
    fixed: Set[str],
    positions: Set[str],
    outer: Bounds,
) -> None:
    """Decide names and splits of the producer's dims so that this read is at the producer's own point."""
    if read.otherwise is not None:
        raise _Clash(producer, "read with a guard (padding) of a value that can't be recomputed")
    extents = consumer.extents()
    for dim, expression in zip(producer.dims, read.indices, strict=True):
        name = expression.variable
        if name is not None and name in extents and extents[name] == dim.extent and dim.name not in basis.first_splits:
            if basis.names.setdefault(dim.name, name) != name:
                raise _Clash(producer, f"dim {_plain(dim.name)} is read at two different points")
            continue
        digits = None if expression.data() else mixed_radix(expression, dim.extent, extents)
        if digits is None:
            raise _Clash(producer, f"read at {_plain(expression)} along dim {_plain(dim.name)}, not at each point once")
        if dim.name in fixed:
            raise _Clash(producer, f"a reshape cuts dim {_plain(dim.name)} of a value that is needed elsewhere")
        if dim.name in positions:
            raise _Clash(producer, "a reshape cuts the dim of an argmax or argmin")
        split = Split(dim.name, tuple(Dim(name, extents[name]) for name in digits), expression)
        if dim.name in basis.names or basis.first_splits.setdefault(dim.name, split) != split:
            raise _Clash(producer, f"dim {_plain(dim.name)} is read at two different points")
    used = [name for dim in producer.dims for name in _new_names(basis, dim.name)]
    if len(used) != len(set(used)):
        raise _Clash(producer, "two dims are read along one loop")


def _new_names(basis: _Basis, name: str) -> tuple[str, ...]:
    if name in basis.first_splits:
        return tuple(digit.name for digit in basis.first_splits[name].digits)
    return (basis.names.get(name, name),)


def _check(basis: _Basis, computes: Iterable[Compute]) -> None:
    for op in computes:
        used = [name for dim in op.domain for name in _new_names(basis, dim.name)]
        if len(used) != len(set(used)):
            raise _Clash(op, "two dims of one computation would be the same loop")


def _share_loops(
    basis: _Basis, leftover: dict[str, Index], first: Iterable[Compute], second: Iterable[Compute]
) -> None:
    """Make dims of both groups the same loop where both read one tensor at indices that are then equal."""
    reads: dict[Value, list[tuple[Compute, Read]]] = {}
    for op in second:
        for read in op.body.reads():
            reads.setdefault(read.source, []).append((op, read))
    members = list(first)
    for op in members:
        for read in op.body.reads():
            for other, theirs in reads.get(read.source, ()):
                pairs = _pairing(basis, leftover, read, theirs, other.extents())
                if not pairs:
                    continue
                trial = _Basis({**basis.names, **pairs}, basis.first_splits, basis.second_splits)
                try:
                    for member in members:
                        _check(trial, [member])
                except NotFusable:
                    continue
                basis.names.update(pairs)
                for name in pairs:
                    leftover.pop(name, None)


def _same_shapes(
    basis: _Basis, leftover: dict[str, Index], first: Group, second: Group, consumers: Iterable[Compute]
) -> None:
    """Two groups that share nothing but have results of one shape walk it together."""
    mine = next(op for op in first.computes if op.result in first.outputs.values())
    place = next(i for i, op in enumerate(second.computes) if op.result in second.outputs.values())
    theirs = list(consumers)[place]
    if len(mine.dims) != len(theirs.dims) or any(
        a.extent != b.extent for a, b in zip(mine.dims, theirs.dims, strict=True)
    ):
        return
    for a, b in zip(mine.dims, theirs.dims, strict=True):
        basis.names[a.name] = b.name
        leftover.pop(a.name, None)


def _pairing(
    basis: _Basis, leftover: Mapping[str, Index], mine: Read, theirs: Read, extents: Mapping[str, Index]
) -> dict[str, str]:
    """Leftover dims of the first group with the second's dims that make the two reads equal; empty when none do."""
    pairs: dict[str, str] = {}
    for a, b in zip(mine.indices, theirs.indices, strict=True):
        name, target = a.variable, b.variable
        if name is None or target is None or name not in leftover:
            continue
        if target not in extents or extents[target] != leftover[name] or pairs.setdefault(name, target) != target:
            return {}
    if not pairs:
        return {}
    values: dict[str, Index | int | str] = {**basis.names, **pairs}
    values.update({name: split.value for name, split in basis.first_splits.items()})
    same = all(a.substitute(values) == b for a, b in zip(mine.indices, theirs.indices, strict=True))
    return pairs if same else {}


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
    group = _with_shared_loops(Group(tuple(_without_copies(kept, outputs)), outputs, location), outer)
    _check_results(group)
    return group


def _check_results(group: Group) -> None:
    """Each result has every outer dim of the group: else many programs would write one element."""
    inner = {dim.name for op in group.computes for dim in op.reductions}
    wide = {dim.name: dim.extent for op in group.computes for dim in op.dims if dim.name not in inner}
    provided = set(group.outputs.values())
    for op in group.computes:
        if op.result in provided:
            mine = {dim.name for dim in op.dims}
            lacking = [name for name, extent in wide.items() if name not in mine and extent != 1]
            if lacking:
                dims = ", ".join(_plain(name) for name in lacking)
                raise NotFusable(f"%{op.result.name} is also needed outside, and would be written again along {dims}")


def _with_shared_loops(group: Group, outer: Bounds) -> Group:
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
    for source, places in seen.items():
        if source in inside:
            continue
        for one, other in itertools.combinations(places, 2):
            pairs = {(b.variable, a.variable) for a, b in zip(one, other, strict=True) if a != b}
            if len(pairs) != 1:
                continue
            ((old, new),) = pairs
            if old is None or new is None or old not in extents or new not in extents:
                continue
            if extents[old] == extents[new] and new not in together[old]:
                return {old: new}
    return {}


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
        new = Compute(
            op.dims,
            source.body,
            dtype=op.dtype,
            reductions=source.reductions,
            monoid=source.monoid,
            accumulate=source.accumulate,
            name=op.result.name,
            location=merge_locations((source.location, op.location)),
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
    if getattr(body, "function", "") != "mul":
        return False
    left, right = (any(read.source is value for read in arg.reads()) for arg in body.children())
    return left != right
