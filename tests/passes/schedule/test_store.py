"""Choices kept between runs: taken over where nothing differs, and never believed blindly."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from codesign.costmodel.gpu.model import GpuTileModel
from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.tensor import Fusion
from codesign.passes.schedule import tuner as tuner_module
from codesign.passes.schedule.policy import Random
from codesign.passes.schedule.store import Store
from codesign.passes.schedule.tuner import Tuned, Tuner
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")
GROUPS = {
    "product": groups.gemm(512, 512, 512),
    "softmax": groups.softmax(64, 1000),
    "split": groups.gemm(32, 32, 65536),
}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "choices.sqlite"


def no_search(*_: Any) -> None:
    raise AssertionError("searched again")


def forget(tuned: Tuned) -> tuple[Any, ...]:
    phases = tuple(forget(phase.tuned) for phase in tuned.phases)
    others = (tuned.runners_up, tuned.rejected, tuned.evaluated, tuned.space_size, tuned.remarks)
    return (
        tuned.schedule,
        tuned.seconds,
        tuned.low,
        tuned.high,
        tuned.terms,
        tuned.joules,
        tuned.details,
        others,
        phases,
    )


@pytest.mark.parametrize("name", GROUPS)
def test_the_second_run_chooses_the_same_without_a_search(
    name: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Tuner(H100, kept=kept)
    price, tuned = first.price(GROUPS[name]), first.tune(GROUPS[name])
    first.keep()
    monkeypatch.setattr(tuner_module, "search", no_search)
    second = Tuner(H100, kept=kept)
    assert second.price(GROUPS[name]) == price
    assert forget(second.tune(GROUPS[name])) == forget(tuned)
    assert bool(tuned.phases) == (name == "split")


def searches(fusion: Fusion, monkeypatch: pytest.MonkeyPatch, machine: Machine = H100, **options: Any) -> bool:
    """Whether a tuner has to search for a group."""
    with monkeypatch.context() as patched:
        patched.setattr(tuner_module, "search", no_search)
        try:
            Tuner(machine, **options).tune(fusion)
        except AssertionError:
            return True
    return False


def test_nothing_is_taken_over_where_something_differs(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = GROUPS["softmax"]
    first = Tuner(H100, kept=kept)
    first.tune(group)
    first.keep()
    data = H100.model_dump(mode="json")
    data["launch"]["kernel_seconds"]["value"] = 2e-6
    assert not searches(group, monkeypatch, kept=kept)
    assert searches(groups.softmax(64, 1001), monkeypatch, kept=kept)
    assert searches(group, monkeypatch, Machine.model_validate(data), kept=kept)
    assert searches(group, monkeypatch, load_machine("a100_sxm"), kept=kept)
    assert searches(group, monkeypatch, kept=kept, policy="random")
    assert searches(group, monkeypatch, kept=kept, budget=10)
    assert searches(group, monkeypatch, kept=kept, seed=1)
    assert searches(group, monkeypatch, kept=kept, sizes={"n": 3})


def test_choices_of_others_policies_and_models_are_not_kept(kept: Path) -> None:
    for options in ({"policy": Random()}, {"model": GpuTileModel()}):
        tuner = Tuner(H100, kept=kept, **options)
        tuner.tune(GROUPS["softmax"])
        tuner.keep()
    assert not kept.exists()


@pytest.mark.parametrize(
    "data",
    [
        "[]",
        "{}",
        "not JSON",
        "[" * 100000,
        '{"schedule": {"tiles": {"i": -4}}, "parts": 1}',
        '{"schedule": {"tiles": {"of_another": 4}}, "parts": 1, "evaluated": 1, "space_size": 1, "runners_up": [], "rejected": {}}',
        '{"schedule": {}, "parts": 1000, "evaluated": 1, "space_size": 1, "runners_up": [], "rejected": {}}',
        '{"schedule": {}, "parts": "import os", "evaluated": 1, "space_size": 1, "runners_up": [], "rejected": {}}',
    ],
)
def test_what_makes_no_sense_is_searched_anew(data: str, kept: Path) -> None:
    group = GROUPS["softmax"]
    first = Tuner(H100, kept=kept)
    wanted = first.tune(group)
    first.keep()
    with sqlite3.connect(kept) as base:
        base.execute("UPDATE choices SET data = ?", (data,))
    base.close()
    assert Tuner(H100, kept=kept).tune(group).schedule == wanted.schedule


def test_a_damaged_file_is_made_anew(kept: Path) -> None:
    kept.write_bytes(b"not a database at all, but long enough to be taken for one" * 40)
    for _ in range(2):
        store = Store(kept, {})
        store.put("price", "a", 1.5)
        store.flush()
    assert Store(kept, {}).get("price", "a") == 1.5
    assert Store(kept, {"machine": "another"}).get("price", "a") is None


def test_a_place_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    store = Store(tmp_path / "no" / "such" / "folder.sqlite", {})
    store.put("price", "a", 1.5)
    store.flush()
    assert store.get("price", "a") == 1.5


def test_spaces_that_nobody_asks_for_are_dropped(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Store(kept, {"machine": "old"}), Store(kept, {"machine": "new"})
    old.put("price", "a", 1.0)
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: 0.0)
        old.flush()
    new.put("price", "a", 2.0)
    new.flush()  # of another space
    assert Store(kept, {"machine": "old"}).get("price", "a") is None
    assert Store(kept, {"machine": "new"}).get("price", "a") == 2.0
