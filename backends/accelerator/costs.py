"""Clocks and joules of each instruction of a program, worked out once from its static shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from codesign.backends.accelerator.dma import Counts, Transfer, TransferShape, clipping
from codesign.backends.accelerator.prepare import Prepared
from codesign.costmodel.dataflow.engines import matmul_clocks, matmul_reads, vector_clocks, vector_joules
from codesign.costmodel.dataflow.keeping import holders
from codesign.costmodel.dataflow.target import Target
from codesign.ir.analysis import operation_counts
from codesign.ir.dtypes import F1E1M0
from codesign.ir.errors import UnsupportedError
from codesign.ir.interpreter.scalars import Domain, Evaluator, Span
from codesign.ir.program import Load, Matmul, Program, Store, Vector
from codesign.ir.scalar import Read, Scalar
from codesign.ir.types import BufferType

Timed = tuple[float, float, float, float]
"""Clocks, bytes of lines moved, joules and bytes wanted of a transfer."""


class InstructionCost:
    """`fixed` clocks and joules of one execution, or for DMA a transfer by the lanes that are active."""

    def __init__(self, item: Prepared, program: Program, target: Target) -> None:
        self.item = item
        self.target = target
        self.fixed: float | None = None
        self.fixed_joules = 0.0
        self.needs: tuple[str, ...] = ()
        """The controls that a transfer's cost depends on."""
        op = item.instruction
        if isinstance(op, Matmul):
            self._matmul(op, program)
        elif isinstance(op, Vector):
            self._vector(op)
        elif isinstance(op, Load | Store):
            memory = op.source if isinstance(op, Load) else op.target
            self.shape = TransferShape(memory, op.indices, op.axes, target)
            boxes = tuple(guard for guard in op.guards if clipping(op.axes, (guard,)) is not None)
            self.clip = clipping(op.axes, boxes)
            self.others = tuple(guard for guard in op.guards if guard not in boxes)
            self.loads = isinstance(op, Load)
            self.external = isinstance(memory.type, BufferType)
            held = op.target.dtype if isinstance(op, Load) else op.source.dtype
            self.filled = prod(axis.size for axis in op.axes) * held.bytes
            inside = {axis.name for axis in op.axes}
            guards = {name for guard in op.guards for side in guard.sides for name in side.variables()}
            self.needs = tuple(sorted({*self.shape.controls, *guards} - inside))
        else:
            self.fixed = 0.0

    def _matmul(self, op: Matmul, program: Program) -> None:
        m, n, k = (axis.size for axis in op.axes)
        left, right = op.a.dtype, op.b.dtype
        self.fixed = float(matmul_clocks(self.target, m, n, k, left, program.dataflow, right))
        self._check_taken(op)
        a, b = matmul_reads(self.target, m, n, k, program.dataflow)
        target = self.target
        result = m * n * op.target.dtype.bytes
        on_array = program.scratch_of(op.target.source).level == "array"
        accumulating = 0.0 if on_array else result * (target.scratch_read_joules + target.scratch_write_joules)
        each = target.array.multiply_joules(left, right)
        fed = float(a * left.bytes + b * right.bytes) * target.scratch_read_joules
        self.fixed_joules = 2.0 * m * n * k * each + fed + accumulating

    def _check_taken(self, op: Matmul) -> None:
        """UnsupportedError for blocks with scales that the tensor unit does not take, or operands of different widths."""
        array, sides = self.target.array, zip((op.a, op.b), op.scales, strict=True)
        for side, scale in ((side, scale) for side, scales in sides for scale in scales):
            paired = scale.dtype is not F1E1M0 or side.dtype.is_fixed
            if side.dtype.name not in array.scaled or scale.dtype.name not in array.scales or not paired:
                raise UnsupportedError(
                    f"the tensor unit of {self.target.name} takes no {side.dtype} in blocks with scales of {scale.dtype}",
                    place=str(op.location) or None,
                    hint="compute the numbers on the vector unit, or say `block_scaled_products` (`float_scaled_products`) in the machine file",
                )
        widths = {side.dtype.bits for side in (op.a, op.b)}
        fixed = op.a.dtype.is_fixed != op.b.dtype.is_fixed
        if fixed or (len(widths) > 1 and max(widths) > array.mixed_bits):
            raise UnsupportedError(
                f"the tensor unit of {self.target.name} does not multiply {op.a.dtype} by {op.b.dtype}",
                place=str(op.location) or None,
                hint="convert an operand, or say `mixed_products` (`widened_products`) in the machine file",
            )

    def _vector(self, op: Vector) -> None:
        points = prod(axis.size for axis in (*op.axes, *op.reduced))
        counts = counts_of(op.body, op.monoid)
        read = sum(_extent(r, op) for r in op.body.reads())
        written = prod(axis.size for axis in op.axes) * op.target.dtype.bytes
        target = self.target
        self.fixed = float(vector_clocks(target, points, counts, read + written, reduces=op.monoid is not None))
        joules = float(vector_joules(target, points, counts))
        self.fixed_joules = joules + read * target.scratch_read_joules + written * target.scratch_write_joules

    def transfer(self, values: Mapping[str, int], share: float | None = None) -> Timed:
        """Clocks of the DMA engine, bytes moved, joules and bytes wanted of one execution.

        `share` of the lanes inside the box of its guards that the others leave, where that is known; else it is counted, all taken where it
        depends on data.
        """
        return self._timed(self._active(values), values, self._share(values) if share is None else share)

    def _timed(self, counts: Counts, values: Mapping[str, int], share: float = 1.0) -> Timed:
        transfer = self.shape.cost(counts, values)
        if share < 1.0:
            transfer = Transfer(transfer.bytes * share, transfer.moved * share, transfer.clocks * share)
        return transfer.clocks, transfer.moved, self.joules(transfer), transfer.bytes

    def _active(self, fixed: Mapping[str, int]) -> Counts:
        """Active lanes along each axis, by the guards that cut a box out."""
        assert self.clip is not None
        return tuple(span.size for span in self.clip(fixed))

    def depends_on_data(self) -> bool:
        """Whether data says how many lanes are active."""
        return self.fixed is None and any(side.data() for guard in self.others for side in guard.sides)

    def _share(self, fixed: Mapping[str, int]) -> float:
        """Share of the box's lanes that the other guards leave active."""
        op = self.item.instruction
        assert isinstance(op, Load | Store)
        if not self.others or self.depends_on_data():
            return 1.0
        evaluator = Evaluator(Domain([Span(a.name, 0, a.size) for a in op.axes], fixed), {})
        shape = [axis.size for axis in op.axes]
        boxed = np.broadcast_to(evaluator.active(guard for guard in op.guards if guard not in self.others), shape)
        active = boxed & evaluator.active(self.others)
        return float(active.sum()) / max(float(boxed.sum()), 1.0)

    def joules(self, transfer: Transfer) -> float:
        """Energy of a transfer from or to DRAM: each memory that it passes is read or written, and the scratchpad at its end."""
        target = self.target
        if self.loads:
            path = target.dram.read_joules * transfer.moved
            path += sum((p.read_joules + p.write_joules) * transfer.bytes for p in target.ports[1:])
            return path + self.filled * target.scratch_write_joules
        path = target.dram.write_joules * transfer.moved
        path += sum((p.read_joules + p.write_joules) * transfer.bytes for p in target.ports[1:])
        return path + transfer.bytes * target.scratch_read_joules


def stored_joules(target: Target, wanted: float, port: int) -> float:
    """Energy of a store that ends in the memory of a port nearer than DRAM."""
    path = sum((p.read_joules + p.write_joules) * wanted for p in target.ports[port + 1 :])
    return path + target.ports[port].write_joules * wanted + wanted * target.scratch_read_joules


def shared_joules(
    cost: InstructionCost, timed: Timed, leaves: Sequence[int], arrives: Sequence[int], cores: int, kept_at: int = 0
) -> float:
    """Energy of a load that cores make together, which passes each port outward and inward so often; `kept_at`: the port whose memory it
    comes from."""
    target = cost.target
    _, moved, _, wanted = timed
    path = 0.0 if kept_at else target.dram.read_joules * moved * leaves[0]
    for i, (port, out, into) in enumerate(zip(target.ports, leaves, arrives, strict=True)):
        if i and i >= kept_at:
            path += port.read_joules * out * wanted
        if i and (i > kept_at or (i == kept_at and holders(target, i) > 1)):
            path += port.write_joules * into * wanted
    return path + cores * cost.filled * target.scratch_write_joules


def staged_joules(
    target: Target, timed: Timed, leaves: Sequence[int], arrives: Sequence[int], into: int, outer: int = 0
) -> float:
    """Energy of bringing data that passes each port outward and inward so often into the memory of a port."""
    _, moved, _, wanted = timed
    path = 0.0 if outer else target.dram.read_joules * moved * leaves[0]
    for number in range(1, into):
        path += target.ports[number].read_joules * leaves[number] * wanted * (number >= outer)
        path += target.ports[number].write_joules * arrives[number] * wanted * (number > outer)
    times = 1 if holders(target, into) > 1 else arrives[into]
    return path + target.ports[into].write_joules * times * wanted


def counts_of(body: Scalar, monoid: str | None) -> dict[tuple[str, str], float]:
    """Issue slots per point by (unit, dtype name), the combining step of a reduction included."""
    counts: dict[tuple[str, str], float] = {}
    for (unit, dtype), slots in operation_counts(body).items():
        counts[unit, dtype.name] = counts.get((unit, dtype.name), 0.0) + slots
    if monoid is not None:
        unit = "fma" if monoid in ("sum", "prod") else "alu"
        counts[unit, body.dtype.name] = counts.get((unit, body.dtype.name), 0.0) + 1.0
    elif not counts:  # a copy or a fill still passes the pipe once
        counts["alu", body.dtype.name] = 1.0
    return counts


def _extent(read: Read, op: Vector) -> float:
    """Bytes that a read brings out of scratchpad: each element that the instruction reaches, once."""

    used = {name for i in read.indices for name in i.variables()}
    return prod(a.size for a in (*op.axes, *op.reduced) if a.name in used) * read.dtype.bytes


def cost_of(item: Prepared, program: Program, target: Target) -> InstructionCost:
    """The cost of one instruction of a program."""
    return InstructionCost(item, program, target)
