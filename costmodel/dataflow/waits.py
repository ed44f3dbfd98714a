"""What the instructions of a program wait for, as the lowering orders its engines by semaphores.

Two instructions of different engines conflict when they touch common bytes and one of them writes. The later one waits for all that the other's
engine was asked to signal so far in the block of statements where that one is. Where slots keep the steps of a loop apart, it waits until the
engine is done with the step that had the slot before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

ALWAYS, OVERLAPPING, SINGLE, SLOTTED = range(4)
"""When two instructions conflict: in any case; where the buffers that they touch share bytes; where the one that both touch has a single slot; or
several, then by those."""


@dataclass(frozen=True)
class Cause:
    """Why one instruction waits for another: what they touch (`mine`, `other`: buffers), and `when` it conflicts."""

    when: int
    mine: int
    other: int
    task: int


@dataclass(frozen=True)
class Wait:
    """An instruction waits for an `engine` in a `block` (0: straight code of programs, else one after the number of a stage): for its signals there,
    or (`slots`) until it is done with an earlier step."""

    task: int
    slots: bool
    block: int
    engine: str
    causes: tuple[Cause, ...]

    @property
    def shared(self) -> bool:
        """Whether only buffers that share bytes bring it about."""
        return all(cause.when == OVERLAPPING for cause in self.causes)


@dataclass(frozen=True)
class Instruction:
    """What an instruction of a `block` does on an `engine`: of each buffer that it touches whether it writes there."""

    engine: str
    block: int
    touched: tuple[tuple[int, bool], ...]


@lru_cache(maxsize=1 << 10)
def waits_of(
    instructions: tuple[Instruction, ...], homes: tuple[int, ...], lives: tuple[tuple[int, int], ...]
) -> tuple[Wait, ...]:
    """Of all instructions, in order, what they wait for: what only shared bytes bring about comes last. By buffer, the block of the loop that it
    lives in (`homes`), and from when to when it lives."""
    found: list[Wait] = []
    for number, instruction in enumerate(instructions):
        causes: dict[tuple[bool, int, str], dict[Cause, None]] = {}
        for place, other in enumerate(instructions):
            if other.engine == instruction.engine:
                continue
            made = (False, other.block, other.engine)
            for mine, writes in instruction.touched:
                for theirs, written in other.touched:
                    if not (writes or written):
                        continue
                    if mine != theirs:
                        if lives[mine][1] < lives[theirs][0] or lives[theirs][1] < lives[mine][0]:
                            causes.setdefault(made, {})[Cause(OVERLAPPING, mine, theirs, place)] = None
                    elif place < number:
                        causes.setdefault(made, {})[Cause(ALWAYS, mine, theirs, place)] = None
                    else:
                        released = (True, homes[mine], other.engine)
                        causes.setdefault(made, {})[Cause(SINGLE, mine, theirs, place)] = None
                        causes.setdefault(released, {})[Cause(SLOTTED, mine, theirs, place)] = None
        # it is signalled by the last one before, or else by the last one of all
        waits = [
            Wait(number, *key, tuple(sorted(some, key=lambda cause: (cause.task < number, cause.task))))
            for key, some in causes.items()
        ]
        found += sorted(waits, key=lambda wait: wait.shared)
    return tuple(found)
