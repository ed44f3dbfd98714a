"""Shrinking a module while something holds of it: fewer results, fewer operations, smaller sizes.

Every step is tried on the text of the module and kept when what it leaves is valid and still interesting, so that what is left can be read,
kept in a file and parsed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from codesign.ir.core import Module, Op, Value
from codesign.ir.errors import CodesignError
from codesign.ir.location import UNKNOWN
from codesign.ir.text import parse, print_module
from codesign.ir.types import TensorType
from codesign.ir.verify import verify
from codesign.passes.clone import clone_module

Predicate = Callable[[Module], bool]
SIZES = (1, 2, 3, 4, 5, 8, 16, 32)
"""Sizes that larger ones are tried to be brought down to, smallest first."""


@dataclass
class Reduction:
    """What is left, and how it was come by: `ops` before and after, and how many candidates were tried."""

    module: Module
    ops_before: int
    ops_after: int
    tried: int


def reduce_module(
    module: Module,
    holds: Predicate,
    tick: Callable[[], None] = lambda: None,
    otherwise: str = "it does not hold of the module as it is",
) -> Reduction:
    """The smallest module found of which `holds` is still true; CodesignError (`otherwise`) when it is not true of the module as it is."""
    tried = 0

    def interesting(candidate: Module | None) -> bool:
        nonlocal tried
        if candidate is None:
            return False
        tried += 1
        tick()
        return holds(candidate)

    before = _count(module)
    current = _tidy(module)
    if current is None or not interesting(current):
        raise CodesignError(otherwise, hint="there is nothing to reduce")
    moving = True
    while moving:
        moving = False
        for candidates in (_fewer_results, _earlier_results, _cuts, _smaller):
            found = next((m for m in candidates(current) if interesting(m)), None)
            while found is not None:
                current, moving = found, True
                found = next((m for m in candidates(current) if interesting(m)), None)
    return Reduction(current, before, _count(current), tried)


def _count(module: Module) -> int:
    return len(module.main.body.ops)


def _tidy(module: Module, text: str | None = None) -> Module | None:
    """The main function alone, without what nothing uses and without places, read again from its text; None when that is not valid."""
    try:
        fresh = clone_module(module) if text is None else parse(text)
        main = fresh.main
        main.updates.clear()
        alive: set[Value] = set(main.results)
        ops: list[Op] = []
        for op in reversed(main.body.ops):
            if alive & set(op.results):
                ops.append(op)
                alive.update(op.uses())
            op.location = UNKNOWN
        main.body.ops = ops[::-1]
        main.body.args = [value for value in main.args if value in alive]
        for inner in main.body.walk():
            inner.location = UNKNOWN
        main.location = UNKNOWN
        alone = Module(fresh.name, fresh.symbols, {"main": main})
        again = parse(print_module(alone))
        verify(again)
    except (CodesignError, ValueError, KeyError, IndexError, TypeError, AssertionError):
        return None
    return again


def _fewer_results(module: Module) -> Iterator[Module | None]:
    """One result of several, or all but one."""
    count = len(module.main.results)
    if count < 2:
        return
    for kept in [*({i} for i in range(count)), *(set(range(count)) - {i} for i in range(count))]:
        changed = clone_module(module)
        changed.main.body.yields = tuple(v for i, v in enumerate(changed.main.results) if i in kept)
        yield _tidy(changed)


def _earlier_results(module: Module) -> Iterator[Module | None]:
    """An intermediate in place of all results, the earliest first."""
    for position in range(len(module.main.body.ops)):
        changed = clone_module(module)
        op = changed.main.body.ops[position]
        if not (set(op.results) & set(changed.main.results)) and all(
            isinstance(v.type, TensorType) for v in op.results
        ):
            changed.main.body.yields = op.results
            yield _tidy(changed)


def _cuts(module: Module) -> Iterator[Module | None]:
    """Operations given as arguments instead: runs of many first, then each."""
    total = len(module.main.body.ops)
    length = total
    while length:
        for start in range(0, total, length):
            changed = clone_module(module)
            body = changed.main.body
            cut = body.ops[start : start + length]
            used = {value for op in [*body.ops[:start], *body.ops[start + length :]] for value in op.uses()}
            used |= set(body.yields)
            given = [value for op in cut for value in op.results if value in used]
            if len(cut) < total or not set(given) & set(body.yields):
                body.ops = [*body.ops[:start], *body.ops[start + length :]]
                body.args = [*body.args, *given]
                for value in given:
                    value.owner = None
                yield _tidy(changed)
        length //= 2


def _smaller(module: Module) -> Iterator[Module | None]:
    """A size of tensors brought down wherever the text has it, the largest first."""
    values = [*module.main.args, *(value for op in module.main.body.ops for value in op.results)]
    sizes = {int(size.constant) for value in values for size in value.shape if size.is_constant}
    text = print_module(module)
    for size in sorted(sizes, reverse=True):
        for smaller in SIZES:
            if smaller < size:
                yield _tidy(module, re.sub(rf"(?<![\w.%@]){size}(?![\w.])", str(smaller), text))
