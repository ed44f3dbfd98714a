"""What serving systems run, as measured tables have it: layers of eager models, attention by its implementations, mixtures of experts.

Where the implementation that was measured is public and fixed its launch (one block a token, scalar loads), that schedule is stated here and
not searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from codesign.costmodel import workloads
from codesign.costmodel.attention import Call, kernel_of
from codesign.costmodel.rows import (
    Columns,
    Rows,
    TableError,
    alike,
    dtype_named,
    numbers,
    one_schedule,
    rows_of,
    site_of,
)
from codesign.costmodel.summary import KernelSummary
from codesign.ir.dtypes import DTYPES

PROFILED_LAYERS = 20.0
"""Layers that the profile of a model runs one after the other; each op's time is the median of them."""


def transformer_rows(table: pd.DataFrame) -> Iterator[Rows]:
    for op, part in table.groupby("op"):
        workers = numbers(part, "num_tensor_parallel_workers")
        tokens, model = numbers(part, "num_tokens"), numbers(part, "n_embd")
        heads, kv_heads = numbers(part, "n_head"), numbers(part, "n_kv_head")
        head = model / heads
        wide = numbers(part, "n_expanded_embd") / workers
        gated = part["use_gated_mlp"].to_numpy(dtype=bool)
        mine, mine_kv = heads / workers, np.maximum(kv_heads / workers, 1.0)
        site = site_of(model, wide, heads, kv_heads)
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
            yield rows_of(str(op), workloads.gemm("f16"), part, sizes, site, **more)
        elif op in ("input_layernorm", "post_attention_layernorm", "add", "mlp_act"):
            width = wide if op == "mlp_act" else model
            for (gate, threads), rows in alike(gated, np.minimum(width, 1024.0)):
                kernel, columns, launches = _eager(str(op), bool(gate), threads)
                sizes = {"T": tokens[rows], "N": width[rows], "run_operations": before[rows]}
                more.update(regime_size=tokens[rows], launches=launches, columns=columns)
                yield rows_of(str(op), kernel, part[rows], sizes, site[rows], **more)
        elif op == "attn_rope":
            pairs = head / 2.0
            for (threads, half), rows in alike(np.minimum(mine * pairs, 512.0), pairs):
                sizes = {"T": tokens, "H": mine + mine_kv, "D": pairs, "run_operations": before}
                sizes = {name: size[rows] for name, size in sizes.items()}
                launch = {**_ROPE, "tile.h": threads / half, "tile.d": half, "warps": np.ceil(threads / 32.0)}
                more.update(regime_size=tokens[rows], columns=one_schedule(launch))
                yield rows_of(str(op), workloads.rope("f16", fresh=True), part[rows], sizes, site[rows], **more)
        elif op == "emb":
            for (few,), rows in alike(tokens <= 16):  # torch has a kernel of its own for few indices
                sizes = {"T": tokens, "N": model, "V": numbers(part, "vocab_size") / workers, "run_operations": before}
                sizes = {name: size[rows] for name, size in sizes.items()}
                more.update(regime_size=tokens[rows], columns=one_schedule(_FEW_INDICES if few else _INDICES))
                yield rows_of(str(op), workloads.embedding("f16"), part[rows], sizes, site[rows], **more)
        else:
            raise TableError(f"op '{op}' of the table is not known")


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
        return workloads.add("f16", fresh=True), one_schedule(_VECTORS), 1 if gated else 2
    if op == "mlp_act":
        kernel = workloads.silu_and_multiply if gated else workloads.gelu
        return kernel("f16", fresh=True), one_schedule(row if gated else _VECTORS), 1
    kernel = workloads.rms_norm if gated else workloads.layer_norm
    return kernel("f16", fresh=True), one_schedule(row if gated else _LAYER_NORM), 1


def attention_rows(table: pd.DataFrame, sm: int) -> Iterator[Rows]:
    keys = ["phase", "kernel_source", "dtype", "kv_dtype", "head_dim"]
    table = table.assign(site=site_of(*(numbers(table, column) for column in ("heads", "kv_heads", "window"))))
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
            heads, kv_heads = numbers(part, "heads"), numbers(part, "kv_heads")
            queries, total, window = numbers(part, "q_len"), numbers(part, "kv_len"), numbers(part, "window")
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
            sizes = {"B": numbers(part, "batch"), "G": kv_heads, "R": heads / kv_heads, "Q": queries, "J": seen}
            threads = np.minimum(kv_heads * int(head) / 512.0, 1.0)  # of a block that appends a token, over 512
            sizes |= {"skew": skew, "keys": total, "appended": queries / seen, "sequences": sizes["B"]}
            sizes["tokens"] = queries * sizes["B"] * threads
            yield rows_of(
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


def mixture_rows(table: pd.DataFrame) -> Iterator[Rows]:
    """Fused mixture-of-experts kernels: every row is one schedule of one shape."""
    tokens, experts, top = numbers(table, "M"), numbers(table, "E"), numbers(table, "topk")
    routed = tokens * top
    block = numbers(table, "BLOCK_SIZE_M")
    touched = np.minimum(experts, routed)
    each = np.maximum(routed / touched, 1.0)
    gated = (
        table["weight_type"].astype(str).eq("w13").to_numpy()
        if "weight_type" in table
        else np.ones(len(table), dtype=bool)
    )
    width = numbers(table, "N") * np.where(gated, 2.0, 1.0)  # w13 holds the gate and up projections side by side
    sizes = {"T": tokens, "E": touched, "M": each, "N": width, "K": numbers(table, "H")}
    columns: Columns = {
        "tile.e": np.ones(len(table), dtype=np.float32),
        "tile.m": block.astype(np.float32),
        "tile.n": numbers(table, "BLOCK_SIZE_N").astype(np.float32),
        "tile.k": numbers(table, "BLOCK_SIZE_K").astype(np.float32),
        "group": numbers(table, "GROUP_SIZE_M").astype(np.float32),
        "warps": numbers(table, "num_warps").astype(np.float32),
        "pipeline": numbers(table, "num_stages").astype(np.float32),
    }
    site = site_of(tokens, experts, top, sizes["K"], sizes["N"])
    yield rows_of(
        "moe",
        workloads.grouped_gemm("bf16", replayed=True),
        table,
        sizes,
        site,
        columns=columns,
        method="schedule",
        regime_size=tokens,
    )
