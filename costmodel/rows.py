"""Rows of a measured table that are one kernel, and what its readers make them with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from codesign.costmodel.summary import KernelSummary
from codesign.ir.dtypes import DTYPES
from codesign.ir.errors import CodesignError

Columns = dict[str, npt.NDArray[np.float32]]


class TableError(CodesignError):
    """A table of measurements that cannot be read; names the file and the column."""


FILE = "file"
"""Under which a table keeps the file that it was read from (pandas' `attrs`)."""


@contextmanager
def of_its_file(table: pd.DataFrame) -> Iterator[None]:
    """What is wrong with a table meanwhile is told with the file that it was read from."""
    try:
        yield
    except TableError as error:
        file = table.attrs.get(FILE)
        if file is None or error.place is not None or error.message.startswith(file):
            raise
        raise TableError(error.message, place=file, hint=error.hint) from None


@dataclass(frozen=True)
class Rows:
    """Rows of a table that are one kernel: `sizes` by symbol, `seconds` measured, `index` into the table, `site`
    groups rows for cross-validation, `columns` the schedules to choose from (None: library mode), `method` how
    time was taken, `implementation` whose kernel it is when it is not a plain library's, `generated` when a compiler of
    tiles made that kernel, `assumed` when it is another's because that one is not known, `launches` how often the kernel
    runs one after the other, `split` whether its library offers parts of the reduction."""

    op: str
    kernel: KernelSummary
    sizes: dict[str, npt.NDArray[np.float64]]
    seconds: npt.NDArray[np.float64]
    index: npt.NDArray[np.int64]
    site: npt.NDArray[np.int64]
    columns: Columns | None = None
    method: str = "graph"
    implementation: str = ""
    generated: bool = False
    regime_size: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    launches: int = 1
    assumed: bool = False
    split: bool = True
    tiles: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """Rows and columns of the tiles that its library has; none: any."""

    @property
    def part_of_attention(self) -> bool:
        """Whether the rows are a named implementation of attention."""
        return bool(self.implementation) and "quantised" not in self.sizes


def phase_of(rows: Rows) -> str:
    """Whether rows of attention are of one query a sequence or of many."""
    return "decode" if np.all(rows.regime_size <= 1.0) else "prefill"


def numbers(table: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    return table[column].to_numpy(dtype=np.float64)


def site_of(*parts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return pd.factorize(pd.MultiIndex.from_arrays(parts))[0].astype(np.int64)


def rows_of(
    op: str,
    kernel: KernelSummary,
    table: pd.DataFrame,
    sizes: dict[str, npt.NDArray[np.float64]],
    site: npt.NDArray[np.int64],
    **more: Any,
) -> Rows:
    return Rows(op, kernel, sizes, numbers(table, "seconds"), table.index.to_numpy(dtype=np.int64), site, **more)


DTYPE_NAMES = {
    "bfloat16": "bf16",
    "fp16": "f16",
    "float16": "f16",
    "half": "f16",
    "fp32": "f32",
    "float32": "f32",
    "float": "f32",
    "fp8": "f8e4m3",
    "float8_e4m3fn": "f8e4m3",
    "int8": "i8",
}
"""What other tools call a dtype, and the IR's name."""


def dtype_named(name: str) -> str:
    """The IR's name of a dtype by its own or another tool's; TableError when neither is known."""
    found = DTYPE_NAMES.get(name, name)
    if found not in DTYPES:
        raise TableError(f"dtype '{name}' is not known; known: {', '.join((*DTYPES, *DTYPE_NAMES))}")
    return found


def alike(*keys: npt.NDArray[Any]) -> Iterator[tuple[tuple[Any, ...], npt.NDArray[np.bool_]]]:
    """The rows of equal keys: the keys and a mask."""
    index = pd.MultiIndex.from_arrays(keys)
    for key in index.unique():
        yield key, np.asarray(index == key)


def one_schedule(row: dict[str, float]) -> Columns:
    return {name: np.array([value], dtype=np.float32) for name, value in row.items()}
