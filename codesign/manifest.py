"""Which files of an output folder are a run's own, so that the next run into the same folder can take them away again.

`.codesign-files.json` names each file with a digest of what was written. A file that was changed since belongs to whoever changed it, and a
name that leads out of the folder is nobody's: both stay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from codesign.command import write_text

NAME = ".codesign-files.json"


def settle(folder: Path, written: Iterable[Path]) -> list[Path]:
    """Remove what an earlier run left in the folder and this one did not write again, and record this run's files; what was removed."""
    now = _digests(folder, written)
    removed = []
    for name, digest in _recorded(folder).items():
        path = folder / name
        if name in now or not _inside(path, folder) or path.is_symlink() or not path.is_file():
            continue
        if _digest(path) == digest:
            path.unlink()
            removed.append(path)
            _remove_empty(path.parent, folder)
    _record(folder, now)
    return removed


def claim(folder: Path, written: Iterable[Path]) -> None:
    """Record files of a run that still goes on: where it is stopped before it settles, the next one takes them away, too."""
    _record(folder, {**_recorded(folder), **_digests(folder, written)})


def _digests(folder: Path, written: Iterable[Path]) -> dict[str, str]:
    return {path.resolve().relative_to(folder.resolve()).as_posix(): _digest(path) for path in written}


def _record(folder: Path, digests: dict[str, str]) -> None:
    write_text(folder / NAME, json.dumps(digests, indent=1, sort_keys=True) + "\n")


def _recorded(folder: Path) -> dict[str, str]:
    try:
        data = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {k: v for k, v in data.items() if isinstance(v, str) and k} if isinstance(data, dict) else {}


def _inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _remove_empty(place: Path, folder: Path) -> None:
    """Folders that have nothing in them any more, up to the output folder."""
    while place.resolve() != folder.resolve() and not any(place.iterdir()):
        place.rmdir()
        place = place.parent


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
