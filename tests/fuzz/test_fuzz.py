"""A slice of the fuzzing that `make fuzz` does, and the inputs of which each once failed."""

from __future__ import annotations

import pytest

from tests.fuzz.kinds import CORPUS, KINDS, read_module, read_programs
from tests.fuzz.run import chosen, outcome

READERS = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("first", range(0, 800, 100))
def test_files_of_strangers_are_read_or_refused(first: int) -> None:
    for number in range(first, first + 100):
        kind, data = chosen(20261129, number)
        result = outcome(kind, data)
        assert result in ("read", "refused"), f"input {number} ({kind.name}): {result}"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.tile")), ids=lambda path: path.name)
def test_seeds_are_modules(path) -> None:  # type: ignore[no-untyped-def]
    read_module(path.read_bytes())


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.casm")), ids=lambda path: path.name)
def test_seeds_are_programs(path) -> None:  # type: ignore[no-untyped-def]
    read_programs(path.read_bytes())
