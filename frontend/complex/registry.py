"""The table of rules for operators on complex tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from codesign.frontend.complex.planes import Emitter

Rule = Callable[[Emitter, Mapping[str, Any]], Any]
"""`rule(emitter, arguments)`: the arguments by the names of the operator's schema, complex tensors as `Complex`.

It gives a `Complex`, a `Real`, or a node."""

RULES: dict[str, Rule] = {}

R = TypeVar("R", bound=Rule)


def rule(*names: str) -> Callable[[R], R]:
    """Register a rule for operators of ATen, all overloads of each."""

    def register(function: R) -> R:
        for name in names:
            if name in RULES:
                raise ValueError(f"two rules for complex {name}")
            RULES[name] = function
        return function

    return register
