"""Files that are kept between runs: what was chosen, and what each backend makes."""

from __future__ import annotations

import os
import secrets
import tempfile
from functools import cache
from pathlib import Path

import platformdirs


@cache
def cache_root() -> Path:
    """Where cached files lie: $CODESIGN_CACHE, else the user's cache folder, else a temporary one when that can't be written."""
    wish = os.environ.get("CODESIGN_CACHE")
    root = Path(wish) if wish else Path(platformdirs.user_cache_dir("codesign"))
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError:
        return Path(tempfile.mkdtemp(prefix="codesign-"))


def cache_folder(backend: str, name: str) -> Path:
    """A folder of a backend's in the cache, made if needed."""
    folder = cache_root() / backend / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def choices_file() -> Path:
    """The file of schedules and prices that earlier runs chose."""
    return cache_root() / "choices.sqlite"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that another process sees it whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as stream:  # unlike tempfile's, readable for whom the user's umask says
            stream.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
