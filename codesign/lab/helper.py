"""A process that helps with a study: `python -m codesign.lab.helper DATABASE STUDY`, started by `codesign.lab.crew`.

Its parent hands it who does the runs through the pipe, and a line whenever there are more runs.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from codesign import command
from codesign.ir.errors import CodesignError
from codesign.lab.database import Database
from codesign.lab.engine import Study


def main() -> int:
    """Help until the parent closes the pipe or is gone."""
    parent = os.getppid()
    path, name = sys.argv[1:]
    study = Study(name, pickle.load(sys.stdin.buffer), Database(Path(path)))
    try:
        while sys.stdin.buffer.readline():
            study.work(alive=lambda: os.getppid() == parent)
    except CodesignError as error:
        command.errors.print(error.one_line(), markup=False)
        return command.INPUT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
