"""Into how many parts a reduction is split: what can't be faster is not searched."""

from __future__ import annotations

import math

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.dtypes import F16
from codesign.ir.tensor import Fusion
from codesign.passes.schedule import parts, phases
from codesign.passes.schedule.found import Form, Found, search
from codesign.passes.schedule.tuner import Tuner, tune
from codesign.passes.tiling.cutting import Cutting
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


SMALL = {
    "element-wise": groups.element_wise(64, 64),
    "few sums": groups.reduction(2, 4096, "sum"),
    "long sums": groups.reduction(8, 1 << 18, "max"),
    "softmax": groups.softmax(16, 512),
    "deep product": groups.gemm(16, 64, 8192, F16),
    "attention": groups.attention(2, 32, 64, 16),
}


@pytest.mark.parametrize("machine", ["h100_sxm", "a100_sxm", "mi300x"])
@pytest.mark.parametrize("name", SMALL)
def test_no_schedule_beats_what_a_kernel_takes_at_the_least(name: str, machine: str) -> None:
    target = load_machine(machine)
    least, found = Tuner(target).least(SMALL[name]), tune(SMALL[name], target)
    assert 0.0 < least <= found.seconds
    assert all(least <= other.seconds for other in found.runners_up)


@pytest.mark.parametrize("name", ["few sums", "long sums", "deep product", "softmax", "attention"])
def test_a_split_is_found_as_if_every_number_of_parts_were_priced_to_its_end(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fusion, target = SMALL[name], load_machine("h100_sxm")
    bounded = Tuner(target).tune(fusion)

    def nothing(*arguments: object) -> float:
        return 0.0

    def without_limit(self: Tuner, fusion: Fusion, form: Form, below: float = math.inf) -> float:
        return price_whole(self, fusion, form)

    price_whole = Tuner.price_whole
    monkeypatch.setattr(Tuner, "price_whole", without_limit)
    monkeypatch.setattr(parts, "_least", nothing)
    monkeypatch.setattr(phases, "least_seconds", nothing)
    monkeypatch.setattr(parts.Split, "_at_least", lambda *_: phases.InTwo(0.0, 0.0, priced=False))
    every = Tuner(target).tune(fusion)
    assert (bounded.schedule, bounded.cutting, bounded.seconds) == (every.schedule, every.cutting, every.seconds)


def test_more_parts_take_at_the_least_what_fewer_do() -> None:
    """Twice as many programs make the partial results in half the time at best, and there are no fewer of them to put together."""
    fusion, tuner = groups.gemm(16, 64, 8192, F16), Tuner(load_machine("h100_sxm"))
    found = tuner.tune(fusion, split=False)
    launch = found.terms["launch"]
    few, many = (
        phases.in_two(tuner, phases.halves(tuner, fusion, Cutting(number)), launch, math.inf) for number in (8, 32)
    )
    assert few.priced
    assert many.priced
    assert many.first >= launch + (few.first - launch) / 4
    assert many.second >= few.second
    bounded = phases.in_two(tuner, phases.halves(tuner, fusion, Cutting(64)), launch, few.seconds, [few])
    assert not bounded.priced
    assert bounded.seconds >= few.seconds


def test_parts_priced_before_the_best_were_known_are_not_taken_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one tile may be a number that the climb has priced on its way to a better one."""
    tuner = Tuner(load_machine("h100_sxm"))
    fusion = groups.gemm(256, 256, 1 << 17, F16)
    found = tuner._search(tuner.form(fusion))
    assert isinstance(found, Found)
    priced = parts.Split(tuner, fusion, found)
    best, seconds, _ = parts.best_parts(tuner, fusion, found, priced=priced)
    slower = [number for number, pair in priced.known.items() if pair.priced and pair.seconds > seconds]
    assert slower
    monkeypatch.setattr(parts, "_of_one_tile", lambda _: slower)
    assert parts.best_cutting(tuner, fusion, found)[:2] == (Cutting(best), seconds)
