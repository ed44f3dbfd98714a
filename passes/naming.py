"""Names of kernels that say what they compute: the modules whose products or reductions they do, and the operators.

    feed_forward_gate_up__linear_mul        attention__matmul_softmax        attention_norm__mean_mul

They follow from what is in a group alone, so that they are the same in every run and whatever comes before it in the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from codesign.ir.analysis import contraction
from codesign.ir.location import Location
from codesign.ir.tensor import Compute, Fusion

LONGEST = 64
FEW = 3
"""Modules that a name says each."""
COPIES = frozenset({"_to_copy", "clone", "copy", "expand", "view", "reshape", "permute", "transpose", "slice"})
"""Operators that say nothing of what is computed."""


def kernel_name(fusion: Fusion) -> str:
    """What a group computes, as an identifier: by its label, or where it comes from, or its first result."""
    if fusion.label:
        return _identifier(fusion.label)
    main = _main(fusion)
    modules = _modules([place for op in main if (place := _own(op)) is not None])
    words = "__".join(part for part in (modules, _operators(fusion, main)) if part)
    return _identifier(words or "_".join(value.name for value in fusion.body.yields[:1]))


def _main(fusion: Fusion) -> Sequence[Compute]:
    """The computes that a kernel is there for: its products, else its reductions, else all."""
    products = [op for op in fusion.computes if contraction(op) is not None]
    return products or [op for op in fusion.computes if op.reductions] or fusion.computes


def _own(op: Compute) -> Location | None:
    """The place of a compute itself: what was inlined into it comes before."""
    leaves = op.location.leaves()
    return next((leaf for leaf in reversed(leaves) if leaf.operator not in COPIES), leaves[-1] if leaves else None)


def _modules(places: Iterable[Location]) -> str:
    """The path that modules have in common, and how they go on: each where these are few, else the modules that they are parts of, else the
    first of these and how many more. Without numbers of layers."""
    ordered = sorted(places, key=lambda place: (place.file, place.line, place.module))
    paths = list(dict.fromkeys(tuple(p for p in place.module.split(".") if p and not p.isdigit()) for place in ordered))
    if not paths:
        return ""
    if len(paths) == 1:
        return "_".join(paths[0][-3:])
    shared = 0
    while all(len(path) > shared and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    ends = ["_".join(path[shared:]) for path in paths if len(path) > shared]
    if len(ends) > FEW:
        ends = list(dict.fromkeys(path[shared] for path in paths if len(path) > shared))
    if len(ends) > FEW:
        ends = [*ends[: FEW - 1], f"and_{len(ends) - FEW + 1}_more"]
    return "_".join([*paths[0][max(shared - 2, 0) : shared], *ends])


def _operators(fusion: Fusion, main: Sequence[Compute]) -> str:
    """The operators of products and reductions and of what is stored last; of element-wise work the last three."""
    reducing = [op for op in fusion.computes if op.reductions]
    if not reducing:
        every = [leaf.operator for op in main for leaf in op.location.leaves() if leaf.operator not in COPIES]
        return "_".join([name.strip("_") for name in dict.fromkeys(every) if name][-3:])
    results = [value.owner for value in fusion.body.yields]
    computes = [*reducing, *(op for op in results if isinstance(op, Compute))]
    places = [place for op in computes if (place := _own(op)) is not None]
    return "_".join(list(dict.fromkeys(name for place in places if (name := place.operator.strip("_"))))[:4])


def _identifier(text: str) -> str:
    base = re.sub(r"\W+", "_", text).strip("_")[:LONGEST].strip("_") or "kernel"
    return f"k_{base}" if base[0].isdigit() else base
