"""What a code generator adds to the programs that it makes code of: a value, which the backend of the generator works out.

The text of a kernel says what is moved, multiplied and issued; what the code then holds in registers and shared memory, and what its loads
take beside them, follows from the generator's layouts and pipelining.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from codesign.costmodel.generators import generator_of
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.program import Program
from codesign.costmodel.gpu.tiles import Tiles
from codesign.costmodel.machine import Machine
from codesign.ir.tensor import Fusion


class Held(NamedTuple):
    """What the code of a block holds: `registers` that a thread needs if nothing is spilled, and bytes of shared memory.

    `granted`: the most registers that the compiler gives a thread, where it keeps to fewer than are needed to make room for more blocks.
    `further_warps` are launched beside those of the schedule, of which the code needs `least_warps`.
    """

    registers: Array
    shared_bytes: Array
    granted: Array = float("inf")
    further_warps: Array = 0.0
    least_warps: Array = 0.0


class Issued(NamedTuple):
    """What the code of a block issues beside the operations that its text says.

    Its loads and stores: clocks of the load/store path, and slots of guards and addresses on the integer lanes. Its products: `multiply_adds` of the
    matrix unit, all of them, by the dtype that it takes them in. `repeated`: slots of results that several warps work out alike, by the
    lanes that do them. `further`: slots of functions that take more instructions than the text says, fewer where it is negative.
    """

    request_clocks: Array
    integer_slots: Array
    multiply_adds: Mapping[str, Array] = MappingProxyType({})
    repeated: Mapping[str, Array] = MappingProxyType({})
    further: Mapping[str, Array] = MappingProxyType({})


class Code(Protocol):
    """The code of a batch of schedules, of any program with their numbers in it."""

    def issued(self, program: Program) -> Issued:
        """What a program's loads and stores issue, beside the operations that its text says."""

    def held(self, program: Program) -> Held:
        """What its code holds on chip."""


class CodeGenerator(Protocol):
    """What a backend says of its code generator; vectorised over schedules, without side effects."""

    @property
    def knobs(self) -> frozenset[str]:
        """The knobs of a schedule that it reads, besides those that the text of a kernel is written by."""

    def code(self, tiles: Tiles, machine: Machine, knobs: Mapping[str, Array]) -> Code:
        """The code of the schedules whose columns are `knobs`, and whose tiles are `tiles`."""

    def spares(self, group: Fusion) -> bool:
        """Whether the code of some schedule of a group issues fewer slots for floating-point functions than the text says: `further` may be
        negative for another lane than the integers'."""


def code_generator(machine: Machine) -> CodeGenerator:
    """The generator of the backend that makes code for a machine."""
    found: CodeGenerator = generator_of(machine)
    return found
