"""Policies that are not ours and fail: one line that says whose fault it is, wherever they are asked."""

from __future__ import annotations

from typing import Any

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.errors import CodesignError
from codesign.lab.arena import Arena, compete
from codesign.lab.kernels import problems
from codesign.lab.plan import make_plan
from codesign.passes.schedule.policy import Random
from codesign.passes.schedule.space import Space
from codesign.passes.schedule.tuner import Tuner
from tests.passes.tiling import groups


class Failing(Random):
    """Fails where it is told to; `[]` for a batch where that is to propose."""

    def __init__(self, where: str) -> None:
        super().__init__(schedules=10)
        self.where = where

    def _fail(self, where: str) -> None:
        if self.where == where:
            raise KeyError("not there")

    def start(self, space: Space, context: Any) -> None:
        self._fail("start")
        super().start(space, context)

    def propose(self, count: int) -> Any:
        self._fail("propose")
        return [] if self.where == "a list" else super().propose(count)

    def observe(self, batch: Any, cost: Any) -> None:
        self._fail("observe")
        super().observe(batch, cost)


WHERE = dict.fromkeys(("start", "propose", "observe"), "policy Failing failed: KeyError: 'not there'")
WHERE["a list"] = "policy Failing: it proposed a list, not a batch of schedules"


@pytest.mark.parametrize("where", WHERE)
def test_a_policy_that_fails_is_one_line_with_its_place(where: str) -> None:
    tuner = Tuner(load_machine("h100_sxm"), policy=Failing(where))
    with pytest.raises(CodesignError, match=WHERE[where]) as caught:
        tuner.price(groups.gemm(256, 256, 256))
    assert where == "a list" or "test_own_policies.py:" in str(caught.value)
    (problem,) = problems(
        make_plan({"policies": ["random"], "kernels": ["gemm.256x256x256"], "machines": ["h100_sxm"]})
    )
    unknown: Any = dict.fromkeys(("summary", "machine", "model"))
    with pytest.raises(CodesignError, match=WHERE[where]):
        compete(Failing(where), Arena(**unknown, problem=problem))
