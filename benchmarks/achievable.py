"""Predicted against published rates of the best matmul that was found on each GPU: `python benchmarks/achievable.py`.

The published rates are the "maximum achievable matmul FLOPS" of stas00/ml-engineering (compute/accelerator/README.md,
https://github.com/stas00/ml-engineering): the mean of 100 iterations on the shape that did best there. No parameter
was fitted to them, and most of the machines were never measured for this model. The shapes flatter the machine, so a
model that is right everywhere is a little low here. Prints Markdown.
"""

from __future__ import annotations

import numpy as np

from codesign.costmodel import workloads
from codesign.costmodel.gpu.library import library
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.machine import load_machine

PUBLISHED = (
    ("a100_sxm", "bf16", (1024, 10240, 5120), 271.2),
    ("a100_pcie", "bf16", (2048, 5120, 6144), 252.9),
    ("h100_sxm", "bf16", (2048, 2048, 13312), 794.5),
    ("h200_sxm", "bf16", (2048, 2048, 13312), 794.5),
    ("b200_sxm", "bf16", (1792, 16128, 3072), 1745.0),
    ("b300_sxm", "bf16", (12288, 18432, 1024), 1769.0),
    ("gb200", "bf16", (4096, 9728, 2048), 1822.0),
    ("h100_sxm", "f8e4m3", (1024, 9216, 14336), 1402.6),
    ("h200_sxm", "f8e4m3", (1280, 4096, 12032), 1453.4),
    ("b200_sxm", "f8e4m3", (15360, 4096, 3072), 3432.5),
    ("b300_sxm", "f8e4m3", (3072, 6144, 7168), 3353.3),
    ("gb200", "f8e4m3", (19456, 5120, 1536), 3615.6),
)
"""Machine, dtype, (m, n, k), published teraflops a second."""


def predicted(name: str, dtype: str, shape: tuple[int, int, int]) -> float:
    """Teraflops a second of the best schedule under the model."""
    machine = load_machine(name)
    sizes = {symbol: np.array([float(size)]) for symbol, size in zip("MNK", shape, strict=True)}
    best = library(workloads.gemm(dtype), machine, sizes, load_calibration(machine).of())
    return float(2.0 * np.prod(np.array(shape, dtype=np.float64)) / best.seconds[0] / 1e12)


def main() -> None:
    print(
        "| machine | dtype | m x n x k | published TFLOP/s | predicted TFLOP/s | off by |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, dtype, shape, published in PUBLISHED:
        found = predicted(name, dtype, shape)
        sizes = " x ".join(map(str, shape))
        print(f"| {name} | {dtype} | {sizes} | {published:,.1f} | {found:,.1f} | {found / published - 1.0:+.1%} |")


if __name__ == "__main__":
    main()
