"""Models at the sizes that people run: the committed rows, and one of them captured and costed again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[2]
GIGABYTES = 4.0
"""That capturing and costing a model may take, whatever its size."""


def test_committed_rows_are_possible_and_within_the_memory() -> None:
    from benchmarks.zoo import LARGEST_SHARE

    rows = json.loads((ROOT / "benchmarks" / "results" / "real_sizes.json").read_text())
    assert rows
    for row in rows:
        assert row["peak_gigabytes"] < GIGABYTES, row["name"]
        assert not row["impossible"], row["name"]
        assert all(share <= LARGEST_SHARE for share in row["calls"].values()), row["name"]


@pytest.mark.slow
def test_a_model_without_weights_is_costed_in_a_process_of_its_own() -> None:
    pytest.importorskip("diffusers")
    from benchmarks.real_sizes import row_of

    row = row_of("whisper_large_v3", "h100_sxm")
    assert row["kernels"]
    assert not row["impossible"]
    assert row["milliseconds"] > 2 * row["parameters"] / 3.35e12 * 1e3  # bytes of the weights at the memory's rate
