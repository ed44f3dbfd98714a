"""Tile IR to Triton: source, ahead-of-time compiled kernels, execution, verification, a runner for the whole model.

Importing this loads neither torch nor Triton; what needs one of them imports it when it is used.
"""

from codesign.backends.triton.aot import Compiled, compile_all, compile_aot
from codesign.backends.triton.emit import Emitted, emission, emit
from codesign.backends.triton.interpret import run_interpreted, run_kernel
from codesign.backends.triton.runner import Runner, write_runner
from codesign.backends.triton.targets import Target, target, target_of
from codesign.backends.triton.verify import verify_kernel

__all__ = [
    "Compiled",
    "Emitted",
    "Runner",
    "Target",
    "compile_all",
    "compile_aot",
    "emission",
    "emit",
    "run_interpreted",
    "run_kernel",
    "target",
    "target_of",
    "verify_kernel",
    "write_runner",
]
