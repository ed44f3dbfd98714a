"""What commands import at length is kept from Python's collector, which goes on with what is made afterwards."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from codesign.command import importing
with importing():
    assert not gc.isenabled()
    import asyncio
assert gc.isenabled()
before = gc.get_freeze_count()
assert before > 1_000, before
with importing():
    import asyncio
assert gc.get_freeze_count() == before
class Ring: pass
ring = Ring(); ring.itself = ring; alive = weakref.ref(ring); del ring
gc.collect()
assert alive() is None
"""


def test_what_imports_make_is_frozen_once_and_later_rings_are_collected() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
