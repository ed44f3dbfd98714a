"""Errors as one line."""

from __future__ import annotations

import pytest

from codesign.ir.errors import CodesignError, unended


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("it is wrong", "m.py:3: it is wrong; do this"),
        ("torch says so.", "m.py:3: torch says so; do this"),
        ("torch says so.\n", "m.py:3: torch says so; do this"),
        ("and so on...", "m.py:3: and so on...; do this"),
    ],
)
def test_what_to_do_follows_the_cause_whatever_it_ends_with(message: str, line: str) -> None:
    assert CodesignError(message, place="m.py:3", hint="do this").one_line() == line


def test_a_message_on_its_own_stays_as_it_is() -> None:
    assert CodesignError("torch says so.").one_line() == "torch says so."
    assert unended("so") == "so"
