"""Where results go in tensors that were there before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from codesign.ir.core import Value
from codesign.ir.index import Index

Combine = Literal["set", "add", "mul", "max", "min"]
"""What a write makes of an element and of what was there before."""

COMBINERS: tuple[Combine, ...] = get_args(Combine)


@dataclass(frozen=True)
class Write:
    """Where a result of a fusion goes in a tensor that was there before: `%base at [i, %position[0] + j]`, over the dims of the result.

    Points outside the tensor are skipped; where it says `within` instead of `at` they are an error. Of points that share an element, one is
    written, or with another `combine` than "set" all are combined with what was there (`add %base at ...`), each once and in any order.
    """

    base: Value
    at: tuple[Index, ...]
    within: bool = False
    combine: Combine = "set"

    def operands(self) -> tuple[Value, ...]:
        """The tensor written into, and what its indices read."""
        reads = (read.source for i in self.at for scalar in i.data() for read in scalar.reads())
        return tuple(dict.fromkeys((self.base, *reads)))

    def replaced(self, mapping: Mapping[Value, Value]) -> Write:
        """The same over other values."""
        at = tuple(i.substitute({}, lambda s: s.replace_sources(mapping)) if i.data() else i for i in self.at)
        return Write(mapping.get(self.base, self.base), at, self.within, self.combine)
