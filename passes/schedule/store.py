"""Choices kept between runs: prices and schedules by the structure of a group, so that what was searched once is not searched again.

An SQLite file of plain JSON; nothing in it is ever executed. Rows belong to a space: a machine as its file says it, the policy and its
budget, the sizes costed at, and the sources of everything that takes part in a choice, so that none of them is ever mixed with another's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from codesign import costmodel, ir, passes

KEPT_DAYS = 30.0
"""Spaces that nobody asked for in so many days are dropped."""

_TABLES = """
CREATE TABLE IF NOT EXISTS spaces (space TEXT PRIMARY KEY, used REAL NOT NULL);
CREATE TABLE IF NOT EXISTS choices (space TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, data TEXT NOT NULL,
                                    PRIMARY KEY (space, kind, key)) WITHOUT ROWID;
"""


class Store:
    """The choices of one space, read once and written back by `flush`; a file that is damaged or can't be written is done without."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        text = json.dumps({"version": sources_version(), **facts}, sort_keys=True, default=str)
        self.space = hashlib.sha256(text.encode()).hexdigest()
        self._known: dict[tuple[str, str], str] = {}
        self._new: dict[tuple[str, str], Any] = {}
        self._in_file(self._read)

    def get(self, kind: str, key: str) -> Any:
        """What was kept, as plain data; None when nothing was, or nothing that can be read."""
        if (kind, key) in self._new:
            return self._new[kind, key]
        try:
            return json.loads(self._known.get((kind, key), "null"))
        except (ValueError, RecursionError):
            return None

    def put(self, kind: str, key: str, data: Any) -> None:
        """Keep plain data."""
        self._new[kind, key] = data

    def flush(self) -> None:
        """Write what is new."""
        if self._new:
            self._in_file(self._write)
            self._known.update({place: json.dumps(data) for place, data in self._new.items()})
            self._new.clear()

    def _read(self, base: sqlite3.Connection) -> None:
        rows = base.execute("SELECT kind, key, data FROM choices WHERE space = ?", (self.space,))
        self._known = {(str(kind), str(key)): str(data) for kind, key, data in rows}
        base.execute("UPDATE spaces SET used = ? WHERE space = ?", (time.time(), self.space))

    def _write(self, base: sqlite3.Connection) -> None:
        rows = [(self.space, kind, key, json.dumps(data)) for (kind, key), data in self._new.items()]
        base.executemany("INSERT OR REPLACE INTO choices VALUES (?, ?, ?, ?)", rows)
        base.execute("INSERT OR REPLACE INTO spaces VALUES (?, ?)", (self.space, time.time()))
        oldest = time.time() - KEPT_DAYS * 86400.0
        base.execute("DELETE FROM choices WHERE space IN (SELECT space FROM spaces WHERE used < ?)", (oldest,))
        base.execute("DELETE FROM spaces WHERE used < ?", (oldest,))

    def _in_file(self, action: Callable[[sqlite3.Connection], None]) -> None:
        """Do something in one transaction of the file; a damaged one is made anew the next time."""
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=10.0)) as base, base:
                base.executescript(_TABLES)
                action(base)
        except sqlite3.OperationalError:
            pass  # busy for too long, full, or not to be written: choices are made anew
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


@cache
def sources_version() -> str:
    """A digest of the sources and data that choices follow from."""
    digest = hashlib.sha256()
    for package in (ir, passes, costmodel):
        for folder in package.__path__:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    digest.update(path.relative_to(folder).as_posix().encode())
                    digest.update(path.read_bytes())
    return digest.hexdigest()
