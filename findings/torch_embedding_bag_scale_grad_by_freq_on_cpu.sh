#!/usr/bin/env bash
# torch 2.13.0: on CPU the gradient of `embedding_bag(..., scale_grad_by_freq=True)` is divided by the wrong counts: that of the k-th distinct row by
# how often the k-th index occurs, not by how often the row does. `embedding` with the same option is right.
#
# Seen (sum of rows 1 4 1 0 3 4 4, each with gradient one): 1 1 0 0.5 3 by embedding_bag, 1 1 0 1 1 by embedding. Fails when these change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/gradient.py" <<'PY'
import torch
from torch.nn import functional as F

ids = torch.tensor([1, 4, 1, 0, 3, 4, 4])
bags = torch.zeros(5, 1, requires_grad=True)
F.embedding_bag(ids, bags, torch.tensor([0]), mode="sum", scale_grad_by_freq=True).sum().backward()
rows = torch.zeros(5, 1, requires_grad=True)
F.embedding(ids, rows, scale_grad_by_freq=True).sum().backward()
print(bags.grad.flatten().tolist())
print(rows.grad.flatten().tolist())
PY
seen=$("$folder/env/bin/python" "$folder/gradient.py")
printf 'torch 2.13.0\n%s\n' "$seen"
[ "$seen" = "[1.0, 1.0, 0.0, 0.5, 3.0]
[1.0, 1.0, 0.0, 1.0, 1.0]" ]
