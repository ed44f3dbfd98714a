"""What Triton's code generator adds to a program, as the models of GPUs take it: layouts, stages and padding, registers, instructions of loads.

Shared memory follows from the rules of its layouts and pipelining; registers are what the values need that live at the same time in the
phase that needs most.
"""

from codesign.backends.triton.generated.code import TRITON, TritonGenerator

__all__ = ["TRITON", "TritonGenerator"]
