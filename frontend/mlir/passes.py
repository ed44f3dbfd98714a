"""torch-mlir's passes, in a process of their own: some models make them abort, and that would take the compiler along.

`python passes.py` reads a module in MLIR's bytecode on stdin and writes the lowered one on stdout; exit status 3 with the reason on stderr
where a pass refuses.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

PIPELINES = (
    "builtin.module(func.func(torch-match-quantized-custom-ops),torchdynamo-export-to-torch-backend-pipeline{extra-library=})",
    "builtin.module(torch-backend-to-linalg-on-tensors-backend-pipeline{allow-non-finites=true})",
    "builtin.module(func.func(linalg-generalize-named-ops))",
)
"""To the torch dialect's backend form, to `linalg` on tensors, and named operations (matmul, convolutions) in their general form."""

_REFUSED = 3


class Refused(Exception):
    """A pass gave up; the text is its reason."""


def lowered(module: Any) -> Any:
    """The module after the passes; Refused with the reason of a pass, or the signal that it died of."""
    from torch_mlir import ir
    from torch_mlir.passmanager import PassManager

    source = io.BytesIO()
    module.operation.write_bytecode(source)
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-P", os.path.abspath(__file__)],
        input=source.getvalue(),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    said = " ".join(done.stderr.decode(errors="replace").split())
    if done.returncode == _REFUSED:
        raise Refused(said)
    if done.returncode:
        raise Refused(f"its passes crashed (exit status {done.returncode}): {said}")
    with module.context:
        PassManager.parse(PIPELINES[1]).run(ir.Module.parse("module {}").operation)  # loads the dialects of its results
        return ir.Module.parse(done.stdout)


def main() -> int:
    """Lower stdin to stdout."""
    from torch_mlir import ir
    from torch_mlir.dialects import torch as torch_dialect
    from torch_mlir.passmanager import PassManager

    context = ir.Context()
    torch_dialect.register_dialect(context)
    context.emit_error_diagnostics = True  # some passes only say that they failed
    said: list[str] = []

    def listen(diagnostic: Any) -> bool:
        said.append(str(diagnostic.message))
        return True

    context.attach_diagnostic_handler(listen)
    try:
        with context:
            module = ir.Module.parse(sys.stdin.buffer.read())
            for pipeline in PIPELINES:
                PassManager.parse(pipeline).run(module.operation)
    except Exception as error:
        sys.stderr.write(next((text for text in said if text.strip()), str(error)))
        return _REFUSED
    module.operation.write_bytecode(sys.stdout.buffer)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
