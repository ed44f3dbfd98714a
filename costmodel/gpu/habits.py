"""What libraries of products do by rule, and not since it is quickest: each read off measured products of one architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary, Nest

SPLIT_FROM = {"ada": (2.0**21, 8192.0)}
"""By architecture, multiply-adds of a 16-bit product, or terms of its sums, from which on its library cuts these in parts. Read off
products of few results on an L40S: of 4 x 64 results 7168 terms take 31 us in one part and 8192 take 4.8, of 4 x 32 10240 take 5.2."""

NARROW = {"ada": (64.0, 2.0**16)}
"""By architecture: products of at most so many columns and more than so many results have their sums in parts only from `SPLIT_FROM`'s terms on. Read
off an L40S: 2048 x 32 results of 6144 terms take 18 us and 2561 x 32 take 30, 1024 x 64 of 5120 take 13 and 1536 x 64 take 26; of 29 such
products 28 go by it."""

FLAT = {"ada": ((0.0, 16.0, 1024.0, 3.0), (32.0, 64.0, 1536.0, 3.0))}
"""The same of products of more than so many rows and at most so many, and of at least so many columns, with fewer terms than so many times the
columns: of 1024 columns and 8 rows 2560 terms take 11 us and 3584 take 6; of 1536 columns and 64 rows 3584 terms take 18.5 us, in parts 10.8."""

SHORT = {"ada": (16.0, 256.0, 512.0, 2048.0)}
"""The same of products of more than so many rows and at most so many, of at least so many columns, and with fewer than so many terms: of 64 rows and
768 columns 1536 terms take 8.9 us and 2048 take 7.0."""

QUICK = {"ampere": (1.7e6, 256.0, 16.0, 1.1e-6)}
"""By architecture: a 16-bit product of more than so many multiply-adds (or of at most so many rows, the third) and of at most so many
terms of a sum has a kernel that starts by so many seconds sooner than the others. Read off products of few results on an A100:
with sums of 32, 64, 128 and 256 terms 1.57 M multiply-adds take 4.2, 4.1, 4.4 and 4.9 us, and 1.84 to 2.1 M take 3.0, 3.3, 3.3 and 4.2;
with 512, 768 and 1024 all take 5.9, 6.8 and 7.8, on the line through the slower ones; up to 16 rows all of the shortest take 2.5 to 2.9."""


def usual_start(architecture: str) -> float:
    """Seconds that a library's products start later in the mean than its quickest ones, taken for half of what its slower kernels do."""
    return QUICK[architecture][3] / 2.0 if architecture in QUICK else 0.0


def splits_offered(
    kernel: KernelSummary, machine: Machine, space: Mapping[str, Any], sizes: Mapping[str, Array]
) -> Any:
    """Schedules by rows: where a library has a rule for it, parts of the sums are offered for products of some size only."""
    splits = [column for name, column in space.items() if name.startswith("split.")]
    nest = _product(kernel)
    if machine.architecture not in SPLIT_FROM or nest is None or not splits:
        return True
    architecture = machine.architecture
    work, terms, rows = _size(kernel, nest, sizes)
    results = work / terms
    columns = results / rows
    least, long = SPLIT_FROM[architecture]
    narrow, many = NARROW[architecture]
    whole = np.less_equal(columns, narrow) & np.greater(results, many) & np.less(terms, long)
    for more, most, wide, times in FLAT[architecture]:
        tall = np.greater(rows, more) & np.less_equal(rows, most)
        whole = whole | (tall & np.greater_equal(columns, wide) & np.less(terms, times * columns))
    more, most, wide, few = SHORT[architecture]
    tall = np.greater(rows, more) & np.less_equal(rows, most)
    whole = whole | (tall & np.greater_equal(columns, wide) & np.less(terms, few))
    cut = (np.greater_equal(work, least) | np.greater(terms, long)) & np.logical_not(whole)
    return np.less_equal(np.max(splits, axis=0), 1.0) | cut


def start_seconds(kernel: KernelSummary, machine: Machine, sizes: Mapping[str, Array]) -> Array:
    """By how many seconds a library's product starts later than its quickest ones."""
    nest = _product(kernel)
    if machine.architecture not in QUICK or nest is None:
        return 0.0
    work, terms, rows = _size(kernel, nest, sizes)
    least, long, few, seconds = QUICK[machine.architecture]
    return seconds * (np.greater(terms, long) | (np.less_equal(work, least) & np.greater(rows, few)))


def _product(kernel: KernelSummary) -> Nest | None:
    """The one 16-bit product of a kernel, else None."""
    nests = [nest for nest in kernel.nests if nest.contraction is not None]
    (nest,) = nests if len(nests) == 1 else (None,)
    return nest if nest is not None and nest.contraction is not None and nest.contraction.operand.bits == 16 else None


def _size(kernel: KernelSummary, nest: Nest, sizes: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    """Multiply-adds, terms of each sum, and rows of a product."""
    assert nest.contraction is not None
    extent = {dim: kernel.extents[dim].evaluate(sizes) for dim in (*nest.dims, *nest.reductions)}
    terms, rows, results = (
        _many(extent[dim] for dim in dims) for dims in (nest.reductions, nest.contraction.m, nest.dims)
    )
    return terms * results, terms, rows


def _many(extents: Any) -> Array:
    found: Array = 1.0
    for extent in extents:
        found = found * extent
    return found
