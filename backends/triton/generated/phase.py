"""One phase of a program as Triton makes code of it: which of its loads go by themselves to shared memory, and what takes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from codesign.backends.triton.generated.layout import WIDEST_ACCESS, Layout, Product, vector_bytes
from codesign.backends.triton.generated.spread import Spread
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.phases import Phase
from codesign.costmodel.gpu.program import Multiply, Transfer
from codesign.costmodel.summary import Access

NARROWEST_COPY = 4.0
"""Bytes of the narrowest copy from global to shared memory that goes on by itself; narrower loads go by registers."""


class Fetched(NamedTuple):
    """A load of a phase: its bytes, those that a thread takes at once, where it is made ahead of its step by a copy that goes on by itself
    (`copied`), where it has buffers in shared memory for its stages (`staged`), and the product that takes it and as which factor (0 its rows, 1 its
    columns)."""

    load: Transfer
    again: bool
    size: Array
    vector: Array
    copied: Array
    staged: Array
    product: Product | None
    side: int | None


class PhaseCode:
    """A phase under each schedule: its products, its loads as they are `fetched`, and how those lie that no product takes (`loads`); `before`: how
    tiles of a phase before it lie."""

    def __init__(
        self, phase: Phase, layout: Layout, products: dict[Multiply, Product], before: Spread | None = None
    ) -> None:
        self.phase, self.layout, self.before = phase, layout, before
        self.products = {text: products[text] for text in phase.products}
        loads = [fetch.load for fetch in phase.fetches]
        self.loads = Spread([load.access for load in loads if self._factor(load)[0] is None], (), layout)
        accesses = [] if phase.products else [one.access for one in (*loads, *phase.stores)]
        self.spread = Spread(accesses, self.products.values(), layout)
        self.fetched = [self._fetch(fetch.load, fetch.again) for fetch in phase.fetches]

    def _fetch(self, load: Transfer, again: bool) -> Fetched:
        layout = self.layout
        size = layout.elements(load.access.dims) * load.access.dtype.bytes
        vector = self._vector(load.access)
        copied = load.pipelined & layout.pipelined & np.greater_equal(vector, NARROWEST_COPY)
        found, side = self._factor(load)
        staged = copied
        if layout.matrix_cores and found is None:  # what feeds no product waits in registers
            staged = np.False_
        elif layout.padded and found is not None:  # narrow loads reach the same buffers by registers
            staged = load.pipelined & layout.pipelined
        return Fetched(load, again, size, vector, copied, staged, found, side)

    def _vector(self, access: Access) -> Array:
        """Bytes that a thread takes at once. What has fewer elements than the block threads is loaded as the tile lies that it meets
        (`isExpensiveLoadOrStore` of Triton 3.9.0: other loads keep their places, and change them after)."""
        vector = vector_bytes(access, self.layout)
        run = self.loads.run(access)
        if run is None:
            return vector
        few = np.less(self.layout.elements(access.dims), self.layout.threads)
        return np.where(few, np.minimum(run * access.dtype.bytes, WIDEST_ACCESS), vector)

    def _factor(self, load: Transfer) -> tuple[Product | None, int | None]:
        """The product of the phase that takes a load as it is, and as which factor."""
        for text in self.phase.multiplies:
            for side, factor in enumerate(text.plain):
                if factor is not None and factor.key == load.key:
                    return self.products[text], side
        return None, None
