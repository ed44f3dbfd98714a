"""A knob from one file of another's package: a search offers it, a schedule replays it, and kernel, options and price follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from codesign.backends.triton.emit import emission
from codesign.costmodel.machine import load_machine
from codesign.ir.core import Block, Function, Module
from codesign.ir.dtypes import F16
from codesign.ir.errors import CodesignError, ScheduleError
from codesign.ir.schedule import Schedule
from codesign.passes.knobs.room import ROOMS, foreign, installed
from codesign.passes.lowering import KernelInfo, tile_module
from codesign.passes.schedule.replay import read_schedules, write_schedules
from codesign.passes.schedule.tuner import Tuner
from tests.passes.tiling import groups

LAB = '''
from codesign.passes.knobs import Room
from codesign.passes.schedule.space import Knob


class Square(Room):
    """Square tiles of a matrix product's result."""

    name = "square"
    default = 64

    def unread(self, site):
        return "" if len(sides(site)) == 2 else "the kernel has no matrix product"

    def values(self, site, dim=""):
        return (16, 32, 64, 128)

    def replaces(self, site):
        return frozenset(f"tile.{dim}" for dim in sides(site))

    def derive(self, columns, site):
        return {f"tile.{dim}": columns["square"] for dim in sides(site)}


class Registers(Room):
    """Registers of a thread at most, which the compiler is told."""

    name = "registers"
    default = 255

    def unread(self, site):
        return "" if site.machine.vendor == "nvidia" else "compilers for other vendors have no such option"

    def values(self, site, dim=""):
        return (64, 128, 255)

    def options(self, value):
        return {"maxnreg": value}

    def machine(self, machine, value):
        return machine.with_figures({"limits.registers_per_thread": float(value)})


def sides(site):
    return [dim for dim, role in site.roles.sides.items() if role in "mn"]
'''
H100 = load_machine("h100_sxm")


def install(folder: Path, points: str, text: str = LAB) -> None:
    (folder / "lab_of_knobs.py").write_text(text, encoding="utf-8")
    about = folder / "lab_of_knobs-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-of-knobs\nVersion: 1\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[codesign.knobs]\n{points}\n", encoding="utf-8")
    installed.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = dict(ROOMS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    ROOMS.clear()
    ROOMS.update(before)
    installed.cache_clear()


def kernel(schedules: dict[str, Schedule] | None = None, size: int = 512) -> KernelInfo:
    fusion = groups.gemm(size, size, size, F16)
    module = Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})
    (info,) = tile_module(module, Tuner(H100), schedules).values()
    return info


def test_one_that_sets_others_is_offered_replayed_lowered_and_priced(folder: Path) -> None:
    with pytest.raises(ScheduleError, match=r"extras\.square: no backend reads this knob"):
        kernel({"r": Schedule(extras={"square": 32})})
    install(folder, "square = lab_of_knobs:Square")
    chosen = kernel().tuned.schedule
    assert chosen.tiles["i"] == chosen.tiles["j"] == chosen.extras["square"]
    assert foreign().keys() == {"square"}, "what is kept between runs is of these knobs"
    write_schedules(folder / "schedules.json", {"r": Schedule({"k": 32}, pipeline=2, extras={"square": 32})})
    replayed = read_schedules(folder / "schedules.json")
    info, other = kernel(replayed), kernel({"r": Schedule({"k": 32}, pipeline=2, extras={"square": 128})})
    assert info.tuned.schedule.tiles == {"k": 32, "i": 32, "j": 32}
    assert [dim.extent for dim in info.kernel.grid] == [16, 16]
    assert [dim.extent for dim in other.kernel.grid] == [4, 4]
    assert info.tuned.seconds != other.tuned.seconds
    with pytest.raises(ScheduleError, match=r"tile\.i: 16, but knob square makes it 32"):
        kernel({"r": Schedule({"i": 16, "k": 32}, extras={"square": 32})})
    with pytest.raises(ScheduleError, match=r"extras\.square: needs 16, 32, 64, 128, got 48"):
        kernel({"r": Schedule(extras={"square": 48})})


def test_one_that_is_an_option_of_the_compiler_reaches_it_and_the_price(folder: Path) -> None:
    install(folder, "registers = lab_of_knobs:Registers")
    tiles = {"i": 128, "j": 128, "k": 32}
    few, many = (
        kernel({"r": Schedule(tiles, pipeline=2, extras={"warps": 4, "registers": count})}) for count in (64, 255)
    )
    for info, count in ((few, 64), (many, 255)):
        emitted = emission(info.kernel)
        assert f"maxnreg={count}" in emitted.core
        assert emitted.options == {"maxnreg": count}
    assert few.tuned.seconds > 1.1 * many.tuned.seconds, "what does not fit is spilled"
    assert kernel().tuned.schedule.extras["registers"] in (64, 128, 255)


def test_what_is_wrong_with_a_package_is_said(folder: Path) -> None:
    install(folder, "square = lab_of_knobs:sides")
    with pytest.raises(CodesignError, match=r"knob 'square': .*not a subclass.*; mend or remove lab_of_knobs:sides"):
        kernel()
