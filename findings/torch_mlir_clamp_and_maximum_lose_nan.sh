#!/usr/bin/env bash
# torch-mlir 20261001 (with torch 2.13.0): `clamp` compares with `ult`, which holds for NaN, so that NaN becomes the lower bound, and
# `maximum` selects by `ogt`, so that a NaN in the first argument becomes the second. torch gives NaN for both, as does arith.maximumf, to which
# torch-mlir lowers `amax`.
#
# Seen, with the wheel's own execution engine: NaN clamped to -1..1 is -1, maximum(NaN, 5) is 5. Fails when it is mended.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 torch-mlir==20261001
cat > "$folder/bound.py" <<'PY'
import ctypes

import numpy as np
import torch
from torch_mlir import fx, ir
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.passmanager import PassManager
from torch_mlir.runtime import get_ranked_memref_descriptor

PASSES = (
    "one-shot-bufferize{bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map},"
    "buffer-results-to-out-params{modify-public-functions},func.func(convert-linalg-to-loops),convert-scf-to-cf,"
    "expand-strided-metadata,lower-affine,convert-math-to-llvm,convert-arith-to-llvm,finalize-memref-to-llvm,"
    "convert-func-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts"
)


class Bounded(torch.nn.Module):
    def forward(self, x, y):
        return x.clamp(-1.0, 1.0), torch.maximum(x, y)


x, y = torch.tensor([float("nan")]), torch.tensor([5.0])
module = fx.export_and_import(Bounded(), x, y, output_type="linalg-on-tensors")
with module.context:
    for op in module.body.operations:
        op.operation.attributes["llvm.emit_c_interface"] = ir.UnitAttr.get()
    PassManager.parse(f"builtin.module({PASSES})").run(module.operation)
    arrays = [x.numpy(), y.numpy(), np.zeros(1, np.float32), np.zeros(1, np.float32)]
    pointers = [ctypes.pointer(ctypes.pointer(get_ranked_memref_descriptor(a))) for a in arrays]
    ExecutionEngine(module, opt_level=0).invoke("main", *pointers)
print("torch", *[value.item() for value in Bounded()(x, y)], "torch-mlir", *[a.item() for a in arrays[2:]])
PY
seen=$("$folder/env/bin/python" -W ignore "$folder/bound.py")
printf 'torch-mlir 20261001\n%s\n' "$seen"
[ "$seen" = "torch nan nan torch-mlir -1.0 5.0" ]
