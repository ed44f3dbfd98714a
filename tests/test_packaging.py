"""The checkout, the wheel and the version agree about what `codesign` is."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import codesign

ROOMS = ("ir", "costmodel", "passes", "frontend", "backends")


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_reached_through_the_package(root_dir: Path, room: str) -> None:
    assert (root_dir / "codesign" / room).resolve() == root_dir / room
    assert (root_dir / room / "__init__.py").is_file()


def test_version_is_one_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", codesign.__version__)


def test_checkout_without_links(root_dir: Path, tmp_path: Path) -> None:
    """Where links were not kept, the rooms are found beside the package."""
    (tmp_path / "codesign").mkdir()
    shutil.copy(root_dir / "codesign" / "__init__.py", tmp_path / "codesign")
    for room in ROOMS:
        (tmp_path / "codesign" / room).write_text(f"../{room}")  # what git writes when it can't make a link
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"NAME = {room!r}\n")
    (tmp_path / "costmodel" / "generators.py").write_text("def register(*_, **__): pass\n")  # the package's own table
    imports = "; ".join(f"import codesign.{room}; print(codesign.{room}.NAME)" for room in ROOMS)
    result = subprocess.run(
        [sys.executable, "-c", imports], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.split() == list(ROOMS), result.stderr


@pytest.mark.slow
def test_wheel_is_one_package_of_real_files(root_dir: Path, tmp_path: Path) -> None:
    """The wheel holds `codesign/` only, each room's modules and data under it, and imports away from the checkout."""
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(root_dir, source, symlinks=True, ignore=ignore)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)],
        check=True,
        timeout=600,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("codesign-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    tops = {name.split("/")[0] for name in names}
    assert tops == {"codesign", f"codesign-{codesign.__version__}.dist-info"}
    for room in ROOMS:
        wanted = [p for p in (root_dir / room).rglob("*") if p.suffix in {".py", ".toml", ".lark"}]
        missing = {f"codesign/{p.relative_to(root_dir).as_posix()}" for p in wanted} - names
        assert not missing
    script = "import codesign, codesign.ir; print(codesign.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "installed",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).parent == tmp_path / "installed" / "codesign"
