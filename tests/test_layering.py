"""Who may import whom: the contracts in pyproject.toml hold, and they would notice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("ir", "costmodel", "passes", "frontend", "backends")


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    return subprocess.run(
        [*command, "--no-logo", "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_contracts_hold(root_dir: Path) -> None:
    result = _lint_imports(root_dir)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("ir/wrong.py", "import codesign.passes", "codesign.ir is not allowed to import codesign.passes"),
        ("ir/wrong.py", "import torch", "codesign.ir is not allowed to import torch"),
        ("costmodel/wrong.py", "import triton", "codesign.costmodel is not allowed to import triton"),
        ("passes/wrong.py", "from torch import fx", "codesign.passes is not allowed to import torch"),
        ("passes/wrong.py", "import codesign.backends", "codesign.passes is not allowed to import codesign.backends"),
        ("backends/wrong.py", "from codesign import __version__", "not allowed to import codesign:"),
        ("codesign/wrong.py", "import codesign.ir", "not listed as layers"),
    ],
)
def test_contracts_notice(root_dir: Path, tmp_path: Path, module: str, line: str, complaint: str) -> None:
    """A copy of the house with empty rooms passes, and fails once a module imports what it must not."""
    shutil.copy(root_dir / "pyproject.toml", tmp_path)
    (tmp_path / "codesign").mkdir()
    shutil.copy(root_dir / "codesign" / "__init__.py", tmp_path / "codesign")
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
        (tmp_path / "codesign" / room).symlink_to(Path("..") / room)
    (tmp_path / module).write_text(line + "\n")
    result = _lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert complaint in " ".join(result.stdout.split())


def test_language_and_cost_models_load_no_torch() -> None:
    """What the linter reads off the source also holds when the packages are imported."""
    script = (
        "import sys, codesign.ir, codesign.costmodel; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'triton'}))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
