#!/usr/bin/env bash
# triton 3.9.0: in a kernel on float64 data `x * 0.1` multiplies by the float64 nearest to 0.1, but `step = 0.1` followed by `x * step` by the float32
# nearest to it: giving a literal a name makes a float32 tensor of it. The two lines differ by 1.5e-9, relative 1.5e-8, with nothing but the name
# between them; a code generator that binds constants to names loses half of the digits of float64 kernels.
#
# Seen (in the interpreter): 0.1 and 0.10000000149011612. Fails when they agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 triton==3.9.0 numpy==2.4.6
cat > "$folder/kernel.py" <<'PY'
import torch
import triton
import triton.language as tl


@triton.jit
def scaled(x_ptr, y_ptr):
    x = tl.load(x_ptr)
    step = 0.1
    tl.store(y_ptr, x * 0.1)
    tl.store(y_ptr + 1, x * step)


x, y = torch.ones(1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
scaled[(1,)](x, y)
print(y.tolist())
PY
seen=$(TRITON_INTERPRET=1 "$folder/env/bin/python" "$folder/kernel.py")
printf 'triton 3.9.0\n%s\n' "$seen"
[ "$seen" = "[0.1, 0.10000000149011612]" ]
