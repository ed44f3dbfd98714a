"""What a fold is: parts that are carried together, and what each is rescaled by when what it refers to moves on.

Softmax over elements x, say, is a fold of two parts: m = max x, and s = sum exp(x - m). While elements go by, s refers to the maximum of
those that went by; where that rises from m to m', the carried s becomes s * exp(m - m').

- `identity`: the identity of each part's monoid.
- `lift` of elements: each part's `reduced` over them, at references that take them in.
- `merge` of two states: each part `carry`-ed from its own references to the common ones, and combined by its monoid.
- `finish`: each part's result.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.core import Value
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute

BEFORE = "?before"
AFTER = "?after"
"""Size symbols for the elements that a state holds: before elements are taken in, and after."""


@dataclass(frozen=True)
class Reference:
    """What later parts of a fold refer to: `now` stands for the value that takes in all elements so far, `before` for the one without the
    last ones. Both follow from a part's total: `settled` gives the first, which is finite wherever the total's elements leave a choice;
    `left` the second.
    """

    now: Value
    before: Value
    settled: Scalar
    left: Scalar


@dataclass(frozen=True)
class Part:
    """One of the values that a fold carries.

    `compute`: the reduction that it is (None: only others need it). `reduced`: what of it each element gives, over references in place of
    the results of earlier parts. `total`: stands for the value carried. `carry`: the total brought to the references of now. `finish`: the
    result, over the total, the last references and the results of earlier parts. `reference`: what later parts refer to of it.
    """

    compute: Compute | None
    reduced: Compute
    total: Value
    carry: Scalar
    finish: Scalar
    reference: Reference | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(dim.name for dim in self.reduced.dims)

    @property
    def rescaled(self) -> bool:
        """Whether the carried total changes with its references."""
        return not isinstance(self.carry, Read)


@dataclass(frozen=True)
class Fold:
    """Reductions over the same dims, of which later ones need results of earlier ones, done in one pass. Parts are in order of need.

    `shared`: what several parts evaluate for each element.
    """

    dims: tuple[str, ...]
    parts: tuple[Part, ...]
    shared: tuple[Compute, ...] = ()

    def part(self, value: Value) -> Part | None:
        """The part whose result a value is."""
        return next((part for part in self.parts if part.compute is not None and part.compute.result is value), None)
