"""Arrays of a file, whoever wrote it."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

UNREADABLE = (
    ArithmeticError,
    AttributeError,  # of what is an array and no archive of them
    EOFError,
    LookupError,
    MemoryError,  # of a shape that was damaged
    OSError,
    RuntimeError,  # encrypted, packed in a way that is not known here, or nested too deep
    TypeError,
    ValueError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading an archive raises where it is damaged or none."""


def read_arrays(source: Path | IO[bytes]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz by name; ValueError says why it is none, FileNotFoundError that there is no such file. Nothing in it is executed."""
    try:
        with np.load(source, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise ValueError(f"not an .npz of arrays: {error or type(error).__name__}") from error
