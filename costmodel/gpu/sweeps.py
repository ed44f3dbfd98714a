"""How often a block goes over its operands again, as the loops of its text load them."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.phases import phases_of
from codesign.costmodel.gpu.program import Program
from codesign.costmodel.structures import Text
from codesign.costmodel.summary import Access
from codesign.ir.index import Index

Sweeps = Mapping[tuple[str, tuple[Index, ...] | None], Array]
"""Further sweeps over an operand by its tensor and index; of those that data choose by the tensor alone."""

_KNOWN: WeakKeyDictionary[Text, dict[tuple[str, tuple[Index, ...] | None], Array]] = WeakKeyDictionary()


def sweeps_of(program: Program) -> Sweeps:
    """Of each operand, the parts of a block that load it anew besides the first: what stays on chip is loaded once in the text. Worked out
    once for a text."""
    found = _KNOWN.get(program.text)
    if found is None:
        found = _KNOWN[program.text] = _counted(program)
    return found


def _counted(program: Program) -> dict[tuple[str, tuple[Index, ...] | None], Array]:
    times: dict[tuple[str, tuple[Index, ...] | None], Array] = {}
    loads = [(op, transfer.access) for op, transfer in program.transfers.items() if transfer.kind == "load"]
    for phase in phases_of(program):
        if phase.continues:
            continue
        accesses = [access for op, access in loads if op in phase.ops]
        for key in {(program.labels[one.tensor], None if one.gather else one.index) for one in accesses}:
            times[key] = times.get(key, -1.0) + 1.0
    return {key: further for key, further in times.items() if further}


def further(sweeps: Sweeps, access: Access) -> Array:
    """How often a block goes over an operand again."""
    return sweeps.get((access.tensor, None if access.gather else access.index), 0.0)
