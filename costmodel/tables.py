"""Measured tables as kernels to price: which group of computes each row is, its sizes, and how it was run.

Rows of one kernel are priced together. Library routines are priced in library mode. Where the implementation that was
measured is public and fixed its launch (one block a token, scalar loads), that schedule is stated here and not
searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from codesign.costmodel import workloads
from codesign.costmodel.attention import Call, kernel_of, sources
from codesign.costmodel.launched import is_priced, launches
from codesign.costmodel.machine import Machine
from codesign.costmodel.quantised import formats
from codesign.costmodel.summary import KernelSummary
from codesign.ir.dtypes import DTYPES
from codesign.ir.errors import CodesignError

Columns = dict[str, npt.NDArray[np.float32]]

PROFILED_LAYERS = 20.0
"""Layers that the profile of a model runs one after the other; each op's time is the median of them."""


class TableError(CodesignError):
    """A table of measurements that cannot be read; names the file and the column."""


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
    return table.reset_index(drop=True)


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
    kind = kind_of(table)
    aside = set_aside(table, kind)
    if aside.all():
        raise TableError(f"no row is of kind {kind}: {_named(table, aside)}")
    table = table[~aside]
    for column in ("dtype", "kv_dtype") if kind in ("gemm", "attention") else ():
        if column in table:
            _check_dtypes(table, column)
    table = table[np.isfinite(_numbers(table, "seconds")) & (_numbers(table, "seconds") > 0)]
    if kind == "attention":
        yield from _attention(table, 0 if machine is None else capability(machine))
        return
    readers = {"gemm": _gemm, "transformer": _transformer, "mixture": _mixture, "launched": _launched}
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


def _numbers(table: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    return table[column].to_numpy(dtype=np.float64)


def _site(*parts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return pd.factorize(pd.MultiIndex.from_arrays(parts))[0].astype(np.int64)


def _rows(
    op: str,
    kernel: KernelSummary,
    table: pd.DataFrame,
    sizes: dict[str, npt.NDArray[np.float64]],
    site: npt.NDArray[np.int64],
    **more: Any,
) -> Rows:
    return Rows(op, kernel, sizes, _numbers(table, "seconds"), table.index.to_numpy(dtype=np.int64), site, **more)


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


def _gemm(table: pd.DataFrame) -> Iterator[Rows]:
    names = table["dtype"].astype(str) if "dtype" in table else pd.Series("bf16", index=table.index)
    if "lab_disagreement" in table:
        table = table[~(table.lab_disagreement > 0.25)]
    for dtype, part in table.groupby(names):
        sizes = {"M": _numbers(part, "m"), "N": _numbers(part, "n"), "K": _numbers(part, "k")}
        site = _site(sizes["N"], sizes["K"])
        form = formats().get(str(dtype))
        if form is None:
            kernel = workloads.gemm(dtype_named(str(dtype)), rotated=True)
            yield _rows("gemm", kernel, part, sizes, site, regime_size=sizes["M"])
            continue
        kernel = workloads.quantised_gemm(form.operand, form.group)
        sizes["quantised"] = sizes["M"] * sizes["K"]
        sizes["results"] = sizes["M"] * sizes["N"]
        op = f"gemm {form.name}"
        tiles = {m: form.tiles(m) for m in np.unique(sizes["M"])}
        runs = pd.Series([tiles[m] for m in sizes["M"]])
        for run in dict.fromkeys(runs):
            picked = (runs == run).to_numpy()
            own = {name: size[picked] for name, size in sizes.items()}
            more: dict[str, Any] = {"split": form.split, "tiles": run, "implementation": op, "regime_size": own["M"]}
            yield _rows(op, kernel, part[picked], own, site[picked], **more)


def _launched(table: pd.DataFrame) -> Iterator[Rows]:
    for found in launches(table):
        site = _site(found.sizes["N"], found.sizes.get("K", found.sizes["N"]))
        more: dict[str, Any] = {"columns": _one(found.knobs), "method": "eager"}
        size = found.sizes.get("M", found.sizes.get("T", found.sizes["N"]))
        yield _rows(found.op, found.kernel, table[found.picked], found.sizes, site, regime_size=size, **more)


def _transformer(table: pd.DataFrame) -> Iterator[Rows]:
    for op, part in table.groupby("op"):
        workers = _numbers(part, "num_tensor_parallel_workers")
        tokens, model = _numbers(part, "num_tokens"), _numbers(part, "n_embd")
        heads, kv_heads = _numbers(part, "n_head"), _numbers(part, "n_kv_head")
        head = model / heads
        wide = _numbers(part, "n_expanded_embd") / workers
        gated = part["use_gated_mlp"].to_numpy(dtype=bool)
        mine, mine_kv = heads / workers, np.maximum(kv_heads / workers, 1.0)
        site = _site(model, wide, heads, kv_heads)
        linear = {
            "attn_pre_proj": ((mine + 2 * mine_kv) * head, model),
            "attn_post_proj": (model, mine * head),
            "mlp_up_proj": (wide * np.where(gated, 2.0, 1.0), model),
            "mlp_down_proj": (model, wide),
        }
        before = 2.0 * tokens * sum(n * k for n, k in linear.values()) * PROFILED_LAYERS / 2.0  # the median call
        more: dict[str, Any] = {"method": "profiled", "regime_size": tokens}
        if op in linear:
            n, k = linear[str(op)]
            sizes = {"M": tokens, "N": n, "K": k, "run_operations": before}
            yield _rows(str(op), workloads.gemm("f16"), part, sizes, site, **more)
        elif op in ("input_layernorm", "post_attention_layernorm", "add", "mlp_act"):
            width = wide if op == "mlp_act" else model
            for (gate, threads), rows in _alike(gated, np.minimum(width, 1024.0)):
                kernel, columns, launches = _eager(str(op), bool(gate), threads)
                sizes = {"T": tokens[rows], "N": width[rows], "run_operations": before[rows]}
                more.update(regime_size=tokens[rows], launches=launches, columns=columns)
                yield _rows(str(op), kernel, part[rows], sizes, site[rows], **more)
        elif op == "attn_rope":
            pairs = head / 2.0
            for (threads, half), rows in _alike(np.minimum(mine * pairs, 512.0), pairs):
                sizes = {"T": tokens, "H": mine + mine_kv, "D": pairs, "run_operations": before}
                sizes = {name: size[rows] for name, size in sizes.items()}
                launch = {**_ROPE, "tile.h": threads / half, "tile.d": half, "warps": np.ceil(threads / 32.0)}
                more.update(regime_size=tokens[rows], columns=_one(launch))
                yield _rows(str(op), workloads.rope("f16", fresh=True), part[rows], sizes, site[rows], **more)
        elif op == "emb":
            for (few,), rows in _alike(tokens <= 16):  # torch has a kernel of its own for few indices
                sizes = {"T": tokens, "N": model, "V": _numbers(part, "vocab_size") / workers, "run_operations": before}
                sizes = {name: size[rows] for name, size in sizes.items()}
                more.update(regime_size=tokens[rows], columns=_one(_FEW_INDICES if few else _INDICES))
                yield _rows(str(op), workloads.embedding("f16"), part[rows], sizes, site[rows], **more)
        else:
            raise TableError(f"op '{op}' of the table is not known")


def _alike(*keys: npt.NDArray[Any]) -> Iterator[tuple[tuple[Any, ...], npt.NDArray[np.bool_]]]:
    """The rows of equal keys: the keys and a mask."""
    index = pd.MultiIndex.from_arrays(keys)
    for key in index.unique():
        yield key, np.asarray(index == key)


def _one(row: dict[str, float]) -> Columns:
    return {name: np.array([value], dtype=np.float32) for name, value in row.items()}


_SCALAR = {"pipeline": 1.0, "access_bytes": 2.0}
_ROW = {"tile.t": 1.0, "loop.n": 1.0, **_SCALAR}
"""One block of up to 1024 threads a token that walks the row, an element a thread: vLLM's norm and activation kernels."""
_ROPE = {"tile.t": 1.0, "loop.h": 1.0, "unflatten": 1.0, **_SCALAR}
"""One block of up to 512 threads a token (as many as its queries have pairs): vLLM's rotary kernel. A thread finds head
and column of its pairs by division."""
_VECTORS = {"tile.t": 1.0, "tile.n": 512.0, "warps": 4.0, "pipeline": 1.0, "access_bytes": 8.0}
"""Torch's element-wise kernels: 128 threads with a vector of four elements each."""
_LAYER_NORM = {"tile.t": 1.0, "tile.n": 512.0, "warps": 4.0, "loop.n": 1.0, "pipeline": 1.0, "access_bytes": 8.0}
"""Torch's layer norm: 128 threads a row, vectors of four elements."""
_INDICES = {"tile.t": 1.0, "tile.n": 128.0, "warps": 4.0, "stride.t": 8.0, "unflatten": 1.0, **_SCALAR}
"""Torch's index select: at most eight blocks of 128 threads an SM, which stride over all elements of the result."""
_FEW_INDICES = {"tile.t": 1.0, "tile.n": 128.0, "warps": 4.0, "loop.t": 1.0, **_SCALAR}
"""The same for up to 16 indices: a thread walks over them in its column."""


def _eager(op: str, gated: bool, threads: float) -> tuple[KernelSummary, Columns, int]:
    """The kernel of an op of an eager model, its launch, and how many times it runs.

    Models with gated units have vLLM's RMS norm and activation and norms before both blocks. The others have torch's
    layer norm and GELU, and one sum of three tensors, in two additions.
    """
    row = {**_ROW, "tile.n": threads, "warps": np.ceil(threads / 32.0)}
    if op == "add":
        return workloads.add("f16", fresh=True), _one(_VECTORS), 1 if gated else 2
    if op == "mlp_act":
        kernel = workloads.silu_and_multiply if gated else workloads.gelu
        return kernel("f16", fresh=True), _one(row if gated else _VECTORS), 1
    kernel = workloads.rms_norm if gated else workloads.layer_norm
    return kernel("f16", fresh=True), _one(row if gated else _LAYER_NORM), 1


def _attention(table: pd.DataFrame, sm: int) -> Iterator[Rows]:
    keys = ["phase", "kernel_source", "dtype", "kv_dtype", "head_dim"]
    table = table.assign(site=_site(*(_numbers(table, column) for column in ("heads", "kv_heads", "window"))))
    for key, whole in table.groupby(keys):
        phase, source, dtype, kv_dtype, head = (str(value) for value in key)
        decode = phase == "generation"
        kind, stored = dtype_named(dtype), dtype_named(kv_dtype)
        group = (whole["heads"] // whole["kv_heads"]).to_numpy()
        stored_bits, wanted_bits = (DTYPES[name].bits for name in (stored, dtype_named(dtype)))
        single = decode | (whole["q_len"] == 1)
        moved = (whole["batch"] > 1) & (whole["kv_heads"] > 1)
        cases = zip(group, single, moved, whole["window"] > 0, strict=True)
        bits = (stored_bits, wanted_bits)
        calls = [
            Call(decode, int(head), int(each), *bits, bool(alone), bool(copied), bool(slides), sm)
            for each, alone, copied, slides in cases
        ]
        kernels = {call: kernel_of(source, call) for call in dict.fromkeys(calls)}
        runs = pd.Series([kernels[call] for call in calls], index=whole.index)
        for run in dict.fromkeys(runs):
            part = whole[runs == run]
            taken = set(part["machine"]) if "machine" in part else set()
            aliased = decode and run.tiles[0].packed and bool(taken) and taken <= set(run.keys_only)
            kernel = workloads.attention(kind if run.mixed else stored, stored, int(head), False, True, "bf16", aliased)
            heads, kv_heads = _numbers(part, "heads"), _numbers(part, "kv_heads")
            queries, total, window = _numbers(part, "q_len"), _numbers(part, "kv_len"), _numbers(part, "window")
            if decode:
                queries = np.ones_like(queries)
            tiles = run.tiles[0]
            rows = np.maximum(tiles.rows / (heads / kv_heads), 1.0) if tiles.packed else np.full(len(part), tiles.rows)
            seen, skew = visited(queries, total, window, rows, tiles.keys)
            if run.hidden:
                everything, longest = visited(queries, total, np.zeros_like(window), rows, tiles.keys)
                most = seen * skew + run.hidden * np.maximum(everything * longest - seen * skew, 0.0)
                seen = seen + run.hidden * (everything - seen)
                skew = most / seen
            sizes = {"B": _numbers(part, "batch"), "G": kv_heads, "R": heads / kv_heads, "Q": queries, "J": seen}
            threads = np.minimum(kv_heads * int(head) / 512.0, 1.0)  # of a block that appends a token, over 512
            sizes |= {"skew": skew, "keys": total, "appended": queries / seen, "sequences": sizes["B"]}
            sizes["tokens"] = queries * sizes["B"] * threads
            yield _rows(
                f"attention {phase} {source}",
                kernel,
                part,
                sizes,
                part["site"].to_numpy(dtype=np.int64),
                columns=run.columns(int(head)),
                regime_size=queries,
                implementation=f"{source} {run.part}".strip(),
                generated=run.generated,
                assumed=run.assumed,
            )


def capability(machine: Machine) -> int:
    """Compute capability of an NVIDIA GPU, as 89 for 8.9; 0 for other machines."""
    kind, _, version = (machine.target or "").partition(":")
    return int(version) if kind == "cuda" and version.isdigit() else 0


def visited(
    queries: npt.NDArray[np.float64],
    keys: npt.NDArray[np.float64],
    window: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float64],
    step: float,
    samples: int = 48,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Keys that a tile of `rows` queries goes over under a causal mask and a sliding window (0: none), in whole steps
    but for the last: the mean, and the most over the mean. Long sequences are sampled at even distances."""
    tiles = np.ceil(queries / rows)[:, None]
    at = np.floor((np.arange(samples) + 0.5) / samples * tiles)
    end = np.minimum((at + 1.0) * rows[:, None], queries[:, None]) + (keys - queries)[:, None]
    begin = at * rows[:, None] + (keys - queries)[:, None] + 1.0 - window[:, None]
    hidden = np.where(window[:, None] > 0, np.floor(np.maximum(begin, 0.0) / step) * step, 0.0)
    whole = np.where(tiles > 1.0, np.ceil(end / step) * step, end) - hidden
    mean = whole.mean(axis=1)
    return mean, whole.max(axis=1) / mean


def _mixture(table: pd.DataFrame) -> Iterator[Rows]:
    """Fused mixture-of-experts kernels: every row is one schedule of one shape."""
    tokens, experts, top = _numbers(table, "M"), _numbers(table, "E"), _numbers(table, "topk")
    routed = tokens * top
    block = _numbers(table, "BLOCK_SIZE_M")
    touched = np.minimum(experts, routed)
    each = np.maximum(routed / touched, 1.0)
    gated = (
        table["weight_type"].astype(str).eq("w13").to_numpy()
        if "weight_type" in table
        else np.ones(len(table), dtype=bool)
    )
    width = _numbers(table, "N") * np.where(gated, 2.0, 1.0)  # w13 holds the gate and up projections side by side
    sizes = {"T": tokens, "E": touched, "M": each, "N": width, "K": _numbers(table, "H")}
    columns: Columns = {
        "tile.e": np.ones(len(table), dtype=np.float32),
        "tile.m": block.astype(np.float32),
        "tile.n": _numbers(table, "BLOCK_SIZE_N").astype(np.float32),
        "tile.k": _numbers(table, "BLOCK_SIZE_K").astype(np.float32),
        "group": _numbers(table, "GROUP_SIZE_M").astype(np.float32),
        "warps": _numbers(table, "num_warps").astype(np.float32),
        "pipeline": _numbers(table, "num_stages").astype(np.float32),
    }
    site = _site(tokens, experts, top, sizes["K"], sizes["N"])
    yield _rows(
        "moe",
        workloads.grouped_gemm("bf16", replayed=True),
        table,
        sizes,
        site,
        columns=columns,
        method="schedule",
        regime_size=tokens,
    )
