"""Binds size symbols to the sizes of actual arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codesign.ir.errors import EvaluationError
from codesign.ir.index import Index


def bind_symbols(
    shapes: Iterable[tuple[str, tuple[Index, ...], tuple[int, ...]]], given: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Values of the symbols that make declared shapes equal actual ones.

    `shapes`: name, declared shape, actual shape of each array. Solves sizes that are linear in one unknown symbol
    (`2*S + 1`), then checks all; EvaluationError names the array that disagrees.
    """
    bound = dict(given or {})
    pending: list[tuple[str, int, Index, int]] = []
    for name, declared, actual in shapes:
        if len(declared) != len(actual):
            raise EvaluationError(f"%{name} has rank {len(declared)}, got an array of shape {list(actual)}")
        pending.extend(
            (name, axis, size, extent) for axis, (size, extent) in enumerate(zip(declared, actual, strict=True))
        )
    progress = True
    while progress:
        progress = False
        for _, _, size, extent in pending:
            known = size.substitute(dict(bound)) if bound else size
            unknown = known.variables()
            if len(unknown) != 1:
                continue
            (symbol,) = unknown
            factor = known.coefficient(symbol)
            if factor is None or not factor.is_constant or factor == 0:
                continue
            rest = extent - known.substitute({symbol: 0}).constant
            if rest % factor.constant == 0:
                bound[symbol] = rest // factor.constant
                progress = True
    for name, axis, size, extent in pending:
        known = size.substitute(dict(bound))
        if known.is_constant and known.constant != extent:
            raise EvaluationError(f"size {axis} of %{name} is {extent}, its type says {size} = {known}")
    return bound
