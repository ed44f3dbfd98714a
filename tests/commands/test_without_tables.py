"""A plain installation, without what reads and draws tables: everything else works, and what needs them says which extra to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.invoke import ROOT, run

EXTRA = ("pandas", "pyarrow", "matplotlib")

PLAIN = f"""
import runpy, sys

class Plain:
    # the finders that there are, which find none of these
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {EXTRA} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Plain(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""

MODEL = """
import torch

model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU())
example_inputs = (torch.randn(4, 16),)
"""


def test_a_model_compiles(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "plain.py").write_text(PLAIN.replace("sys.argv[1]", "'codesign.compile'"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "plain.py", "model.py", "--no-kernels", "--no-verify"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "relu" in done.stdout


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        (("validate", "table.csv", "--machine", "a100_sxm"), "pandas"),
        (("validate", "table.parquet", "--machine", "a100_sxm"), "pyarrow"),
        (("validate", "table.csv", "--machine", "a100_sxm", "--plot"), "matplotlib"),
        (("calibrate", "--machine", "a100_sxm", "--table", "table.csv"), "pandas"),
        (("ladder", "--machine", "a100_sxm", "--table", "table.csv", "--kernels", "add.64"), "pandas"),
    ],
)
def test_a_command_that_reads_a_table_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], absent: str
) -> None:
    (tmp_path / command[1]).write_text("m,n,k,seconds\n8,8,8,1e-6\n")
    monkeypatch.setitem(sys.modules, absent, None)
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{absent} is not installed" in done.stderr
    assert 'pip install "codesign[tables]"' in done.stderr
    assert "Traceback" not in done.stderr
