"""Tails where a grid is some more than whole rounds: chosen where that is faster, and priced as what is launched."""

from __future__ import annotations

import math

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.core import Block, Function, Module
from codesign.ir.dtypes import BF16
from codesign.ir.tensor import Launch
from codesign.ir.verify import verify
from codesign.passes.lowering import tile_module
from codesign.passes.memory import plan
from codesign.passes.schedule import tails
from codesign.passes.schedule.tails import Rounds
from codesign.passes.schedule.tuner import Tuner
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")


def test_a_tail_fills_the_last_round() -> None:
    """544 tiles of 128 x 128 on 132 multiprocessors: four rounds and an eighth of a fifth."""
    fusion = groups.gemm(2048, 4352, 8192, BF16)
    tuner = Tuner(H100)
    whole, found = tuner.tune(fusion, split=False), tuner.tune(fusion)
    assert found.cutting.tail is not None
    assert found.seconds < 0.99 * whole.seconds
    assert found.seconds == pytest.approx(sum(phase.tuned.seconds for phase in found.phases))
    limited = Tuner(H100)
    assert limited.price(fusion, 0.9 * found.seconds) >= 0.9 * found.seconds
    assert limited.price(fusion, 1.01 * found.seconds) == pytest.approx(found.seconds), (
        "fusion sees what the tuner does"
    )


@pytest.mark.parametrize("shape", [(2048, 4352, 8192), (1024, 4224, 4096), (2048, 6144, 4096)])
def test_a_tail_is_found_as_if_every_number_of_parts_were_priced(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fusion, offers = groups.gemm(*shape, BF16), tails._offers
    ordered = Tuner(H100).tune(fusion)
    # whatever one of them takes, nothing is expected of the others then
    monkeypatch.setattr(tails, "_offers", lambda *given: [(-math.inf, cutting) for _, cutting in offers(*given)])
    every = Tuner(H100).tune(fusion)
    assert ordered.cutting.tail == every.cutting.tail
    assert ordered.seconds == pytest.approx(
        every.seconds, rel=1e-3
    )  # one part more or less, of which next to nothing hangs


def test_both_launches_write_one_tensor() -> None:
    fusion = groups.gemm(2048, 4352, 8192, BF16)
    module = Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})
    kernels = tile_module(module, Tuner(H100))
    verify(module)
    made, first, second = module.main.body.ops
    assert (made.opcode, len(kernels)) == ("empty", 2)
    assert isinstance(first, Launch)
    assert isinstance(second, Launch)
    aliases = plan(module.main, {}, module.kernels).aliases
    assert aliases[first.results[0]] is made.results[0]
    assert aliases[second.results[0]] is first.results[0]


@pytest.mark.parametrize("shape", [(4096, 4096, 4096), (1024, 4224, 4096), (128, 128, 512)])
def test_no_tail_where_it_gains_nothing(shape: tuple[int, int, int]) -> None:
    """Rounds that are nearly full, as full as can be, and a grid that fills less than one."""
    found = Tuner(H100).tune(groups.gemm(*shape, BF16))
    assert found.cutting.tail is None


def test_time_of_rounds_with_programs_in_parts() -> None:
    rounds = Rounds(programs=10, slots=4)
    assert rounds.whole == 8
    assert rounds.least == pytest.approx(2.5 / 3)
    assert rounds.share(2, 2) == pytest.approx(2.5 / 3), "4 halves in half a round"
    assert rounds.share(2, 3) == pytest.approx((2 + 2 / 3) / 3), "6 thirds in two turns of a third"
    assert rounds.share(4, 2) == pytest.approx(2.5 / 3), "two of the four fit into the second round"
