"""Clocks of one instruction on each engine of a core; every function takes arrays and broadcasts.

Systolic arrays (R rows, C columns): the closed forms of SCALE-Sim (Samajdar et al., ISPASS 2020, section III), output
stationary `ceil(M/R) ceil(N/C) (K + R + C - 2)`, weight stationary `ceil(K/R) ceil(N/C) (2R + M + C - 2)`, input stationary
`ceil(K/R) ceil(M/C) (2R + N + C - 2)`: each fold fills, streams and drains.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np
import numpy.typing as npt

from codesign.costmodel.dataflow.target import Target
from codesign.ir.dtypes import DTYPES, DType
from codesign.ir.errors import UnsupportedError

HOIST_AT_LEAST = 4
"""How many times fewer points a part of an expression must need to be computed apart."""
HOIST_SLOTS = 4096
"""Issue slots that computing it apart must save: a start-up of the vector unit is worth about as many on these machines."""

Numbers = npt.ArrayLike
Floats = npt.NDArray[np.float64]


def _ceil(a: Numbers, b: Numbers) -> npt.NDArray[np.int64]:
    return -(-np.asarray(a, dtype=np.int64) // np.asarray(b, dtype=np.int64))


def systolic_folds(m: Numbers, n: Numbers, k: Numbers, rows: int, columns: int, dataflow: str) -> tuple[Floats, Floats]:
    """Number of folds of a product over a systolic array, and clocks of one."""
    m, n, k = (np.asarray(x, dtype=np.int64) for x in (m, n, k))
    if dataflow == "output_stationary":
        folds, each = _ceil(m, rows) * _ceil(n, columns), k + rows + columns - 2
    elif dataflow == "weight_stationary":
        folds, each = _ceil(k, rows) * _ceil(n, columns), 2 * rows + m + columns - 2
    elif dataflow == "input_stationary":
        folds, each = _ceil(k, rows) * _ceil(m, columns), 2 * rows + n + columns - 2
    else:
        raise UnsupportedError(
            f"no closed form for dataflow '{dataflow}'", hint="use output_, weight_ or input_stationary"
        )
    return folds.astype(np.float64), each.astype(np.float64)


def systolic_clocks(m: Numbers, n: Numbers, k: Numbers, rows: int, columns: int, dataflow: str) -> Floats:
    """Clocks of an m x n x k product on one systolic array, operands always ready."""
    folds, each = systolic_folds(m, n, k, rows, columns, dataflow)
    return folds * each


def overlapped_clocks(
    m: Numbers, n: Numbers, k: Numbers, rows: int, columns: int, dataflow: str, arrays: int
) -> Floats:
    """Clocks of a product on `arrays` systolic arrays that hold what is stationary twice.

    The next fold's operand is loaded (its results are unloaded) while this one's rows stream, so a fold takes its rows, or the array's
    height where there are fewer of them; the first fill and the last drain remain. One fold takes what the closed form says.
    """
    folds, each = systolic_folds(m, n, k, rows, columns, dataflow)
    streamed = {"output_stationary": k, "weight_stationary": m, "input_stationary": n}[dataflow]
    step = np.maximum(np.asarray(streamed, dtype=np.float64), rows)
    return (np.ceil(folds / arrays) - 1.0) * step + each


def matmul_clocks(
    target: Target, m: Numbers, n: Numbers, k: Numbers, dtype: DType, dataflow: str = "", right: DType | None = None
) -> Floats:
    """Clocks of one `matmul` instruction: the array, or the scratchpad feeding it, whichever is slower. `right`: of the right operand, if it is
    another dtype than the left one's; the slower of the two sets the array's pace.

    A unit with depth works through rows x columns x depth blocks, one a clock; a core with several systolic arrays deals the folds
    out to them, and one fold follows the other without a gap where what is stationary is held twice. Operands are read from scratchpad as
    often as the dataflow needs (see `matmul_reads`).
    """
    array = target.array
    flow = dataflow or array.dataflows[0]
    right = right or dtype
    slow = np.maximum(target.tensor_slowdown(dtype), target.tensor_slowdown(right))
    if array.systolic:
        if array.held_twice:
            busy = overlapped_clocks(m, n, k, array.rows, array.columns, flow, array.count) * slow
        else:
            folds, each = systolic_folds(m, n, k, array.rows, array.columns, flow)
            busy = np.ceil(folds / array.count) * each * slow
    else:
        blocks = _ceil(m, array.rows) * _ceil(n, array.columns) * _ceil(k, array.depth)
        busy = np.ceil(blocks / array.count) * slow
    a, b = matmul_reads(target, m, n, k, flow)
    fed = (a * dtype.bytes + b * right.bytes) / target.scratch_bytes_per_clock
    return np.asarray(array.startup_clocks + np.maximum(busy, fed))


def matmul_reads(target: Target, m: Numbers, n: Numbers, k: Numbers, dataflow: str = "") -> tuple[Floats, Floats]:
    """Elements of the left and the right operand read from scratchpad for one product.

    What is stationary is read once; what streams is read once for each fold along the other operand's dimension. A unit with depth
    holds a column of blocks of the right operand while it goes down the left one.
    """
    array = target.array
    flow = dataflow or array.dataflows[0]
    m, n, k = (np.asarray(x, dtype=np.float64) for x in (m, n, k))
    by_row, by_column = np.ceil(m / array.rows), np.ceil(n / array.columns)
    if array.systolic and flow == "output_stationary":
        return m * k * by_column, k * n * by_row
    if array.systolic and flow == "input_stationary":
        return m * k, k * n * np.ceil(m / array.columns)
    return m * k * by_column, k * n


def vector_clocks(
    target: Target,
    points: Numbers,
    operations: Mapping[tuple[str, str], Numbers],
    bytes_moved: Numbers,
    *,
    reduces: bool = False,
) -> Floats:
    """Clocks of one `vector` instruction over `points`.

    `operations`: issue slots per point by (unit, dtype name), as `codesign.ir.analysis.operation_counts` gives. The pipes of the machine's
    units and the scratchpad port work side by side; the slowest decides. A reduction ends with a tree across the lanes.
    """
    points = np.asarray(points, dtype=np.float64)
    busy = np.asarray(bytes_moved, dtype=np.float64) / target.scratch_bytes_per_clock
    for each in pipe_clocks(target, operations).values():
        busy = np.maximum(busy, np.ceil(points * each))
    tree = np.log2(reduce(np.maximum, target.pipes["alu"].lanes.values(), 2.0)) if reduces else 0.0
    return np.asarray(target.vector_startup_clocks + busy + np.ceil(tree), dtype=np.float64)


def pipe_clocks(target: Target, operations: Mapping[tuple[str, str], Numbers]) -> dict[str, Floats]:
    """Clocks per point of each pipe that has something to do."""
    found: dict[str, Floats] = {}
    for (kind, dtype), slots in operations.items():
        if kind != "free" and np.any(slots):
            pipe = target.pipes[kind]
            found[pipe.name] = found.get(pipe.name, np.zeros(())) + np.asarray(slots) / pipe.rate(DTYPES[dtype])
    return found


def vector_joules(target: Target, points: Numbers, operations: Mapping[tuple[str, str], Numbers]) -> Floats:
    """Energy of a vector instruction's arithmetic; other dtypes are taken as the f32 figure, NaN when the file has none."""
    total = np.zeros((), dtype=np.float64)
    for (kind, dtype), slots in operations.items():
        if kind != "free":
            known = target.pipes[kind].joules
            total = total + np.asarray(slots) * known.get(dtype, known.get("f32", float("nan")))
    return np.asarray(np.asarray(points, dtype=np.float64) * total, dtype=np.float64)


def apart(points: Numbers, lanes: Numbers, slots: Numbers) -> npt.NDArray[np.bool_]:
    """Whether a part of an expression over `points`, which depends on `lanes` of them, is computed by an instruction of its own."""
    points, lanes = np.asarray(points, dtype=np.float64), np.asarray(lanes, dtype=np.float64)
    saved = np.asarray(slots) * (points - lanes)
    return np.asarray((lanes * HOIST_AT_LEAST <= points) & (saved >= HOIST_SLOTS))


def transfer_bytes(target: Target, runs: Numbers, run_bytes: Numbers) -> Floats:
    """Bytes that DRAM moves for `runs` contiguous pieces: whole lines of it."""
    line = target.dram.line_bytes
    return np.asarray(
        np.asarray(runs, dtype=np.float64) * np.ceil(np.asarray(run_bytes, dtype=np.float64) / line) * line
    )


def dma_clocks(target: Target, bytes_moved: Numbers, descriptors: Numbers = 1) -> Floats:
    """Clocks that a core's DMA engine is busy with a transfer when memory is free."""
    return np.asarray(
        np.asarray(descriptors) * target.dma_setup_clocks + np.asarray(bytes_moved) / target.dma_bytes_per_clock
    )
