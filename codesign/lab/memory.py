"""Memory of arrays that a study lets go of stays the process's, for the next ones."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 1 << 29
LARGEST_BYTES = 1 << 25
"""The largest block that glibc takes from what it keeps."""


@cache
def keep_freed_memory() -> bool:
    """Ask the C library not to give freed memory back at once: each batch of prices takes as much again, and the system's zeroing of its pages
    takes about a tenth of the time that the prices do. Returns whether it was asked, as glibc can be."""
    if not sys.platform.startswith("linux"):
        return False
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    return (
        option is not None
        and bool(option(_TRIM_THRESHOLD, KEPT_BYTES))
        and bool(option(_MMAP_THRESHOLD, LARGEST_BYTES))
    )
