#!/usr/bin/env bash
# torch 2.13.0: the interface for float32 precision that replaces `allow_tf32` breaks torch's own export. After `torch.backends.fp32_precision = "ieee"`
# `torch.export.export` of a linear layer raises RuntimeError, and says that the legacy and the new interface were mixed: the mixing is torch's, which
# reads the legacy flag of cuDNN while it exports. With "tf32" the same export goes through. No GPU is involved.
#
# Seen: "ieee: RuntimeError", "tf32: exported". Fails when either changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/export.py" <<'PY'
import sys

import torch

torch.backends.fp32_precision = sys.argv[1]
try:
    torch.export.export(torch.nn.Linear(4, 4), (torch.ones(2, 4),))
    print(f"{sys.argv[1]}: exported")
except RuntimeError as error:
    print(f"{sys.argv[1]}: {type(error).__name__}", "(a mix of the interfaces)" if "mix of the legacy and new APIs" in str(error) else error)
PY
seen=$(for setting in ieee tf32; do "$folder/env/bin/python" "$folder/export.py" "$setting"; done)
printf 'torch 2.13.0\n%s\n' "$seen"
[ "$seen" = "ieee: RuntimeError (a mix of the interfaces)
tf32: exported" ]
