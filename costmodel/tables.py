"""Measured tables as kernels to price: which group of computes each row is, its sizes, and how it was run.

Rows of one kernel are priced together. Library routines are priced in library mode; what serving systems run is in `serving`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from codesign.costmodel import workloads
from codesign.costmodel.attention import sources
from codesign.costmodel.launched import is_priced, launches
from codesign.costmodel.machine import Machine
from codesign.costmodel.quantised import Format, Sides, formats
from codesign.costmodel.rows import (
    FILE,
    Rows,
    TableError,
    dtype_named,
    numbers,
    of_its_file,
    one_schedule,
    rows_of,
    site_of,
)
from codesign.costmodel.serving import attention_rows, mixture_rows, transformer_rows

Floats = npt.NDArray[np.float64]


def read_table(path: str | Path, clock_hz: float | None = None) -> pd.DataFrame:
    """A parquet or CSV table; TableError when it cannot be read or has no `seconds`, nor `cycles` of a clock that is given."""
    file = Path(path)
    if not file.is_file():
        raise TableError(f"no such table: {file}")
    try:
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except Exception as error:
        text = str(error)[:200]
        form = "parquet" if file.suffix == ".parquet" else "CSV"
        raise TableError(f"{file}: cannot be read as {form}: {text}") from None
    if clock_hz is not None:
        try:
            table = _in_seconds(_products_of_layers(table), clock_hz)
        except TableError as error:
            raise TableError(f"{file}: {error.message}") from None
    if "seconds" not in table:
        found = ", ".join(map(str, table.columns[:12])) + (", ..." if len(table.columns) > 12 else "")
        cycles = [str(column) for column in table.columns if str(column).lower().rstrip("s").endswith("cycle")]
        if cycles:
            raise TableError(
                f"{file}: an accelerator's table of cycles ({', '.join(cycles[:3])}): needs m, n, k and seconds (or cycles) instead"
            )
        raise TableError(f"{file}: no column 'seconds', the time measured; found {found}; besides, {_told_by()}")
    if not len(table):
        raise TableError(f"{file}: no rows")
    seconds = pd.to_numeric(table["seconds"], errors="coerce")
    words = seconds.isna() & table["seconds"].notna()
    for wrong, what in (
        (words, "needs a number"),
        (~(seconds.isna() | (seconds < np.inf)), "needs a finite number"),
        (seconds < 0, "needs a time of 0 (none was measured) or more"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong.to_numpy()))
            raise TableError(
                f"{file}: row {row + 1}, column 'seconds': {what}, got {str(table['seconds'].iloc[row])[:40]!r}"
            )
    if not (seconds > 0).any():
        raise TableError(f"{file}: no row has a time in its column 'seconds'")
    table["seconds"] = seconds
    table = table.reset_index(drop=True)
    table.attrs[FILE] = str(file)
    return table


LAYER = ("prob.N", "prob.P", "prob.Q", "prob.K", "prob.C", "prob.R", "prob.S")
"""Sizes of a layer as tools that map loop nests onto accelerators name them."""


def _products_of_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Other names of an accelerator's products: capital sizes, and layers (dense, or a convolution's product of gathered pixels)."""
    columns = set(map(str, table.columns))
    if not columns & {"m", "n", "k"} and columns >= {"M", "N", "K"} and "topk" not in columns:
        return table.rename(columns={"M": "m", "N": "n", "K": "k"})
    if not columns >= {*LAYER, "rtl_cycle"}:
        return table
    for column in (*LAYER, "rtl_cycle"):
        _check_numbers(table, column, "gemm", np.zeros(len(table), dtype=np.bool_))
    sizes = {column[-1]: pd.to_numeric(table[column]) for column in LAYER}
    m, k = sizes["N"] * sizes["P"] * sizes["Q"], sizes["C"] * sizes["R"] * sizes["S"]
    return table.assign(m=m, n=sizes["K"], k=k, dtype="i8", cycles=pd.to_numeric(table["rtl_cycle"]))


def _in_seconds(table: pd.DataFrame, clock_hz: float) -> pd.DataFrame:
    """The table with `seconds` from its `cycles` where it has these alone."""
    if "seconds" in table or "cycles" not in table:
        return table
    _check_numbers(table, "cycles", "gemm", np.zeros(len(table), dtype=np.bool_))
    return table.assign(seconds=pd.to_numeric(table["cycles"]) / clock_hz)


def machine_rows(table: pd.DataFrame, machine: str) -> pd.DataFrame:
    """Rows that were measured on a machine (all rows when the table does not say)."""
    for column in ("machine", "hardware"):
        if column in table:
            names = table[column].astype(str)
            wanted = names == machine
            if not wanted.any():
                wanted = names.str.lower().map(lambda name: machine == name or machine.startswith(name + "_"))
            return table[wanted]
    return table


def kernels_of(table: pd.DataFrame, machine: Machine | None = None) -> Iterator[Rows]:
    """The kernels of a table, by its columns, as a machine runs them; TableError for a table of an unknown kind."""
    with of_its_file(table):
        yield from _kernels_of(table, machine)


def _kernels_of(table: pd.DataFrame, machine: Machine | None) -> Iterator[Rows]:
    kind = kind_of(table)
    aside = set_aside(table, kind)
    if aside.all():
        raise TableError(f"no row is of kind {kind}: {_named(table, aside)}")
    table = table[~aside]
    for column in ("dtype", "kv_dtype") if kind in ("gemm", "attention") else ():
        if column in table:
            _check_dtypes(table, column)
    table = table[np.isfinite(numbers(table, "seconds")) & (numbers(table, "seconds") > 0)]
    if kind == "attention":
        yield from attention_rows(table, 0 if machine is None else capability(machine))
        return
    if kind == "gemm":
        yield from _gemm(table, machine)
        return
    readers = {"transformer": transformer_rows, "mixture": mixture_rows, "launched": _launched}
    yield from readers[kind](table)


@dataclass(frozen=True)
class Kind:
    """A kind of table: the columns that tell it, and those it needs besides, of `numbers` (0 or more) and of words."""

    told_by: tuple[str, ...]
    numbers: tuple[str, ...]
    words: tuple[str, ...] = ()


KINDS = {
    "mixture": Kind(
        ("BLOCK_SIZE_M", "topk"),
        (
            "M",
            "E",
            "N",
            "H",
            "topk",
            "BLOCK_SIZE_M",
            "BLOCK_SIZE_N",
            "BLOCK_SIZE_K",
            "GROUP_SIZE_M",
            "num_warps",
            "num_stages",
        ),
    ),
    "attention": Kind(
        ("q_len", "kv_len", "heads"),
        ("q_len", "kv_len", "heads", "kv_heads", "window", "batch", "head_dim"),
        ("phase", "kernel_source", "dtype", "kv_dtype"),
    ),
    "transformer": Kind(
        ("num_tokens", "n_embd"),
        ("num_tokens", "n_embd", "n_head", "n_kv_head", "n_expanded_embd", "num_tensor_parallel_workers", "vocab_size"),
        ("op", "use_gated_mlp"),
    ),
    "launched": Kind(
        ("kernel", "grid_x", "block", "op"), ("m", "n", "k", "grid_x", "grid_y", "grid_z", "block"), ("kernel", "op")
    ),
    "gemm": Kind(("m", "n", "k"), ("m", "n", "k")),
}
"""Kinds of tables, the first whose telling columns are there is the table's."""

PRODUCTS = frozenset({"gemm", "matmul", "mm", "addmm", "linear"})
"""Ops of a table of kind gemm that are one matrix product of m, n and k; `bmm` is where its batch is 1."""


def set_aside(table: pd.DataFrame, kind: str) -> npt.NDArray[np.bool_]:
    """Rows that the kind does not price: of a table of products, other operators and products in batches; of launches, kernels that
    are not known."""
    if kind == "launched":
        dtypes = table["dtype"].astype(str) if "dtype" in table else pd.Series("f32", index=table.index)
        told = zip(table["op"].astype(str).str.lower(), table["kernel"].astype(str), dtypes, strict=True)
        return np.array([not is_priced(*row) for row in told], dtype=np.bool_)
    if kind != "gemm" or "op" not in table:
        return np.zeros(len(table), dtype=np.bool_)
    ops = table["op"].astype(str).str.lower()
    single = pd.to_numeric(table["batch"], errors="coerce").eq(1) if "batch" in table else pd.Series(True, table.index)
    priced = (ops.isin(PRODUCTS) | (ops == "bmm")) & (single | (ops != "bmm"))
    return np.asarray(~priced, dtype=np.bool_)


def remark_of(table: pd.DataFrame, kind: str) -> list[str]:
    """What is set aside, counted and named, in one line; none where every row is priced."""
    aside = set_aside(table, kind)
    return [f"kind {kind} does not price {_named(table, aside)}"] if aside.any() else []


def _named(table: pd.DataFrame, aside: npt.NDArray[np.bool_]) -> str:
    counts = table["op"][aside].astype(str).value_counts()
    listed = ", ".join(f"{str(op)[:40]} ({count:,})" for op, count in list(counts.items())[:12])
    return f"{int(aside.sum()):,} of {len(table):,} rows: {listed}{', ...' if len(counts) > 12 else ''}"


ZERO = {"attention": frozenset({"window"}), "launched": frozenset({"k"})}
"""Numbers that may be zero, by kind: no window, and nothing that is summed over."""


def kind_of(table: pd.DataFrame) -> str:
    """The kind of a table, whose columns were then checked; TableError says what it was taken for and what it lacks."""
    columns = set(map(str, table.columns))
    for name, kind in KINDS.items():
        if columns >= {*kind.told_by}:
            missing = [column for column in (*kind.numbers, *kind.words) if column not in columns]
            if missing:
                raise TableError(f"taken for a table of kind {name}, which needs the columns {', '.join(missing)} too")
            aside = set_aside(table, name) & (name == "gemm")
            for column in kind.numbers:
                _check_numbers(table, column, name, aside)
            return name
    shown = ", ".join(sorted(columns)[:12]) + (", ..." if len(columns) > 12 else "")
    raise TableError(f"a table of an unknown kind: columns {shown}; {_told_by()}")


def _told_by() -> str:
    """The columns that tell each kind of table."""
    return "; ".join(f"{name} has {', '.join(kind.told_by)}" for name, kind in KINDS.items())


def unknown_sources(table: pd.DataFrame) -> list[str]:
    """Implementations of an attention table that are not known."""
    names = sorted(set(table["kernel_source"].astype(str))) if "kernel_source" in table else []
    return [name[:60] for name in names if name not in sources()]


def _check_numbers(table: pd.DataFrame, column: str, kind: str, aside: npt.NDArray[np.bool_]) -> None:
    """TableError with the first row (of the file's data, from 1) whose cell is no number that a size can be; those of rows that are set aside
    may be 0 or empty."""
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    least = 0.0 if column in ZERO.get(kind, ()) else 1.0
    unused = aside & ((numbers >= 0.0) & (numbers <= LARGEST_SIZE) | table[column].isna().to_numpy())
    wrong = ~((numbers >= least) & (numbers <= LARGEST_SIZE)) & ~unused
    if wrong.any():
        row = int(np.argmax(wrong))
        cell = str(table[column].iloc[row])[:40]
        place = f"row {int(table.index[row]) + 1}, column '{column}'"
        raise TableError(f"{place}: needs a number from {least:g} to {LARGEST_SIZE:g} (kind {kind}), got {cell!r}")


def _check_dtypes(table: pd.DataFrame, column: str) -> None:
    """TableError with the first row whose dtype is not known."""
    for name, rows in table.groupby(table[column].astype(str)).groups.items():
        try:
            if str(name) not in formats():
                dtype_named(str(name))
        except TableError as error:
            raise TableError(f"row {int(rows[0]) + 1}, column '{column}': {error.message}") from None


LARGEST_SIZE = float(1 << 40)


def _gemm(table: pd.DataFrame, machine: Machine | None) -> Iterator[Rows]:
    names = table["dtype"].astype(str) if "dtype" in table else pd.Series("bf16", index=table.index)
    if "lab_disagreement" in table:
        table = table[~(table.lab_disagreement > 0.25)]
    for dtype, part in table.groupby(names):
        sizes = {"M": numbers(part, "m"), "N": numbers(part, "n"), "K": numbers(part, "k")}
        site = site_of(sizes["N"], sizes["K"])
        form = formats().get(str(dtype))
        if form is None:
            kernel = workloads.gemm(dtype_named(str(dtype)), rotated=True)
            yield rows_of("gemm", kernel, part, sizes, site, regime_size=sizes["M"])
            continue
        kernel = workloads.quantised_gemm(form.operand, form.group)
        sizes["quantised"], sizes["tokens"] = sizes["M"] * sizes["K"], sizes["M"]
        sizes["results"] = sizes["M"] * sizes["N"]
        if form.missing_reads:
            sizes["missing_reads"] = np.full(len(part), form.missing_reads)
        op = f"gemm {form.name}"
        more: dict[str, Any] = {"split": form.split, "implementation": op}
        for picked, tiles in _tiled(form, sizes, machine):
            own = {name: size[picked] for name, size in sizes.items()}
            yield rows_of(op, kernel, part[picked], own, site[picked], tiles=tiles, regime_size=own["M"], **more)


def _tiled(
    form: Format, sizes: dict[str, Floats], machine: Machine | None
) -> Iterator[tuple[npt.NDArray[np.bool_], Sides]]:
    """Products of the same tiles to take from; of a library that takes them by a rule, each product's own go to its `sizes`."""
    m = sizes["M"]
    if form.chosen == "fullest" and machine is not None:
        sms = machine.instances("shared")
        taken = np.array([form.taken(*each, sms) for each in zip(m, sizes["N"], strict=True)], dtype=np.float64)
        sizes["tile_rows"], sizes["tile_columns"], sizes["tile_sharers"] = taken.T
        rows, columns = (tuple(np.unique(side).astype(int).tolist()) for side in taken.T[:2])
        yield np.ones(len(m), dtype=np.bool_), (rows, columns)
        return
    tiles = {each: form.tiles(each) for each in np.unique(m)}
    runs = pd.Series([tiles[each] for each in m])
    for run in dict.fromkeys(runs):
        yield (runs == run).to_numpy(), run


def _launched(table: pd.DataFrame) -> Iterator[Rows]:
    for found in launches(table):
        site = site_of(found.sizes["N"], found.sizes.get("K", found.sizes["N"]))
        more: dict[str, Any] = {"columns": one_schedule(found.knobs), "method": "eager"}
        size = found.sizes.get("M", found.sizes.get("T", found.sizes["N"]))
        yield rows_of(found.op, found.kernel, table[found.picked], found.sizes, site, regime_size=size, **more)


def capability(machine: Machine) -> int:
    """Compute capability of an NVIDIA GPU, as 89 for 8.9; 0 for other machines."""
    kind, _, version = (machine.target or "").partition(":")
    return int(version) if kind == "cuda" and version.isdigit() else 0
