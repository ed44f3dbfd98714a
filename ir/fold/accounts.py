"""A group as its folds do it, for those who count work: each fold's parts without the dependences that it takes away.

The computes listed here are not the group's meaning: what a part refers to is known in a loop over tiles only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codesign.ir.core import Value
from codesign.ir.fold.derive import folds
from codesign.ir.fold.state import AFTER, Fold, Part
from codesign.ir.index import Index, product
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tensor import Compute, Fusion


@dataclass(frozen=True)
class Account:
    """What a group's folds evaluate: `computes` in order; `references`, values that stand for what is carried, which nothing loads; `yields`:
    what is made for each result.
    """

    computes: tuple[Compute, ...]
    references: frozenset[Value]
    yields: Mapping[Value, Value]
    dims: tuple[str, ...]
    """Dims of the folds."""


def accounts(fusion: Fusion) -> Account | None:
    """The group as its folds do it; None where it has none."""
    found = folds(fusion)
    return _Accounts(fusion, found).result() if found else None


class _Accounts:
    def __init__(self, fusion: Fusion, found: Iterable[Fold]) -> None:
        self.fusion = fusion
        self.folds = tuple(found)
        self.values: dict[Value, Value] = {}
        self.computes: list[Compute] = []
        self.totals: dict[Value, Value] = {}

    def result(self) -> Account:
        for compute in self.fusion.computes:
            fold = next((fold for fold in self.folds if fold.part(compute.result) is not None), None)
            if fold is None:
                self.values[compute.result] = self._add(compute, compute.body)
                continue
            for shared in fold.shared:
                if shared.result not in self.values:
                    self.values[shared.result] = self._add(shared, shared.body)
            for part in fold.parts:
                if part.compute is None and part.total not in self.totals:
                    self._part(part, fold)
                if part.compute is compute:
                    self._part(part, fold)
                    break
        references = (part.reference for fold in self.folds for part in fold.parts if part.reference is not None)
        hidden = frozenset(value for reference in references for value in (reference.now, reference.before))
        dims = tuple(dict.fromkeys(dim for fold in self.folds for dim in fold.dims))
        yields = {value: self.values[value] for value in self.fusion.body.yields}
        return Account(tuple(self._live(yields.values())), hidden, yields, dims)

    def _add(self, compute: Compute, body: Scalar) -> Value:
        made = compute.with_body(body.replace_sources(self.values))
        self.computes.append(made)
        return made.result

    def _part(self, part: Part, fold: Fold) -> None:
        total = self.totals[part.total] = self._add(part.reduced, part.reduced.body)
        if part.compute is None:
            return
        if isinstance(part.finish, Read) and part.compute.dtype is part.reduced.dtype:
            self.values[part.compute.result] = total
            return
        body = self._final(part.finish, fold)
        made = Compute(part.compute.dims, body, dtype=part.compute.dtype, name=part.compute.result.name)
        self.computes.append(made)
        self.values[part.compute.result] = made.result

    def _final(self, finish: Scalar, fold: Fold) -> Scalar:
        """A result over the totals, the last references among them."""
        settled = {part.reference.now: part.reference.settled for part in fold.parts if part.reference is not None}
        whole: dict[str, Index] = {AFTER: product(self.fusion.dims()[dim] for dim in fold.dims)}

        def change(node: Scalar) -> Scalar | None:
            if isinstance(node, Read) and node.source in settled:
                return settled[node.source].substitute(whole)
            return None

        return finish.rewrite(change).replace_sources({**self.totals, **self.values})

    def _live(self, yields: Iterable[Value]) -> list[Compute]:
        """The computes that results need."""
        needed = set(yields)
        kept: list[Compute] = []
        for compute in reversed(self.computes):
            if compute.result in needed:
                needed.update(compute.operands())
                kept.append(compute)
        return kept[::-1]
