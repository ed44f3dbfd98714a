#!/usr/bin/env bash
# torch 2.13.0: on CPU `torch._scaled_mm(..., scale_result=s, out_dtype=torch.float8_e4m3fn)` gives the product divided by s. On CUDA the same
# argument is the factor D_SCALE of cuBLASLt, by which the product is multiplied (pytorch/pytorch#190449), so a model whose reference values are
# taken on CPU is off by s squared on the device. Results of 16 and 32 bits take no notice of the argument at all.
#
# Seen (products of 16 ones, which is exact in every format): 4.0 for s = 4 in float8, 16.0 in bfloat16 and float32. Fails when these change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/product.py" <<'PY'
import torch

ones, one, four = torch.ones(16, 16).to(torch.float8_e4m3fn), torch.tensor(1.0), torch.tensor(4.0)
for dtype in (torch.float8_e4m3fn, torch.bfloat16, torch.float32):
    product = torch._scaled_mm(ones, ones.t(), one, one, scale_result=four, out_dtype=dtype)
    print(dtype, product[0, 0].float().item())
PY
seen=$("$folder/env/bin/python" "$folder/product.py")
printf 'torch 2.13.0\n%s\n' "$seen"
[ "$seen" = "torch.float8_e4m3fn 4.0
torch.bfloat16 16.0
torch.float32 16.0" ]
