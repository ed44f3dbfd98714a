#!/usr/bin/env bash
# triton 3.9.0: in the interpreter (TRITON_INTERPRET=1) a `tl.device_assert` that does not hold is passed over without a word, because the
# interpreter's options have debug off and nothing turns it on: neither `debug=True` in @triton.jit nor TRITON_DEBUG=1 does. One would expect the place
# where kernels are debugged to check them. An out-of-range index that a kernel asserts against is then read all the same.
#
# Seen: "jit(debug=True): no error" and "TRITON_DEBUG=1: no error". Fails when either raises.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 triton==3.9.0 numpy==2.4.6
cat > "$folder/kernel.py" <<'PY'
import sys

import torch
import triton
import triton.language as tl


@triton.jit(debug=True)
def asserts(x_ptr, y_ptr):
    x = tl.load(x_ptr)
    tl.device_assert(x < 10, "too large")
    tl.store(y_ptr, x)


x, y = torch.tensor([99]), torch.zeros(1, dtype=torch.int64)
try:
    asserts[(1,)](x, y)
except Exception as error:
    print(f"{sys.argv[1]}: {type(error).__name__}")
else:
    print(f"{sys.argv[1]}: no error")
PY
export TRITON_INTERPRET=1
first=$("$folder/env/bin/python" "$folder/kernel.py" "jit(debug=True)")
second=$(TRITON_DEBUG=1 "$folder/env/bin/python" "$folder/kernel.py" "TRITON_DEBUG=1")
printf 'triton 3.9.0\n%s\n%s\n' "$first" "$second"
[ "$first" = "jit(debug=True): no error" ] && [ "$second" = "TRITON_DEBUG=1: no error" ]
