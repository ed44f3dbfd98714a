"""What stays in a memory near the cores between two programs of one launch: the parts of a split reduction, until they are merged.

The first program leaves a result there (`levels.cluster.stage.out0`) and the second, which is `joined` to it, takes it from there
(`levels.cluster.stage.in0`): each part moves from the core that has it to the one that merges it, and DRAM and the next launch are saved.
Between them every core waits for all others, as long as it takes from a request to its answer. All cores reach what rests in a memory with one
instance, or one among whose instances a network sends to many; each holds an even part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codesign.costmodel.dataflow.keeping import holders
from codesign.costmodel.dataflow.target import Target
from codesign.costmodel.dataflow.turns import memories
from codesign.ir.schedule import operand_name, result_name
from codesign.ir.tile import Kernel


def names_of(kernel: Kernel) -> list[str]:
    """What schedules call each of a kernel's buffers."""
    inputs = len(kernel.params) - kernel.outputs
    return [operand_name(n) for n in range(inputs)] + [result_name(n) for n in range(kernel.outputs)]


Stage = Mapping[str, Iterable[str]]
"""By place, what a schedule stages there."""


def shared(target: Target, port: int) -> bool:
    """Whether all cores reach what rests in a memory."""
    return target.ports[port].cores == target.cores or holders(target, port) > 1


def resting(target: Target, staged: Stage, joined: bool) -> dict[str, int]:
    """The ports of the memories that results rest in, and operands of a joined program, by the names that schedules have for them."""
    return {
        name: port
        for place, port in memories(target).items()
        for name in staged.get(place, ())
        if name.startswith(result_name("")) or joined
    }


def room_for(target: Target, size: int) -> str:
    """The place of the innermost memory in which so many bytes may rest; empty where there is none."""
    for place, port in reversed(memories(target).items()):
        if shared(target, port) and -(-size // holders(target, port)) <= target.ports[port].capacity:
            return place
    return ""


def held(target: Target, ports: Mapping[str, int], sizes: Mapping[str, int]) -> dict[int, int]:
    """Bytes of what rests in one instance of each memory, by port. `sizes`: bytes of a kernel's operands and results."""
    found: dict[int, int] = {}
    for name, port in ports.items():
        found[port] = found.get(port, 0) + -(-sizes.get(name, 0) // holders(target, port))
    return found


def unfit(target: Target, ports: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    """Why something can't rest where a schedule says; empty where it can."""
    for name, number in ports.items():
        port = target.ports[number]
        path = f"levels.{port.place}.stage.{name}"
        if not shared(target, number):
            return f"{path}: no network brings it from one {port.place} to the others"
        needed = held(target, ports, sizes)[number]
        if needed > port.capacity:
            return f"{path}: needs {needed:,} B of a {port.place}, limit {port.capacity:,} B"
    return ""
