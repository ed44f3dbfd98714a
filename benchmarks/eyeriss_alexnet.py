"""`python benchmarks/eyeriss_alexnet.py`: bytes that AlexNet's convolutions move on Eyeriss, mapped here and published.

Published: Y.-H. Chen, T. Krishna, J. Emer, V. Sze, "Eyeriss: An energy-efficient reconfigurable accelerator for deep convolutional neural networks",
IEEE JSSC 52(1), 2017: 0.0029 DRAM accesses (of 16 bit) a multiply-add for four images, with activations compressed in DRAM. Ours: the mapping of
least energy on `accelforge_eyeriss`, values of 16 bit, nothing compressed, factors that divide, and no value of an input sent at once to neighbours
that need it for different rows of the window, which the chip's diagonal wires do.
"""

from __future__ import annotations

from codesign.costmodel.machine import load_machine
from codesign.costmodel.mapping import ACCELFORGE, hierarchy_of, parse_problem, search
from codesign.costmodel.mapping.machines import described

PUBLISHED = 0.0029
"""DRAM accesses a multiply-add, from the abstract."""
IMAGES = 4
LAYERS = {
    "conv1": (96, 3, 55, 11, 4, 1),
    "conv2": (128, 48, 27, 5, 1, 2),
    "conv3": (384, 256, 13, 3, 1, 1),
    "conv4": (192, 192, 13, 3, 1, 2),
    "conv5": (128, 192, 13, 3, 1, 2),
}
"""Output and input channels of a group, side of the output and of the window, stride, groups."""


def main() -> None:
    """Print a line for each layer, and the sum."""
    hierarchy = hierarchy_of(load_machine(str(described()["accelforge_eyeriss"])), "i8")
    total, least, macs = 0.0, 0.0, 0
    for name, (k, c, side, window, stride, groups) in LAYERS.items():
        text = f"o[n, k, p, q] = i[n, c, {stride}*p + r, {stride}*q + s] * w[k, c, r, s]"
        sizes = {"n": IMAGES, "k": k, "c": c, "p": side, "q": side, "r": window, "s": window}
        problem = parse_problem(text, sizes, "i8", 2.0)
        costs = search(problem, hierarchy, ACCELFORGE, "energy", 0.02).costs
        moved = [
            groups
            * sum(
                value.item() for found in (costs.reads, costs.writes) for (at, _), value in found.items() if at == store
            )
            for store in (0, 1)
        ]
        total, least = total + moved[0], least + groups * problem.compulsory_bytes
        macs += groups * problem.macs
        print(
            f"{name}: DRAM {moved[0] / 1e6:.1f} MB (compulsory {groups * problem.compulsory_bytes / 1e6:.1f}), buffer {moved[1] / 1e6:.1f} MB"
        )
    print(
        f"DRAM accesses a multiply-add: {total / 2 / macs:.4f}, compulsory {least / 2 / macs:.4f}; published, compressed: {PUBLISHED}"
    )


if __name__ == "__main__":
    main()
