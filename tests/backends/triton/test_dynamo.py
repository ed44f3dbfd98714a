"""`torch.compile(..., backend="codesign")` on the CPU: values, gradients, options, breaks in the graph."""

import dataclasses
import importlib.metadata
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from codesign.backends.triton import graphs
from codesign.backends.triton.dynamo import compile_fx_graph
from codesign.backends.triton.dynamo_options import Options
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.scalar import Apply, Scalar, apply, literal
from codesign.ir.tensor import Compute
from codesign.passes import Context, Pass

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4))


def test_inference() -> None:
    plain, x = model(), torch.randn(10, 16)
    compiled = torch.compile(plain, backend=compile_fx_graph)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(compiled(x * 2), plain(x * 2), rtol=1e-5, atol=1e-5)


def test_compiling_changes_no_setting_of_torch_and_warns_of_none(recwarn: pytest.WarningsRecorder) -> None:
    names = ("enabled", "deterministic", "allow_tf32", "fp32_precision")
    before = [getattr(torch.backends.mkldnn, name) for name in names]
    recwarn.clear()
    seen = []

    def watched(graph: Any, inputs: Any) -> Any:
        compiled = compile_fx_graph(graph, inputs, kernels="reference")
        seen.append([getattr(torch.backends.mkldnn, name) for name in names])
        return compiled

    torch.compile(torch.exp, backend=watched)(torch.randn(3))
    assert seen == [before]
    assert not [str(warning.message) for warning in recwarn if "TF32" in str(warning.message)]


def test_training_step_gives_the_same_gradients() -> None:
    first, second, x = model(), model(), torch.randn(10, 16)
    torch.compile(first, backend=compile_fx_graph)(x).square().sum().backward()
    second(x).square().sum().backward()
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_graph_breaks_and_several_outputs() -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.sin() + 1
        torch._dynamo.graph_break()
        return y.sum(0), (y * x).softmax(-1)

    x = torch.randn(6, 9)
    for got, want in zip(torch.compile(function, backend=compile_fx_graph)(x), function(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_sizes_that_change_between_calls() -> None:
    compiled = torch.compile(lambda x: (x * 2).relu().sum(-1), backend=compile_fx_graph)
    for rows in (4, 7, 9):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x), (x * 2).relu().sum(-1), rtol=1e-5, atol=1e-5)


def test_reference_kernels_need_no_triton() -> None:
    plain, x = model(), torch.randn(10, 16)
    compiled = torch.compile(plain, backend=compile_fx_graph, options={"kernels": "reference", "machine": "a100_sxm"})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"polices": "random"}, "no option 'polices'; nearest: policy"),
        ({"kernels": "cuda"}, "kernels="),
        ({"policy": "defualt"}, "unknown policy 'defualt'; nearest: default"),
        ({"fusion": "greedly"}, "unknown fusion policy 'greedly'; nearest: greedy"),
        ({"budget": 0}, "budget=0"),
        ({"target": "maia100"}, "maia100 is no GPU"),
        ({"schedules": 3}, "schedules=3"),
        ({"passes": 3}, "passes=3"),
        ({"passes": "cse,foldviews"}, "passes='cse,foldviews': unknown pass 'foldviews'; nearest: fold-views"),
        ({"passes": "tile"}, "tile has its own place"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    graph = torch.fx.symbolic_trace(model())
    with pytest.raises(CodesignError, match=message):
        compile_fx_graph(graph, [torch.randn(2, 16)], options=options)


def test_options_reach_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fusion gives a kernel per operator; a schedule given by name is the kernel's, and one of another graph's does no harm."""
    made: list[Module] = []
    tiled = graphs._tiled

    def kept(module: Module, options: Options) -> Module:
        made.append(tiled(module, options))
        return made[-1]

    monkeypatch.setattr(graphs, "_tiled", kept)

    def function(x: Tensor) -> Tensor:
        return (x.sin().sum(1) + 1).exp()

    x = torch.randn(6, 9)
    options: dict[str, Any] = {"target": "a100_sxm", "policy": "random", "budget": 3, "kernels": "reference"}
    for fusion in ("none", "greedy"):
        torch._dynamo.reset()
        compiled = torch.compile(function, backend=compile_fx_graph, options={**options, "fusion": fusion})
        torch.testing.assert_close(compiled(x), function(x), rtol=1e-5, atol=1e-5)
    assert len(made[0].kernels) > len(made[1].kernels)
    (name, kernel), *_ = made[1].kernels.items()
    wanted = dataclasses.replace(kernel.schedule, extras={**kernel.schedule.extras, "warps": 2})
    torch._dynamo.reset()
    given = {name: wanted.to_json(), "of_another_graph": wanted.to_json()}
    options["schedules"] = given
    compiled = torch.compile(function, backend=compile_fx_graph, options=options)
    torch.testing.assert_close(compiled(x), function(x), rtol=1e-5, atol=1e-5)
    assert made[2].kernels[name].schedule == wanted


@dataclasses.dataclass(frozen=True)
class Doubled(Pass):
    """Twice the value of every sine, so that a result shows whether the pass ran."""

    name: ClassVar[str] = "doubled"
    by: float = 2.0

    def run(self, module: Module, context: Context) -> Module:
        def change(node: Scalar) -> Scalar | None:
            is_sine = isinstance(node, Apply) and node.function == "sin"
            return apply("mul", node, literal(self.by, node.dtype)) if is_sine else None

        for op in module.main.body.walk():
            if isinstance(op, Compute):
                op.body = op.body.rewrite(change)
        return module


@pytest.mark.parametrize(
    ("passes", "factor"),
    [
        (f"{__name__}:Doubled", 2),
        (f"cse,{__name__}:Doubled{{by=4}}", 4),
        (Doubled(3.0), 3),
        ([Doubled(3.0), "dce", Doubled(2.0)], 6),
    ],
)
def test_passes_of_ones_own_run_in_every_graph(passes: Any, factor: float) -> None:
    compiled = torch.compile(
        lambda x: x.sin().sum(1), backend=compile_fx_graph, options={"kernels": "reference", "passes": passes}
    )
    x = torch.randn(6, 9)
    torch.testing.assert_close(compiled(x), factor * x.sin().sum(1), rtol=1e-5, atol=1e-5)


def test_an_operator_without_a_form_is_placed_at_the_users_line() -> None:
    def function(x: Tensor) -> Any:
        return torch.linalg.eigvals(x).abs()

    line = function.__code__.co_firstlineno + 1
    with pytest.raises(Exception, match=rf"test_dynamo.py:{line} \(aten"):
        torch.compile(function, backend=compile_fx_graph)(torch.randn(8, 8))


def test_threads_share_one_compiled_graph() -> None:
    compiled = torch.compile(lambda x: x.sin() * 2, backend=compile_fx_graph, options={"kernels": "reference"})
    inputs = [torch.randn(5, 3) for _ in range(8)]
    compiled(inputs[0])
    with ThreadPoolExecutor(4) as pool:
        for x, got in zip(inputs, pool.map(compiled, inputs), strict=True):
            torch.testing.assert_close(got, x.sin() * 2, rtol=1e-5, atol=1e-5)


def test_entry_point_is_registered() -> None:
    found = [e for e in importlib.metadata.entry_points(group="torch_dynamo_backends") if e.name == "codesign"]
    if not found:
        pytest.skip("codesign is not installed in this environment (pip install -e .)")
    assert found[0].load() is compile_fx_graph
    assert "codesign" in torch._dynamo.list_backends()
