"""What a run of a model takes: its launches and calls, each as often as a run comes by, and where that is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from codesign.costmodel.sums import Time, total
from codesign.ir.core import Block, Op
from codesign.ir.tensor import If, While


def time_of(block: Block, price: Callable[[Op], Time], sizes: Mapping[str, int]) -> Time:
    """Time of a block: loops by how often they run, of branches the mean, from the low end of one to the high end of the other."""
    return total(_times(block, price, sizes, 1.0))


def _times(
    block: Block, price: Callable[[Op], Time], sizes: Mapping[str, int], times: float
) -> Iterator[tuple[Time, float]]:
    """The time of every op of a block, and how often it runs."""
    for op in block.ops:
        if isinstance(op, If):
            then, otherwise = (time_of(inner, price, sizes) for inner in op.blocks())
            mean = (then.seconds + otherwise.seconds) / 2
            ends = min(then.low, otherwise.low), max(then.high, otherwise.high)
            yield Time(mean, *ends, name=f"branch {id(op)}"), times
            continue
        if (own := price(op)).seconds:
            yield replace(own, name=own.name or f"op {id(op)}"), times
        for inner, more in zip(op.blocks(), op.runs(sizes), strict=True):
            yield from _times(inner, price, sizes, times * more)


def times_run(block: Block, sizes: Mapping[str, int], times: float = 1.0) -> Iterator[tuple[Op, float]]:
    """Every op of a block, inner ones too, and how often it runs when the block does."""
    for op in block.ops:
        yield op, times
        for inner, more in zip(op.blocks(), op.runs(sizes), strict=True):
            yield from times_run(inner, sizes, times * more)


def remarks_of(block: Block, sizes: Mapping[str, int]) -> list[str]:
    """What a user should know of the loops and branches of a priced model."""
    found: list[str] = []
    for op in block.walk():
        place = f" at {op.location.place}" if op.location.place else ""
        if isinstance(op, While) and op.steps(sizes) is None:
            give = f"; --bind {op.trips}=N prices N of them" if op.trips else ""
            found.append(f"the loop{place} is priced for one iteration, as how many there are is not known{give}")
        elif isinstance(op, If):
            found.append(
                f"of the branches{place} the data choose one: each is counted half, and the interval holds both"
            )
    return list(dict.fromkeys(found))
