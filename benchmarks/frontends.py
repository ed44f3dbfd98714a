"""The models of `examples/` through torch-mlir beside the direct way: what it takes and why not, errors against torch, and launches of either.

python benchmarks/frontends.py [model.py ...]          (needs the extra `codesign[torch-mlir]`)
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from codesign.compiler import Options
from codesign.compiler import compile as compiled
from codesign.costmodel.machine import load_machine
from codesign.frontend import Captured, Frontend, ModelSource, capture, load_model, mlir
from codesign.frontend.externals import externals
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FRONTENDS: tuple[Frontend, ...] = ("torch", "torch-mlir")


@dataclass(frozen=True)
class Way:
    """A model by one of the ways: the greatest difference to torch, relative to the greatest result; launches; predicted seconds."""

    error: float
    launches: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.error:8.1e} {self.launches:4} launches {self.seconds * 1e6:8.1f} us"


def measured(source: ModelSource, frontend: Frontend, machine: str) -> Way:
    """One model by one way."""
    captured = capture(source, frontend=frontend)
    plan = compiled(captured.module, load_machine(machine), Options(verify=False, kernels=False)).planned
    launches = sum(info.launches for info in plan.kernels.values())
    seconds = sum(info.tuned.seconds * info.count for info in plan.kernels.values())
    return Way(difference(source, captured), round(launches), seconds)


def difference(source: ModelSource, captured: Captured) -> float:
    """The greatest difference to what torch computes, relative to the greatest result."""
    arrays = captured.flatten_inputs(source.inputs, source.kwargs)
    found = captured.unflatten_outputs(evaluate(captured.module, arrays, externals=externals(captured.module)))
    with torch.no_grad():
        expected = source.model(*source.inputs, **source.kwargs)
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    tensors = [(a.double(), e.double()) for a, e in pairs if isinstance(e, torch.Tensor)]
    return max(float((a - e).abs().max() / e.abs().max().clamp(min=1e-30)) for a, e in tensors)


def main() -> int:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--machine", default="h100_sxm")
    options = parser.parse_args()
    if not mlir.installed():
        print('torch_mlir is not installed: pip install "codesign[torch-mlir]"', file=sys.stderr)
        return 2
    for path in options.models or sorted(EXAMPLES.glob("[a-z]*.py")):
        source = load_model(path)
        ways = []
        for frontend in FRONTENDS:
            try:
                ways.append(f"{frontend} {measured(source, frontend, options.machine)}")
            except CodesignError as error:
                ways.append(f"{frontend} refuses: {error.message[:100]}")
        print(f"{path.stem:20} {'   '.join(ways)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
