"""How often Python looks for cycles of objects that nothing holds any more."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MADE = 100_000
"""Objects made, less those let go of, after which the young ones are looked through: planning makes many small ones and keeps most."""


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Look through objects less often: each full search goes through the million that torch holds as well.

    It takes a tenth of the seconds of planning off a group norm and a convolution (`plan_module`), beside torch.
    """
    before = gc.get_threshold()
    if before[0] > 0:  # zero: its owner wants none
        gc.set_threshold(max(before[0], MADE), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
