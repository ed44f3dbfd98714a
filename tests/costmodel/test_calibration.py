"""Fits of a part of what was measured: what is kept of earlier ones."""

from __future__ import annotations

from codesign.costmodel.calibration import _still_run


def test_kernels_that_a_fitted_source_no_longer_runs_are_forgotten() -> None:
    known = {name: {"step_clocks": 1.0} for name in ("a decode 8", "a old", "b", "gemm fp8", "typical")}
    assert list(_still_run(known, {"a decode 8", "gemm nvfp4"})) == ["a decode 8", "b", "gemm fp8", "typical"]
