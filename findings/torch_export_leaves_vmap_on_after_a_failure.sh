#!/usr/bin/env bash
# torch 2.13.0: torch.export of a module that calls vmap(grad(f)) raises in both modes, and once it has, the level of `vmap` stays on in the process: the
# weights of a new layer can't be drawn any more, nor another model exported. Without the failed export both are done.
#
# Seen: "AttributeError 'Tensor' object has no attribute 'constant'" twice, then "RuntimeError vmap: called random operation while in randomness error
# mode". Fails when these change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/slope.py" <<'PY'
import torch
from torch import nn
from torch.func import grad, vmap


class Slope(nn.Module):
    def forward(self, x):
        return vmap(grad(lambda v: (v * v).sum()))(x)


def said(what, work):
    try:
        work()
        print(what, "done")
    except Exception as error:
        print(what, type(error).__name__, str(error).splitlines()[0].partition(".")[0])


x = torch.ones(3, 4)
said("a layer before:", lambda: nn.Linear(2, 2))
print("eager:", torch.equal(Slope()(x), 2 * x))
for strict in (False, True):
    said(f"export, strict {strict}:", lambda: torch.export.export(Slope(), (x,), strict=strict))
said("a layer after:", lambda: nn.Linear(2, 2))
PY
seen=$("$folder/env/bin/python" -W ignore "$folder/slope.py")
printf 'torch 2.13.0\n%s\n' "$seen"
[ "$seen" = "a layer before: done
eager: True
export, strict False: AttributeError 'Tensor' object has no attribute 'constant'
export, strict True: AttributeError 'Tensor' object has no attribute 'constant'
a layer after: RuntimeError vmap: called random operation while in randomness error mode" ]
