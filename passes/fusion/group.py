"""Groups of computes under construction: dims are named so that equal names are the same loop."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from codesign.ir.core import Block, Value
from codesign.ir.index import Bounds
from codesign.ir.location import Location
from codesign.ir.tensor import Compute, Fusion
from codesign.passes.rebase import rebased


class NotFusable(Exception):
    """Two groups can't be one kernel; the text says why."""


@dataclass(eq=False)
class Group:
    """Computes that one kernel will do.

    `computes`: private copies in order. `outputs`: values of the surrounding block that the group provides, and the private value
    that holds each, its elements in their order but perhaps over parts of its dims. `external`: values of the surrounding block that it
    reads, in order of first use. `key`: of its structure, once it was asked for (`keys.group_key`).
    """

    computes: tuple[Compute, ...]
    outputs: dict[Value, Value]
    location: Location
    external: tuple[Value, ...] = field(init=False)
    key: str = field(init=False, default="")

    def __post_init__(self) -> None:
        inside = {op.result for op in self.computes}
        self.external = tuple(
            dict.fromkeys(value for op in self.computes for value in op.operands() if value not in inside)
        )

    def fusion(self) -> Fusion:
        """The group as an op over private copies, with plain names for its dims."""
        names = plain_names(self.computes)
        copies, mapping = rebased(self.computes, names, {}, Bounds())
        block = Block((), copies, (mapping[value] for value in self.outputs.values()))
        shapes = {k: value.shape for k, value in enumerate(self.outputs) if value.shape != block.yields[k].shape}
        return Fusion(block, names=[value.name for value in self.outputs], shapes=shapes, location=self.location)


def shown(text: object) -> str:
    """Names of dims in a message as the user knows them, without the numbers that tell groups' dims apart."""
    return re.sub(r"(?<=\w)\.\d+", "", str(text))


_counter = itertools.count()


def fresh_name(name: str) -> str:
    """A name for a dim that no group has, after its plain name; later names sort after earlier ones."""
    return f"{name.split('.')[0]}.{next(_counter):08d}"


def single(op: Compute) -> Group:
    """The group of one compute, with dim names that no other group has."""
    names = {dim.name: fresh_name(dim.name) for dim in op.domain}
    (copy,), mapping = rebased([op], names, {}, Bounds())
    return Group((copy,), {op.result: mapping[op.result]}, op.location)


def plain_names(computes: Iterable[Compute]) -> dict[str, str]:
    """Short unique names for the dims of a group: the original one, or with a number where two would be the same."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for op in computes:
        for dim in op.domain:
            if dim.name in names:
                continue
            base = dim.name.split(".")[0]
            name, count = base, 1
            while name in taken:
                name, count = f"{base}{count}", count + 1
            taken.add(name)
            names[dim.name] = name
    return names
