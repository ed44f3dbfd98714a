"""What it takes to add a scalar function (a row in two tables) and a level of memory (a machine file). Passes, policies, knobs and
backends from elsewhere have tests beside what they extend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.backends import accelerator
from codesign.backends.triton import functions as spelled
from codesign.backends.triton.emit import emission
from codesign.costmodel.machine import MACHINE_FOLDER, load_machine
from codesign.ir import functions as meant
from codesign.ir.core import Value
from codesign.ir.dtypes import F32
from codesign.ir.scalar import Read, apply
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.types import tensor
from codesign.passes.normalize import normalize
from codesign.passes.schedule.tuner import tune
from codesign.passes.tile import lower
from tests.passes.tiling import groups


def logistic(count: int) -> Fusion:
    x = Value(tensor(F32, count), "x")
    made = Compute(groups.dims(i=count), apply("logistic", Read(x, ["i"])), name="y")
    return groups.group([made], [made])


def test_a_scalar_function_is_a_row_in_two_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    row = meant.Function("logistic", 1, lambda a: 1.0 / (1.0 + np.exp(-a)), "special", 2.0)
    monkeypatch.setitem(meant.FUNCTIONS, "logistic", row)
    monkeypatch.setitem(spelled.ROWS, "logistic", spelled.Row(spelled.Call("tl.sigmoid")))
    group = logistic(96)
    kernel = groups.check(group, Schedule({"i": 32}))  # tiles against the meaning of the group
    assert "tl.sigmoid(" in emission(kernel).core
    maia = load_machine("maia100")
    (x,) = groups.random_inputs(group)
    program = accelerator.lower(lower(normalize(group).fusion, Schedule({"i": 32})), maia, {})
    (found,) = accelerator.simulate(program, [x], maia).outputs
    np.testing.assert_allclose(found, 1.0 / (1.0 + np.exp(-x)), rtol=1e-6)
    for machine in (maia, load_machine("h100_sxm")):
        assert 0 < tune(group, machine).seconds < tune(logistic(1 << 24), machine).seconds


def test_a_level_of_memory_is_in_a_machine_file(tmp_path: Path) -> None:
    """A last cache between L2 and DRAM, narrower than either: what streams goes at its rate."""
    text = (MACHINE_FOLDER / "h100_sxm.toml").read_text(encoding="utf-8")
    level = '[[levels]]\nname = "llc"\nplace = "chip"\nmanaged = "hardware"\n'
    level += 'capacity_bytes = { value = 2e8, source = "MINE" }\nbandwidth = { value = 5e11, source = "MINE" }\n\n'
    text = text.replace("[sources]\n", '[sources]\nMINE = "a machine that is not"\n', 1).replace(
        '"h100_sxm"', '"mine"', 1
    )
    text = text.replace('[[levels]]\nname = "l2"', f'{level}[[levels]]\nname = "l2"', 1)
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    count = 1 << 26
    group = groups.element_wise(count)
    slow, fast = tune(group, load_machine(str(tmp_path / "mine.toml"))), tune(group, load_machine("h100_sxm"))
    moved = sum(array.nbytes for array in [*groups.random_inputs(groups.element_wise(64))]) / 64 * count
    assert slow.seconds > max(2.0 * fast.seconds, moved / 5e11)
