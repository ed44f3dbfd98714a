"""`python benchmarks/eyeriss.py [alexnet] [vgg16]`: bytes that convolutions move on Eyeriss, mapped here and published.

Published: Y.-H. Chen, T. Krishna, J. Emer, V. Sze, "Eyeriss: An energy-efficient reconfigurable accelerator for deep convolutional neural networks",
IEEE JSSC 52(1), 2017, abstract: DRAM accesses (of 16 bit) a multiply-add, with activations compressed in DRAM. Ours: the mapping of
least energy on `accelforge_eyeriss`, values of 16 bit, nothing compressed, factors that divide, and no value of an input sent at once to neighbours
that need it for different rows of the window, which the chip's diagonal wires do (accesses of the buffer, not of DRAM).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from codesign.costmodel.machine import load_machine
from codesign.costmodel.mapping import ACCELFORGE, hierarchy_of, parse_problem, search
from codesign.costmodel.mapping.machines import described


@dataclass(frozen=True)
class Network:
    """Convolutions of so many images, and the published DRAM accesses a multiply-add."""

    images: int
    published: float
    layers: Mapping[str, tuple[int, int, int, int, int, int]]
    """Output and input channels of a group, side of the output and of the window, stride, groups (or layers that are the same)."""


NETWORKS = {
    "alexnet": Network(
        4,
        0.0029,
        {
            "conv1": (96, 3, 55, 11, 4, 1),
            "conv2": (128, 48, 27, 5, 1, 2),
            "conv3": (384, 256, 13, 3, 1, 1),
            "conv4": (192, 192, 13, 3, 1, 2),
            "conv5": (128, 192, 13, 3, 1, 2),
        },
    ),
    "vgg16": Network(
        3,
        0.0035,
        {
            "conv1-1": (64, 3, 224, 3, 1, 1),
            "conv1-2": (64, 64, 224, 3, 1, 1),
            "conv2-1": (128, 64, 112, 3, 1, 1),
            "conv2-2": (128, 128, 112, 3, 1, 1),
            "conv3-1": (256, 128, 56, 3, 1, 1),
            "conv3-2, 3": (256, 256, 56, 3, 1, 2),
            "conv4-1": (512, 256, 28, 3, 1, 1),
            "conv4-2, 3": (512, 512, 28, 3, 1, 2),
            "conv5-1, 2, 3": (512, 512, 14, 3, 1, 3),
        },
    ),
}


def compare(network: Network) -> None:
    """Print a line for each layer, and the sum."""
    hierarchy = hierarchy_of(load_machine(str(described()["accelforge_eyeriss"])), "i8")
    total, least, macs = 0.0, 0.0, 0
    for name, (k, c, side, window, stride, groups) in network.layers.items():
        text = f"o[n, k, p, q] = i[n, c, {stride}*p + r, {stride}*q + s] * w[k, c, r, s]"
        sizes = {"n": network.images, "k": k, "c": c, "p": side, "q": side, "r": window, "s": window}
        problem = parse_problem(text, sizes, "i8", 2.0)
        costs = search(problem, hierarchy, ACCELFORGE, "energy", 0.02).costs
        moved, buffered = (
            groups
            * sum(v.item() for found in (costs.reads, costs.writes) for (at, _), v in found.items() if at == store)
            for store in (0, 1)
        )
        compulsory = groups * problem.compulsory_bytes
        total, least, macs = total + moved, least + compulsory, macs + groups * problem.macs
        print(f"{name}: DRAM {moved / 1e6:.1f} MB (compulsory {compulsory / 1e6:.1f}), buffer {buffered / 1e6:.1f} MB")
    ours, bound = total / 2 / macs, least / 2 / macs
    print(
        f"DRAM accesses a multiply-add: {ours:.4f}, compulsory {bound:.4f}; published, compressed: {network.published}"
    )


def main() -> None:
    """The networks that are asked for (both unless said)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="|".join(NETWORKS))
    for name in parser.parse_args().networks or list(NETWORKS):
        print(name)
        compare(NETWORKS[name])


if __name__ == "__main__":
    main()
