"""Compiles kernel files for a target with Triton: a function, and a program that does many (requests and answers in JSON).

Kept apart so that several processes can compile at once; it imports Triton and nothing of codesign.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEPT = ("cubin", "hsaco", "ptx", "amdgcn", "ttgir")
"""Stages of Triton's pipeline whose output is kept, where the target has them."""


def compile_one(request: dict[str, Any]) -> dict[str, Any]:
    """Compile one kernel file; the outputs land in `request["folder"]`, or the answer has an `error`."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as triton_compile

    start = _cpu_seconds()
    said: list[str] = []
    try:
        specification = importlib.util.spec_from_file_location(Path(request["path"]).stem, request["path"])
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        function = getattr(module, request["name"])
        names = list(request["signature"])
        aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in request["aligned"]}
        source = ASTSource(fn=function, signature=request["signature"], constexprs={}, attrs=aligned)
        goal = GPUTarget(request["backend"], request["arch"], request["warp"])
        options = {"num_warps": request["warps"], "num_stages": request["stages"], "enable_fp_fusion": True}
        options.update(request["options"])
        with _quiet(said):
            compiled = triton_compile(source, target=goal, options=options)
    except Exception as error:
        notes = traceback.format_exc() + "".join(said)
        return {"error": _reason(error), "path": request["path"], "traceback": notes}
    folder = Path(request["folder"])
    kinds = [kind for kind in KEPT if kind in compiled.asm]
    for kind in kinds:
        data = compiled.asm[kind]
        (folder / kind).write_bytes(data if isinstance(data, bytes) else data.encode())
    return {
        "folder": str(folder),
        "path": request["path"],
        "kinds": kinds,
        "shared": int(compiled.metadata.shared),
        "seconds": _cpu_seconds() - start,
    }


def _cpu_seconds() -> float:
    """CPU seconds of this process and of the assemblers that it waited for: the same however busy the machine is."""
    return sum(os.times()[:4])


def _reason(error: BaseException) -> str:
    """What is wrong, in one line: of the error that the others were raised from (each of these shows the lines of a call and a caret)."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _quiet(said: list[str]) -> Iterator[None]:
    """What the compiler's passes print to standard error (whole modules, when one fails) goes to a list instead."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace")[-4000:])


def main() -> None:
    """Compile the requests on standard input; answers go to standard output, everything else to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    results = [compile_one(request) for request in json.load(sys.stdin)]
    json.dump(results, answers)
    answers.flush()


if __name__ == "__main__":
    main()
