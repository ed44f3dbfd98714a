"""Schedules on paper: what is written is replayed for the structure that it was made for, and what is no schedule is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.core import Block, Function, Module
from codesign.ir.dtypes import F32
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import Schedule
from codesign.passes.lowering import tile_module
from codesign.passes.schedule.replay import Schedules, differences, read_schedules, write_schedules
from codesign.passes.schedule.tuner import Tuner, tune
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")


def test_schedules_written_and_read_replay_the_kernel(tmp_path: Path) -> None:
    found = tune(groups.gemm(512, 512, 512, F32), H100)
    write_schedules(tmp_path / "schedules.json", {"gemm": found.schedule})
    again = read_schedules(tmp_path / "schedules.json")["gemm"]
    assert again == found.schedule
    assert differences(again, found.schedule) == {}


def test_given_schedules_are_used_and_checked() -> None:
    def module() -> Module:
        fusion = groups.gemm(512, 512, 512)
        return Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})

    wanted = Schedule({"i": 32, "j": 64, "k": 32}, pipeline=3, extras={"warps": 4})
    (info,) = tile_module(module(), Tuner(H100), {"r": wanted}).values()
    assert info.kernel.schedule == info.tuned.schedule == wanted
    assert info.tuned.seconds >= Tuner(H100).price(info.fusion) * 0.999
    with pytest.raises(
        ScheduleError, match=r"^schedule of r on h100_sxm: shared memory: needs [\d,]+ B, limit 232,448 B"
    ):
        tile_module(
            module(), Tuner(H100), {"r": Schedule({"i": 128, "j": 128, "k": 512}, pipeline=4, extras={"warps": 8})}
        )
    with pytest.raises(ScheduleError, match=r"^schedule of r: tiles\.m: the kernel has no such dim; dims: i, j, k"):
        tile_module(module(), Tuner(H100), {"r": Schedule({"m": 32})})
    with pytest.raises(ScheduleError, match="@other, which is not a kernel here; kernels: r"):
        tile_module(module(), Tuner(H100), {"other": wanted})


def test_schedules_follow_structure_not_names(tmp_path: Path) -> None:
    """What was written for one kernel is replayed for the same structure under another name, and never for another structure."""

    def module(n: int) -> Module:
        fusion = groups.gemm(512, n, 512)
        return Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})

    (made,) = tile_module(module(512), Tuner(H100)).values()
    wanted = Schedule({"i": 32, "j": 64, "k": 32}, pipeline=3, extras={"warps": 4})
    path = tmp_path / "schedules.json"
    write_schedules(path, Schedules({"another": wanted}, {"another": made.structure}))
    remarks: list[str] = []
    (info,) = tile_module(module(512), Tuner(H100), read_schedules(path), remarks).values()
    assert info.tuned.schedule == wanted
    assert remarks == []
    write_schedules(path, Schedules({"r": wanted}, {"r": made.structure}))
    (info,) = tile_module(module(256), Tuner(H100), read_schedules(path), remarks).values()
    assert info.tuned.schedule == tune(groups.gemm(512, 256, 512), H100).schedule
    assert remarks == ["schedules that are not used, as no kernel here has the structure they were made for: @r"]
    path.write_text('{"r": {"structure": 5, "tiles": {"i": 32}}}')
    with pytest.raises(ScheduleError, match="structure"):
        read_schedules(path)


def test_differences_by_knob() -> None:
    a = Schedule({"m": 64, "n": 64}, pipeline=3, extras={"warps": 4})
    b = Schedule({"m": 128, "n": 64}, pipeline=3, extras={"warps": 8, "group": 2})
    assert differences(a, b) == {"tiles.m": (64, 128), "extras.warps": (4, 8), "extras.group": (None, 2)}


def test_a_malformed_schedule_file_is_located(tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    path.write_text('{"gemm": {"tiles": {"m": "wide"}}}')
    with pytest.raises(
        ScheduleError, match=r'schedules.json: gemm: tiles\.m: needs an integer from 1 to \d+, got "wide"'
    ):
        read_schedules(path)
    path.write_text("{")
    with pytest.raises(ScheduleError, match=r"schedules.json:1:2: not JSON"):
        read_schedules(path)


NONSENSE = (
    "null",
    "-1",
    "NaN",
    "1e400",
    "9" * 5000,
    "1.5",
    '"3 kB"',
    "true",
    "[]",
    "[[1]]",
    '{"m": -1}',
    "[" * 100_000,
)


@pytest.mark.parametrize(
    "field", ["tiles", "levels", "inner", "order", "reduce", "split", "pipeline", "extras", "other"]
)
def test_no_field_of_a_schedule_can_be_nonsense(tmp_path: Path, field: str) -> None:
    path = tmp_path / "schedules.json"
    for wrong in NONSENSE:
        if (field, wrong) == ("order", "[]"):
            continue
        path.write_text(f'{{"gemm": {{"{field}": {wrong}}}}}')
        with pytest.raises(ScheduleError) as caught:
            read_schedules(path)
        assert "schedules.json" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\x00\xff", b"{}{}", b'{"a": {}, "a": {}}', b'{"a": {"extras": {"warps": 3}}}']
)
def test_a_file_that_holds_no_schedules_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "schedules.json"
    path.write_bytes(content)
    with pytest.raises(ScheduleError, match=r"schedules\.json"):
        read_schedules(path)
    with pytest.raises(ScheduleError, match="cannot read"):
        read_schedules(tmp_path)


def test_a_knob_that_nothing_reads_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    path.write_text('{"gemm": {"extras": {"wraps": 16}}}')
    with pytest.raises(ScheduleError, match=r"gemm: extras\.wraps: .*nearest: warps"):
        read_schedules(path)
    path.write_text('{"gemm": {"inner": {"warp": {"m": 16}}}}')
    with pytest.raises(ScheduleError, match=r"gemm: inner: schedules say this by `levels` now"):
        read_schedules(path)
