"""The vector unit of an SM: how many lanes do what in a clock, and the clocks that a block's slots take on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.costmodel.gpu.geometry import Array
from codesign.costmodel.gpu.work import Work
from codesign.costmodel.machine import Machine
from codesign.ir.errors import UnsupportedError


@dataclass(frozen=True)
class Lanes:
    """Lanes of one SM: `plain` for arithmetic in 32 bits and less, `double` for that in FP64 (0 where the machine file
    has no rate), `integer` and `special`, whose clock may be another: in clocks of the vector unit."""

    machine: str
    plain: float
    double: float
    integer: float
    special: float

    @staticmethod
    def of(machine: Machine) -> Lanes:
        """The lanes of a machine's file."""
        vector, special = machine.unit("vector"), machine.unit("special")

        def lanes(dtype: str) -> float:
            figure = vector.rate.get(dtype, vector.rate["f32"])
            return machine.need(figure, f"units.vector.rate.{dtype}") * vector.count

        share = machine.need(special.clock_hz, "units.special.clock_hz") / machine.need(
            vector.clock_hz, "units.vector.clock_hz"
        )
        return Lanes(
            machine=machine.name,
            plain=lanes("f32"),
            double=lanes("f64") if "f64" in vector.rate else 0.0,
            integer=lanes("i32"),
            special=machine.need(special.rate["f32"], "units.special.rate.f32") * special.count * share,
        )

    def clocks(self, w: Work) -> tuple[Array, Array]:
        """Clocks of one block's arithmetic, and of its special functions; UnsupportedError for FP64 without a rate."""
        plain = (w.vector + w.ieee) / self.plain + w.integer / self.integer
        if np.any(w.double):
            if not self.double:
                raise UnsupportedError(
                    f"{self.machine}: no rate for f64 on the vector unit",
                    hint="add units.vector.rate.f64 to the machine file, or convert to f32",
                )
            plain = plain + w.double / self.double
        return plain, w.special / self.special
