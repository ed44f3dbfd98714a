"""Cutting a reduced dim into parts of one length, of which the last may be ragged, and what computes are over one part.

The parts are of one length C = K/S, or of a multiple of `STEP` where S does not divide K: the last one is then ragged, and what lies
beyond K gives the reduction's identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from codesign.ir.core import Op, Value
from codesign.ir.index import Index, index, minimum
from codesign.ir.precision import precision_of
from codesign.ir.scalar import Apply, IndexValue, Literal, Read, Scalar, apply, cast, select
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.tiling import monoids

STEP = 64
"""Parts that are not all of one length are of a multiple of this many elements: whole steps and whole lines of memory but in the last."""


def part_length(extent: int, parts: int) -> int:
    """Elements of each part but the last, which has the rest."""
    if extent % parts == 0:
        return extent // parts
    return -(-extent // (parts * STEP)) * STEP


def whole_parts(extent: int, parts: int) -> int:
    """The number of parts, at most so many, that a split of an extent has."""
    return -(-extent // part_length(extent, parts))


@dataclass
class Cut:
    """A dim of a group in parts: the dim `part` that counts them and `small` within one. `made`: values over one part by the original's."""

    dim: str
    extent: int
    part: Dim
    small: Dim
    made: dict[Value, Value] = field(default_factory=dict)

    @staticmethod
    def of(fusion: Fusion, dim: str, extent: int, parts: int) -> Cut:
        parts = whole_parts(extent, parts)
        part = Dim(fresh_dim(f"{dim}_part", fusion), index(parts))
        return Cut(dim, extent, part, Dim(dim, index(part_length(extent, parts))))

    @property
    def place(self) -> Index:
        return index(self.part.name) * self.small.extent + index(self.dim)

    @property
    def length(self) -> Index:
        """Elements of a part."""
        chunk = self.small.extent
        return chunk if self._whole else minimum(chunk, self.extent - index(self.part.name) * chunk)

    @property
    def _whole(self) -> bool:
        return self.part.extent * self.small.extent == self.extent

    def compute(
        self, compute: Compute, stand_ins: Mapping[Value, Scalar] | None = None, *, partial: bool = False
    ) -> Compute:
        """A compute over one part; a `partial` result has the part's dim in front. `stand_ins`: what to put for reads of some values."""

        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Read) and stand_ins is not None and node.source in stand_ins:
                return stand_ins[node.source]
            if isinstance(node, Read) and node.source in self.made:
                owner = self.made[node.source].owner
                assert isinstance(owner, Compute)
                return Read(self.made[node.source], [dim.name for dim in owner.dims])
            return None

        body = compute.body.substitute({self.dim: self.place}).rewrite(change)
        if not self._whole:
            beyond = Beyond(self.place, self.extent)
            body = beyond.identity(body, compute) if partial else beyond.safe(body)
        in_place = any(dim.name == self.dim for dim in compute.dims)
        ahead = partial or (self.part.name in body.variables() and not in_place and not compute.reductions)
        dims: list[Dim] = [self.part] if ahead else []
        for dim in compute.dims:
            dims += [self.part, self.small] if dim.name == self.dim else [dim]
        reductions = [self.small if dim.name == self.dim else dim for dim in compute.reductions]
        name, dtype = (f"{compute.result.name}_part", compute.accumulate) if partial else ("", compute.dtype)
        new = compute.with_domain(dims, reductions, body, dtype=dtype, name=name)
        self.made[compute.result] = new.result
        return new


@dataclass(frozen=True)
class Beyond:
    """The points of the last part at or beyond the extent, which nothing may be read at and which must not count."""

    place: Index
    extent: int

    def identity(self, body: Scalar, reduction: Compute) -> Scalar:
        """The reduced body, which there is the reduction's identity."""
        assert reduction.monoid is not None
        body = monoids.truth(reduction.monoid, body)
        return self._valued(body, monoids.identity(reduction.monoid, body.dtype).value)

    def safe(self, body: Scalar) -> Scalar:
        """The body with zeros for what it reads beyond a tensor."""
        dims = self.place.variables()

        def change(node: Scalar) -> Scalar | None:
            if not isinstance(node, Read) or node.otherwise is not None:
                return None
            reaches = any(dims & i.variables() for i in node.indices)
            return Read(node.source, node.indices, Literal(0, node.dtype)) if reaches else None

        return body.rewrite(change)

    def _valued(self, body: Scalar, value: float | int | bool) -> Scalar:
        """The body with a value at the points beyond: by what its loads bring where that is enough, else by a comparison.

        Both factors of a product are zero there, as zero times infinity is not.
        """
        if isinstance(body, Read) and self._ends(body, value):
            return Read(body.source, body.indices, Literal(value, body.dtype))
        if isinstance(body, Apply) and body.function == "cast" and body.args[0].dtype.kind == body.dtype.kind:
            return cast(self._valued(body.args[0], value), body.dtype)
        if isinstance(body, Apply) and precision_of(body.function) and value == 0:
            if all(arg.variables() & self.place.variables() for arg in body.args):
                return apply(body.function, *(self._valued(arg, value) for arg in body.args))
        inside = apply("lt", IndexValue(self.place), IndexValue(index(self.extent)))
        return select(inside, self.safe(body), Literal(value, body.dtype))

    def _ends(self, read: Read, value: float | int | bool) -> bool:
        """Whether the tensor ends where the extent does, so that points beyond are outside of it."""
        if read.otherwise is not None and not (isinstance(read.otherwise, Literal) and read.otherwise.value == value):
            return False
        pairs = zip(read.indices, read.source.shape, strict=True)
        return any(i == self.place and size == self.extent for i, size in pairs)


def live(ops: Sequence[Op], yields: Sequence[Value]) -> list[Op]:
    """Those that the results need."""
    needed = set(yields)
    kept: list[Op] = []
    for op in reversed(ops):
        if op.results[0] in needed:
            needed.update(op.operands())
            kept.append(op)
    return kept[::-1]


def fresh_dim(name: str, fusion: Fusion) -> str:
    taken = set(fusion.dims())
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}{count}"
    return candidate
