"""New values of a caller's tensors that their kernels may write where the old values lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from codesign.ir.core import Block, Function, Value
from codesign.ir.tensor import Constant, Launch
from codesign.ir.tile import Band, For, Kernel, Load, Store


def renewed(function: Function, kernels: Mapping[str, Kernel], aliases: Mapping[Value, Value]) -> dict[Value, Value]:
    """Results that are made in the memory of the arguments and constants which they update: the old value.

    A launch makes them that reads each element of the old value only before it writes the new one there, and after it nobody wants the old value.
    """

    def root(value: Value) -> Value:
        while value in aliases:
            value = aliases[value]
        return value

    block = function.body
    last = {root(value): position for position, op in enumerate(block.ops) for value in op.uses()}
    place = {op: position for position, op in enumerate(block.ops)}
    constants = {op.constant: op.result for op in block.ops if isinstance(op, Constant)}
    returned = [root(value) for value in block.yields]
    found: dict[Value, Value] = {}
    for position, target in function.updates.items():
        new = block.yields[position]
        old = block.args[target] if isinstance(target, int) else constants.get(target)
        launch = new.owner
        if old is None or not isinstance(launch, Launch) or launch not in place or launch.kernel not in kernels:
            continue
        if old in returned or old in aliases or returned.count(root(new)) > 1 or last.get(old, 0) > place[launch]:
            continue
        reads = [k for k, value in enumerate(launch.inputs) if root(value) is old]
        kernel, result = kernels[launch.kernel], launch.results.index(new)
        if result in kernel.overwrites or any(launch.inputs[k] is not old for k in reads):
            continue
        if old.type == new.type and all(_read_before_written(kernel, k, result) for k in reads):
            found[new] = old
    return found


def _read_before_written(kernel: Kernel, source: int, result: int) -> bool:
    """Whether an output may lie where an input lies: each element is read just by who writes it, and before."""
    old, new = kernel.inputs[source], kernel.results[result]
    if old.type != new.type:
        return False
    accesses = [
        (op, block, position, around)
        for block, around in _blocks(kernel)
        for position, op in enumerate(block.ops)
        if old in op.operands() or (isinstance(op, Store) and op.buffer is new)
    ]
    stores = [access for access in accesses if isinstance(access[0], Store) and access[0].buffer is new]
    if len(stores) != 1:
        return False
    store, home, when, around = stores[0]
    assert isinstance(store, Store)
    if store.atomic or not around <= {name for i in store.indices for name in i.variables()}:
        return False
    return all(
        isinstance(op, Load)
        and op.buffer is old
        and block is home
        and position < when
        and (op.axes, op.indices) == (store.axes, store.indices)
        for op, block, position, _ in accesses
        if op is not store
    )


def _blocks(kernel: Kernel) -> Iterator[tuple[Block, frozenset[str]]]:
    """Every block of a kernel, and what counts how often it is gone through."""
    grid = frozenset(dim.name for dim in kernel.grid if dim.extent != 1)

    def visit(block: Block, around: frozenset[str]) -> Iterator[tuple[Block, frozenset[str]]]:
        yield block, around
        for op in block.ops:
            inner = around
            if isinstance(op, For):
                inner = around | {op.variable}
            elif isinstance(op, Band):  # whose own places follow from the program's number
                inner = frozenset(dim.name for dim in op.grid if dim.extent != 1)
            for body in op.blocks():
                yield from visit(body, inner)

    yield from visit(kernel.body, grid)
