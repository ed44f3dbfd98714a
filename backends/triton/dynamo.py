"""`torch.compile(model, backend="codesign")`: each graph that Dynamo finds is compiled by codesign.

A graph is captured, fused and scheduled for the machine at hand, and its kernels run natively on CUDA or in Triton's interpreter on the
CPU (slow, and the same kernels). Options, through `torch.compile(..., options={...})`: `machine`, the name or file of the machine to schedule
for (default: by the CUDA device's name, else `h100_sxm`); `kernels`, "triton" or "reference", where the latter runs the fused and tiled
graph in the IR's own interpreter, which needs no Triton.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codesign.backends.triton import worker as protocol
from codesign.backends.triton.interpret import device_for
from codesign.backends.triton.runner import write_runner
from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.core import Module, tensor_type
from codesign.ir.errors import CodesignError, UnsupportedError
from codesign.ir.interpreter import evaluate
from codesign.passes.context import Context
from codesign.passes.lowering import tile_module
from codesign.passes.pipeline import optimize
from codesign.passes.schedule.tuner import Tuner

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule

DEFAULT_MACHINE = "h100_sxm"

_BY_DEVICE_NAME = (
    ("H200", "h200_sxm"),
    ("H100 PCIe", "h100_pcie"),
    ("H100", "h100_sxm"),
    ("H800", "h800"),
    ("H20", "h20"),
    ("A100-PCIE", "a100_pcie"),
    ("A100", "a100_sxm"),
    ("B200", "b200_sxm"),
    ("B300", "b300_sxm"),
    ("MI300X", "mi300x"),
    ("MI355X", "mi355x"),
    ("L40S", "l40s"),
    ("L40", "l40"),
    ("L4", "l4"),
    ("3090", "rtx_3090"),
)
"""What a CUDA device's name contains -> its machine file; the first match counts."""


def compile_fx_graph(
    graph: GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, **unknown: Any
) -> Callable[..., Sequence[Any]]:
    """Compile a graph of Dynamo's; what it returns takes the graph's inputs and gives its outputs.

    UnsupportedError (which Dynamo reports with the graph) for an option that is not known, and for graphs with an operator that has no form here.
    """
    given = {**dict(options or {}), **unknown}
    for name in given:
        if name not in ("machine", "kernels", "mode"):
            raise UnsupportedError(f"the codesign backend has no option {name!r}", hint="options: machine, kernels")
    machine = load_machine(given["machine"]) if "machine" in given else machine_at_hand()
    way = given.get("kernels", "triton")
    if way not in ("triton", "reference"):
        raise UnsupportedError(f"kernels={way!r}", hint='kernels is "triton" or "reference"')

    def compiler(part: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        return SizedGraphs(part, machine, way) if _has_symbols(inputs) else CompiledGraph(part, inputs, machine, way)

    if not _needs_gradients(graph, example_inputs):
        return compiler(graph, example_inputs)
    from functorch.compile import make_boxed_func  # type: ignore[import-untyped]
    from torch._dynamo.backends.common import aot_autograd

    boxed = lambda part, inputs: make_boxed_func(compiler(part, inputs))  # noqa: E731
    differentiated: Callable[..., Sequence[Any]] = aot_autograd(fw_compiler=boxed, bw_compiler=boxed)(
        graph, example_inputs
    )
    return differentiated


def _needs_gradients(graph: GraphModule, example_inputs: Sequence[Any]) -> bool:
    """Whether autograd will go through the graph: then its forward and backward parts are compiled apart."""
    import torch

    tensors = [*graph.parameters(), *(t for t in example_inputs if isinstance(t, torch.Tensor))]
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _has_symbols(inputs: Sequence[Any]) -> bool:
    import torch

    sizes = (size for t in inputs if isinstance(t, torch.Tensor) for size in t.shape)
    return any(isinstance(value, torch.SymInt) for value in (*inputs, *sizes))


class SizedGraphs:
    """A graph over sizes that Dynamo left open: compiled for each combination of sizes that it is called with."""

    def __init__(self, graph: GraphModule, machine: Machine, way: str) -> None:
        self.graph = graph
        self.machine = machine
        self.way = way
        self.compiled: dict[tuple[Any, ...], CompiledGraph] = {}

    def __call__(self, *inputs: Any) -> Sequence[Any]:
        """The outputs, by the graph of these very sizes."""
        import torch

        tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
        key = tuple((tuple(v.shape), v.dtype) if isinstance(v, torch.Tensor) else v for v in inputs)
        if key not in self.compiled:
            self.compiled[key] = CompiledGraph(_bind_numbers(self.graph, inputs), tensors, self.machine, self.way)
        return self.compiled[key](*tensors)


def _bind_numbers(graph: GraphModule, inputs: Sequence[Any]) -> torch.nn.Module:
    """The graph as a module of its tensor inputs only, with the numbers among its inputs fixed."""
    import torch

    class Bound(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = graph

        def forward(self, *tensors: torch.Tensor) -> Any:
            rest = iter(tensors)
            return self.graph(*(next(rest) if isinstance(value, torch.Tensor) else value for value in inputs))

    return Bound()


def machine_at_hand() -> Machine:
    """The machine file of the current CUDA device, or the default one."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        for part, machine in _BY_DEVICE_NAME:
            if part.lower() in name.lower():
                return load_machine(machine)
        warnings.warn(f"no machine file for {name}: scheduling for {DEFAULT_MACHINE}", stacklevel=2)
    return load_machine(DEFAULT_MACHINE)


class CompiledGraph:
    """A graph ready to run: parameters that Dynamo passes as inputs are ordinary inputs here."""

    def __init__(self, graph: torch.nn.Module, example_inputs: Sequence[Any], machine: Machine, way: str) -> None:
        from codesign.frontend import capture

        self.captured = capture(graph, tuple(example_inputs))
        if self.captured.mutations:
            first = self.captured.mutations[0]
            raise UnsupportedError(f"the graph writes to {first.kind} {first.name}", hint="compile it for inference")
        module = self.captured.module
        tuner = Tuner(machine, bounds=module.bounds(), sizes={n: s.example or s.low for n, s in module.symbols.items()})
        self.module: Module = optimize(module, Context(machine=machine, pricer=tuner.price))
        self.kernels = tile_module(self.module, tuner)
        self.way = way
        self.folder = tempfile.TemporaryDirectory(prefix="codesign-graph-")
        self.runner = (
            write_runner(self.module, None, self.folder.name, target=machine.name) if way == "triton" else None
        )
        self._native: Any = None

    def __call__(self, *inputs: Any) -> Sequence[Any]:
        """The graph's outputs for its inputs, on the inputs' device."""
        import torch

        tensors = [t for t in inputs if isinstance(t, torch.Tensor)]
        device = tensors[0].device if tensors else torch.device("cpu")
        if device.type == "cuda" and self.runner is not None:
            results = list(self._natively(self.captured.flatten_tensors(inputs), device))
        else:
            results = self._on_cpu(inputs)
        outputs = []
        for out in self.captured.outputs:
            outputs.append(out.constant if out.position is None else results[out.position].to(device))
        from torch.utils import _pytree as pytree

        tree = pytree.tree_unflatten(outputs, self.captured.output_spec)
        return tree if isinstance(tree, (tuple, list)) else (tree,)

    def _natively(self, tensors: Sequence[torch.Tensor], device: torch.device) -> Sequence[torch.Tensor]:
        import numpy as np

        from codesign.backends.triton.interpret import to_torch
        from codesign.ir.tensor import Constant

        if self._native is None:
            assert self.runner is not None
            constants = {op.constant: op.result for op in self.module.main.body.ops if isinstance(op, Constant)}
            weights = {
                name: to_torch(np.asarray(self.module.constants[name]), tensor_type(constants[name]).dtype)
                for name in self.runner.missing
            }
            self._native = protocol.load_file(str(Path(self.runner.path))).Runner(weights, device=device)
        results: Sequence[torch.Tensor] = self._native(*tensors)
        return results

    def _on_cpu(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        from codesign.backends.triton.interpret import to_torch
        from codesign.frontend.externals import externals

        arrays = self.captured.flatten_inputs(inputs)
        if self.runner is not None and device_for("cpu") == "cpu":
            results = self.runner.run_interpreted(self.module, arrays)
        else:
            results = evaluate(self.module, arrays, externals=externals(self.module))
        return [to_torch(a, tensor_type(v).dtype) for a, v in zip(results, self.module.main.results, strict=True)]


__all__ = ["CodesignError", "compile_fx_graph"]
