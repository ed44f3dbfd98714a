"""The kernel summary: what every cost model reads of a fused group, derived once, with tile sizes left symbolic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from codesign.ir.dtypes import DType
from codesign.ir.functions import Unit
from codesign.ir.index import Index


@dataclass(frozen=True)
class Access:
    """One access of external memory by a nest: `kind` of `tensor[index]` for every point of the nest's `dims`.

    `shape`, `strides` (elements) of the tensor; `index`: expression per tensor dimension over the group's dims. `gather`: names of
    tensors whose values the index depends on. `dims`: dims of the group that the index depends on.
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


@dataclass(frozen=True)
class Contraction:
    """A nest whose reduction is a sum of products of two factors: work for a tensor unit or systolic array.

    Dims by role: `m` only in the left factor, `n` only in the right, `k` reduced, `batch` in both and not reduced. `left`,
    `right`: dtypes of the factors as they reach the unit; `accumulate`: of the sum.
    """

    m: tuple[str, ...]
    n: tuple[str, ...]
    k: tuple[str, ...]
    batch: tuple[str, ...]
    left: DType
    right: DType
    accumulate: DType


@dataclass(frozen=True)
class Nest:
    """One compute of the group.

    `dims`: parallel dims; `reductions`: reduced dims. `operations`: scalar operations per point of the whole domain (dims x
    reductions), keyed by (unit, dtype name), in issue slots; without the contraction's multiply-add, which is counted by `contraction`.
    `loads`, `stores`: external accesses; `internal`: names of values of the group that it reads. `result`: its value's name and dtype.
    """

    name: str
    dims: tuple[str, ...]
    reductions: tuple[str, ...]
    monoid: str | None
    operations: Mapping[tuple[Unit, str], float]
    loads: tuple[Access, ...]
    stores: tuple[Access, ...]
    internal: tuple[str, ...]
    result: str
    dtype: DType
    accumulate: DType
    contraction: Contraction | None = None


@dataclass(frozen=True)
class KernelSummary:
    """A fused group as cost models see it.

    `extents`: all dims by name (integers or expressions of symbols). `outer`: dims the grid goes over; `inner`: dims that some nest
    reduces. `symbols`: free size symbols. `read_bytes`, `write_bytes`: least possible traffic of external memory (each distinct
    element that is touched once), as expressions of the symbols.
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
