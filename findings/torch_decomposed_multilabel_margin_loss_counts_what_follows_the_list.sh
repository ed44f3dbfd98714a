#!/usr/bin/env bash
# torch 2.13.0: the decomposition of multilabel_margin_loss, which torch.export and torch.compile use, adds up what follows the end of a row's list of
# classes (its first -1), as if the list went on with class 0; eager does not. Lists that fill the row agree.
#
# Seen (scores 0.1 0.2 0.4 0.8, list 3): 0.325 by the operator, 2.875 by its decomposition. Fails when the two agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
seen=$("$folder/env/bin/python" - <<'PY'
import torch
from torch._decomp import decomposition_table

operator = torch.ops.aten.multilabel_margin_loss_forward.default
scores, classes = torch.tensor([[0.1, 0.2, 0.4, 0.8]]), torch.tensor([[3, -1, 0, 0]])
print("operator", round(float(operator(scores, classes, 1)[0]), 4))
print("decomposition", round(float(decomposition_table[operator](scores, classes, 1)[0]), 4))
PY
)
printf 'torch 2.13.0\n%s\n' "$seen"
[ "$seen" = "operator 0.325
decomposition 2.875" ]
