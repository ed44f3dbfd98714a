"""PyTorch's own operator samples through the whole compiler: fused, tiled, and run as Triton kernels in Triton's interpreter.

python benchmarks/tiled_conformance.py [operator ...] [--limit N] [--dtype NAME]       (as codesign.frontend.conformance)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from codesign.compiler import Options
from codesign.compiler import compile as compiled
from codesign.costmodel.machine import load_machine
from codesign.frontend.conformance import main
from codesign.frontend.externals import externals
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate


def tiled(module: Module, arrays: Sequence[Any]) -> Sequence[Any]:
    """A module's results by its kernels for h100_sxm."""
    made = compiled(module, load_machine("h100_sxm"), Options(kernels=False, verify=False, reuse=False))
    planned = made.planned.module
    return evaluate(planned, arrays, externals=externals(planned), launcher=made.backend.launcher())


if __name__ == "__main__":
    sys.exit(main(run=tiled))
