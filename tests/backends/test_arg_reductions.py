"""Arg-reductions that go in steps: the winner's place counts from the beginning, whichever step it lies in, on both backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from codesign.backends import accelerator
from codesign.backends.triton.interpret import run_kernel
from codesign.costmodel.machine import load_machine
from codesign.ir.schedule import Schedule
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from tests.passes.tiling import groups

ROWS, COLUMNS, STEP = 4, 70, 16
NAN = float("nan")

WINNERS: Mapping[str, tuple[dict[int, float], int]] = {
    "in the first step": ({3: 9.0}, 3),
    "in a later step": ({37: 9.0}, 37),
    "in the last, ragged one": ({69: 9.0}, 69),
    "the first of equal ones in two steps": ({20: 9.0, 52: 9.0}, 20),
    "a NaN in a later step": ({5: 9.0, 50: NAN}, 50),
    "the first NaN of two steps": ({33: NAN, 66: NAN}, 33),
}


@pytest.mark.parametrize("backend", ["triton", "maia100"])
@pytest.mark.parametrize("monoid", ["argmax", "argmin"])
@pytest.mark.parametrize("winner", WINNERS)
def test_the_winner_of_a_later_step(winner: str, monoid: Any, backend: str) -> None:
    special, place = WINNERS[winner]
    x = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
    x[2, list(special)] = list(special.values())
    x = x if monoid == "argmax" else -x
    group = normalize(groups.reduction(ROWS, COLUMNS, monoid))
    (reduced,) = {dim.name for compute in group.fusion.computes for dim in compute.reductions}
    kept = {dim.name for compute in group.fusion.computes for dim in compute.dims}
    schedule = Schedule(tiles={**dict.fromkeys(kept, 1), reduced: STEP}, reduce={reduced: "looped"})
    kernel = lower(group.fusion, schedule, name="arg", outputs=group.outputs)
    if backend == "triton":
        got = run_kernel(kernel, [x], {}, device="cpu")[0]
    else:
        machine = load_machine(backend)
        got = accelerator.simulate(accelerator.lower(kernel, machine, {}), [x], machine).outputs[0]
    expected = np.argmax(x, 1) if monoid == "argmax" else np.argmin(x, 1)
    assert expected[2] == place
    np.testing.assert_array_equal(got.reshape(-1), expected)
