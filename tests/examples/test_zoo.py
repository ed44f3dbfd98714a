"""The zoo's committed results, and a few of its architectures run again."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")
ROOT = Path(__file__).resolve().parents[2]


def zoo() -> Any:
    specification = importlib.util.spec_from_file_location("zoo", ROOT / "benchmarks" / "zoo.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_what_is_committed_holds_for_what_there_is() -> None:
    """Every row that claims to hold says on which inputs, and no call in it takes more than it may."""
    bench = zoo()
    rows = json.loads(bench.RESULTS.read_text())
    for row in rows:
        if row["ok"]:
            assert row["inputs"]
            assert all(share <= bench.LARGEST_SHARE for share in row["calls"].values())
        else:
            assert row["notes"]
    assert not [row["name"] for row in rows if not row["ok"]]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["h100_sxm", "maia100"])
@pytest.mark.parametrize(
    "name", ["graph_attention", "dlrm", "latent_attention", "llama_token", "mlp_mixer_training", "tree_check"]
)
def test_an_architecture_holds(name: str, target: str) -> None:
    bench = zoo()
    pytest.importorskip("diffusers")
    (row,) = bench.rows([name], [target], 600)
    assert row["ok"], row["notes"]


@dataclass(frozen=True)
class Priced:
    """What of a kernel's report says whether its price is possible."""

    name: str
    seconds: float
    roofline_seconds: float


@pytest.mark.parametrize(
    ("seconds", "least", "possible"),
    [(2e-6, 2e-6, True), (3e-6, 2e-6, True), (1.9e-6, 2e-6, False), (float("nan"), 2e-6, False), (2e-6, 0.0, False)],
)
def test_a_price_below_what_bytes_and_operations_take_is_found(seconds: float, least: float, possible: bool) -> None:
    """Also one that is no number, and a kernel of which nobody knows the least."""
    document = SimpleNamespace(kernels=[Priced("right", 1.0, 0.5), Priced("doubtful", seconds, least)])
    found = zoo().impossible(document)
    assert [line.partition(":")[0] for line in found] == ([] if possible else ["doubtful"])
