"""Code generators of backends: what one says it adds is what is priced, and machines find theirs by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from codesign.costmodel import generators, workloads
from codesign.costmodel.gpu.generator import Held, Issued, code_generator
from codesign.costmodel.gpu.program import Program
from codesign.costmodel.gpu.tiles import Tiles
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.protocol import CostBatch
from codesign.ir.errors import CodesignError
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion

H100 = load_machine("h100_sxm")


@dataclass(frozen=True)
class Toy:
    """A generator whose code takes this much, whatever the program."""

    registers: float
    requests: float = 0.0
    knobs: frozenset[str] = frozenset({"warps"})

    def code(self, tiles: Tiles, machine: Machine, knobs: Mapping[str, Any]) -> Toy:
        return self

    def spares(self, group: Fusion) -> bool:
        return False

    def issued(self, program: Program) -> Issued:
        return Issued(self.requests, 0.0)

    def held(self, program: Program) -> Held:
        return Held(self.registers, 1024.0)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> Any:
    def price(toy: Toy, **extras: int) -> CostBatch:
        monkeypatch.setitem(generators._REGISTERED, "toy", toy)
        machine = H100.model_copy(update={"backend": "toy"})
        schedule = Schedule({"m": 128, "n": 128, "k": 64}, extras={"warps": 8, **extras})
        sizes = {"M": 4096, "N": 4096, "K": 4096}
        return cost_model_for(machine).predict(workloads.gemm(), machine, ScheduleBatch.of([schedule]), sizes)

    return price


def test_what_a_generator_adds_is_what_is_priced(priced: Any) -> None:
    small, large, asking = (priced(toy) for toy in (Toy(60.0), Toy(120.0), Toy(60.0, 1e7)))
    assert [cost.details["registers"][0] for cost in (small, large)] == [64, 120]
    assert [cost.details["blocks_per_sm"][0] for cost in (small, large)] == [4, 2]
    assert small.details["shared_bytes"][0] == 1024
    assert asking.seconds[0] > 2.0 * small.seconds[0]
    assert asking.term_names[int(np.argmax(asking.terms[0]))] == "requests"


def test_a_knob_that_the_generator_does_not_read_has_no_price(priced: Any) -> None:
    plain, piped = priced(Toy(60.0)), priced(Toy(60.0), pipeline=3)
    assert plain.seconds[0] == piped.seconds[0]
    read = Toy(60.0, knobs=frozenset({"warps", "pipeline"}))
    assert priced(read).seconds[0] == plain.seconds[0]


def test_a_machine_without_its_own_has_that_of_its_kind_and_other_kinds_have_none() -> None:
    assert code_generator(H100) is code_generator(H100.model_copy(update={"backend": "nobody's"}))
    with pytest.raises(CodesignError, match="maia100: no code generator"):
        code_generator(load_machine("maia100"))
