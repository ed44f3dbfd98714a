"""Measures matrix products on a CUDA device into a table that `codesign.calibrate` and `codesign.validate` read.

    python -m codesign.calibrate --machine mine.toml --suggest -o out        # which products say most: out/mine_suggested.csv
    python benchmarks/gpu/measure.py out/mine_suggested.csv -o mine.csv      # on the GPU: their seconds
    python -m codesign.calibrate --machine mine.toml --table mine.csv -o out

    python benchmarks/gpu/measure.py out/mine_suggested.csv --plan           # needs no GPU: what would be measured, and how long it takes

A product is torch's (the library's best kernel), replayed as a CUDA graph, so that no launch from the host is in its time. Its weights are
taken in turn from so many copies that L2 has lost them, as in a model of many layers; activations are warm. Of several timings the
median is kept, with how far they lie apart. A row that the device cannot run keeps an empty time, and stderr says why.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COPIES, LOST_BYTES = 5, 512 << 20
"""Copies of the weights at the least, and bytes of them from which on no L2 holds any: twice the largest there is."""

TIMINGS, REPLAYS, MILLISECONDS = 5, 10, 20
"""How often a product is timed, how many replays of its graph Triton's `do_bench_cudagraph` makes each time, and how long each is at the least."""

DEVICE = "cuda"

DTYPES = {
    "bf16": "bfloat16",
    "f16": "float16",
    "f32": "float32",
    "f8e4m3": "float8_e4m3fn",
}
"""Types of operands in tables and in torch; of 32 bits they are multiplied as they are, not as TF32."""

BYTES = {"bf16": 2, "f16": 2, "f32": 4, "f8e4m3": 1}


@dataclass(frozen=True)
class Product:
    """C[m, n] = A[m, k] B[n, k]^T, with weights B in `copies`."""

    dtype: str
    m: int
    n: int
    k: int

    @property
    def copies(self) -> int:
        """So many that a cycle through them leaves none in L2, within the memory that small ones may take."""
        return max(COPIES, min(-(-LOST_BYTES // (self.n * self.k * BYTES[self.dtype])), 4096))

    @property
    def device_bytes(self) -> int:
        """Memory of operands and result."""
        width = BYTES[self.dtype]
        return width * (self.m * self.k + self.copies * self.n * self.k) + 4 * self.m * self.n


def products(rows: list[dict[str, str]]) -> list[Product]:
    """The products of a table's rows; ValueError names the row that is none."""
    found = []
    for number, row in enumerate(rows, 1):
        try:
            sizes = [int(float(row[name])) for name in ("m", "n", "k")]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"row {number}: needs numbers in the columns m, n and k") from None
        dtype = row.get("dtype") or "bf16"
        if dtype not in DTYPES or min(sizes) < 1:
            raise ValueError(
                f"row {number}: {dtype} product of {sizes}: dtypes are {', '.join(DTYPES)}, sizes 1 or more"
            )
        found.append(Product(dtype, *sizes))
    return found


def call_of(product: Product) -> Callable[[], Any]:
    """A function that multiplies by every copy of the weights once."""
    import torch

    kind = getattr(torch, DTYPES[product.dtype])
    torch.backends.cuda.matmul.allow_tf32 = False

    def drawn(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, device=DEVICE, dtype=torch.float32) / 8).to(kind)

    x = drawn(product.m, product.k)
    weights = [drawn(product.n, product.k).t() for _ in range(product.copies)]
    if product.dtype == "f8e4m3":
        one = torch.ones((), device=DEVICE)
        out = torch.empty(product.m, product.n, device=DEVICE, dtype=torch.bfloat16)
        return lambda: [
            torch._scaled_mm(x, weight, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, out=out)
            for weight in weights
        ]
    out = torch.empty(product.m, product.n, device=DEVICE, dtype=kind)
    return lambda: [torch.mm(x, weight, out=out) for weight in weights]


def seconds(product: Product) -> tuple[float, float]:
    """Seconds of one product, and how far the timings lie apart over that."""
    from triton.testing import do_bench_cudagraph

    call = call_of(product)
    times = [do_bench_cudagraph(call, rep=MILLISECONDS) / 1e3 / product.copies for _ in range(TIMINGS)]
    middle = float(statistics.median(times))
    return middle, (max(times) - min(times)) / middle


def plan(rows: list[dict[str, str]], everything: list[Product]) -> None:
    """What would be measured."""
    for product in everything:
        print(
            f"{product.dtype:7} {product.m:6} x {product.n:6} x {product.k:6}  {product.copies:5} copies of the weights,"
            f" {product.device_bytes / 1e9:6.2f} GB"
        )
    least = len(everything) * TIMINGS * REPLAYS * MILLISECONDS / 1e3
    largest = max((product.device_bytes for product in everything), default=0)
    print(f"{len(rows)} products, {least:.0f} s of timing at the least, {largest / 1e9:.1f} GB of memory at the most")


def measured(row: dict[str, str], product: Product, machine: str) -> dict[str, Any]:
    """The row with its time, or without one where the device cannot run it."""
    entry: dict[str, Any] = {
        "machine": machine or row.get("machine", ""), "op": "gemm", "dtype": product.dtype,
        "m": product.m, "n": product.n, "k": product.k, "seconds": "", "spread": "",
    }  # fmt: skip
    try:
        time, apart = seconds(product)
    except RuntimeError as error:  # out of memory, or sizes that the library refuses
        print(f"{product}: {str(error).splitlines()[0]}", file=sys.stderr)
        return entry
    return {**entry, "seconds": f"{time:.6g}", "spread": f"{apart:.3f}"}


def main() -> int:
    """Measure, or say what would be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV with the columns m, n, k and dtype (bf16 where it has none)")
    parser.add_argument("--plan", action="store_true", help="say what would be measured; needs no GPU")
    parser.add_argument("--machine", default="", help="name of the machine for the column `machine`")
    parser.add_argument("-o", "--output", type=Path, help="CSV to write")
    options = parser.parse_args()
    try:
        with options.table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        everything = products(rows)
    except (OSError, ValueError) as error:
        print(f"{options.table}: {error}", file=sys.stderr)
        return 2
    if options.plan:
        plan(rows, everything)
        return 0
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured; --plan says what would be", file=sys.stderr)
        return 2
    if options.output is None:
        print("give -o FILE for the measured table", file=sys.stderr)
        return 2
    with options.output.open("w", encoding="utf-8", newline="") as file:
        writer: Any = None
        for row, product in zip(rows, everything, strict=True):
            entry = measured(row, product, options.machine)
            writer = writer or csv.DictWriter(file, list(entry))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(entry)
            file.flush()  # what was measured stays when a later row fails
            torch.cuda.empty_cache()
            print(f"{product}: {entry['seconds'] or 'not measured'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
