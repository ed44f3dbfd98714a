"""Models as the lab needs them: captured once, compiled for a machine without building kernels."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from codesign import pipeline
from codesign.command import Steps
from codesign.costmodel.machine import Machine
from codesign.ir.errors import CodesignError


@lru_cache(maxsize=16)
def captured(path: Path) -> pipeline.Model:
    """A model from its file, which is run; CodesignError when there is no such file."""
    if not path.is_file():
        raise CodesignError("no such file" if not path.exists() else "not a file", place=str(path))
    return pipeline.capture(path, pipeline.Options(), Steps(None))


def compiled(path: Path, machine: Machine, options: pipeline.Options | None = None) -> pipeline.Compilation:
    """A model compiled for a machine: fused, scheduled and priced; kernels are built and verified only where the options say so."""
    options = options or pipeline.Options(verify=False, kernels=False)
    return pipeline.compile_for(captured(path), machine, options, Steps(None))
