"""The merge of two groups into one loop nest.

The first group's dims are renamed after the second's, dims are cut where a reshape lies between the two, and element-wise producers
that are read elsewhere than at their own point are inlined.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from codesign.ir.analysis import contraction
from codesign.ir.core import Value
from codesign.ir.index import Bounds, FloorDiv, Index, Mod
from codesign.ir.location import Location
from codesign.ir.location import merge as merge_locations
from codesign.ir.reshape import reshaped
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute, Dim
from codesign.passes.algebra import Rewriting, simplify_scalar
from codesign.passes.fusion.columns import in_columns
from codesign.passes.fusion.group import Group, NotFusable, fresh_name, shown
from codesign.passes.fusion.picks import with_picks
from codesign.passes.fusion.segments import in_segments
from codesign.passes.fusion.tidy import spread_apart, tidy, with_shared_loops
from codesign.passes.rebase import Split, digits_asked_for, mixed_radix, rebased, redirected
from codesign.passes.views import inline

LARGEST = 1024
"""Nodes of one scalar expression: what is longer keeps compilers and every later merge busy for longer than a launch is worth."""


class _Clash(NotFusable):
    """A read of a producer that is not at the producer's own point; inlining the producer may help."""

    def __init__(self, producer: Compute, reason: str) -> None:
        self.producer = producer
        super().__init__(reason)


class _Pick(_Clash):
    """A read of a producer that can't be inlined, at a position read from data."""


class _CutResult(_Clash):
    """A reshape between the two cuts a dim of a result, which can be written in parts."""


def merge(first: Group, second: Group, keep: Set[Value], outer: Bounds) -> Group:
    """One group that does the work of both; `first` comes before `second` (no value flows back).

    `keep`: values of the surrounding block that are used outside of both. Raises NotFusable with the reason.
    """
    first = _with_other_names(first, second)
    inlined: dict[Value, Compute] = {}
    cut_results = False
    while True:
        producers = {op.result: op for op in first.computes}
        flows = {value: producers[inner] for value, inner in first.outputs.items() if value in second.external}
        kept = {value for value in first.outputs if value in keep}
        consumers = _with_inlined(second, flows, inlined, producers, outer)
        try:
            return _join(first, consumers, flows, second, kept, outer, cut_results)
        except _Pick as clash:
            second = _with_picks_of(clash, second, flows, inlined, outer)
        except _CutResult as clash:
            cut_results = not _inlined_instead(clash, inlined)
        except _Clash as clash:
            if not _inlined_instead(clash, inlined):
                outputs = _outputs_of(second, consumers)
                first, second = _in_parts(clash, first, consumers, outputs, kept, second.location, outer)
                inlined = {}


def _in_parts(
    clash: _Clash,
    first: Group,
    readers: Sequence[Compute],
    outputs: Mapping[Value, Compute],
    kept: Set[Value],
    location: Location,
    outer: Bounds,
) -> tuple[Group, Group]:
    """Both groups with the dims in parts along which the producer of a clash is not read at its own points."""
    segments = in_segments(readers, outputs, clash.producer, location, outer)
    if segments is not None:
        inside = {op.result for op in first.computes}
        wanted = {value: value for value in segments.external if value in inside}
        before = Group(first.computes, {**first.outputs, **wanted}, first.location)
        return before, with_shared_loops(segments, outer)
    parted = in_columns(first, readers, outputs, clash.producer, kept, outer)
    if parted is None:
        raise NotFusable(str(clash))
    return parted


def _outputs_of(group: Group, copies: Sequence[Compute]) -> dict[Value, Compute]:
    """What copies of a group's computes provide."""
    of = dict(zip((op.result for op in group.computes), copies, strict=True))
    return {value: of[inner] for value, inner in group.outputs.items()}


def _with_picks_of(
    clash: _Pick, second: Group, flows: Mapping[Value, Compute], inlined: Mapping[Value, Compute], outer: Bounds
) -> Group:
    """The second group with its reads of what holds the producer of a clash, as it is or inlined, as reductions."""
    for value, op in flows.items():
        if _holds(op, clash.producer, inlined):
            picked = with_picks(second, value, outer)
            if picked is not None:
                return picked
    raise NotFusable(str(clash))


def _holds(op: Compute, producer: Compute, inlined: Mapping[Value, Compute]) -> bool:
    """Whether a read of an op is, once computes are inlined, one of a producer."""
    if op is producer or op.result not in inlined:
        return op is producer
    return any(
        source is producer.result or (source in inlined and _holds(inlined[source], producer, inlined))
        for source in op.operands()
    )


def _inlined_instead(clash: _Clash, inlined: dict[Value, Compute]) -> bool:
    """Whether the producer of a clash could be entered among those that are inlined."""
    if clash.producer.reductions or clash.producer.result in inlined:
        return False
    inlined[clash.producer.result] = clash.producer
    return True


def _with_other_names(first: Group, second: Group) -> Group:
    """The first group with fresh dim names where the two share some (both hold a copy of one producer)."""
    theirs = {dim.name for op in second.computes for dim in op.domain}
    clashing = dict.fromkeys(dim.name for op in first.computes for dim in op.domain if dim.name in theirs)
    if not clashing:
        return first
    names = {name: fresh_name(name) for name in clashing}
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
            body = _reading_inside(body, inner, op.bounds(outer))
            for _ in range(len(inlined)):
                if not any(read.source in inlined for read in body.reads()):
                    break
                _check_size(body, inlined)
                body = simplify_scalar(inline(body, inlined, op.bounds(outer)), Rewriting(op.bounds(outer)))
        return body

    copies, _ = rebased(second.computes, {}, {}, outer, change)
    return copies


def _check_size(body: Scalar, inlined: Mapping[Value, Compute]) -> None:
    """NotFusable where an expression with what it reads in place of the reads is too long."""
    grown = sum(_nodes(inlined[read.source].body) for read in body.reads() if read.source in inlined)
    if grown and (nodes := grown + _nodes(body)) > LARGEST:
        raise NotFusable(f"an element would be one expression of {nodes:,} terms, where {LARGEST:,} are the most")


def _nodes(body: Scalar) -> int:
    return sum(1 for _ in body.walk())


def _reading_inside(body: Scalar, inner: Mapping[Value, Value], bounds: Bounds) -> Scalar:
    """The expression over a group's private values, of which some are over parts of the dims of what they hold."""

    def change(node: Scalar) -> Scalar | None:
        if not isinstance(node, Read) or node.source not in inner:
            return None
        held = inner[node.source]
        if held.shape == node.source.shape:
            return None
        return Read(held, reshaped(node.indices, node.source.shape, held.shape, bounds), node.otherwise)

    return body.rewrite(change).replace_sources(inner)


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
    cut_results: bool,
) -> Group:
    producers = {op.result: op for op in first.computes}
    outputs = _outputs_of(second, consumers)
    consumers, outputs = _cut_consumers(producers, consumers, outputs, outer, cut_results)
    basis = _Basis()
    whole = () if cut_results else (inner for value, inner in first.outputs.items() if value in kept)
    fixed = {dim.name for inner in whole for dim in producers[inner].dims}
    positions = _positions_only(first.computes)
    for producer, consumer, read in _reads_between(producers, consumers):
        _align(basis, producer, consumer, read, fixed, positions, outer)
    _check(basis, first.computes)
    leftover = {dim.name: dim.extent for op in first.computes for dim in op.domain}
    leftover = {k: v for k, v in leftover.items() if k not in basis.names and k not in basis.first_splits}
    if leftover:
        _share_loops(basis, leftover, first.computes, consumers)
        if not flows and (not basis.names or spread_apart(first.computes, second.computes, basis.names)):
            _same_shapes(basis, leftover, first, second, consumers)
    if not flows and spread_apart(first.computes, second.computes, basis.names):
        basis = _Basis()
    moved, mapping = rebased(first.computes, basis.names, basis.first_splits, outer)
    dims_of = {op.result: op.dims for op in moved}
    changed, second_mapping = rebased(consumers, {}, {}, outer, lambda _, body: redirected(body, mapping, dims_of))
    provided = {value: mapping[inner] for value, inner in first.outputs.items() if value in kept}
    provided.update({value: second_mapping[op.result] for value, op in outputs.items()})
    return tidy([*moved, *changed], provided, merge_locations((first.location, second.location)), outer)


def _cut_consumers(
    producers: Mapping[Value, Compute],
    consumers: list[Compute],
    outputs: dict[Value, Compute],
    outer: Bounds,
    cut_results: bool,
) -> tuple[list[Compute], dict[Value, Compute]]:
    """Cut the second group's dims of which a read takes digits (`%v[c // T, c % T]`); those of results where they may be cut."""
    wanted: dict[str, tuple[Index, list[Index], Compute]] = {}
    for producer, consumer, read in _reads_between(producers, consumers):
        for expression in read.indices:
            if not any(isinstance(atom, (FloorDiv, Mod)) for atom in expression.atoms()):
                continue
            used = expression.variables()
            for name, extent in consumer.extents().items():
                if name not in used:
                    continue
                entry = wanted.setdefault(name, (extent, [], producer))
                entry[1].append(expression)
    if not wanted:
        return consumers, outputs
    outside = set() if cut_results else {dim.name for op in outputs.values() for dim in op.dims}
    positions = _positions_only(consumers)
    splits: dict[str, Split] = {}
    for name, (extent, expressions, producer) in wanted.items():
        split = digits_asked_for(name, extent, expressions)
        if split is None:
            continue
        if name in outside:
            raise _CutResult(producer, f"a reshape cuts dim {shown(name)} of a result")
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
    if producer.reductions and any(i.data() for i in read.indices):
        raise _Pick(producer, f"read at {', '.join(map(shown, read.indices))}, a position from data")
    if read.otherwise is not None:
        raise _Clash(producer, "read with a guard (padding) of a value that can't be recomputed")
    extents = consumer.extents()
    for dim, expression in zip(producer.dims, read.indices, strict=True):
        name = expression.variable
        if name is not None and name in extents and extents[name] == dim.extent and dim.name not in basis.first_splits:
            if basis.names.setdefault(dim.name, name) != name:
                raise _Clash(producer, f"dim {shown(dim.name)} is read at two different points")
            continue
        digits = None if expression.data() else mixed_radix(expression, dim.extent, extents)
        if digits is None:
            raise _Clash(producer, f"read at {shown(expression)} along dim {shown(dim.name)}, not at each point once")
        if dim.name in fixed:
            raise _CutResult(producer, f"a reshape cuts dim {shown(dim.name)} of a value that is needed elsewhere")
        if dim.name in positions:
            raise _Clash(producer, "a reshape cuts the dim of an argmax or argmin")
        split = Split(dim.name, tuple(Dim(name, extents[name]) for name in digits), expression)
        if dim.name in basis.names or basis.first_splits.setdefault(dim.name, split) != split:
            raise _Clash(producer, f"dim {shown(dim.name)} is read at two different points")
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
    """Two groups that have results of one shape walk it together, unless loops that they share say otherwise, or products are made in one."""
    if basis.names and any(contraction(op) is not None for op in (*first.computes, *second.computes)):
        return
    mine = next(op for op in first.computes if op.result in first.outputs.values())
    place = next(i for i, op in enumerate(second.computes) if op.result in second.outputs.values())
    theirs = list(consumers)[place]
    if len(mine.dims) != len(theirs.dims) or any(
        a.extent != b.extent for a, b in zip(mine.dims, theirs.dims, strict=True)
    ):
        return
    pairs = {a.name: b.name for a, b in zip(mine.dims, theirs.dims, strict=True)}
    others = {b for a, b in basis.names.items() if a not in pairs}
    if any(basis.names.get(a, b) != b or b in others for a, b in pairs.items()):
        return
    basis.names.update(pairs)
    for a in mine.dims:
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
