"""What is left out is predicted without what was measured of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from codesign.costmodel.gpu.intervals import distances
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.leaving_out import left_out
from codesign.costmodel.machine import load_machine
from codesign.costmodel.validation import predictions

CALLS = pd.DataFrame(
    {
        "machine": "h100_sxm",
        "phase": ["generation", "generation", "context", "context"],
        "kernel_source": "fa3",
        "dtype": "bfloat16",
        "kv_dtype": "bfloat16",
        "batch": [8, 32, 1, 4],
        "q_len": [1, 1, 2048, 4096],
        "kv_len": [4096, 8192, 2048, 4096],
        "heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "window": 0,
        "seconds": [40e-6, 200e-6, 100e-6, 1e-3],
    }
)


def test_an_implementation_is_left_out_as_if_nobody_knew_its_name() -> None:
    unknown = {one.family: one for one in left_out([CALLS]) if one.distance == "unknown"}
    assert set(unknown) == {"decode", "prefill"}
    assert {one.group for one in unknown.values()} == {"h100_sxm decode fa3", "h100_sxm prefill fa3"}
    named = predictions(CALLS, load_machine("h100_sxm"))
    for family, phase in (("decode", "generation"), ("prefill", "context")):
        own = np.log(named[named.op == f"attention {phase} fa3"].pipe(lambda frame: frame.measured / frame.predicted))
        assert not np.allclose(np.sort(unknown[family].error), np.sort(own), rtol=1e-3)


@pytest.mark.parametrize("phase", ["generation", "context"])
def test_the_interval_of_an_unknown_implementation_is_that_of_what_was_left_out(phase: str) -> None:
    table = CALLS[CALLS.phase == phase].assign(kernel_source="nobody_knows_it")
    found = predictions(table, load_machine("h100_sxm"), load_calibration(load_machine("h100_sxm")))
    slower = distances()["unknown"].of["decode" if phase == "generation" else "prefill"][1]
    assert (np.log(found.high / found.predicted) >= slower).all()
    known = predictions(CALLS[CALLS.phase == phase], load_machine("h100_sxm"))
    assert (found.high / found.predicted > known.high / known.predicted).all()
