"""The reference meaning of the language in NumPy: tensor level whole domains at once, tile level program by program."""

from codesign.ir.interpreter.tensor import External, Launcher, evaluate, evaluate_block
from codesign.ir.interpreter.tile import run_kernel, with_outputs

__all__ = ["External", "Launcher", "evaluate", "evaluate_block", "run_kernel", "with_outputs"]
