"""What a cost model reads from a summary, and what the tile kernel of the same schedule does when walked, are the same counts."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.costmodel.gpu.geometry import geometry, work
from codesign.costmodel.summary import summarize
from codesign.ir.dtypes import F16, F32
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower
from codesign.passes.tiling.count import count
from tests.passes.tiling import groups

CASES = [
    ("gemm", groups.gemm(256, 128, 512), Schedule({"i": 64, "j": 32, "k": 64})),
    (
        "gemm, whole sum at once",
        groups.gemm(256, 128, 64),
        Schedule({"i": 64, "j": 32, "k": 64}, reduce={"k": "resident"}),
    ),
    ("batched gemm", groups.gemm(64, 128, 256, batch=4), Schedule({"i": 64, "j": 64, "k": 32})),
    ("softmax over steps", groups.softmax(64, 1024), Schedule({"i": 4, "j": 128})),
    ("softmax of whole rows", groups.softmax(64, 1024), Schedule({"i": 4}, reduce={"j": "resident"})),
    ("layer norm over steps", groups.layer_norm(64, 1024), Schedule({"i": 2, "j": 256})),
    ("layer norm of whole rows", groups.layer_norm(64, 1024), Schedule({"i": 2}, reduce={"j": "resident"})),
    ("element-wise", groups.element_wise(64, 256), Schedule({"d0_d1": 1024})),
    ("element-wise with a shared vector", groups.element_wise(64, 256, shared=True), Schedule({"d0": 8, "d1": 128})),
    ("transposed", groups.element_wise(64, 256, permuted=True), Schedule({"d0": 32, "d1": 32})),
    ("sum", groups.reduction(64, 2048, "sum", F32), Schedule({"i": 4, "j": 256})),
    ("matrix-vector", groups.gemm(1, 256, 1024, F16), Schedule({"j": 16, "k": 128})),
]


@pytest.mark.parametrize(("fusion", "schedule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_summary_predicts_what_the_kernel_does(fusion: Fusion, schedule: Schedule) -> None:
    form = normalize(fusion)
    walked = count(lower(form.fusion, schedule, outputs=form.outputs))
    summary = summarize(form.fusion)
    knobs = {k: np.asarray(v, dtype=np.float64) for k, v in ScheduleBatch.of([schedule]).columns.items()}
    predicted = work(summary, geometry(summary, knobs, {}))
    assert float(np.squeeze(predicted.load_bytes)) == walked.load_bytes
    assert float(np.squeeze(predicted.store_bytes)) == walked.store_bytes
    products = sum(float(np.squeeze(v)) for v in predicted.tensor.values())
    assert products == sum(walked.dot.values())
    assert float(np.squeeze(predicted.special)) == walked.unit("special")
    # the walk also sees the lanes of accumulators being folded once, after a loop
    vector = float(np.squeeze(predicted.vector)) + float(np.squeeze(predicted.integer))
    assert vector == pytest.approx(walked.unit("fma", "alu"), rel=0.15)


def test_counts_follow_from_the_sizes() -> None:
    kernel = lower(groups.gemm(256, 128, 512), Schedule({"i": 64, "j": 32, "k": 64}))
    found = count(kernel)
    assert found.dot == {"f16": 64 * 32 * 512}
    assert found.load_bytes == (64 * 512 + 32 * 512 + 32) * 2
    assert found.store_bytes == 64 * 32 * 2
