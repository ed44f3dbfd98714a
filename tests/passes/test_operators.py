"""PyTorch's own operator samples through clean-up, eager fusion and tiling, against eager torch.

Fusion is priced so that every legal merge happens: what is tested is legality, not taste. A slice by default; the whole with
`-m conformance`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from codesign.costmodel.machine import load_machine
from codesign.frontend import conformance
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.verify import verify
from codesign.passes import Context, optimize
from codesign.passes.lowering import tile_module
from codesign.passes.schedule.tuner import Tuner
from tests.frontend.test_op_db import NAMES

SLICE = [
    *(
        "cat",
        "nn.functional.pad",
        "roll",
        "tril",
        "repeat",
        "index_put",
        "gather",
        "softmax",
        "nn.functional.layer_norm",
    ),
    *("var_mean", "argmax", "addmm", "nn.functional.conv2d", "nn.functional.max_pool2d", "cumsum", "topk", "eye"),
]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Makes the conformance checks run what the passes make of each module; counts the modules that were run."""
    count = 0

    def run(module: Module, inputs: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        fused = optimize(module, Context(pricer=lambda fusion: 1.0))
        verify(fused)
        tile_module(fused, Tuner(load_machine("h100_sxm"), bounds=fused.bounds()))
        verify(fused)
        return evaluate(fused, inputs, **options)

    monkeypatch.setattr(conformance, "evaluate", run)
    return lambda: count


def _check(name: str, dtypes: tuple[torch.dtype, ...], limit: int | None) -> None:
    tallies = [conformance.check_operator(info, dtypes, limit=limit) for info in conformance.operators([name])]
    for status in ("failed", "crashed"):
        assert not any(tally.counts[status] for tally in tallies), conformance.table(tallies)


@pytest.mark.parametrize("name", SLICE)
def test_slice(name: str, compiled: Callable[[], int]) -> None:
    _check(name, (torch.float32,), 1)
    assert compiled() > 0


@pytest.mark.slow
@pytest.mark.conformance
@pytest.mark.parametrize("name", NAMES)
def test_families(name: str, compiled: Callable[[], int]) -> None:
    _check(name, (torch.float32, torch.int64, torch.bfloat16), 3)
