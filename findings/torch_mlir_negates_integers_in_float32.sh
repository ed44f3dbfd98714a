#!/usr/bin/env bash
# torch-mlir 20261001 (with torch 2.13.0) lowers `-x` of int64 tensors to linalg as sitofp to f32, negf, fptosi: integers beyond 2**24 lose
# their lowest bits, where torch is exact. (`x * -1` is lowered to muli and is right; `x // y` of int64 goes by float64 in the same way.)
#
# Seen, with the wheel's own execution engine: -(2**24 + 1) is -16777216, -(2**53 + 1) is -9007199254740992. Fails when it is mended.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 torch-mlir==20261001
cat > "$folder/negate.py" <<'PY'
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


class Negate(torch.nn.Module):
    def forward(self, x):
        return -x


x = torch.tensor([2**24 + 1, 2**53 + 1])
module = fx.export_and_import(Negate(), x, output_type="linalg-on-tensors")
print(*[line.strip() for line in str(module).splitlines() if "sitofp" in line or "negf" in line], sep="\n")
with module.context:
    for op in module.body.operations:
        op.operation.attributes["llvm.emit_c_interface"] = ir.UnitAttr.get()
    PassManager.parse(f"builtin.module({PASSES})").run(module.operation)
    arrays = [x.numpy(), np.zeros(2, np.int64)]
    pointers = [ctypes.pointer(ctypes.pointer(get_ranked_memref_descriptor(a))) for a in arrays]
    ExecutionEngine(module, opt_level=0).invoke("main", *pointers)
print("torch", (-x).tolist(), "torch-mlir", arrays[1].tolist())
PY
seen=$("$folder/env/bin/python" -W ignore "$folder/negate.py")
printf 'torch-mlir 20261001\n%s\n' "$seen"
[ "$(tail -n 1 <<< "$seen")" = "torch [-16777217, -9007199254740993] torch-mlir [-16777216, -9007199254740992]" ]
