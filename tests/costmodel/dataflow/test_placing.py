"""Where the model has a program's buffers, beside where the lowering puts them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.random_groups import KINDS, group_of
from codesign.backends.accelerator import lower
from codesign.costmodel.dataflow import DataflowModel
from codesign.costmodel.dataflow.buffers import Buffer
from codesign.costmodel.dataflow.placing import Lives, placed
from codesign.costmodel.dataflow.selection import Section
from codesign.costmodel.machine import load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.index import index
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower as tile


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("machine", ["maia200", "gemmini_16x16"])
def test_buffers_take_the_bytes_of_the_lowered_program(machine: str, kind: str) -> None:
    target, rng = load_machine(machine), np.random.default_rng(5)
    form = normalize(group_of(kind, rng))
    kernel = summarize(form.fusion)
    knobs = space(kernel, target)
    batch = knobs.batch(knobs.sample(40, rng))
    cost = DataflowModel().predict(kernel, target, batch)
    rows = np.flatnonzero(cost.reason == "")[:8]
    assert len(rows)
    for row in rows.tolist():
        program = lower(tile(form.fusion, batch.row(row), outputs=form.outputs), target)
        ends = [-(-item.end // 64) * 64 for item in program.scratches if item.level == "core"]
        assert cost.details["scratch_bytes"][row] == max(ends, default=0), batch.row(row)


def _random(rng: np.random.Generator) -> Buffer:
    loop = Section(span=(10, 30))
    found = Buffer(index(0))
    found.engines = set(rng.choice(["load", "tensor", "vector"], 2).tolist())
    found.paths = [(loop,) if rng.random() < 0.5 else ()]
    found.first = int(rng.integers(12, 28))
    found.last = found.first + int(rng.integers(0, 3))
    found.summed = bool(rng.random() < 0.4)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_python_without_a_compiler_places_alike_and_nothing_lies_on_what_lives_beside_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffers, count = [_random(rng) for _ in range(9)], 30
    sizes = [rng.integers(0, 2000, count) for _ in buffers]
    depth, core, array = rng.integers(1, 5, count), 12000, 1500
    found, same = (
        placed(Lives.of_buffers(buffers), sizes, depth, np.minimum(depth, 2), core, array, compiled=compiled)
        for compiled in (True, False)
    )
    for name in ("choice", "held", "place", "near", "whole"):
        assert getattr(found, name).tolist() == getattr(same, name).tolist(), name
    assert len(set(found.choice.tolist())) > 1
    for row in range(count):
        for first, one in enumerate(buffers):
            end = found.place[row, first] + found.whole[row, first]
            assert end <= (array if found.near[row, first] else found.held[row])
            for second, other in enumerate(buffers[:first]):
                if found.near[row, first] != found.near[row, second]:
                    continue
                beside = one.first <= other.last and other.first <= one.last
                start = found.place[row, second]
                apart = found.place[row, first] >= start + found.whole[row, second] or end <= start
                empty = not (found.whole[row, first] and found.whole[row, second])
                assert apart or empty or not beside
