"""The default pipeline from a captured module to fusion groups."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.ir.core import Module
from codesign.passes.context import Context
from codesign.passes.manager import Observer, Pass, PassManager, PipelineError, Timing, make_pass, parse_pipeline

CLEAN_UP = (
    "draws,settle-writes,canonicalize,constant-fold,orders,fold-views,canonicalize,periods,cse,dce,sparse-writes,narrow,"
    "nest-reductions,masked-reads"
)
"""Passes that make equal things look equal and needless things vanish; scans that no data enters are known before any becomes a reduction."""

DEFAULT = f"{CLEAN_UP},precision,streams,fuse"
"""What `optimize` runs: clean-up, products as the machine does them, draws as equal layers share them, then fusion."""

TIDY = "draws,canonicalize,cse,dce"
"""What runs after passes of the user's, which need not leave the form that fusion looks for."""


def compilation(own: Sequence[Pass] = (), fusion: str = "greedy", explain: bool = False) -> list[Pass]:
    """Clean-up, the user's own passes with what tidies up after them, products as the machine does them, draws as equal layers
    share them, and fusion by a policy; `explain` leaves in the context why each producer and consumer are together or apart."""
    tidy = parse_pipeline(TIDY) if own else []
    return [
        *parse_pipeline(CLEAN_UP),
        *own,
        *tidy,
        make_pass("precision"),
        make_pass("streams"),
        make_pass("fuse", policy=fusion, explain=explain),
    ]


def own_passes(text: str) -> list[Pass]:
    """Passes for `compilation` from a pipeline's text; PipelineError for one that belongs after fusion or is fusion."""
    passes = parse_pipeline(text)
    for one in passes:
        if one.after_fusion:
            hint = "name passes on unfused tensor operations; --fusion and --policy choose how to fuse and schedule"
            column = max(text.find(one.name), 0) + 1
            raise PipelineError(f"{one.name} has its own place in a compilation", column=column, hint=hint)
    return passes


def optimize(
    module: Module,
    context: Context | None = None,
    *,
    pipeline: str | Sequence[Pass] = DEFAULT,
    observers: Sequence[Observer] = (),
    timings: list[Timing] | None = None,
) -> Module:
    """The module after a pipeline; the given one is not changed. `timings` receives one entry per pass."""
    manager = PassManager(parse_pipeline(pipeline) if isinstance(pipeline, str) else pipeline, observers)
    result = manager.run(module, context)
    if timings is not None:
        timings.extend(manager.timings)
    return result
