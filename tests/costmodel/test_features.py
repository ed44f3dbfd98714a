"""Features of templates: exactly what each of their kernels does, counted step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codesign.costmodel.features import Features, features
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.dtypes import BF16, F32
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.template import Template, instantiate
from codesign.ir.tiling.templates import template
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from tests.costmodel import groups as singles
from tests.costmodel.counting import count
from tests.passes.tiling import groups

GROUPS = {
    "product": groups.gemm(96, 64, 200),
    "batched product": groups.gemm(48, 64, 80, BF16, batch=3),
    "matrix-vector": groups.gemm(1, 256, 300),
    "integer product": groups.integer_product(40, 64, 96),
    "softmax": groups.softmax(24, 300),
    "causal softmax": groups.softmax(24, 64, causal=True),
    "layer norm": groups.layer_norm(16, 100),
    "sum": groups.reduction(20, 70, "sum", over_rows=True),
    "arg-reduction": groups.reduction(20, 70, "argmax"),
    "element-wise": groups.element_wise(30, 20, 8),
    "transposed": groups.element_wise(30, 40, permuted=True),
    "shared vector": groups.element_wise(30, 40, shared=True),
    "convolution": groups.convolution(2, 8, 9, 16, 3, 1, 1),
    "strided convolution": groups.convolution(1, 3, 14, 16, 5, 2, 2),
    "window": groups.max_pool(2, 3, 11, 3, 2),
    "gather": groups.embedding(20, 30, 24),
    "pad": groups.padded(12, 20, 3),
    "attention": groups.attention(2, 32, 64, 16),
    "causal attention": groups.attention(2, 64, 64, 16, groups.below()),
    "triangular product": groups.masked_product(64, 32, 96, groups.below("k")),
}
MACHINES = {name: load_machine(name) for name in ("h100_sxm", "maia100")}
EACH = 15
"""Schedules a group and machine: 540 in all."""


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", GROUPS)
def test_features_are_what_each_kernel_does(name: str, machine: str) -> None:
    form = normalize(GROUPS[name])
    offered = space(summarize(form.fusion), MACHINES[machine])
    batch = offered.batch(offered.sample(EACH, np.random.default_rng(11)))
    known: dict[object, Features] = {}
    for schedule in (batch.row(row) for row in range(len(batch))):
        made, sizes = template(form.fusion, schedule, outputs=form.outputs)
        found = known.setdefault(made.structure, features(made.kernel)).at(sizes)
        kernel = instantiate(made, sizes, schedule)
        wanted = count(kernel)
        moved = (wanted.moved["load"], wanted.moved["store"])
        assert (found.load_bytes, found.store_bytes) == pytest.approx(moved, rel=1e-12)
        assert found.products == pytest.approx(wanted.products, rel=1e-12)
        assert {key: value for key, value in found.slots.items() if value} == pytest.approx(wanted.slots, rel=1e-12)
        steps = by_dim(made, found.trips)
        assert steps == pytest.approx(by_dim(made, wanted.trips), rel=1e-12)
        assert (found.masks, found.reductions) == (wanted.masks, wanted.reductions)
        assert found.live_bytes == wanted.live_bytes
        assert found.programs == np.prod([dim.extent.constant for dim in kernel.grid])
        again = features(kernel).at({})
        assert replace(found, trips=steps) == replace(again, trips=by_dim(made, again.trips))


def by_dim(made: Template, trips: Mapping[str, float]) -> dict[str, float]:
    """Steps along each dim, those of all stretches of a loop together: which of them are one loop depends on the tiles' sizes."""
    found: dict[str, float] = {}
    for variable, steps in trips.items():
        found[made.along[variable]] = found.get(made.along[variable], 0) + steps
    return found


def test_a_batch_of_schedules_is_one_evaluation() -> None:
    made, _ = template(groups.gemm(256, 128, 512), Schedule({"i": 64, "j": 32, "k": 64}))
    found = features(made.kernel)
    tiles: dict[str, Any] = {
        "T_i": np.array([32, 64, 128]),
        "T_j": np.array([16, 32, 64]),
        "T_k": np.array([64, 32, 16]),
        "depth": 3,
    }
    work = found.at(tiles)
    np.testing.assert_array_equal(work.products["f16"], tiles["T_i"] * tiles["T_j"] * 512)
    np.testing.assert_array_equal(work.trips["kk"], [8, 16, 32])
    np.testing.assert_array_equal(work.programs, [64, 16, 4])
    for row in range(3):
        one = found.at({name: np.asarray(values).flat[row % np.size(values)] for name, values in tiles.items()})
        assert one.load_bytes == work.load_bytes[row]
        assert one.live_bytes == work.live_bytes[row]


def test_moves_say_who_shares_them_and_what_is_swept_again() -> None:
    made, sizes = template(groups.gemm(256, 128, 512), Schedule({"i": 64, "j": 32, "k": 64}))
    left, right, bias, out = features(made.kernel).moves
    assert (left.sharers, right.sharers, bias.sharers, out.sharers) == (("pj",), ("pi",), ("pi",), ())
    assert all(move.passes == 1 for move in (left, right, bias, out))
    made, sizes = template(groups.softmax(8, 4096), Schedule({"i": 1, "j": 64}))
    work = features(made.kernel).at(sizes)
    assert work.load_bytes == 3 * 4096 * 4  # the largest, the sum and the shares each sweep the row
    made, _ = template(groups.embedding(20, 30, 64), Schedule({"i": 4, "d": 16}, reduce={"d": "resident"}))
    gathers = [move for move in features(made.kernel).moves if move.gathers]
    assert len(gathers) == 1
    assert gathers[0].sharers == ()


def test_an_accumulator_is_held_once() -> None:
    made, sizes = template(groups.gemm(64, 64, 512, F32), Schedule({"i": 64, "j": 64, "k": 16}))
    held = features(made.kernel).at(sizes).live_bytes
    assert held == (64 * 64 + 2 * 64 * 16) * 4 + 64 * 64 * 4  # operands, the sum before and after a step


def test_what_an_expression_has_twice_is_done_once() -> None:
    """However the tree is built: of one object in two places, or of two that are equal; prices too."""
    shared = "let a = exp(%x[i, j]); let b = a + %r[i]; b * b + a"
    apart = "(exp(%x[i, j]) + %r[i]) * (exp(%x[i, j]) + %r[i]) + exp(%x[i, j])"
    schedule = Schedule({"i": 4, "j": 64})
    found, seconds = [], []
    for body in (shared, apart):
        fusion = singles.group("%x: f32[64, 256], %r: f32[64]", f"%y = compute f32[i: 64, j: 256] {{ {body} }}")
        made, sizes = template(fusion, schedule)
        found.append(features(made.kernel).at(sizes))
        seconds.append(
            float(
                cost_model_for(MACHINES["h100_sxm"])
                .predict(summarize(fusion), MACHINES["h100_sxm"], ScheduleBatch.of([schedule]))
                .seconds[0]
            )
        )
    assert found[0].slots == found[1].slots == {("special", "f32"): 256.0, ("fma", "f32"): 3 * 256.0}
    assert seconds[0] == seconds[1]
