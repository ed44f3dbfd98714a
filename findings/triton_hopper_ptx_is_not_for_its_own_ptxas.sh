#!/usr/bin/env bash
# triton 3.9.0 brings two assemblers, `ptxas` and `ptxas-blackwell`. A tool that runs `ptxas -v` on a Hopper kernel's PTX, for its registers and spills, would
# take the first, as for Ampere; but sm_90a is assembled with the second (as Blackwell is), in a PTX version that the first refuses.
# `triton.backends.nvidia.compiler.get_ptxas(arch)` says which one it is.
#
# Seen: PTX 8.8 for sm_80, which both take; PTX 9.4 for sm_90a and sm_100a, which `ptxas` (8.8) refuses and `ptxas-blackwell` takes. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check triton==3.9.0
cat > "$folder/assembled.py" <<'PY'
import pathlib
import re
import subprocess
import tempfile

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def twice(x, y, n, B: tl.constexpr):
    at = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + at, 2.0 * tl.load(x + at, mask=at < n), mask=at < n)


tools = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
for arch in (80, 90, 100):
    source = ASTSource(fn=twice, signature={"x": "*fp32", "y": "*fp32", "n": "i32", "B": "constexpr"}, constexprs={(3,): 256})
    text = triton.compile(source, target=GPUTarget("cuda", arch, 32)).asm["ptx"]
    name = re.search(r"\.target (\w+)", text)[1]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        for tool in ("ptxas", "ptxas-blackwell"):
            ran = subprocess.run([tools / tool, f"-arch={name}", "-o", "/dev/null", file.name], capture_output=True, text=True)
            why = re.search(r"Unsupported .version [\d.]+; current version is '[\d.]+'", ran.stderr)
            print(name, re.search(r"\.version ([\d.]+)", text)[1], tool, "takes it" if ran.returncode == 0 else why and why[0])
PY
seen=$("$folder/env/bin/python" -W ignore "$folder/assembled.py")
printf 'triton 3.9.0\n%s\n' "$seen"
[ "$seen" = "sm_80 8.8 ptxas takes it
sm_80 8.8 ptxas-blackwell takes it
sm_90a 9.4 ptxas Unsupported .version 9.4; current version is '8.8'
sm_90a 9.4 ptxas-blackwell takes it
sm_100a 9.4 ptxas Unsupported .version 9.4; current version is '8.8'
sm_100a 9.4 ptxas-blackwell takes it" ]
