"""Machines that are described for mapping only, as other tools describe them: their levels and what may be staged there, and no more."""

from __future__ import annotations

from pathlib import Path


def described() -> dict[str, Path]:
    """The files by name."""
    return {path.stem: path for path in sorted(Path(__file__).resolve().parent.glob("*.toml"))}
