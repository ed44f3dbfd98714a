"""Slopes of a fit are taken from the schedules near each row's best, which hold every one that a step makes the best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.fitting import STEP
from codesign.costmodel.gpu import library
from codesign.costmodel.gpu.library import least_of, library_space, nearby
from codesign.costmodel.gpu.parameters import FITTED, load_calibration
from codesign.costmodel.machine import load_machine


@pytest.mark.parametrize("name", ["a100_sxm", "h100_sxm", "b300_sxm", "l40s"])
def test_the_best_after_a_step_is_near_the_best_before_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, machine = workloads.gemm(rotated=True), load_machine(name)
    space, p = library_space(kernel, machine), load_calibration(machine).parameters
    sizes = {
        "M": np.array([1, 64, 777, 8192]),
        "N": np.array([4096, 768, 3000, 8192]),
        "K": np.array([4096, 1536, 512, 8192]),
    }
    moved: dict[str, Any] = {
        one: np.exp(np.log(getattr(p, one)) + STEP * (np.arange(len(FITTED)) == at))[:, None, None]
        for at, one in enumerate(FITTED)
    }
    whole = library.library(kernel, machine, sizes, replace(p, **moved), space).seconds
    before = library.library(kernel, machine, sizes, p, space).seconds
    near = nearby(kernel, machine, sizes, p, space, 2.0 * STEP)
    assert np.allclose(near.seconds, before, rtol=1e-6)
    assert len(near.row) < 0.5 * len(before) * len(next(iter(space.values())))
    for together in (library.ENTRIES, 4):  # all at once, and a few pairs at a time
        monkeypatch.setattr(library, "ENTRIES", together)
        found = least_of(kernel, machine, sizes, replace(p, **moved), space, near)
        assert np.allclose(found, whole, rtol=1e-6)
        assert np.abs(found / before - 1.0).max() > 0.005
