#!/usr/bin/env bash
# torch 2.13.0: aten._scaled_dot_product_flash_attention_for_cpu returns the attention and the log-sum-exp of each row, of shape [batch, heads, rows].
# Its decomposition, which torch.export's run_decompositions applies, returns the matrix of attention weights, [batch, heads, rows, keys], in the
# second place. Whoever reads the log-sum-exp of a decomposed graph (to merge partial attention, or for a backward pass) gets another tensor.
#
# Seen: operator (2, 3, 8), decomposition (2, 3, 8, 5). Fails when the shapes agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
seen=$("$folder/env/bin/python" - <<'PY'
import torch
from torch._decomp import decomposition_table

operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
query, key = torch.randn(2, 3, 8, 16), torch.randn(2, 3, 5, 16)
print("operator", tuple(operator(query, key, key)[1].shape))
print("decomposition", tuple(decomposition_table[operator](query, key, key)[1].shape))
PY
)
printf 'torch 2.13.0\n%s\n' "$seen"
[ "$seen" = "operator (2, 3, 8)
decomposition (2, 3, 8, 5)" ]
