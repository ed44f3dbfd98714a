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
    later phases; a `loop` and a pipeline of more than two `stages`; words `waiting` in further stages that have no buffers; words of
    the `further` steps of a loop that is unrolled whole; products `chained` to the first of the phase; results `turned` to the places of what they
    meet; words loaded `early`, before a loop that does not use them; `stores`, each with its address.
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
    loop: float = 0.0
    stages: float = 0.0
    waiting: float = 0.0
    further: float = 0.0
    chained: float = 0.0
    early: float = 1.0
    turned: float = 0.0
    stores: float = 0.0


VECTOR = Needs(
    18.7, partial=0.62, words=0.5, loads=0.6, readback=0.9, heavy=1.3, outside=1.1, kept=0.95, loop=4.0, stages=4.0
)
STRAIGHT = replace(VECTOR, base=19.6, loads=1.75, heavy=2.35, kept=0.73)
"""Of kernels without loops or products in warps of 32: all loads are on their way at once, each with its address, and all elements in work. Fitted
to 54 norms and softmaxes of whole rows, GELUs and transposed sums of the models and of other shapes and dtypes for sm_80, sm_90 and sm_100
(`--kind straight --free loads heavy kept`): blocks per SM right for 65 %, also where the group was left out (52 % with VECTOR's)."""

FRAGMENTS = Needs(
    29.2,
    1.2,
    1.15,
    0.3,
    1.2,
    deep=0.75,
    ahead=1.0,
    operands=1.85,
    copies=1.25,
    words=0.75,
    readback=1.8,
    heavy=0.4,
    outside=1.0,
    loop=3.7,
    stages=2.2,
    chained=23.6,
    stores=1.6,
)
WARP_GROUPS = Needs(
    18.5,
    1.03,
    1.29,
    operands=1.9,
    copies=2.97,
    words=1.13,
    readback=2.8,
    heavy=0.3,
    outside=0.88,
    chained=6.8,
    stores=1.4,
    turned=0.65,
)
TENSOR_MEMORY = Needs(13.3, 0.95, 1.1, operands=3.0, copies=1.8, words=1.0, readback=2.0, heavy=0.7, outside=1.1)
"""By what does the products: the vector unit only, mma of warps, mma of warp groups, tensor memory. A value that lives
through a phase takes its register in all of them, as does a word that is loaded early. The rest was fitted to 1,900 kernels of the example models and
of small ones for sm_80, sm_90 and sm_100, as Triton 3.9 and its ptxas compile them; what stages, loops and chained products take to 150 of the
Llama block, the MLP, GPT-2 and tests/backends/triton/test_occupancy.py, those that spill up to 1.6 KB among them (`benchmarks/fit_registers.py`).
That of warps' mma before sm_90 anew to 53 kernels of the Llama block, the MLP and GPT-2 (`--kind fragments --arch sm_80 --free results partial
fragments steps deep operands copies words heavy outside loop stages chained`): median error 6 % (14 without early loads and Triton's places of
warps), blocks per SM right for 91 %, also where each half of the groups was predicted by the other (85 % before).
`stores` of it and of LATER_FRAGMENTS to 14 kernels of logits over an odd vocabulary, each of which is stored by itself.

Of warp groups anew to 30 kernels of the same models for sm_90, with Triton's places of warps where a body has several products (`--kind groups
--arch sm_90 --free results partial operands copies words readback heavy outside chained stores`): median error 6 % (10 before), blocks per SM
right for 93 % where the group was left out (90 before), and for 6 of 7 of products and attention of other models, as before."""

LATER_FRAGMENTS = Needs(
    9.9,
    1.0,
    1.57,
    0.75,
    0.75,
    deep=1.35,
    ahead=1.0,
    operands=1.85,
    copies=1.4,
    words=1.55,
    readback=1.55,
    heavy=1.31,
    outside=0.51,
    loop=8.5,
    stages=2.9,
    chained=27.5,
    stores=1.8,
)
"""Of warps' mma from sm_90 on, whose ptxas reads fewer fragments ahead of a short loop and more of a deep one. Fitted to 57 kernels of the same
models and 10 of products and attention of other shapes and dtypes (`--arch sm_90 sm_100`), and with Triton's places of warps where a body has several
products anew to 88 of the Llama block, the MLP and GPT-2 (`--free partial copies heavy outside loop stages chained`): blocks per SM right for 85 %
where the group was left out (83 before), for 13 of 16 of products and attention of other models, as before; median error 10 and 8 %."""

MATRIX_CORES = Needs(
    45.8,
    1.0,
    1.1,
    fragments=0.7,
    operands=1.3,
    words=1.33,
    readback=1.8,
    heavy=0.8,
    outside=1.0,
    stages=11.0,
    waiting=0.94,
    chained=8.5,
)
"""Of CDNA's matrix cores: warps of 64 read the fragments of a whole tile of k before they multiply, and where no copy goes
to shared memory by itself the next stage waits in registers, as do all further stages of what no product takes. Fitted to 15 kernels
of the Llama block and the MLP for gfx950 as Triton 3.9.0 compiles them (`--kind matrix --arch gfx950 --free fragments words stages chained`) and
four plain products (tests/backends/triton/generated/test_held.py, within 20 %): median error 7 % (19 before), blocks per SM right for 89 %
where the group was left out (80 % before). `words` and `waiting` anew to 50 kernels of these, GPT-2, ResNet and products and attention of other
shapes: right for 76 %, also where the group was left out (68 % before)."""

EARLIER_CORES = replace(MATRIX_CORES, base=33.0, fragments=1.15, words=1.6, stages=15.7, waiting=0.0, chained=70.0)
"""The same before gfx950, fitted to 24 of these kernels for gfx942 (`--kind matrix --arch gfx942 --free words stages chained`): median error
9 % (18 before), blocks per SM right for 88 %, also where the group was left out (71 % before)."""

WIDE_ELEMENTS = Needs(8.1, words=0.75, loads=1.6, heavy=2.3)
"""Of element-wise kernels in warps of 64, fitted together with others to 55 kernels of the models and 20 norms, softmaxes, sums and transposed sums
of other shapes and dtypes for gfx942 and gfx950; blocks per SM right for 31 of 36. A GELU of 8,192 elements that was in neither takes 107 registers
where 104 are predicted."""

WIDE_VECTOR = Needs(
    15.1,
    partial=1.65,
    words=0.87,
    readback=0.9,
    heavy=2.3,
    kept=0.08,
    loop=13.1,
    waiting=2.65,
    further=0.37,
)
"""Of sums, norms and softmaxes in warps of 64, whose loads of a pipelined loop wait in registers, those of each further stage too,
unless the loop is unrolled whole: fitted to 153 kernels of the models and of norms, softmaxes, sums, pools, GELUs and transposed sums of other shapes
and dtypes for gfx942 and gfx950 (`--kind vector --arch gfx942 gfx950 --free partial words loads heavy outside kept loop waiting further`): blocks per
SM right for 80 %, for 78 % where a fifth of the groups was left out (74 before)."""
