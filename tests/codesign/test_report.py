"""The report on the terminal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rich.console import Console

from codesign.report import counted, joules_text, kernel_table, launch_count, part_text, schedule_text, seconds_text

LONG = ("encoder_attention__scaled_dot_product_attention_301a", "encoder_attention__scaled_dot_product_attention_1ee0")


def kernel(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        count=1,
        seconds=2e-6,
        ops=["matmul", "softmax", "mul"],
        source=["a_file_of_a_long_name.py:10 encoder.attention"],
        schedule={"tiles": {"i0": 16, "i1": 16, "r0": 32}, "pipeline": 3},
        bound="launch",
        roofline_share=0.1,
        dram_bytes=8.0,
        min_dram_bytes=8.0,
        compiled=None,
        verified=None,
    )


def test_long_names_of_kernels_are_folded_and_not_cut_off() -> None:
    document: Any = SimpleNamespace(seconds=4e-6, kernels=[kernel(name) for name in LONG])
    console = Console(width=130)
    with console.capture() as captured:
        console.print(kernel_table(document, None))
    lines = captured.get().splitlines()
    column = slice(lines[0].index("kernel"), lines[0].index("×"))
    assert "".join(line[column].strip() for line in lines[1:]) == "".join(LONG)


def test_launches_are_counted_as_a_person_says_it() -> None:
    first, joined = kernel("parts"), kernel("merge")
    joined.schedule = {"extras": {"joined": 1}}
    document: Any = SimpleNamespace(kernels=[first, joined])
    assert counted(launch_count(document), "launch", "launches") == "1 launch"
    first.count = 1.5  # one of its launches is in a branch
    assert counted(launch_count(document), "launch", "launches") == "1.5 launches"


def test_one_warp_is_one() -> None:
    assert schedule_text({"tiles": {"i": 16}, "extras": {"warps": 1}}) == "i=16, 1 warp"
    assert schedule_text({"tiles": {"i": 16}, "extras": {"warps": 4}}) == "i=16, 4 warps"


def test_times_have_the_digits_that_are_asked_for_and_parts_of_nothing_are_none() -> None:
    assert [seconds_text(1.23456789e-3), seconds_text(1.23456789e-3, 5), joules_text(0.0, 5)] == [
        "1.23 ms",
        "1.2346 ms",
        "0 J",
    ]
    assert [part_text(4e-27, 1e-3), part_text(4e-7, 1e-3), part_text(6e-7, 1e-3)] == ["0 s", "0 s", "600 ns"]
