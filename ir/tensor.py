"""Operations of the tensor level.

Nearly everything is a `Compute`: an iteration domain, reads whose indices are expressions of it, and a scalar expression. A `Fusion`
groups computes that one kernel will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from codesign.ir.core import Block, Op, Value, tensor_type
from codesign.ir.draws import Distribution
from codesign.ir.dtypes import BOOL, I64, DType
from codesign.ir.index import Bounds, Index
from codesign.ir.location import UNKNOWN, Location
from codesign.ir.scalar import Scalar
from codesign.ir.types import TensorType
from codesign.ir.writes import Combine, Write

Monoid = Literal["sum", "prod", "max", "min", "any", "all", "argmax", "argmin"]
"""How a reduction combines: `max`/`min` propagate NaN; `argmax`/`argmin` give the first position along one dim."""

MONOIDS: tuple[Monoid, ...] = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of an iteration domain: `0 <= name < extent`."""

    name: str
    extent: Index

    def __str__(self) -> str:
        return f"{self.name}: {self.extent}"


class Compute(Op):
    """`%r = compute f16[i: M, j: N] sum(k: K) in f32 { body }`.

    For every point of the parallel dims, the body is reduced over the reduction dims with the monoid, in the dtype `accumulate` (of the
    body when there is no reduction), then converted to the result's dtype. The result's shape is the parallel extents.
    """

    opcode: ClassVar[str] = "compute"

    def __init__(
        self,
        dims: Iterable[Dim],
        body: Scalar,
        *,
        dtype: DType | None = None,
        reductions: Iterable[Dim] = (),
        monoid: Monoid | None = None,
        accumulate: DType | None = None,
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        self.dims = tuple(dims)
        self.reductions = tuple(reductions)
        self.monoid: Monoid | None = monoid
        self.body = body
        natural = I64 if monoid in ("argmax", "argmin") else BOOL if monoid in ("any", "all") else body.dtype
        self.accumulate = accumulate or body.dtype
        result = TensorType(dtype or natural, tuple(dim.extent for dim in self.dims))
        super().__init__((Value(result, name),), location)

    @property
    def dtype(self) -> DType:
        """Dtype of the result."""
        return self.result.type.dtype

    @property
    def domain(self) -> tuple[Dim, ...]:
        """All dims, parallel then reduction."""
        return (*self.dims, *self.reductions)

    def with_body(self, body: Scalar) -> Compute:
        """The same of another body: over the same domain, to a result of its own."""
        return self.with_domain(self.dims, self.reductions, body)

    def with_domain(
        self,
        dims: Iterable[Dim],
        reductions: Iterable[Dim],
        body: Scalar,
        *,
        dtype: DType | None = None,
        name: str = "",
        monoid: Monoid | None = None,
        location: Location | None = None,
    ) -> Compute:
        """The same of another body over another domain, to a result of its own; what is not said is as here. Without reductions nothing is
        accumulated."""
        reduced = tuple(reductions)
        return Compute(
            dims,
            body,
            dtype=dtype or self.dtype,
            reductions=reduced,
            monoid=(monoid or self.monoid) if reduced else None,
            accumulate=self.accumulate if reduced else None,
            name=name or self.result.name,
            location=location or self.location,
        )

    def extents(self) -> dict[str, Index]:
        return {dim.name: dim.extent for dim in self.domain}

    def bounds(self, outer: Bounds) -> Bounds:
        """The outer bounds (symbols) with this domain's extents."""
        return outer.with_extents(self.extents())

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(read.source for read in self.body.reads()))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.body = self.body.replace_sources(mapping)


class Constant(Op):
    """A named tensor of the model (parameter, buffer or literal); its data, if any, is in `Module.constants`."""

    opcode: ClassVar[str] = "constant"

    def __init__(self, constant: str, type: TensorType, *, name: str = "", location: Location = UNKNOWN) -> None:
        self.constant = constant
        super().__init__((Value(type, name or constant),), location)


class Empty(Op):
    """`%r = empty f32[M, N]`: memory that nothing has written yet, for groups that each write a part of it.

    What its elements are before that is nobody's to rely on; in the interpreter they are zeros.
    """

    opcode: ClassVar[str] = "empty"

    def __init__(self, type: TensorType, *, name: str = "", location: Location = UNKNOWN) -> None:
        super().__init__((Value(type, name),), location)


class Fusion(Op):
    """A group of computes that one kernel will do: `%o = fusion { ...; yield %o }`.

    Reads values from outside freely. Dims of the same name in different computes are the same loop: they have equal extents, and a read of
    a value made inside is `%v[its own parallel dims by name]` (the verifier checks both). So the iteration domain of the group is the union
    of its dims by name. Results are the yielded values' types, in order. A result in `writes` (by its position) is a tensor from before with
    the yielded value written into it, in its own memory; one in `shapes` has that shape, with the yielded value's elements in their order.
    """

    opcode: ClassVar[str] = "fusion"

    def __init__(
        self,
        body: Block,
        *,
        names: Iterable[str] = (),
        label: str = "",
        writes: Mapping[int, Write] | None = None,
        shapes: Mapping[int, tuple[Index, ...]] | None = None,
        location: Location = UNKNOWN,
    ) -> None:
        self.body = body
        self.label = label
        self.writes = dict(writes or {})
        self.shapes = dict(shapes or {})
        given = list(names) or [value.name for value in body.yields]
        super().__init__((Value(t, n) for t, n in zip(self.result_types(), given, strict=True)), location)

    def result_types(self) -> list[TensorType]:
        """The types that the results have in memory."""
        types = [tensor_type(self.writes[k].base if k in self.writes else v) for k, v in enumerate(self.body.yields)]
        return [TensorType(t.dtype, self.shapes[k]) if k in self.shapes else t for k, t in enumerate(types)]

    @property
    def computes(self) -> tuple[Compute, ...]:
        return tuple(op for op in self.body.ops if isinstance(op, Compute))

    def dims(self) -> dict[str, Index]:
        """All dims of the group by name, in order of first appearance."""
        return {dim.name: dim.extent for compute in self.computes for dim in compute.domain}

    def inner_dims(self) -> tuple[str, ...]:
        """Dims that some compute reduces over; the others are the outer dims, over which the grid goes."""
        return tuple(dict.fromkeys(dim.name for compute in self.computes for dim in compute.reductions))

    def outer_dims(self) -> tuple[str, ...]:
        """Dims that no compute reduces over."""
        inner = set(self.inner_dims())
        return tuple(name for name in self.dims() if name not in inner)

    def blocks(self) -> tuple[Block, ...]:
        return (self.body,)

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(value for write in self.writes.values() for value in write.operands()))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        super().replace(mapping)
        self.writes = {position: write.replaced(mapping) for position, write in self.writes.items()}


class Scatter(Op):
    """`%r = scatter add %init over (i: N, j: D) at [%ids[i], j] { body }`.

    The result starts as `init`; for every point of the domain the body's value is combined into the element at `target`.
    `combine`: "set" (of points that share an element one wins, as in torch; in the interpreter the last), "add", "mul",
    "max", "min". Targets outside the tensor are skipped; where it says `within` instead of `at` they are an error.
    """

    opcode: ClassVar[str] = "scatter"

    def __init__(
        self,
        combine: Combine,
        init: Value,
        dims: Iterable[Dim],
        target: Iterable[Index],
        body: Scalar,
        *,
        within: bool = False,
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        self.within = within
        self.combine = combine
        self.init = init
        self.dims = tuple(dims)
        self.target = tuple(target)
        self.body = body
        super().__init__((Value(init.type, name),), location)

    def extents(self) -> dict[str, Index]:
        return {dim.name: dim.extent for dim in self.dims}

    def _scalars(self) -> tuple[Scalar, ...]:
        return (self.body, *(scalar for i in self.target for scalar in i.data()))

    def operands(self) -> tuple[Value, ...]:
        reads = (read.source for scalar in self._scalars() for read in scalar.reads())
        return tuple(dict.fromkeys((self.init, *reads)))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.init = mapping.get(self.init, self.init)
        self.body = self.body.replace_sources(mapping)
        self.target = tuple(i.substitute({}, lambda s: s.replace_sources(mapping)) for i in self.target)


class Scan(Op):
    """`%r = scan f32[i: M, j: N] sum over j in f32 { body }`: inclusive running reduction along one parallel dim.

    `argmax`/`argmin` give the position of the running extremum, the last one among equals.
    """

    opcode: ClassVar[str] = "scan"

    def __init__(
        self,
        dims: Iterable[Dim],
        body: Scalar,
        *,
        monoid: Literal["sum", "prod", "max", "min", "argmax", "argmin", "logsumexp"],
        over: str,
        dtype: DType | None = None,
        accumulate: DType | None = None,
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        self.dims = tuple(dims)
        self.body = body
        self.monoid = monoid
        self.over = over
        self.accumulate = accumulate or body.dtype
        natural = I64 if monoid in ("argmax", "argmin") else body.dtype
        super().__init__((Value(TensorType(dtype or natural, tuple(d.extent for d in self.dims)), name),), location)

    def extents(self) -> dict[str, Index]:
        return {dim.name: dim.extent for dim in self.dims}

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(read.source for read in self.body.reads()))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.body = self.body.replace_sources(mapping)


class Sort(Op):
    """`%values, %positions = sort %x dim 1 descending keep 5`: stable sort along a dim; `keep`: only the first (top-k)."""

    opcode: ClassVar[str] = "sort"

    def __init__(
        self,
        source: Value,
        dim: int,
        *,
        descending: bool = False,
        keep: Index | None = None,
        names: tuple[str, str] = ("", ""),
        location: Location = UNKNOWN,
    ) -> None:
        self.source = source
        self.dim = dim
        self.descending = descending
        self.keep = keep
        shape = list(source.shape)
        if keep is not None:
            shape[dim] = keep
        values, positions = TensorType(source.type.dtype, tuple(shape)), TensorType(I64, tuple(shape))
        super().__init__((Value(values, names[0]), Value(positions, names[1])), location)

    def operands(self) -> tuple[Value, ...]:
        return (self.source,)

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.source = mapping.get(self.source, self.source)


class Random(Op):
    """`%r = random uniform f32[M, N] seed 17 offset 0`: numbers from counters (Philox 4x32-10).

    `distribution`: "uniform" in [0, 1), "normal", or "bits" (32-bit words). An element's number follows from the seed, its row, and its
    column plus the offset, as `codesign.ir.draws` says. With `key`, an i64[] value, the seed is that of the run: `seed %key + 17`, modulo 2**64.
    """

    opcode: ClassVar[str] = "random"

    def __init__(
        self,
        distribution: Distribution,
        type: TensorType,
        *,
        seed: int,
        offset: int = 0,
        key: Value | None = None,
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        self.distribution = distribution
        self.seed = seed
        self.offset = offset
        self.key = key
        super().__init__((Value(type, name),), location)

    def operands(self) -> tuple[Value, ...]:
        return () if self.key is None else (self.key,)

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        if self.key is not None:
            self.key = mapping.get(self.key, self.key)


class _Operands(Op):
    """Base of ops over a plain list of operands."""

    def __init__(self, inputs: Iterable[Value], results: Iterable[Value], location: Location = UNKNOWN) -> None:
        self.inputs = tuple(inputs)
        super().__init__(results, location)

    def operands(self) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(self.inputs))

    def replace(self, mapping: Mapping[Value, Value]) -> None:
        self.inputs = tuple(mapping.get(value, value) for value in self.inputs)
        super().replace(mapping)


class Call(_Operands):
    """`%r = call "aten.sort.default"(%x) {dim = 1} : f32[M]`: an external routine, costed but not compiled by us.

    `attributes` are plain data: bool, int, float, str, None, and (nested) tuples of them.
    """

    opcode: ClassVar[str] = "call"

    def __init__(
        self,
        target: str,
        inputs: Iterable[Value],
        types: Iterable[TensorType],
        *,
        attributes: Mapping[str, Any] | None = None,
        names: Iterable[str] = (),
        location: Location = UNKNOWN,
    ) -> None:
        self.target = target
        self.attributes = dict(attributes or {})
        kinds = list(types)
        labels = list(names) or [""] * len(kinds)
        super().__init__(inputs, (Value(t, n) for t, n in zip(kinds, labels, strict=True)), location)


class Collective(_Operands):
    """`%r = collective all_reduce sum(%x) over 8 : f16[M]`: communication; costed, identity on one device."""

    opcode: ClassVar[str] = "collective"

    def __init__(
        self,
        kind: Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"],
        source: Value,
        type: TensorType,
        *,
        devices: int,
        combine: str = "sum",
        name: str = "",
        location: Location = UNKNOWN,
    ) -> None:
        self.kind = kind
        self.devices = devices
        self.combine = combine
        super().__init__((source,), (Value(type, name),), location)


class Launch(_Operands):
    """`%o = launch @kernel(%x, %w) : f16[M, N]`: run a tile-level kernel on the inputs, then the results."""

    opcode: ClassVar[str] = "launch"

    def __init__(
        self,
        kernel: str,
        inputs: Iterable[Value],
        types: Iterable[TensorType],
        *,
        names: Iterable[str] = (),
        location: Location = UNKNOWN,
    ) -> None:
        self.kernel = kernel
        kinds = list(types)
        labels = list(names) or [""] * len(kinds)
        super().__init__(inputs, (Value(t, n) for t, n in zip(kinds, labels, strict=True)), location)


class If(_Operands):
    """`%r = if %cond { ...; yield } else { ...; yield }`; the condition is a bool tensor of rank 0."""

    opcode: ClassVar[str] = "if"

    def __init__(
        self,
        condition: Value,
        then: Block,
        otherwise: Block,
        *,
        names: Iterable[str] = (),
        location: Location = UNKNOWN,
    ) -> None:
        self.then = then
        self.otherwise = otherwise
        labels = list(names) or [""] * len(then.yields)
        results = (Value(v.type, n) for v, n in zip(then.yields, labels, strict=True))
        super().__init__((condition,), results, location)

    def blocks(self) -> tuple[Block, ...]:
        return (self.then, self.otherwise)

    def runs(self, sizes: Mapping[str, int]) -> tuple[float, ...]:
        return (0.5, 0.5)


class While(_Operands):
    """`%r = while (%a = %init) times 5 cond { ...; yield %c } do { ...; yield %next }`: both blocks take the carried values.

    `trips`: how often the body runs, as far as that is known: a number or an expression of size symbols, or the name by which a user gives it
    when costing. It decides nothing but the price.
    """

    opcode: ClassVar[str] = "while"

    def __init__(
        self,
        initial: Iterable[Value],
        condition: Block,
        body: Block,
        *,
        trips: Index | str = "",
        names: Iterable[str] = (),
        location: Location = UNKNOWN,
    ) -> None:
        self.condition = condition
        self.body = body
        self.trips = trips
        start = tuple(initial)
        labels = list(names) or [""] * len(start)
        super().__init__(start, (Value(v.type, n) for v, n in zip(start, labels, strict=True)), location)

    def blocks(self) -> tuple[Block, ...]:
        return (self.condition, self.body)

    def steps(self, sizes: Mapping[str, int]) -> int | None:
        """How often the body runs; None where nobody has said."""
        return sizes.get(self.trips) if isinstance(self.trips, str) else int(self.trips.evaluate(sizes))

    def runs(self, sizes: Mapping[str, int]) -> tuple[float, ...]:
        steps = self.steps(sizes)
        return (1.0, 1.0) if steps is None else (steps + 1.0, float(steps))
