"""Types of SSA values: tensors, tiles and buffers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from codesign.ir.dtypes import DType
from codesign.ir.index import Index, IndexLike, index, product


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor of the tensor level: a dtype and sizes (integers or expressions of size symbols); no layout."""

    dtype: DType
    shape: tuple[Index, ...]

    @property
    def extents(self) -> tuple[Index, ...]:
        """The sizes, by the name that they have in every type."""
        return self.shape

    @property
    def elements(self) -> Index:
        return product(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class TileType:
    """A block of values held on chip by one program instance; rank 0 is a scalar.

    Its extents are integers, or in a template expressions of its size symbols.
    """

    dtype: DType
    extents: tuple[Index, ...]

    def __init__(self, dtype: DType, sizes: Iterable[IndexLike]) -> None:
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "extents", tuple([index(size) for size in sizes]))

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents as integers; ValueError in a template."""
        return tuple([extent.constant for extent in self.extents])

    def __str__(self) -> str:
        return f"tile<{self.dtype}[{', '.join(map(str, self.extents))}]>"


@dataclass(frozen=True, slots=True)
class BufferType:
    """Memory that a kernel reads or writes: a tensor with strides in elements (row-major when not given)."""

    dtype: DType
    shape: tuple[Index, ...]
    strides: tuple[Index, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.strides and self.shape:
            object.__setattr__(self, "strides", row_major(self.shape))

    @property
    def extents(self) -> tuple[Index, ...]:
        """The sizes, by the name that they have in every type."""
        return self.shape

    @property
    def contiguous(self) -> bool:
        return self.strides == row_major(self.shape)

    def __str__(self) -> str:
        text = f"{self.dtype}[{', '.join(map(str, self.shape))}]"
        strides = "" if self.contiguous else f", strides [{', '.join(map(str, self.strides))}]"
        return f"buffer<{text}{strides}>"


Type = TensorType | TileType | BufferType


def tensor(dtype: DType, *shape: IndexLike) -> TensorType:
    """A tensor type from sizes."""
    return TensorType(dtype, tuple(index(size) for size in shape))


def row_major(shape: tuple[Index, ...]) -> tuple[Index, ...]:
    """Strides in elements of a dense row-major tensor."""
    strides: list[Index] = []
    stride = index(1)
    for size in reversed(shape):
        strides.append(stride)
        stride = stride * size
    return tuple(reversed(strides))
