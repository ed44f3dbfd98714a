"""The default pipeline from a captured module to fusion groups."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.ir.core import Module
from codesign.passes.context import Context
from codesign.passes.manager import Observer, PassManager, Timing, parse_pipeline

CLEAN_UP = "canonicalize,constant-fold,fold-views,canonicalize,cse,dce"
"""Passes that make equal things look equal and needless things vanish."""

DEFAULT = f"{CLEAN_UP},fuse"
"""What `optimize` runs: clean-up, then fusion."""


def optimize(
    module: Module,
    context: Context | None = None,
    *,
    pipeline: str = DEFAULT,
    observers: Sequence[Observer] = (),
    timings: list[Timing] | None = None,
) -> Module:
    """The module after the default pipeline; the given one is not changed. `timings` receives one entry per pass."""
    manager = PassManager(parse_pipeline(pipeline), observers)
    result = manager.run(module, context)
    if timings is not None:
        timings.extend(manager.timings)
    return result
