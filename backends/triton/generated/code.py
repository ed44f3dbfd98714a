"""The code of a program as Triton makes it, added up over its phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from codesign.backends.triton.generated.expanded import spares
from codesign.backends.triton.generated.granted import freedom, granted
from codesign.backends.triton.generated.issue import issued
from codesign.backends.triton.generated.layout import Layout, direct_of, products_of
from codesign.backends.triton.generated.phase import PhaseCode
from codesign.backends.triton.generated.registers import needed, needs_of, registers
from codesign.backends.triton.generated.shared import shared_bytes
from codesign.backends.triton.generated.specialised import specialised
from codesign.backends.triton.generated.spread import Spread
from codesign.costmodel.gpu.generator import CodeGenerator, Held, Issued
from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.phases import phases_of
from codesign.costmodel.gpu.program import Program
from codesign.costmodel.gpu.tiles import Tiles
from codesign.costmodel.machine import Machine
from codesign.ir.tensor import Fusion


@dataclass(frozen=True)
class TritonCode:
    """Code of schedules with this layout."""

    layout: Layout
    machine: Machine

    def issued(self, program: Program) -> Issued:
        return issued(program, self.layout)

    def held(self, program: Program) -> Held:
        return held_by(program, self.layout, self.machine)


class TritonGenerator:
    """Triton's code generator, with the compilers below it."""

    knobs = frozenset({"pipeline", "warps", "tma", "warp_specialize"})

    def code(self, tiles: Tiles, machine: Machine, knobs: Mapping[str, Array]) -> TritonCode:
        return TritonCode(Layout.of(tiles, machine, knobs), machine)

    def spares(self, group: Fusion) -> bool:
        return spares(group)


TRITON: CodeGenerator = TritonGenerator()


def held_by(program: Program, layout: Layout, machine: Machine) -> Held:
    """What the generated code of a program holds: the most of any phase."""
    products = products_of(program, layout)
    direct = direct_of(products)
    shared: Array = np.float64(0.0)
    wanted: Array = np.float64(0.0)
    before: Spread | None = None
    for phase in phases_of(program):
        code = PhaseCode(phase, layout, products, before)
        before = code.spread if code.spread.parts else before
        shared = np.maximum(shared, shared_bytes(code))
        parts = registers(code)
        kind = needs_of(layout, dot=bool(products), loops=bool(program.loops), sums=bool(program.inner))
        need = needed(kind, parts)
        if layout.wide and products:
            need = np.where(direct, needed(needs_of(layout, dot=True, direct=True), parts), need)
        wanted = np.maximum(wanted, need)
    if layout.wide == 2:  # barriers between the copies and the unit
        shared = shared + np.where(direct, np.where(layout.pipelined, 16.0, 8.0), 0.0)
    held = Held(wanted, shared)
    apart = np.greater(layout.specialised, 0.0) if products else np.False_
    if np.any(apart):
        held = specialised(held, apart, layout.warps, machine)
    return held._replace(granted=granted(held, layout.warps, machine, freedom(program)))
