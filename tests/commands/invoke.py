"""Commands run as `python -m codesign.NAME` runs them: in a process of their own, or in this one, which spares importing torch again."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]


def in_a_process(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", f"codesign.{module}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def run(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same from its entry point to its exit status, in this process."""
    main = importlib.import_module(f"codesign.{module}").main
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"codesign.{module}", *arguments]),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
    return subprocess.CompletedProcess([module, *arguments], status, out.getvalue(), err.getvalue())
