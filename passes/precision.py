"""Which unit multiplies float32 and 8-bit integers: what torch allows of products, settled for the machine that they are compiled for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from codesign.costmodel.machine import Machine
from codesign.ir.analysis import contraction
from codesign.ir.core import Block, Module
from codesign.ir.dtypes import F32, I8
from codesign.ir.precision import ARITHMETIC, Precision, precision_of
from codesign.ir.scalar import Apply, Scalar
from codesign.ir.tensor import Compute
from codesign.passes.context import Context
from codesign.passes.integer_products import in_floats
from codesign.passes.manager import FunctionPass, Pass, register, replace_ops


@register
@dataclass(frozen=True)
class SettlePrecision(FunctionPass, Pass):
    """Products of float32 as the machine does them: rounded where torch allowed it and a matrix unit has it, else with all bits. Products of
    8-bit integers where no unit takes those: `codesign.passes.integer_products`.

    rewrite:
        sum(k) { mul_tf32(%x[i, k], %w[k, j]) }  ->  sum(k) { %x[i, k] * %w[k, j] }     on a machine without such a unit

    `products`: what to allow for all matrix products of float32 instead of what torch was told: `ieee`, `tf32`, `tf32x3` or `bf16x3`.
    """

    name: ClassVar[str] = "precision"
    products: Literal["", "ieee", "tf32", "tf32x3", "bf16x3"] = ""

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        replace_ops(block, lambda op: self._settled(op, context) if isinstance(op, Compute) else [])

    def _settled(self, compute: Compute, context: Context) -> list[Compute]:
        """What is to be done instead of a compute; nothing where it can be done as it is, its products settled."""
        form = contraction(compute)
        if form is not None and form.operand is I8 and context.target().rate("tensor", "i8") is None:
            return in_floats(compute, form)
        whole: Precision = "ieee"  # a product within an expression, or one that no matrix unit does
        if form is not None and form.operand is F32:
            wanted = self.products or form.allowed
            if wanted != "ieee" and has_unit(context.target(), wanted):
                whole = wanted
        body = compute.body.rewrite(_exact)
        if whole != "ieee" and isinstance(body, Apply):
            body = Apply(ARITHMETIC[whole].function, body.args, body.dtype)
        compute.body = body
        return []


def _exact(node: Scalar) -> Scalar | None:
    if isinstance(node, Apply) and node.function != "mul" and precision_of(node.function):
        return Apply("mul", node.args, node.dtype)
    return None


def has_unit(machine: Machine, precision: Precision) -> bool:
    """Whether a machine's matrix units multiply with a precision."""
    return machine.kind == "gpu" and machine.rate("tensor", ARITHMETIC[precision].unit) is not None
