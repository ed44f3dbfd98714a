"""The best matrix products that others found on GPUs, as rows of `achievable.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from codesign.costmodel import workloads
from codesign.costmodel.gpu.library import library
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import load_machine

ROWS = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Published:
    """A product on a machine and the teraflops a second that were published for it."""

    machine: str
    dtype: str
    m: int
    n: int
    k: int
    teraflops: float

    def predicted(self) -> float:
        """Teraflops a second of the best schedule under the model."""
        machine = load_machine(self.machine)
        sizes = {symbol: np.array([float(getattr(self, symbol.lower()))]) for symbol in "MNK"}
        best = library(workloads.gemm(self.dtype), machine, sizes, load_calibration(machine).of())
        return float(2.0 * self.m * self.n * self.k / best.seconds[0] / 1e12)


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """All of them."""
    return tuple(Published(**row) for row in tomllib.loads(ROWS.read_text(encoding="utf-8"))["product"])
