"""`python benchmarks/published_utilisation.py`: published utilisation of TPU v3 and v4 in training, beside what the model says of the same products.

Ours: the products of one layer on one chip as the run lays them out, each under its best schedule, forward, twice that backward, and the forward
pass again where it is rematerialised; utilisation counts the model's operations alone (MFU) or what is done again too (HFU), as A. Chowdhery et
al., "PaLM: Scaling Language Modeling with Pathways", arXiv:2204.02311, appendix B has it. Element-wise work, the network between chips and the
optimizer are in what is published and not in ours, so that ours is an upper limit: a published figure above it would speak against the machine
file.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.costmodel.machine import load_machine
from codesign.costmodel.workloads import product_group
from codesign.ir.dtypes import BF16
from codesign.passes.schedule.tuner import Tuner

Product = tuple[int, int, int]
"""Rows, columns and the summed extent."""


@dataclass(frozen=True)
class Run:
    """A published run: its products of a layer and chip, forward; MFU and HFU in percent (0: not said) and where they are from."""

    name: str
    machine: str
    products: tuple[Product, ...]
    mfu: float
    hfu: float
    source: str
    again: bool = True


def decoder(
    tokens: int, width: int, heads: int, inner: int, sequence: int, *, parts: int = 1, gated: bool = False
) -> tuple[Product, ...]:
    """The products of a decoder's layer whose heads and inner width lie on so many chips; the scores of all heads as one product."""
    each, mlp = heads // parts, inner // parts
    size = width // heads
    return (
        (tokens, 3 * each * size, width),
        (tokens * each, sequence, size),
        (tokens * each, size, sequence),
        (tokens, width, each * size),
        (tokens, mlp * (2 if gated else 1), width),
        (tokens, width, mlp),
    )


MAXTEXT = "AI-Hypercomputer/maxtext, MaxText/configs/v4/README.md and {}.sh"
SHMAP = "fattorib/transformer_shmap, README.md, benchmark_tpu.py and conf/model_config.yaml (a chip has two of its 32 cores)"
PALM = "arXiv:2204.02311, section 4: 256 shards of each pod's half of 2048 x 2048 tokens, 12 parts; heads of 256, one of keys and values"
RUNS = (
    Run("6.9B, v3-32", "tpu_v3", decoder(1024, 4096, 16, 16384, 1024, parts=4), 44.5, 0.0, SHMAP),
    Run("22B, v4-128", "tpu_v4", decoder(13 * 2048, 6144, 24, 24576, 2048), 56.7, 0.0, MAXTEXT.format("22b")),
    Run("52B, v4-384", "tpu_v4", decoder(7 * 2048, 12288, 32, 49152, 2048), 56.0, 0.0, MAXTEXT.format("52b")),
    Run(
        "PaLM 540B, 6144 v4",
        "tpu_v4",
        (
            (8192, 4 * 256 + 2 * 256, 18432),
            (8192 * 4, 2048, 256),
            (8192 * 4, 256, 2048),
            (8192, 18432, 4 * 256),
            (8192, 2 * 6144, 18432),
            (8192, 18432, 6144),
        ),
        46.2,
        57.8,
        PALM,
    ),
)


def backward(product: Product) -> tuple[Product, Product]:
    """The products that the gradients of both operands are."""
    m, n, k = product
    return (m, k, n), (k, n, m)


def main() -> None:
    """A line for each run."""
    tuners = {name: Tuner(load_machine(name)) for name in dict.fromkeys(run.machine for run in RUNS)}
    print(f"{'run':20} {'MFU published':>14} {'ours at most':>13} {'HFU published':>14} {'ours at most':>13}  source")
    for run in RUNS:
        tuner = tuners[run.machine]
        peak = load_machine(run.machine).unit("tensor").peak["bf16"].value
        assert peak is not None

        def seconds(products: tuple[Product, ...], tuner: Tuner = tuner) -> float:
            return sum(tuner.price(product_group(BF16.name, *product)) for product in products)

        operations = sum(2.0 * m * n * k for m, n, k in run.products)
        forward = seconds(run.products)
        total = forward * (2 if run.again else 1) + sum(seconds(backward(product)) for product in run.products)
        mfu, hfu = (100.0 * times * operations / peak / total for times in (3, 4 if run.again else 3))
        print(
            f"{run.name:20} {run.mfu:13.1f}% {mfu:12.1f}% {f'{run.hfu:.1f}%' if run.hfu else '-':>14} {hfu:12.1f}%  {run.source}"
        )


if __name__ == "__main__":
    main()
