"""Rewriting the scratchpad reads and index expressions of instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from codesign.ir.index import Index
from codesign.ir.program import Instruction, Load, Matmul, Store, Vector
from codesign.ir.scalar import Read, Scalar
from codesign.ir.tile import Guard


def map_reads(instruction: Instruction, change: Callable[[Read], Read]) -> Instruction:
    """The instruction with every scratchpad place (read or written) replaced by `change` of it."""

    def in_scalar(scalar: Scalar) -> Scalar:
        return scalar.rewrite(lambda node: change(node) if isinstance(node, Read) else None)

    def in_index(value: Index) -> Index:
        return value.substitute({}, in_scalar) if value.data() else value

    if isinstance(instruction, Load):
        return replace(
            instruction,
            target=change(instruction.target),
            indices=tuple(map(in_index, instruction.indices)),
            guards=map_guards(instruction.guards, in_index),
        )
    if isinstance(instruction, Store):
        return replace(
            instruction,
            source=change(instruction.source),
            indices=tuple(map(in_index, instruction.indices)),
            guards=map_guards(instruction.guards, in_index),
        )
    if isinstance(instruction, Vector):
        return replace(instruction, target=change(instruction.target), body=in_scalar(instruction.body))
    if isinstance(instruction, Matmul):
        a, b = change(instruction.a), change(instruction.b)
        left, right = instruction.scales
        scales = (tuple(map(change, left)), tuple(map(change, right)))
        return replace(instruction, target=change(instruction.target), a=a, b=b, scales=scales)
    return instruction


def map_guards(guards: tuple[Guard, ...], change: Callable[[Index], Index]) -> tuple[Guard, ...]:
    """Guards with each of their expressions replaced."""
    return tuple(
        Guard(change(g.value), None if g.low is None else change(g.low), None if g.high is None else change(g.high))
        for g in guards
    )


def with_slot(read: Read, slot: Index) -> Read:
    """The place in one slot of a multi-slot scratch."""
    return Read(read.source, (slot, *read.indices))
