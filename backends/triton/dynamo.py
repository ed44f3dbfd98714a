"""`torch.compile(model, backend="codesign")`: each graph that Dynamo finds is compiled by codesign.

AOTAutograd makes every graph functional, with what it writes to written back after the call, and splits it in forward and backward where
gradients are asked for. Each part is captured, fused and scheduled for the machine at hand, and its kernels run natively on CUDA or in
Triton's interpreter on the CPU (slow, and the same kernels). Options, through `torch.compile(..., options={...})`:

- `target`: the name or file of the machine to schedule for (default: by the CUDA device's name, else `h100_sxm`); `machine` is the same.
- `policy`, `budget`: of the schedule search; `fusion`: the fusion policy; as in `python -m codesign.compile`.
- `passes`: your own, run after clean-up and before fusion: a text such as `name{option=value},package.module:Class`, passes, or a list of either.
- `schedules`: a file of schedules by kernel name, or a dict of its form; replayed instead of searched for, in whichever graph has the kernel.
- `kernels`: "triton" or "reference", where the latter runs the fused and tiled graph in the IR's own interpreter, which needs no Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from codesign.backends.triton.dynamo_options import machine_at_hand, options_of
from codesign.backends.triton.graphs import SizedGraphs
from codesign.ir.errors import CodesignError

if TYPE_CHECKING:
    from torch.fx import GraphModule


def compile_fx_graph(
    graph: GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, **more: Any
) -> Callable[..., Sequence[Any]]:
    """Compile a graph of Dynamo's; what it returns takes the graph's inputs and gives its outputs.

    CodesignError (which Dynamo reports with the graph) for an option that is not known or wrong, and for graphs with an operator that has no form
    here.
    """
    from functorch.compile import make_boxed_func  # type: ignore[import-untyped]
    from torch._dynamo.backends.common import aot_autograd

    from codesign.frontend.functional import decompositions

    chosen = options_of({**dict(options or {}), **more})

    def compiler(part: GraphModule, inputs: Sequence[Any]) -> Any:
        return make_boxed_func(SizedGraphs(part, chosen, inputs))

    backend = aot_autograd(
        fw_compiler=compiler, bw_compiler=compiler, inference_compiler=compiler, decompositions=decompositions()
    )
    with _without_onednn():
        compiled: Callable[..., Sequence[Any]] = backend(graph, example_inputs)
    return compiled


@contextmanager
def _without_onednn() -> Iterator[None]:
    """oneDNN's recurrent layers are one opaque call, whose results are no tensors.

    Not by `torch.backends.mkldnn.flags`, which sets what it was not asked for too and warns of that.
    """
    import torch

    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


__all__ = ["CodesignError", "compile_fx_graph", "machine_at_hand"]
