"""Loops that masks cut, in kernels whose sizes are symbols."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel import workloads
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.ir.schedule import Schedule, ScheduleBatch

SIZES = {"B": 2, "G": 2, "R": 1, "Q": 64, "J": 64}


@pytest.mark.parametrize("reduce", [{}, {"j": "fold"}])
def test_a_loop_of_one_step_by_its_size_alone_has_a_price(reduce: dict[str, str]) -> None:
    """A tile that covers what a symbol stands for: the text loops all the same, once."""
    machine = load_machine("maia100")
    tiles = {"b": 1, "g": 1, "r": 1, "i": 32, "d": 32, "e": 64}
    batch = ScheduleBatch.of([Schedule({**tiles, "j": j}, reduce=reduce) for j in (32, 64, 128)])
    cost = cost_model_for(machine).predict(workloads.attention(), machine, batch, SIZES)
    assert np.isfinite(cost.seconds).all()
    two, one, wide = cost.seconds
    assert one < 1.2 * two
    assert one <= wide * 1.001
