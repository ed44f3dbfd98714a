#!/usr/bin/env bash
# triton 3.9.0: `a % b` of floats is C's fmod, which is exact whatever the quotient, in the interpreter and in code for AMD GPUs (LLVM's frem, which its
# backend expands into a loop). For NVIDIA GPUs the same line becomes a - trunc(a / b) * b with a rounded quotient: one division, one truncation,
# one multiply-add. A quotient just below a whole number rounds up to it and the remainder changes sign; from 2^24 on it has no relation to fmod.
# Wrong angles and phases come of it (`position * frequency % 6.2831855`), and no test in the interpreter or on an AMD GPU sees it.
#
# Seen: for sm_90 div.rn, cvt.rzi, fma.rn and no loop. By these steps 1.0 % 0.2 is -1.5e-08 and 1e15 % 0.3 is
# -2.6e+07 in float32 (worked out in numpy, not run on a GPU); the interpreter has 0.19999999 and 0.14565045. Fails when PTX or the interpreter differ from this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 triton==3.9.0 numpy==2.4.6
cat > "$folder/kernel.py" <<'PY'
import os
import re

import numpy as np
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def remainder(a_ptr, b_ptr, out_ptr, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(out_ptr + i, tl.load(a_ptr + i) % tl.load(b_ptr + i))


A = np.array([1.0, 1e15], dtype=np.float32)
B = np.array([0.2, 0.3], dtype=np.float32)

if os.environ.get("TRITON_INTERPRET") == "1":
    out = torch.empty(2)
    remainder[(1,)](torch.from_numpy(A), torch.from_numpy(B), out, 2)
    print("interpreter", [np.float32(x) for x in out.numpy()], "exact", bool((out.numpy() == np.fmod(A, B)).all()))
else:
    signature = {"a_ptr": "*fp32", "b_ptr": "*fp32", "out_ptr": "*fp32", "n": "constexpr"}
    source = ASTSource(fn=remainder, signature=signature, constexprs={"n": 128})
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["ptx"]
    steps = re.findall(r"^\s*(div\.\S+|cvt\.rz\S+|fma\.\S+|call\S*|bra)\s", ptx, re.M)
    print("sm_90", steps)
    quotient = np.trunc((A / B).astype(np.float32))
    by_ptx = (A.astype(np.float64) - quotient.astype(np.float64) * B.astype(np.float64)).astype(np.float32)
    print("the same steps", list(by_ptx))
PY
seen=$(TRITON_INTERPRET=1 "$folder/env/bin/python" "$folder/kernel.py"; "$folder/env/bin/python" "$folder/kernel.py" 2> /dev/null)
printf 'triton 3.9.0\n%s\n' "$seen"
[ "$seen" = "interpreter [np.float32(0.19999999), np.float32(0.14565045)] exact True
sm_90 ['div.rn.f32', 'cvt.rzi.f32.f32', 'fma.rn.f32']
the same steps [np.float32(-1.4901161e-08), np.float32(-2.6314656e+07)]" ]
