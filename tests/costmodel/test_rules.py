"""The expressions of data files."""

from __future__ import annotations

import pytest

from codesign.costmodel.rules import number, rule
from codesign.ir.errors import CodesignError

NAMES = {"head": 192, "group": 7, "decode": True, "bits": 8}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("128 if head <= 128 else 96 if head <= 192 else 64", 96),
        ("ceil(group / 8) * 8", 8),
        ("min(128, max(16, (432 - 2 * head) // 16 * 16))", 48),
        ("decode and not group > 8", 1),
        ("decode and group > 8 or bits == 8", 1),
        ("-head % 5 != 0", 1),
        ("3.5", 3.5),
    ],
)
def test_a_rule_is_its_arithmetic(text: str, value: float) -> None:
    assert rule(text).value(NAMES) == value
    assert number(text, NAMES) == value
    assert number(value, {}) == value


@pytest.mark.parametrize(
    "text",
    ["heads", "__import__('os')", "head.bit_length()", "(lambda: 1)()", "[head][0]", "head ** head", "1 < head < 3",
     "max(*head)", "'text'", "print(head)", "head; 1", "", "(" * 500],
)  # fmt: skip
def test_a_rule_can_do_nothing_else(text: str) -> None:
    with pytest.raises(CodesignError, match="rule"):
        rule(text).value(NAMES)
