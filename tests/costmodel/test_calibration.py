"""Fits of a part of what was measured: what is kept of earlier ones, and what they begin with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.calibration import (
    EXPECTED,
    GENERATED_FIT,
    IMPLEMENTATION_FIT,
    IMPLEMENTED,
    QUANTISED_FIT,
    _still_run,
    constants_of,
)
from codesign.costmodel.gpu.parameters import PRODUCT, Parameters, calibrations, load_calibration
from codesign.costmodel.machine import load_machine
from codesign.costmodel.rows import Rows


def test_kernels_that_a_fitted_source_no_longer_runs_are_forgotten() -> None:
    known = {name: {"step_clocks": 1.0} for name in ("a decode 8", "a old", "b", "gemm fp8", "typical")}
    assert list(_still_run(known, {"a decode 8", "gemm nvfp4"})) == ["a decode 8", "b", "gemm fp8", "typical"]


@pytest.mark.parametrize(("name", "operations"), [("l40s", 1024), ("a100_sxm", 2048), ("h100_sxm", 4096)])
def test_compiled_attention_is_expected_to_reach_less_of_a_faster_tensor_unit(name: str, operations: int) -> None:
    none = np.zeros(0)
    rows = Rows("attention", workloads.attention("f16", "f16", 128), {}, none, none.astype(int), none.astype(int))
    first = replace(Parameters(), tensor_efficiency=0.9)
    _, written = constants_of([rows], first, load_machine(name))
    names, compiled = constants_of([replace(rows, generated=True)], first, load_machine(name))
    assert written.tensor_efficiency == 0.9
    assert "tensor_efficiency" in names
    assert compiled.tensor_efficiency == pytest.approx(0.3 * (1024 / operations) ** 0.75, rel=0.1)


@pytest.mark.parametrize("machine", calibrations())
def test_implementations_keep_what_is_fitted_to_them_alone(machine: str) -> None:
    kept = {*IMPLEMENTATION_FIT, *GENERATED_FIT, *EXPECTED, *IMPLEMENTED}
    for name, constants in load_calibration(load_machine(machine)).implementations.items():
        assert {*constants} <= ({*QUANTISED_FIT} if name.startswith(PRODUCT) else kept), name
