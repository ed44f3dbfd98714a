"""One phase of a program as Triton makes code of it: which of its loads go by themselves to shared memory, and what takes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from codesign.backends.triton.generated.layout import Layout, Product, vector_bytes
from codesign.backends.triton.generated.spread import Spread
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.phases import Phase
from codesign.costmodel.gpu.program import Multiply, Transfer
from codesign.costmodel.summary import Access

NARROWEST_COPY = 4.0
"""Bytes of the narrowest copy from global to shared memory that goes on by itself; narrower loads go by registers."""


class Fetched(NamedTuple):
    """A load of a phase: its bytes, those that a thread takes at once, where it is staged, and the product that takes it and as which
    factor (0 its rows, 1 its columns)."""

    load: Transfer
    again: bool
    size: Array
    vector: Array
    staged: Array
    product: Product | None
    side: int | None


class PhaseCode:
    """A phase under each schedule: its products, and its loads as they are `fetched`."""

    def __init__(self, phase: Phase, layout: Layout, products: dict[Multiply, Product]) -> None:
        self.phase, self.layout = phase, layout
        self.products = {text: products[text] for text in phase.products}
        moved = [*(fetch.load for fetch in phase.fetches), *phase.stores]
        accesses = [] if phase.products else [one.access for one in moved]
        self.spread = Spread(accesses, self.products.values(), layout)
        self.fetched = [self._fetch(fetch.load, fetch.again) for fetch in phase.fetches]

    def _fetch(self, load: Transfer, again: bool) -> Fetched:
        layout = self.layout
        size = layout.elements(load.access.dims) * load.access.dtype.bytes
        vector = vector_bytes(load.access, layout)
        staged = layout.once(staged_loads, load.access, load.pipelined)
        found, side = self._factor(load)
        if layout.matrix_cores and found is None:  # what feeds no product waits in registers
            staged = np.False_
        return Fetched(load, again, size, vector, staged, found, side)

    def _factor(self, load: Transfer) -> tuple[Product | None, int | None]:
        """The product of the phase that takes a load as it is, and as which factor."""
        for text in self.phase.multiplies:
            for side, factor in enumerate(text.plain):
                if factor is not None and factor.key == load.key:
                    return self.products[text], side
        return None, None


def staged_loads(layout: Layout, access: Access, pipelined: bool) -> Array:
    """Where loads of an access go by themselves to shared memory."""
    return pipelined & layout.pipelined & np.greater_equal(vector_bytes(access, layout), NARROWEST_COPY)
