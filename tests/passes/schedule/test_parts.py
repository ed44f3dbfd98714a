"""Into how many parts a reduction is split: what can't be faster is not searched."""

from __future__ import annotations

import pytest

from codesign.costmodel.machine import load_machine
from codesign.passes.schedule.found import search
from codesign.passes.schedule.tuner import Tuner
from tests.passes.tiling import groups


@pytest.mark.parametrize(("rows", "columns", "split"), [(2, 4096, False), (2, 1 << 20, True)])
def test_two_kernels_are_searched_only_where_both_can_start_and_end_sooner(
    rows: int, columns: int, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[str] = []

    def counted(*arguments: object) -> object:
        searches.append("")
        return search(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("codesign.passes.schedule.tuner.search", counted)
    tuner = Tuner(load_machine("maia100"))
    tuner.price(groups.reduction(rows, columns, "sum"))
    assert (len(searches) > 1) is split
