"""What a launch decides from the sizes of a call: the heads that fill a tile, and the parts of a split reduction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from codesign.costmodel.gpu.geometry import ONLINE, Array
from codesign.costmodel.summary import KernelSummary

MEET_INSIDE, MEET_LAUNCHED, MEET_ALWAYS = 0.0, 1.0, 2.0
"""How the parts of a split chain are summed: by the last block, by a kernel launched where there are several parts, or
by one that is always launched and counted among the launches."""


def launched(
    kernel: KernelSummary, knobs: Mapping[str, Array], sizes: Mapping[str, Array], sms: float
) -> tuple[Mapping[str, Array], Array]:
    """The knobs with what a launch chooses by rule, and the blocks that find nothing to do, for each that does.

    `pack.rows` rows of a tile hold whole groups of all row dims but the last, flattened with it. `split.waves` waves
    of blocks are wanted, in parts of `split.least` elements of the online dim or more and `split.most` parts at most;
    without `split.seen` the rule counts the size `keys`, not what is visited; with `split.all` the most is launched
    wherever more than one part is wanted.
    """
    chosen = dict(knobs)
    if "pack.rows" in knobs:
        contraction = next(nest.contraction for nest in kernel.nests if nest.contraction is not None)
        left = knobs["pack.rows"]
        for dim in contraction.m[:-1]:
            chosen[f"tile.{dim}"] = np.minimum(kernel.extents[dim].evaluate(sizes), left)
            left = left / chosen[f"tile.{dim}"]
        chosen[f"tile.{contraction.m[-1]}"] = left
    if "split.waves" not in knobs:
        return chosen, 0.0
    (dim,) = (dim for dim in kernel.inner if np.any(np.equal(knobs.get(f"reduce.{dim}", 0.0), ONLINE)))
    visited = kernel.extents[dim].evaluate(sizes)
    counted = np.where(np.greater(knobs["split.seen"], 0.0), visited, sizes["keys"])
    blocks: Array = 1.0
    for outer in kernel.outer:
        blocks = blocks * np.ceil(kernel.extents[outer].evaluate(sizes) / chosen.get(f"tile.{outer}", 1.0))
    wanted = np.floor(knobs["split.waves"] * sms / blocks + 0.999 * knobs["split.up"])
    least, most = knobs["split.least"], knobs["split.most"]
    offered = np.where(np.greater(least, 0.0), np.floor(counted / np.maximum(least, 1.0)), most)
    parts = np.where(np.greater(knobs["split.all"], 0.0), most, np.minimum(np.minimum(wanted, offered), most))
    parts = np.where(np.greater(wanted, 1.0), np.maximum(parts, 1.0), 1.0)
    busy = np.minimum(parts, np.ceil(visited / knobs[f"tile.{dim}"]))
    chosen[f"split.{dim}"] = busy
    return chosen, parts / busy - 1.0
