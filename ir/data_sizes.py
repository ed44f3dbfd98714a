"""Size symbols that data decides, such as how many values of a tensor are nonzero: a call's result shows them first."""

from __future__ import annotations

from codesign.ir.core import Function
from codesign.ir.tensor import Call


def made_sizes(function: Function) -> dict[str, Call]:
    """Each size symbol of a function that no argument shows, with the call whose result shows it first."""
    shown = {name for value in function.args for size in value.shape for name in size.variables()}
    made: dict[str, Call] = {}
    for op in function.body.walk():
        if isinstance(op, Call):
            for name in new_sizes(op):
                if name not in shown:
                    made.setdefault(name, op)
    return made


def new_sizes(call: Call) -> frozenset[str]:
    """Size symbols in the types of a call's results and not in those of its operands."""
    given = {name for value in call.inputs for size in value.shape for name in size.variables()}
    return frozenset(name for value in call.results for size in value.shape for name in size.variables()) - given
