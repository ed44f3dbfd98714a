"""How often loops run: counted by running what their conditions hang on, where the start is known or given by the example inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from codesign.ir.core import Block, Module, Op, Value
from codesign.ir.errors import CodesignError
from codesign.ir.index import index
from codesign.ir.interpreter import evaluate_block
from codesign.ir.numerics import Array
from codesign.ir.tensor import Compute, Constant, While

SMALL = 1 << 10
"""Elements of the largest tensor that counting computes."""

MANY = 100_000
"""Iterations after which counting gives up."""


def count_trips(module: Module, examples: Mapping[Value, Array]) -> list[str]:
    """Say of each loop that does not yet how often it runs, or by which name a user can; what a user should know of it.

    `examples`: example values of arguments of `main`.
    """
    notes: list[str] = []
    _count_in(module.main.body, module, {}, examples, notes)
    return notes


def _count_in(
    block: Block, module: Module, outer: Mapping[Value, Op], examples: Mapping[Value, Array], notes: list[str]
) -> None:
    makers = dict(outer)
    for op in block.ops:
        makers.update(dict.fromkeys(op.results, op))
        if isinstance(op, While) and op.trips == "":
            known = _Known(module, makers, {}).steps(op)
            steps = _Known(module, makers, examples).steps(op) if known is None else known
            op.trips = index(steps) if steps is not None else _own_name(module, op)
            if steps is not None and known is None:
                place = op.location.place
                notes.append(f"the loop at {place} runs {steps} times for the example inputs, and is priced so")
        for inner in op.blocks():
            _count_in(inner, module, makers, examples, notes)


def _own_name(module: Module, op: While) -> str:
    """The name of an unknown number of steps: after the loop, and no other's."""
    taken = {other.trips for other in module.main.body.walk() if isinstance(other, While)} | module.symbols.keys()
    name, count = f"{op.results[0].name or 'loop'}_steps", 1
    base = name
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    return name


class _Known:
    """Values that can be computed when the model is compiled."""

    def __init__(self, module: Module, makers: Mapping[Value, Op], given: Mapping[Value, Array]) -> None:
        self.module = module
        self.makers = makers
        self.given = dict(given)

    def steps(self, loop: While) -> int | None:
        """How often the loop's body runs; None when that hangs on what is not known, or never ends."""
        wanted = self._hangs_on(loop)
        places = [k for k, arg in enumerate(loop.condition.args) if arg in wanted]
        inside = [loop.body.args[k] for k in places]
        try:
            state: list[Any] = [self._value(loop.inputs[k]) for k in places]
            condition = self._slice(
                loop.condition, [loop.condition.yields[0]], [loop.condition.args[k] for k in places]
            )
            body = self._slice(loop.body, [loop.body.yields[k] for k in places], inside)
            for step in range(MANY):
                env = {**condition[1], **{loop.condition.args[k]: v for k, v in zip(places, state, strict=True)}}
                if not bool(evaluate_block(condition[0], env, module=self.module)[loop.condition.yields[0]]):
                    return step
                env = {**body[1], **dict(zip(inside, state, strict=True))}
                found = evaluate_block(body[0], env, module=self.module)
                state = [found[loop.body.yields[k]] for k in places]
        except (_NotKnown, CodesignError):
            return None
        return None

    def _hangs_on(self, loop: While) -> set[Value]:
        """The condition's arguments that it depends on, by way of the body too."""
        found: set[Value] = set()
        roots: list[tuple[Block, Value]] = [(loop.condition, loop.condition.yields[0])]
        while roots:
            block, value = roots.pop()
            for used in _leaves(block, value):
                if used in block.args:
                    position = block.args.index(used)
                    if loop.condition.args[position] not in found:
                        found.add(loop.condition.args[position])
                        roots.append((loop.body, loop.body.yields[position]))
        return found

    def _slice(
        self, block: Block, roots: Sequence[Value], args: Sequence[Value]
    ) -> tuple[list[Op], dict[Value, Array]]:
        """The ops of a block that make some values, and what they need from outside of it."""
        needed, outside = set(roots), dict[Value, Array]()
        ops: list[Op] = []
        for op in reversed(block.ops):
            if any(value in needed for value in op.results):
                _check_small(op)
                ops.insert(0, op)
                needed.update(op.uses())
        made = {value for op in ops for value in op.results}
        for value in needed - made - set(args):
            outside[value] = self._value(value)
        return ops, outside

    def _value(self, value: Value) -> Array:
        if value not in self.given:
            maker = self.makers.get(value)
            if maker is None:
                raise _NotKnown
            _check_small(maker)
            env = {used: self._value(used) for used in maker.uses()}
            self.given.update(evaluate_block([maker], env, module=self.module))
        return self.given[value]


class _NotKnown(Exception):
    """A value that only a run gives."""


def _check_small(op: Op) -> None:
    elements = [value.type.elements for value in op.results if hasattr(value.type, "elements")]
    small = all(count.is_constant and count.constant <= SMALL for count in elements)
    if not isinstance(op, (Compute, Constant)) or not small:
        raise _NotKnown


def _leaves(block: Block, value: Value) -> set[Value]:
    """Arguments of a block, and values from outside, that a value of it depends on."""
    makers = {result: op for op in block.ops for result in op.results}
    seen: set[Value] = set()
    stack, found = [value], set[Value]()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in makers:
            stack.extend(makers[current].uses())
        else:
            found.add(current)
    return found
