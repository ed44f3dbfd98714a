"""Functional graphs compiled and callable: tensors in, tensors out, with the layouts that torch's autograd expects."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codesign.backends.triton import worker as protocol
from codesign.backends.triton.dynamo_options import Options
from codesign.backends.triton.interpret import to_torch
from codesign.backends.triton.runner import write_runner
from codesign.costmodel.cache import choices_file
from codesign.ir.core import Module, tensor_type
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Constant
from codesign.passes.planning import Choices, plan_module

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule, Node

logger = logging.getLogger(__name__)


class SizedGraphs:
    """A graph whose sizes may be open: compiled once for all of them where that works, else for each combination that it is called with."""

    def __init__(self, graph: GraphModule, options: Options, example_inputs: Sequence[Any]) -> None:
        from codesign.frontend.functional import open_sizes, sizes_of_call

        self.graph = graph
        self.options = options
        self._keep = open_sizes(graph)
        self._compiled: list[CompiledGraph] = []
        self._lock = threading.Lock()
        self._for(sizes_of_call(graph, example_inputs))  # what can't be compiled is said now

    def __call__(self, *inputs: Any) -> Sequence[Any]:
        """The outputs, by a graph that holds for these sizes."""
        from codesign.frontend.functional import sizes_of_call

        sizes = sizes_of_call(self.graph, inputs)
        return self._for(sizes)(inputs, sizes)

    def _for(self, sizes: Mapping[str, Any]) -> CompiledGraph:
        with self._lock:
            found = next((one for one in self._compiled if one.graph.takes(sizes)), None)
            if found is None:
                found = self._compile(sizes)
                self._compiled.append(found)
            return found

    def _compile(self, sizes: Mapping[str, Any]) -> CompiledGraph:
        if self._keep:
            try:
                return CompiledGraph(self.graph, sizes, self.options, self._keep)
            except CodesignError as error:  # an operator wants numbers, or they have no place where a runner finds them
                logger.info("compiled for each size: %s", error)
                self._keep = {}
        return CompiledGraph(self.graph, sizes, self.options, {})


class CompiledGraph:
    """A functional graph at known sizes, but for those in `keep`: its kernels, and how its outputs are made of their results."""

    def __init__(
        self,
        graph: GraphModule,
        sizes: Mapping[str, Any],
        options: Options,
        keep: Mapping[str, tuple[int, int | None]],
    ) -> None:
        from torch.utils._python_dispatch import _disable_current_modes

        from codesign.frontend.functional import from_functional

        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.runner = None
        with _disable_current_modes():  # torch compiles under fake tensors; the graph's constants are real ones
            self.graph = from_functional(graph, sizes, keep=keep)
            self.module = _tiled(self.graph.module, options)
            if options.kernels == "triton" and self.module.main.results:
                self.folder = tempfile.TemporaryDirectory(prefix="codesign-graph-")
                self.runner = write_runner(self.module, None, self.folder.name, target=options.machine.name)
        self._origins = _origins(graph)
        self._native: dict[torch.device, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, inputs: Sequence[Any], sizes: Mapping[str, Any]) -> Sequence[Any]:
        """The graph's outputs for its inputs, whose sizes are given, on the inputs' device."""
        from codesign.frontend.arrays import as_complex, as_real
        from codesign.frontend.functional import PassedOn, Size

        tensors = [as_real(inputs[position]) for position in self.graph.arguments]
        if self.graph.draws:
            tensors.append(_seed_of_call())
        results = self._results(tensors, _device(inputs)) if self.module.main.results else []
        symbols = {ours: sizes[theirs] for theirs, ours in self.graph.symbols.items()}
        outputs: list[Any] = []
        for position, out in enumerate(self.graph.outputs):
            if isinstance(out, PassedOn):
                outputs.append(inputs[out.placeholder])
            elif isinstance(out, Size):
                outputs.append(int(out.value.evaluate(symbols)))
            elif out.position is None:
                outputs.append(out.constant)
            else:
                result = results[out.position]
                strides = self.graph.strides_of(position, sizes)
                outputs.append(_laid_out(as_complex(result) if out.is_complex else result, strides))
        return self._apart(inputs, outputs)

    def _apart(self, inputs: Sequence[Any], outputs: list[Any]) -> list[Any]:
        """The outputs, of which those that the graph copies from an input or from one another have memory of their own: the caller may write to
        any of them, and torch to the inputs."""
        import torch

        owners: dict[int, Node | None] = {}
        for value in inputs:
            if isinstance(value, torch.Tensor):
                owners[value.untyped_storage().data_ptr()] = None
        for position, (value, origin) in enumerate(zip(outputs, self._origins, strict=True)):
            if isinstance(value, torch.Tensor) and value.numel() and origin is not None and origin.op != "placeholder":
                place = value.untyped_storage().data_ptr()
                if owners.setdefault(place, origin) is not origin:
                    outputs[position] = value.clone()
        return outputs

    def _results(self, tensors: Sequence[torch.Tensor], device: torch.device) -> Sequence[torch.Tensor]:
        from codesign.frontend.arrays import to_numpy
        from codesign.frontend.externals import externals

        if device.type == "cuda" and self.runner is not None:
            return self._natively(tensors, device)
        arrays = [to_numpy(tensor) for tensor in tensors]
        if self.runner is not None:
            found = self.runner.run_interpreted(self.module, arrays)
        else:
            found = evaluate(self.module, arrays, externals=externals(self.module))
        values = self.module.main.results
        return [to_torch(a, tensor_type(v).dtype).to(device) for a, v in zip(found, values, strict=True)]

    def _natively(self, tensors: Sequence[torch.Tensor], device: torch.device) -> Sequence[torch.Tensor]:
        constants = {op.constant: op.result for op in self.module.main.body.ops if isinstance(op, Constant)}
        with self._lock:  # one arena for all calls
            if device not in self._native:
                assert self.runner is not None
                weights = {
                    name: to_torch(np.asarray(self.module.constants[name]), tensor_type(constants[name]).dtype)
                    for name in self.runner.missing
                }
                self._native[device] = protocol.load_file(str(Path(self.runner.path))).Runner(weights, device=device)
            results: Sequence[torch.Tensor] = self._native[device](*tensors)
        kept = set(constants.values())
        return [
            tensor.clone() if value in kept else tensor  # a constant of the graph is not the caller's to write to
            for tensor, value in zip(results, self.module.main.results, strict=True)
        ]


def _tiled(module: Module, options: Options) -> Module:
    """The module optimised and tiled for the machine."""
    choices = Choices(
        policy=options.policy,
        budget=options.budget,
        fusion=options.fusion,
        passes=options.passes,
        schedules=options.schedules,
        of_others=True,  # a model has several graphs
        kept=choices_file(),
    )
    return plan_module(module, options.machine, choices).module


def _origins(graph: GraphModule) -> list[Node | None]:
    """For each output of a functional graph, the node in whose memory it lies: views lie in that of what they are of. None for what is no node."""
    import torch
    from torch.fx import Node

    def origin(value: Any) -> Node | None:
        while isinstance(value, Node) and isinstance(value.target, torch._ops.OpOverload) and value.args:
            returned = value.target._schema.returns
            if len(returned) != 1 or returned[0].alias_info is None:
                break
            value = value.args[0]
        return value if isinstance(value, Node) else None

    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    given = output.args[0]
    return [origin(value) for value in (given if isinstance(given, (tuple, list)) else [given])]


def _seed_of_call() -> torch.Tensor:
    """A seed from torch's generator of the CPU, which `torch.manual_seed` sets."""
    import torch

    return torch.randint(2**63 - 1, (), dtype=torch.int64, device="cpu")


def _device(inputs: Sequence[Any]) -> torch.device:
    """Where a graph runs: on its inputs' device, scalars of the CPU aside."""
    import torch

    devices = [value.device for value in inputs if isinstance(value, torch.Tensor)]
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))


def _laid_out(tensor: torch.Tensor, strides: tuple[int, ...] | None) -> torch.Tensor:
    """The tensor with the strides that torch traced it with; as it is when they make no difference."""
    import torch

    if strides is None or tensor.numel() == 0 or _same_layout(tensor, strides):
        return tensor
    single = tensor
    for dim, stride in enumerate(strides):
        if stride == 0 and tensor.shape[dim] > 1:
            single = single.narrow(dim, 0, 1)
    made = torch.empty_strided(single.shape, strides, dtype=tensor.dtype, device=tensor.device)
    return made.copy_(single).expand(tensor.shape)


def _same_layout(tensor: torch.Tensor, strides: Sequence[int]) -> bool:
    return all(n == 1 or a == b for n, a, b in zip(tensor.shape, tensor.stride(), strides, strict=True))
