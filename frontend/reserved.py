"""Parts of a model under names that torch's graph modules have for something else (`self.graph`, `self.code`), where torch.export loses them, or
that Python has (`class`), which are no attributes in the source that torch writes."""

from __future__ import annotations

import keyword
from collections.abc import Callable
from typing import Any

from torch.export import ExportedProgram
from torch.fx import GraphModule

_AWAY = "part_called_"


def decomposed_whole(program: ExportedProgram, table: Any) -> ExportedProgram:
    """`program.run_decompositions(table)`, with such parts under other names meanwhile."""
    taken = {name.partition(".")[0] for name in (*program.state_dict, *program.constants)}
    taken = {part for part in taken if hasattr(GraphModule, part)}

    def away(name: str) -> str:
        parts = name.split(".")
        reserved = (keyword.iskeyword(part) or (place == 0 and part in taken) for place, part in enumerate(parts))
        return ".".join(_AWAY + part if is_so else part for part, is_so in zip(parts, reserved, strict=True))

    _rename(program, away)
    try:
        whole: ExportedProgram = program.run_decompositions(table)
    finally:
        _rename(program, _back)
    _rename(whole, _back)
    return whole


def _back(name: str) -> str:
    return ".".join(part.removeprefix(_AWAY) for part in name.split("."))


def _rename(program: Any, change: Callable[[str], str]) -> None:
    """Give state and constants other names, in place."""
    for spec in (*program.graph_signature.input_specs, *program.graph_signature.output_specs):
        if isinstance(spec.target, str):
            spec.target = change(spec.target)
    program._state_dict = {change(name): value for name, value in program._state_dict.items()}
    program._constants = {change(name): value for name, value in program._constants.items()}
