"""Merges like one that was done before: what came of that, over the values and places of another pair.

A model of many equal layers asks for each merge once a layer; the work of merging is done for the first.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.core import Value
from codesign.ir.location import Location, merge
from codesign.ir.tensor import Compute
from codesign.passes.fusion.group import Group
from codesign.passes.fusion.keys import group_key


@dataclass(frozen=True)
class Merged:
    """What two groups became, of which others like them may become the same."""

    first: Group
    second: Group
    result: Group

    def twin(self, first: Group, second: Group) -> Group | None:
        """What two groups of the same keys become, that are connected and needed in the same way; None where their places in the user's
        source don't answer to each other one by one."""
        values: dict[Value, Value] = {}
        names: dict[str, str] = {}
        places: dict[Location, Location] = {}
        for old, new in ((self.first, first), (self.second, second)):
            values.update(zip(old.external, new.external, strict=True))
            values.update(zip(old.outputs, new.outputs, strict=True))
            names.update({a.result.name: b.result.name for a, b in zip(old.computes, new.computes, strict=True)})
            for one, other in zip(_locations(old), _locations(new), strict=True):
                if not _answer(one, other, places):
                    return None
        if not places.keys() >= {leaf for one in _locations(self.result) for leaf in one.leaves()}:
            return None
        if not values.keys() >= set(self.result.external):
            return None

        def place(location: Location) -> Location:
            return merge(places[leaf] for leaf in location.leaves())

        computes: list[Compute] = []
        for op in self.result.computes:
            body, name = op.body.replace_sources(values), names.get(op.result.name, op.result.name)
            copy = op.with_domain(op.dims, op.reductions, body, name=name, location=place(op.location))
            values[op.result] = copy.result
            computes.append(copy)
        provided = {values[value]: values[inner] for value, inner in self.result.outputs.items()}
        found = Group(tuple(computes), provided, place(self.result.location))
        found.key = group_key(self.result)
        return found


def _locations(group: Group) -> list[Location]:
    return [group.location, *(op.location for op in group.computes)]


def _answer(one: Location, other: Location, places: dict[Location, Location]) -> bool:
    """Whether each place of one has its own in the other, which is entered."""
    ours, theirs = one.leaves(), other.leaves()
    return len(ours) == len(theirs) and all(places.setdefault(a, b) == b for a, b in zip(ours, theirs, strict=True))


def told_by_key(group: Group) -> bool:
    """Whether equal keys mean that two groups read their values in the same order: where an index holds several numbers read from data, that
    order follows the names of dims."""
    expressions = (i for op in group.computes for node in op.body.walk() for i in node.index_expressions())
    return all(len(i.data()) < 2 for i in expressions)
