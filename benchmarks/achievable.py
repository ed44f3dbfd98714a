"""Predicted against published rates of the best matmul that was found on each GPU: `python benchmarks/achievable.py`.

The published rates are rows of `costmodel/achievable.toml`, which names their source. The shapes flatter the machine, so a model that is
right everywhere is a little low here. Prints Markdown.
"""

from __future__ import annotations

from codesign.costmodel.achievable import published


def main() -> None:
    print(
        "| machine | dtype | m x n x k | published TFLOP/s | predicted TFLOP/s | off by |\n| --- | --- | --- | --- | --- | --- |"
    )
    for one in published():
        found = one.predicted()
        sizes = f"{one.m} x {one.n} x {one.k}"
        off = found / one.teraflops - 1.0
        print(f"| {one.machine} | {one.dtype} | {sizes} | {one.teraflops:,.1f} | {found:,.1f} | {off:+.1%} |")


if __name__ == "__main__":
    main()
