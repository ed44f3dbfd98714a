"""Kernels of an empty domain, which cost what those of a single point do."""

from __future__ import annotations

from dataclasses import replace

from codesign.costmodel.summary import Access, KernelSummary
from codesign.ir.index import Index, index
from codesign.ir.types import row_major


def of_a_point(summary: KernelSummary) -> KernelSummary:
    """A summary with one in place of every empty extent and size."""

    def sizes(shape: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(index(1) if size == 0 else size for size in shape)

    def nonempty(accesses: tuple[Access, ...]) -> tuple[Access, ...]:
        return tuple(replace(a, shape=sizes(a.shape), strides=row_major(sizes(a.shape))) for a in accesses)

    nests = tuple(replace(nest, loads=nonempty(nest.loads), stores=nonempty(nest.stores)) for nest in summary.nests)
    extents = dict(zip(summary.extents, sizes(tuple(summary.extents.values())), strict=True))
    return replace(summary, extents=extents, nests=nests, folding=(), folded=None)
