"""The script that measures suggested products: what it does where there is no GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


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
