"""Parts of a model under names that torch's graph modules have for something else (`self.graph`, `self.code`): there torch.export loses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.export import ExportedProgram
from torch.fx import GraphModule

_AWAY = "part_called_"


def decomposed_whole(program: ExportedProgram, table: Any) -> ExportedProgram:
    """`program.run_decompositions(table)`, with such parts under other names meanwhile."""
    taken = {name.partition(".")[0] for name in (*program.state_dict, *program.constants)}
    taken = {part for part in taken if hasattr(GraphModule, part)}
    _rename(program, lambda name: _AWAY + name if name.partition(".")[0] in taken else name)
    try:
        whole: ExportedProgram = program.run_decompositions(table)
    finally:
        _rename(program, lambda name: name.removeprefix(_AWAY))
    _rename(whole, lambda name: name.removeprefix(_AWAY))
    return whole


def _rename(program: Any, change: Callable[[str], str]) -> None:
    """Give state and constants other names, in place."""
    for spec in (*program.graph_signature.input_specs, *program.graph_signature.output_specs):
        if isinstance(spec.target, str):
            spec.target = change(spec.target)
    program._state_dict = {change(name): value for name, value in program._state_dict.items()}
    program._constants = {change(name): value for name, value in program._constants.items()}
