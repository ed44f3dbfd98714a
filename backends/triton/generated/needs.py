"""Registers of a thread by what its code holds, in the proportions that the compilers were seen to take."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Needs:
    """Registers of a thread: `base` for indices and addresses, and so many for each of a phase's

    `results` of products and sums kept `partial` by lane; registers of `fragments` of a step of a reduction, of further
    `steps`, and of those where k is `deep`; operands read `ahead` of a product element by element; `operands` on their way to shared memory by
    registers, and `copies` there that go by themselves; `words` of other loads, and `loads` (their addresses); words
    `readback` from shared memory; elements in `heavy` arithmetic; values from `outside` the phase; tiles `kept` for
    later phases.
    """

    base: float
    results: float = 0.0
    partial: float = 0.0
    fragments: float = 0.0
    steps: float = 0.0
    deep: float = 0.0
    ahead: float = 0.0
    operands: float = 0.0
    copies: float = 0.0
    words: float = 0.0
    loads: float = 0.0
    readback: float = 0.0
    heavy: float = 0.0
    outside: float = 0.0
    kept: float = 0.0


VECTOR = Needs(18.7, partial=0.9, words=0.5, loads=0.6, readback=0.9, heavy=1.3, outside=1.1, kept=0.55)
FRAGMENTS = Needs(
    24.4, 1.1, 1.1, 0.65, 1.1, ahead=1.0, operands=1.8, copies=1.0, words=0.9, readback=1.8, heavy=0.8, outside=1.0
)
WARP_GROUPS = Needs(25.0, 1.1, 1.1, operands=1.9, copies=1.2, words=0.3, readback=2.0, heavy=0.6, outside=1.1)
TENSOR_MEMORY = Needs(13.3, 0.95, 1.1, operands=3.0, copies=1.8, words=1.0, readback=2.0, heavy=0.7, outside=1.1)
"""By what does the products: the vector unit only, mma of warps, mma of warp groups, tensor memory. A value that lives
through a phase takes its register in all of them. The rest was fitted to 1,900 kernels of the example models and of small
ones for sm_80, sm_90 and sm_100, as Triton 3.9 and its ptxas compile them; blocks per SM are right for 73 % of them, and
for 72 % where the kernel's group was left out of the fit."""

LATER_FRAGMENTS = replace(FRAGMENTS, base=22.4, steps=0.5, deep=2.2)
"""Of warps' mma from sm_90 on, whose ptxas reads fewer fragments ahead of a short loop and more of a deep one: 45 kernels of the Llama block
and the MLP (`benchmarks/fit_registers.py --kind fragments --arch sm_90 sm_100 --free steps deep`); with the kernel's group left out of
the fit, the median error of its registers falls from 16 to 13 %."""

MATRIX_CORES = Needs(40.0, 1.0, 1.1, fragments=1.0, operands=1.3, words=0.9, readback=1.8, heavy=0.8, outside=1.0)
"""Of CDNA's matrix cores: warps of 64 read the fragments of a whole tile of k before they multiply, and where no copy goes
to shared memory by itself the next stage waits in registers. Read off eight products for gfx942 and gfx950 as Triton 3.9.0
compiles them (tests/costmodel/gpu/test_generated.py), within 20 %."""

EARLIER_CORES = replace(MATRIX_CORES, base=31.0, fragments=1.15, words=2.3)
"""The same before gfx950, fitted to 30 kernels of the Llama block and the MLP for gfx942 (`--kind matrix --arch gfx942 --free fragments
words`): blocks per SM are right for 90 % where the group was left out (87 % before)."""

WIDE_VECTOR = Needs(17.0, partial=3.7, words=0.94, loads=0.78, readback=0.9, heavy=1.1, outside=1.1, kept=0.55)
"""Of kernels without products in warps of 64, whose loads of a pipelined loop wait in registers: fitted to 12 kernels for gfx942
(`--kind vector --arch gfx942 --free partial words loads heavy`); blocks are right for 92 % of the 12 for gfx950, on which it was not fitted (83 %
before)."""
