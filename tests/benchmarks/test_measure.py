"""The script that measures suggested products: what it does where there is no GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import triton.testing

from codesign.costmodel.tables import read_table


@pytest.fixture(scope="module")
def measure(root_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", root_dir / "benchmarks" / "gpu" / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module
    spec.loader.exec_module(module)
    return module


def test_weights_are_taken_from_more_copies_than_l2_holds(measure: ModuleType) -> None:
    small, large = measure.Product("bf16", 16, 4096, 4096), measure.Product("bf16", 16, 16384, 16384)
    assert small.copies * 4096 * 4096 * 2 >= measure.LOST_BYTES
    assert large.copies == measure.COPIES
    assert large.device_bytes == 2 * (16 * 16384 + 5 * 16384**2) + 4 * 16 * 16384


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"m": "16", "n": "64"}, "m, n and k"),
        ({"m": "16", "n": "64", "k": "x"}, "m, n and k"),
        ({"m": "16", "n": "64", "k": "0"}, "sizes 1 or more"),
        ({"m": "16", "n": "64", "k": "64", "dtype": "i3"}, "dtypes are"),
    ],
)
def test_a_row_that_is_no_product_is_named(measure: ModuleType, row: dict[str, str], told: str) -> None:
    good = {"m": "16", "n": "64", "k": "64"}
    assert measure.products([good]) == [measure.Product("bf16", 16, 64, 64)]
    with pytest.raises(ValueError, match=f"row 2: .*{told}"):
        measure.products([good, row])


def test_a_plan_needs_no_gpu(root_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("machine,op,dtype,m,n,k,gain\nmine,gemm,bf16,16,4096,4096,0.1\n")
    script = [sys.executable, str(root_dir / "benchmarks" / "gpu" / "measure.py")]
    planned = subprocess.run(
        [*script, str(tmp_path / "some.csv"), "--plan"], capture_output=True, text=True, check=True
    )
    assert "16 x   4096 x   4096" in planned.stdout
    assert "1 products" in planned.stdout
    missing = subprocess.run(
        [*script, str(tmp_path / "none.csv"), "--plan"], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1


def test_a_table_is_measured_row_by_row(
    measure: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of the script but the clock: the products run on the CPU, and a timer of five milliseconds stands for the device's."""
    calls: list[torch.Tensor] = []

    def timed(call: Callable[[], list[torch.Tensor]], rep: int) -> float:
        calls[:] = call()
        if calls[0].shape[0] == 48:
            raise torch.OutOfMemoryError("out of memory\nmore of it")
        return 5.0

    monkeypatch.setattr(measure, "DEVICE", "cpu")
    monkeypatch.setattr(measure, "LOST_BYTES", 8 * 64 * 32)
    monkeypatch.setattr(triton.testing, "do_bench_cudagraph", timed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (tmp_path / "some.csv").write_text(
        "machine,m,n,k,dtype\nmine,16,64,32,bf16\nmine,16,64,32,f32\nmine,16,64,32,f8e4m3\nmine,48,64,32,f16\n"
    )
    monkeypatch.setattr(sys, "argv", ["measure.py", str(tmp_path / "some.csv"), "-o", str(tmp_path / "mine.csv")])
    assert measure.main() == 0
    assert "out of memory" in capsys.readouterr().err
    found = read_table(tmp_path / "mine.csv")
    assert found.seconds.round(7).tolist()[:3] == [0.005 / 5, 0.005 / 5, 0.005 / 8]
    assert found.seconds.isna().tolist() == [False, False, False, True]
    assert set(found.machine) == {"mine"}
    assert found.spread[0] == 0.0


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "f8e4m3"])
def test_a_call_multiplies_by_each_copy_of_the_weights(
    measure: ModuleType, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "DEVICE", "cpu")
    monkeypatch.setattr(measure, "LOST_BYTES", 1)
    drawn: list[torch.Tensor] = []
    random = torch.randn

    def remembered(*shape: int, **options: Any) -> torch.Tensor:
        drawn.append(random(*shape, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn", remembered)
    results = measure.call_of(measure.Product(dtype, 16, 64, 32))()
    assert len(results) == measure.COPIES
    x, *weights = [tensor / 8 for tensor in drawn]
    assert len(weights) == measure.COPIES
    torch.testing.assert_close(results[-1].float(), x @ weights[-1].t(), rtol=0.1, atol=0.02)
