"""How two factors are multiplied: in which dtype, by which unit, and what it rounds."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.dtypes import F32, DType
from codesign.ir.precision import ARITHMETIC, Precision


@dataclass(frozen=True)
class Factors:
    """The dtype that both factors of a product are multiplied in, what a unit rounds of them in f32, and whether a matrix unit takes
    them at all."""

    operand: DType
    precision: Precision
    taken: bool = True

    @property
    def ieee(self) -> bool:
        """Whether a GPU's vector unit multiplies: its matrix units take other types, or would not keep all bits of these."""
        return not self.taken or (self.operand is F32 and self.precision == "ieee")

    @property
    def rate(self) -> str:
        """The name that machine files use for the dtype in which a matrix unit multiplies."""
        if self.precision != "ieee":
            return ARITHMETIC[self.precision].unit
        return "f8" if self.operand.name.startswith("f8") else self.operand.name

    @property
    def products(self) -> int:
        """Products of the unit for one of these factors."""
        return ARITHMETIC[self.precision].products
