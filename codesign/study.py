"""`python -m codesign.study`: policies against each other on kernels, machines and measured spaces; recorded, scored and drawn."""

from __future__ import annotations

from codesign import command
from codesign.lab.face import application

__all__ = ["application", "main"]


def main() -> None:
    """Entry point of the command."""
    command.run(application, name="python -m codesign.study")


if __name__ == "__main__":
    main()
