"""A table of matrix products that were measured on an accelerator, against the accelerator's model at its own best schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from codesign.costmodel.dataflow.library import staged_terms, staged_whole
from codesign.costmodel.dataflow.mapping import DIMS, Layer, LoopNest, mapping_seconds, parse_mapping
from codesign.costmodel.dataflow.model import BAND
from codesign.costmodel.dataflow.target import target_of
from codesign.costmodel.machine import Machine
from codesign.costmodel.rows import TableError, dtype_named
from codesign.costmodel.tables import machine_rows, set_aside
from codesign.costmodel.workloads import product_group
from codesign.ir.dtypes import DTYPES
from codesign.ir.errors import ScheduleError
from codesign.passes.schedule.tuner import Tuner


@dataclass(frozen=True)
class _Price:
    seconds: float
    low: float
    high: float
    bound: str


def accelerator_predictions(
    table: pd.DataFrame, kind: str, machine: Machine, each: Callable[[str, int], Callable[[], None]]
) -> pd.DataFrame:
    """A frame per measured row, as `validation.predictions` has it for GPUs; each shape is scheduled once.

    TableError for tables of another kind and for those without a row of the machine; ScheduleError where a product has no schedule on it.
    """
    if kind != "gemm":
        hint = "m, n, k and seconds or cycles, and optionally dtype and machine"
        raise TableError(
            f"taken for a table of kind {kind}; an accelerator is compared with matrix products", hint=hint
        )
    picked = machine_rows(table, machine.name)
    if not len(picked):
        raise TableError(f"no rows of {machine.name} in the table")
    if {"array_rows", "array_cols"} <= {*picked}:
        array = target_of(machine).array
        picked = picked[(picked["array_rows"] == array.rows) & (picked["array_cols"] == array.columns)]
        if not len(picked):
            raise TableError(f"no rows of arrays of {array.rows} x {array.columns}, which {machine.name} has")
    picked = picked[~set_aside(picked, kind)]
    picked = picked[np.isfinite(picked["seconds"]) & (picked["seconds"] > 0)]
    if not len(picked):
        raise TableError(f"no row of {machine.name} holds a product with a time")
    if MAPPING in picked:
        return _under_mappings(picked, machine)
    names = picked["dtype"].astype(str) if "dtype" in picked else pd.Series("bf16", index=picked.index)
    sizes = (picked[column].astype(int) for column in ("m", "n", "k"))
    shapes = list(zip(map(dtype_named, names), *sizes, strict=True))
    tuner, priced = Tuner(machine), dict[tuple[str, int, int, int], _Price]()
    tick = each(f"scheduling on {machine.name}", len(set(shapes)))
    for shape in shapes:
        if shape not in priced:
            priced[shape] = _price(tuner, *shape)
            tick()
    found = [priced[shape] for shape in shapes]
    return pd.DataFrame(
        {
            "op": picked["op"].astype(str).to_numpy() if "op" in picked else "gemm",
            "row": picked.index.to_numpy(),
            "measured": picked["seconds"].to_numpy(dtype=np.float64),
            "predicted": [one.seconds for one in found],
            "low": [one.low for one in found],
            "high": [one.high for one in found],
            "regime": [regime_of(one.bound) for one in found],
            "size": picked["m"].to_numpy(dtype=np.float64),
        }
    )


MAPPING = "mapping.mapping"
"""The column of mappings, each of which is a layer's schedule."""

MAPPING_BAND = (0.84, 1.46)
"""Interval that holds 90 % of measured over predicted cycles of layers that a fit did not see (benchmarks/fit_mapping.py)."""


def mapped_layers(table: pd.DataFrame) -> list[tuple[LoopNest, Layer]]:
    """The mapping and the layer of each row; TableError names the row that has none that can be read."""
    sizes = table[[f"prob.{dim}" for dim in DIMS]].astype(int).to_numpy().tolist()
    strides = table["prob.Wstride"].astype(int).tolist() if "prob.Wstride" in table else [1] * len(table)
    found = []
    for row, text, size, stride in zip(table.index, table[MAPPING].astype(str), sizes, strides, strict=True):
        try:
            nest = parse_mapping(text)
        except ScheduleError as error:
            raise TableError(f"row {int(row) + 1}, column '{MAPPING}': {error.message}") from None
        found.append((nest, Layer(dict(zip(DIMS, size, strict=True)), stride)))
    return found


def _under_mappings(picked: pd.DataFrame, machine: Machine) -> pd.DataFrame:
    seconds = np.array([mapping_seconds(machine, nest, layer) for nest, layer in mapped_layers(picked)])
    return pd.DataFrame(
        {
            "op": "layer",
            "row": picked.index.to_numpy(),
            "measured": picked["seconds"].to_numpy(dtype=np.float64),
            "predicted": seconds,
            "low": seconds * MAPPING_BAND[0],
            "high": seconds * MAPPING_BAND[1],
            "regime": "compute",
            "size": picked["m"].to_numpy(dtype=np.float64),
        }
    )


def _price(tuner: Tuner, dtype: str, m: int, n: int, k: int) -> _Price:
    """What a product takes: as the machine's own compiler runs it where that is known, else by the best schedule."""
    if not staged_whole(tuner.machine, DTYPES[dtype], m, n, k):
        found = tuner.tune(product_group(dtype, m, n, k))
        return _Price(found.seconds, found.low, found.high, found.bound)
    terms = staged_terms(tuner.machine, DTYPES[dtype], m, n, k)
    seconds = sum(terms.values())
    return _Price(seconds, seconds * BAND[0], seconds * BAND[1], max(terms, key=lambda name: terms[name]))


def regime_of(bound: str) -> str:
    """What bounds a kernel by the model's largest term, in the words of the report."""
    return "launch" if bound == "launch" else "memory" if bound in MEMORY else "compute"


MEMORY = frozenset({"load", "store", "dram", "latency"})
