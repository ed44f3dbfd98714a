"""The table of lowering rules: one small function per ATen operator, hung on it by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Rule = Callable[..., Any]
"""`rule(builder, *arguments)` in the order of the operator's schema; gives a Value, a tuple of them, or a run-time scalar;
`NotImplemented`, before it adds any op, where these arguments are better left to an external call."""

RULES: dict[str, Rule] = {}

R = TypeVar("R", bound=Rule)


def lower(*targets: str) -> Callable[[R], R]:
    """Register a rule for operators by full name, as in `aten.add.Tensor`."""

    def register(rule: R) -> R:
        for target in targets:
            if target in RULES:
                raise ValueError(f"two lowering rules for {target}")
            RULES[target] = rule
        return rule

    return register


def rule_for(target: str) -> Rule | None:
    """The rule of an operator, or None when it has to be an external call."""
    return RULES.get(target)


def claimed_operators() -> list[str]:
    """Full names of all operators that lower to the tensor IR, sorted."""
    import codesign.frontend.lowering  # noqa: F401  (importing the families fills the table)

    return sorted(RULES)
