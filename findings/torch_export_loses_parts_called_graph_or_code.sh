#!/usr/bin/env bash
# torch 2.13.0: a model with a part called `graph` or `code` is exported, and then `run_decompositions` can't find the part's buffers: torch's own graph
# modules have attributes of these names. Under any other name the same model is decomposed.
#
# Seen: "RuntimeError ... references nonexistent attribute weight of graph" (and "of code"), and none for `network`. Fails when these change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/parts.py" <<'PY'
import torch
from torch import nn


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(3))

    def forward(self, x):
        return x * self.weight


class Model(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.add_module(name, Scale())
        self.name = name

    def forward(self, x):
        return self.get_submodule(self.name)(x)


for name in ("graph", "code", "network"):
    program = torch.export.export(Model(name), (torch.ones(3),))
    try:
        program.run_decompositions()
        print(name, "decomposed")
    except RuntimeError as error:
        print(name, str(error).splitlines()[0].partition("references ")[2])
PY
seen=$("$folder/env/bin/python" -W ignore "$folder/parts.py")
printf 'torch 2.13.0\n%s\n' "$seen"
[ "$seen" = "graph nonexistent attribute weight of graph
code nonexistent attribute weight of code
network decomposed" ]
