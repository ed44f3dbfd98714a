"""What the tile model prices is what a program's text does, counted step by step."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from codesign.costmodel.gpu.block import block_work, code_of
from codesign.costmodel.gpu.done import work_of
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.gpu.phases import parts_of
from codesign.costmodel.gpu.slots import slots_of
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.performed import performed
from codesign.costmodel.summary import summarize
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.template import instantiate
from codesign.ir.tiling.templates import template
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from tests.costmodel import groups as singles
from tests.costmodel.counting import count
from tests.costmodel.test_features import GROUPS, by_dim
from tests.passes.tiling import groups

MACHINE = load_machine("h100_sxm")
EACH = 12
SUMS = ("vector", "special", "integer", "ieee", "load_bytes", "store_bytes", "barriers", "first_trips", "again_trips")
ONE_THREAD = 1.0 / 32.0
"""Warps of a block that has as many threads as lanes are asked for at the least."""


@pytest.mark.parametrize("name", GROUPS)
def test_work_is_what_each_kernel_does(name: str) -> None:
    form = normalize(GROUPS[name])
    summary = summarize(form.fusion)
    offered = space(summary, MACHINE)
    batch = offered.batch(offered.sample(EACH, np.random.default_rng(7)))
    for schedule in (batch.row(row) for row in range(len(batch))):
        made, sizes = template(form.fusion, schedule, outputs=form.outputs)
        wanted = count(instantiate(made, sizes, schedule))
        which, plain = performed(summary, schedule)
        knobs = {key: column.astype(np.float64) for key, column in knob_columns(ScheduleBatch.of([plain])).items()}
        program, tiles = code_of(which, geometry(which, knobs, {}), MACHINE, {**knobs, "warps": np.array([ONE_THREAD])})
        work = work_of(program, tiles, 1.0)
        slots: defaultdict[str, float] = defaultdict(float)
        for (unit, dtype), number in wanted.slots.items():
            who, each = slots_of(unit, dtype, float(number))
            slots[who] += each
        alone = {m.factors.operand.name for m in program.multiplies.values() if m.factors.ieee}
        element_wise = sum(wanted.products[dtype] for dtype in alone)
        sums = float(np.squeeze(work.ieee)) - element_wise  # of products, each of which the text multiplies and adds
        assert float(np.squeeze(work.vector)) + 2.0 * sums == pytest.approx(slots["vector"], rel=1e-9)
        assert float(np.squeeze(work.special)) == pytest.approx(slots["special"], rel=1e-9)
        assert float(np.squeeze(work.integer)) == pytest.approx(slots["integer"], rel=1e-9)
        assert float(np.squeeze(work.barriers)) == pytest.approx(wanted.reductions, rel=1e-9)
        products = sum(
            tiles.elements((m.rows, m.columns, m.depth)) * tiles.trips(m.around) for m in program.multiplies.values()
        )
        assert float(np.squeeze(products)) == pytest.approx(sum(wanted.products.values()), rel=1e-9)
        moved: defaultdict[str, float] = defaultdict(float)
        for transfer, times in program.moves:
            lanes = tiles.elements(transfer.access.dims) * tiles.trips(transfer.around) * times
            moved[transfer.kind] += float(np.squeeze(lanes)) * transfer.access.dtype.bytes
        assert moved == pytest.approx(wanted.moved, rel=1e-9)
        steps: defaultdict[str, float] = defaultdict(float)
        for loops in program.loops.values():
            steps[loops[-1][0]] += float(np.squeeze(tiles.trips(loops)))
        assert steps == pytest.approx(by_dim(made, wanted.trips), rel=1e-9)
        parts = [work_of(part, tiles, 1.0, phases=[phase]) for phase, part in parts_of(program)]
        for whole in SUMS:  # the parts of a block are all of it, and nothing twice
            together = sum(float(np.squeeze(getattr(part, whole))) for part in parts)
            assert together == pytest.approx(float(np.squeeze(getattr(work, whole))), rel=1e-9), whole


def test_a_batch_of_several_texts_is_priced_as_each_of_its_schedules() -> None:
    summary = summarize(groups.softmax(64, 1000))
    offered = space(summary, MACHINE)
    batch = offered.batch(offered.sample(24, np.random.default_rng(3)))
    some = [batch.row(row) for row in range(len(batch)) if "fold" not in batch.row(row).reduce.values()]
    columns = {key: column.astype(np.float64) for key, column in knob_columns(ScheduleBatch.of(some)).items()}
    together, held = block_work(summary, geometry(summary, columns, {}), MACHINE, columns)
    assert held is not None
    for row in range(len(some)):
        alone = {key: column[[row if len(column) > 1 else 0]] for key, column in columns.items()}
        one, own = block_work(summary, geometry(summary, alone, {}), MACHINE, alone)
        assert own is not None
        for name in ("vector", "integer", "special", "load_bytes", "trips", "barriers", "request_clocks"):
            every = np.broadcast_to(getattr(together, name), (len(some),))
            assert every[row] == pytest.approx(float(np.squeeze(getattr(one, name))))
        assert np.broadcast_to(held.registers, (len(some),))[row] == pytest.approx(float(np.squeeze(own.registers)))
        assert np.broadcast_to(held.shared_bytes, (len(some),))[row] == float(np.squeeze(own.shared_bytes))


def test_a_schedule_without_a_text_says_why() -> None:
    summary = summarize(groups.softmax(4, 1 << 21))
    schedules = ScheduleBatch.of(
        [Schedule({"i": 1}, reduce={"j": "resident"}), Schedule({"i": 1, "j": 1024}, reduce={"j": "looped"})]
    )
    cost = cost_model_for(MACHINE).predict(summary, MACHINE, schedules)
    assert "lanes, limit" in cost.reason[0]
    assert np.isinf(cost.seconds[0])
    assert np.isfinite(cost.seconds[1])


def test_a_reduction_of_positions_alone_waits_for_no_loop() -> None:
    """Which rows have a block that has ended: nothing that it reads is data."""
    ended = "%a = compute bool[i: 64] any(j: 32) { j * 4 + 3 < i }"
    fusion = singles.group("%x: f32[64]", ended, "%y = compute f32[i: 64] { select(%a[i], %x[i], 0.0) }")
    assert singles.best(fusion).seconds > 0
