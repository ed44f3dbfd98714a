"""The kernel summary: what every cost model reads of a fused group, derived once, with tile sizes left symbolic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from codesign.costmodel.factors import Factors
from codesign.costmodel.operations import Counts, count, count_body, spared
from codesign.costmodel.tested import Tested, tested
from codesign.costmodel.visits import shares_left
from codesign.ir.analysis import contraction, dependence
from codesign.ir.core import Value
from codesign.ir.dtypes import DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.fold import Account, accounts
from codesign.ir.functions import Unit
from codesign.ir.index import Atom, Bounds, Extremum, FloorDiv, Index, Mod, Var, index, minimum, product
from codesign.ir.precision import Precision
from codesign.ir.reach import Reach, reaches
from codesign.ir.scalar import Apply, Read, Scalar
from codesign.ir.scalar import Literal as Constant
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.tiling.outputs import OutputMap, output_maps
from codesign.ir.tiling.strands import strands
from codesign.ir.types import BufferType, TensorType, row_major


@dataclass(frozen=True)
class Access:
    """One access of external memory by a nest: `kind` of `tensor[index]` for every point of the nest's `dims`.

    `shape`, `strides` (elements) of the tensor; `index`: expression per tensor dimension over the group's dims.
    `gather`: names of tensors whose values the index depends on. `dims`: dims of the group that the index depends on.
    """

    tensor: str
    kind: Literal["load", "store", "atomic"]
    dtype: DType
    shape: tuple[Index, ...]
    strides: tuple[Index, ...]
    index: tuple[Index, ...]
    dims: tuple[str, ...]
    gather: tuple[str, ...] = ()
    padded: bool = False
    """Reads outside the tensor are replaced (pad, convolution borders)."""

    @cached_property
    def _key(self) -> int:
        return hash((self.tensor, self.kind, self.dtype, self.shape, self.strides, self.index, self.dims))

    def __hash__(self) -> int:
        return self._key  # asked for with every price

    def __reduce__(self) -> tuple[Any, ...]:
        return Access, tuple(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True)
class Contraction:
    """A nest that is a matrix product (`ir.analysis.contraction`): work for a tensor unit or systolic array.

    Dims by role: `m` only in the left factor, `n` only in the right, `k` reduced, `batch` in both and not reduced.
    `left`, `right`: dtypes of the factors as they reach the unit; `accumulate`: of the sum; `unit`: the dtype in which a
    matrix unit multiplies these factors without loss, None when none does and the vector unit has to; `precision`: what it rounds of
    factors in f32.
    """

    m: tuple[str, ...]
    n: tuple[str, ...]
    k: tuple[str, ...]
    batch: tuple[str, ...]
    left: DType
    right: DType
    accumulate: DType
    unit: DType | None
    plain: tuple[bool, bool] = (True, True)
    """Which factors reach the unit as they are loaded: reads of outside tensors with nothing but a conversion on them."""
    precision: Precision = "ieee"

    @property
    def operand(self) -> DType:
        """The dtype that both factors are multiplied in: the unit's, else the wider one's."""
        return self.unit or (self.left if self.left.bits >= self.right.bits else self.right)

    @property
    def factors(self) -> Factors:
        """How the factors are multiplied."""
        return Factors(self.operand, self.precision, self.unit is not None)


@dataclass(frozen=True)
class Nest:
    """One compute of the group.

    `dims`: parallel dims; `reductions`: reduced dims. `operations`: scalar operations per point of the whole domain
    (dims x reductions), keyed by (unit, dtype name), in issue slots; without the contraction's multiply-add, which is
    counted by `contraction`. `loads`, `stores`: external accesses; `internal`: names of values of the group that it
    reads. `result`: its value's name and dtype.
    """

    name: str
    dims: tuple[str, ...]
    reductions: tuple[str, ...]
    operations: Mapping[tuple[Unit, str], float]
    loads: tuple[Access, ...]
    stores: tuple[Access, ...]
    internal: tuple[str, ...]
    result: str
    dtype: DType
    accumulate: DType
    contraction: Contraction | None = None
    hoisted: tuple[tuple[tuple[str, ...], Mapping[tuple[Unit, str], float]], ...] = ()
    """Operations per point of only some of the dims: what a broadcast operand needs, or a factor of a contraction."""
    spared: tuple[tuple[tuple[str, ...], Mapping[tuple[Unit, str], float]], ...] = ()
    """Operations per point of some of the dims, of those above, that steps of loops do not do where masks leave everything in them."""


@dataclass(frozen=True)
class KernelSummary:
    """A fused group as cost models see it.

    `extents`: all dims by name (integers or expressions of symbols). `outer`: dims the grid goes over; `inner`: dims
    that some nest reduces. `symbols`: free size symbols. `read_bytes`, `write_bytes`: least possible traffic of
    external memory (each distinct element that is touched once), as expressions of the symbols.
    """

    name: str
    extents: Mapping[str, Index]
    outer: tuple[str, ...]
    inner: tuple[str, ...]
    nests: tuple[Nest, ...]
    read_bytes: Index
    write_bytes: Index
    symbols: tuple[str, ...] = ()
    key: str = ""
    """Structural hash: equal for groups that are the same up to names; what caches are keyed by."""
    notes: Mapping[str, str] = field(default_factory=dict)
    reach: Mapping[str, Reach] = field(default_factory=dict)
    """Of inner dims that masks cut, the part that loops along them visit."""
    tested: Mapping[str, Tested] = field(default_factory=dict)
    """Of inner dims, the tests by which data may leave out steps along them, where a schedule has them asked."""
    folding: tuple[str, ...] = ()
    """Dims along which reductions can go on in one pass though they need each other."""
    folded: KernelSummary | None = None
    """The group as its folds do it (`ir.fold`), where it has some: what a schedule that folds performs."""
    folds: tuple[str, ...] = ()
    """Dims along which this is the form with folds."""
    group: Fusion | None = field(default=None, repr=False, compare=False)
    """The group itself, from which its templates are made."""
    outputs: tuple[OutputMap, ...] = field(default=(), repr=False)
    """Where its results go in memory."""
    strands: tuple[KernelSummary, ...] = ()
    """The parts of a group whose programs lie side by side on the grid (`ir.tiling.strands`), where there are several."""

    @cached_property
    def chained(self) -> int:
        """Most contractions of which each needs the one before: 1 for products side by side, 2 for attention's."""
        depth: dict[str, int] = {}
        for nest in self.nests:
            before = max((depth.get(name, 0) for name in nest.internal), default=0)
            depth[nest.name] = before + (nest.contraction is not None)
        return max(depth.values(), default=0)

    def sizes(self, given: Mapping[str, int]) -> dict[str, int]:
        """Of sizes by name, those of its own symbols."""
        return {name: value for name, value in given.items() if name in self.symbols}


Place = tuple[tuple[Index, ...], tuple[Index, ...]]
"""Where a result goes: the shape of its tensor in memory, and the index of each dim of that over the dims of the result."""


def summarize(fusion: Fusion, name: str = "", key: str = "", places: Sequence[Place] = ()) -> KernelSummary:
    """The summary of a fused group, derived from its computes by walking their bodies once.

    Operations are counted per point of the dims that they depend on: what depends on fewer dims than the nest has is
    listed in `Nest.hoisted`. The multiply-add of a matrix product (`ir.analysis.contraction`) is not in `operations`.
    `places`: of each result, in a group whose dims are not those of its results in memory.
    Raises UnsupportedError for an op of the group that is not a compute.
    """
    for op in fusion.body.ops:
        if not isinstance(op, Compute):
            raise UnsupportedError(f"no cost rule for '{op.opcode}' inside a fused group", place=op.location)
    inside: dict[Value, Compute] = {compute.result: compute for compute in fusion.computes}
    own: list[Place] = [(where.type.shape, where.indices) for where in output_maps(fusion)]
    stored = dict(zip(fusion.body.yields, places or own, strict=True))
    reach = reaches(fusion.computes, {*fusion.body.yields}, Bounds())
    nests = tuple(_nest(compute, inside, stored.get(compute.result), reach) for compute in fusion.computes)
    outputs = [OutputMap(TensorType(value.type.dtype, shape), at) for value, (shape, at) in stored.items()]
    beside = _strands(fusion, name, places)
    whole = replace(_summary(fusion, name, key, nests, reach), group=fusion, outputs=tuple(outputs), strands=beside)
    account = accounts(fusion)
    tests = tested(fusion, account)
    whole = replace(whole, tested={dim: test for dim, test in tests.items() if not test.folded})
    if account is None:
        return whole
    folded = replace(whole, nests=_folded_nests(account, stored, reach), tested=tests, folds=account.dims)
    return replace(whole, folding=account.dims, folded=folded)


def _strands(fusion: Fusion, name: str, places: Sequence[Place]) -> tuple[KernelSummary, ...]:
    found = strands(fusion)
    own = [[places[k] for k in strand.results] if places else [] for strand in found]
    return tuple(summarize(one.fusion, name, places=at) for one, at in zip(found, own, strict=True) if len(found) > 1)


def _folded_nests(account: Account, stored: Mapping[Value, Place], reach: Mapping[str, Reach]) -> tuple[Nest, ...]:
    inside = {compute.result: compute for compute in account.computes}
    places = {made: stored[value] for value, made in account.yields.items()}
    return tuple(_nest(one, inside, places.get(one.result), reach, account.references) for one in account.computes)


def _summary(fusion: Fusion, name: str, key: str, nests: tuple[Nest, ...], reach: Mapping[str, Reach]) -> KernelSummary:
    extents = fusion.dims()
    loads = [access for nest in nests for access in nest.loads]
    stores = [access for nest in nests for access in nest.stores]
    touched = [e for access in (*loads, *stores) for e in (*access.index, *access.shape)]  # of operands may be others
    symbols = sorted({v for e in (*extents.values(), *touched) for v in e.variables()} - set(extents))
    return KernelSummary(
        name=name or fusion.label or (fusion.results[0].name if fusion.results else "kernel"),
        extents=extents,
        outer=fusion.outer_dims(),
        inner=fusion.inner_dims(),
        nests=nests,
        read_bytes=_least_bytes(loads, extents, reach),
        write_bytes=_least_bytes(stores, extents, {}),
        symbols=tuple(symbols),
        key=key,
        reach=reach,
    )


def _nest(
    compute: Compute,
    inside: Mapping[Value, Compute],
    stored: Place | None,
    reach: Mapping[str, Reach],
    carried: Set[Value] = frozenset(),
) -> Nest:
    """One compute's nest; `reach`: what masks leave of dims. `carried`: values that stand for what its loop carries, which are not loaded."""
    dims = tuple(dim.name for dim in compute.dims)
    reductions = tuple(dim.name for dim in compute.reductions)
    domain = frozenset((*dims, *reductions))
    product_of = _contraction(compute, inside)
    loads: dict[tuple[str, tuple[Index, ...]], Access] = {}
    if stored is not None:
        found = (_load(read, domain) for i in stored[1] for scalar in i.data() for read in scalar.reads())
        loads.update({(access.tensor, access.index): access for access in found})
    internal: dict[str, None] = {}
    counts: dict[frozenset[str], Counts] = {}
    for node, _ in dependence(compute.body, domain):
        if isinstance(node, Read):
            if node.source in inside:
                internal[label_of(node.source)] = None
            elif node.source not in carried:
                access = _load(node, domain)
                loads.setdefault((access.tensor, access.index), access)
    count_body(compute.body, domain, counts, product_of=product_of is not None)
    if reductions and product_of is None:
        unit, cost = _COMBINE[compute.monoid or "sum"]
        count(counts.setdefault(domain, {}), unit, compute.accumulate, cost)
    if (
        compute.dtype is not (compute.accumulate if reductions else compute.body.dtype)
        and compute.monoid not in _POSITIONS
    ):
        count(counts.setdefault(frozenset(dims), {}), "alu", compute.dtype, 1.0)  # the result's conversion
    whole = counts.pop(domain, {})
    stores: tuple[Access, ...] = ()
    if stored is not None:
        shape, where = stored
        gather = tuple(read.source.name for i in where for scalar in i.data() for read in scalar.reads())
        stores = (
            Access(label_of(compute.result), "store", compute.dtype, shape, row_major(shape), where, dims, gather),
        )
    return Nest(
        name=label_of(compute.result),
        dims=dims,
        reductions=reductions,
        operations=whole,
        loads=tuple(loads.values()),
        stores=stores,
        internal=tuple(internal),
        result=label_of(compute.result),
        dtype=compute.dtype,
        accumulate=compute.accumulate,
        contraction=product_of,
        hoisted=tuple((tuple(sorted(used)), found) for used, found in counts.items()),
        spared=tuple(
            (tuple(sorted(used)), found)
            for used, found in spared(compute, inside, reach, product_of=product_of is not None).items()
        ),
    )


_POSITIONS = ("argmax", "argmin", "any", "all")

_COMBINE: dict[str, tuple[Unit, float]] = {
    "sum": ("fma", 1.0),
    "prod": ("fma", 1.0),
    "max": ("alu", 1.0),
    "min": ("alu", 1.0),
    "any": ("alu", 1.0),
    "all": ("alu", 1.0),
    "argmax": ("alu", 3.0),
    "argmin": ("alu", 3.0),
}


def label_of(value: Value) -> str:
    """A name that is unique to the value: printed names need not be."""
    return f"{value.name or 'v'}#{id(value):x}"


def _load(read: Read, domain: frozenset[str]) -> Access:
    source_type = read.source.type
    shape = read.source.shape
    strides = source_type.strides if isinstance(source_type, BufferType) else row_major(shape)
    gathered = tuple(r.source.name for i in read.indices for scalar in i.data() for r in scalar.reads())
    used = tuple(sorted({v for i in read.indices for v in i.variables()} & domain))
    return Access(
        tensor=label_of(read.source),
        kind="load",
        dtype=read.dtype,
        shape=shape,
        strides=strides,
        index=read.indices,
        dims=used,
        gather=gathered,
        padded=read.otherwise is not None,
    )


def _strip(node: Scalar) -> Scalar:
    """The expression below conversions."""
    while isinstance(node, Apply) and node.function == "cast":
        node = node.args[0]
    return node


def _plain(factor: Scalar, inside: Mapping[Value, Compute]) -> bool:
    """Whether a factor is a read of an outside tensor, converted at most on the way into the unit."""
    read = _strip(factor)
    if not isinstance(read, Read) or read.source in inside:
        return False
    return read.otherwise is None or isinstance(read.otherwise, Constant)


def _contraction(compute: Compute, inside: Mapping[Value, Compute]) -> Contraction | None:
    """The contraction that a compute is; its body then is the product of two factors."""
    form, multiply = contraction(compute), compute.body
    if form is None:
        return None
    assert isinstance(multiply, Apply)
    left, right = multiply.args
    plain = (_plain(left, inside), _plain(right, inside))
    dtypes = form.left.dtype, form.right.dtype, form.accumulate, form.operand
    return Contraction(form.m, form.n, form.k, form.batch, *dtypes, plain, form.precision)


def index_range(expression: Index, sizes: Mapping[str, Any]) -> Any:
    """How many values an index expression spans when each dim d takes `sizes[d]` consecutive values (arrays
    broadcast).

    Affine parts are exact; a quotient spans a share of its numerator's span and a remainder at most its divisor; what
    depends on data spans at most the number of points that it depends on. Symbols that are not in `sizes` don't vary.
    """
    total: Any = 1.0
    for monomial, coefficient in expression.terms:
        if not monomial:
            continue
        span: Any = abs(coefficient)
        varies: Any = None
        for atom in monomial:
            reach = _atom_range(atom, sizes)
            if reach is None:
                span = span * np.abs(Index.atom(atom).evaluate(sizes)) if atom_is_size(atom, sizes) else span
            else:
                varies = reach if varies is None else varies * reach
        if varies is not None:
            total = total + span * (varies - 1.0)
    return total


def atom_is_size(atom: Atom, sizes: Mapping[str, Any]) -> bool:
    """True when the atom is a size symbol whose value is given under `symbol:<name>` or by its name."""
    return isinstance(atom, Var) and atom.name in sizes


def _atom_range(atom: Atom, sizes: Mapping[str, Any]) -> Any:
    if isinstance(atom, Var):
        return sizes.get(f"tile:{atom.name}")
    if isinstance(atom, FloorDiv):
        divisor = atom.denominator.constant if atom.denominator.is_constant else 1
        return np.ceil(index_range(atom.numerator, sizes) / max(divisor, 1))
    if isinstance(atom, Mod):
        span = index_range(atom.numerator, sizes)
        return np.minimum(span, atom.denominator.constant) if atom.denominator.is_constant else span
    if isinstance(atom, Extremum):
        spans = [index_range(arg, sizes) for arg in atom.args]
        result = spans[0]
        for span in spans[1:]:
            result = np.maximum(result, span)
        return result
    points: Any = 1.0
    for name in Index.atom(atom).variables():
        points = points * sizes.get(f"tile:{name}", 1.0)
    return points


def footprint(access: Access, sizes: Mapping[str, Any]) -> Any:
    """Distinct elements that an access touches, with `sizes["tile:<dim>"]` values of each dim and symbols by name;
    arrays broadcast."""
    box: Any = 1.0
    for expression, extent in zip(access.index, access.shape, strict=True):
        box = box * np.minimum(index_range(expression, sizes), extent.evaluate(sizes))
    points: Any = 1.0
    for dim in access.dims:
        points = points * sizes.get(f"tile:{dim}", 1.0)
    return np.minimum(box, points)


def kept_by_masks(access: Access, reach: Mapping[str, Reach], extents: Mapping[str, Any]) -> tuple[str, ...]:
    """The dims of an access of which masks leave only some elements: those whose limits follow other dims of it alone."""
    mine = set(access.dims)
    return tuple(dim for dim, left in reach.items() if dim in mine and left.variables & extents.keys() <= mine)


_PARTS = 1 << 20
"""Shares of elements are counted in so many parts."""


def _least_bytes(accesses: list[Access], extents: Mapping[str, Index], reach: Mapping[str, Reach]) -> Index:
    """Bytes of the distinct elements of all accesses, each tensor counted once, as an expression of the symbols."""
    by_tensor: dict[str, list[Access]] = {}
    for access in accesses:
        by_tensor.setdefault(access.tensor, []).append(access)
    total = index(0)
    known = {dim: extent.constant for dim, extent in extents.items() if extent.is_constant}
    certain = {dim: left for dim, left in reach.items() if {dim, *left.variables} <= known.keys()}
    shares = shares_left(certain, known, {})
    for group in by_tensor.values():
        whole = product(group[0].shape)
        touched = index(0)
        for access in {a.index: a for a in group}.values():
            points = product(extents[dim] for dim in access.dims)
            for dim in kept_by_masks(access, certain, extents):
                points = points * round(shares[dim] * _PARTS) // _PARTS
            touched = touched + minimum(whole, points)
        elements = minimum(whole, touched)
        bits = group[0].dtype.bits if group[0].dtype.kind != "bool" else 8
        total = total + (elements * bits + 7) // 8
    return total
