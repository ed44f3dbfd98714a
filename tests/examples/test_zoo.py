"""The zoo's committed results, and a few of its architectures run again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
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
@pytest.mark.parametrize("name", ["graph_attention", "dlrm", "latent_attention", "llama_token", "mlp_mixer_training"])
def test_an_architecture_holds(name: str, target: str) -> None:
    bench = zoo()
    pytest.importorskip("diffusers")
    (row,) = bench.rows([name], [target], 600)
    assert row["ok"], row["notes"]
