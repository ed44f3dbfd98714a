"""Loops, scans, maps and branches: right in every form, made of kernels, and priced by how often they run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.cond import cond
from torch._higher_order_ops.map import map as map_along
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from codesign.backends.triton.runner import write_runner
from codesign.costmodel.machine import load_machine
from codesign.costmodel.sums import Time
from codesign.frontend import capture
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import While
from codesign.ir.text import parse, print_module
from codesign.passes import Context, optimize
from codesign.passes.lowering import KernelInfo, tile_module
from codesign.passes.schedule.tuner import Tuner
from codesign.totals import remarks_of, time_of
from tests.commands.invoke import run


class Model(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(self.layer, *args)


def _scan(layer: nn.Module, x: torch.Tensor, h: torch.Tensor) -> Any:
    return scan(lambda c, x: (torch.tanh(layer(c) + x), c * 2), h, x, dim=0)


def _backwards(layer: nn.Module, x: torch.Tensor, h: torch.Tensor) -> Any:
    return scan(lambda c, x: (c + x, c.exp()), h, x, dim=0, reverse=True)


def _map(layer: nn.Module, x: torch.Tensor, h: torch.Tensor) -> Any:
    return map_along(lambda x, h: layer(x).sin() + h, x, h)  # type: ignore[arg-type]


def _tree(layer: nn.Module, x: torch.Tensor, h: torch.Tensor) -> Any:
    return associative_scan(lambda a, b: (a[0] * b[0], b[0] * a[1] + b[1]), (x, x + 1), dim=0, combine_mode="generic")


def _while(layer: nn.Module, x: torch.Tensor, h: torch.Tensor) -> Any:
    return while_loop(lambda i, y: i < 7, lambda i, y: (i + 2, torch.tanh(layer(y))), (torch.tensor(1), x))  # type: ignore[no-untyped-call]


def _branch(layer: nn.Module, x: torch.Tensor, h: torch.Tensor) -> Any:
    return cond(x.sum() > 0, lambda x: layer(x).sin(), lambda x: x * 2 + 1, (x,))


X, H = torch.randn(5, 4), torch.randn(4)


def tiled(module: Module) -> tuple[Module, dict[str, KernelInfo]]:
    machine = load_machine("h100_sxm")
    tuner = Tuner(machine, budget=8)
    fused = optimize(module, Context(machine=machine, pricer=tuner.price))
    return fused, tile_module(fused, tuner)


@pytest.mark.parametrize("function", [_scan, _backwards, _map, _tree, _while, _branch], ids=lambda f: f.__name__)
def test_values_in_the_ir_and_in_kernels(function: Callable[..., Any], tmp_path: Path) -> None:
    model = Model(function)
    captured = capture(model, (X, H))
    with torch.no_grad():
        wanted = model(X, H)
    expected = [wanted] if isinstance(wanted, torch.Tensor) else list(wanted)
    inputs = captured.flatten_inputs((X, H))
    made, _ = tiled(captured.module)
    assert print_module(parse(print_module(made))) == print_module(made)
    results = [evaluate(captured.module, inputs), evaluate(made, inputs)]
    if function in (_scan, _while):
        results.append(write_runner(made, None, tmp_path).run_interpreted(made, inputs))
    for found in results:
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-5)


def test_a_scan_copies_none_of_its_results() -> None:
    made, _ = tiled(capture(Model(_scan), (X, H)).module)
    assert sum(len(kernel.overwrites) for kernel in made.kernels.values()) == 1


def _loops(module: Module) -> list[While]:
    return [op for op in module.main.body.walk() if isinstance(op, While)]


def test_known_trips_are_counted() -> None:
    made, kernels = tiled(capture(Model(_while), (X, H)).module)
    assert [op.steps({}) for op in _loops(made)] == [3]
    assert sorted(info.count for info in kernels.values())[-3:] == [3, 3, 4]


def _halving(layer: nn.Module, n: torch.Tensor, x: torch.Tensor) -> Any:
    return while_loop(lambda n, y: n > 1, lambda n, y: (n // 2, y + n), (n, x))  # type: ignore[no-untyped-call]


def test_trips_that_an_input_decides_are_those_of_the_example_and_said_to_be() -> None:
    captured = capture(Model(_halving), (torch.tensor(100), X))
    assert [op.steps({}) for op in _loops(captured.module)] == [6]
    assert any("6 times" in warning for warning in captured.warnings)


MODEL = """
import torch
from torch import nn
from torch._higher_order_ops.while_loop import while_loop
class Loop(nn.Module):
    def forward(self, n, x):
        return while_loop(lambda i, y: i < 100, lambda i, y: (i + 1, torch.tanh(y)), (n, x))[1]
model = Loop()
example_inputs = (torch.zeros((), dtype=torch.long, device="meta"), torch.empty(64, 64, device="meta"))
"""


def test_unknown_trips_are_said_or_given(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    arguments = ["model.py", "--target", "h100_sxm", "--no-kernels", "--no-verify", "--json"]
    once = json.loads(run("compile", *arguments, cwd=tmp_path).stdout)
    often = json.loads(run("compile", *arguments, "--bind", "while_loop_steps=50", cwd=tmp_path).stdout)
    assert any("one iteration" in text and "--bind while_loop_steps=" in text for text in once["warnings"])
    assert not any("iteration" in text for text in often["warnings"])
    assert often["seconds"] == pytest.approx(sum(k["seconds"] * k["count"] for k in often["kernels"]), rel=1e-9)
    assert 20 * once["seconds"] < often["seconds"] < 51 * once["seconds"]


def test_branches_are_half_each_and_the_interval_holds_both() -> None:
    made, _ = tiled(capture(Model(_branch), (X, H)).module)
    (branch,) = [op for op in made.main.body.ops if op.opcode == "if"]
    then, otherwise = branch.blocks()

    def price(op: Any) -> Time:
        if op.opcode != "launch":
            return Time()
        return Time(4.0, 3.0, 5.0) if op in then.ops else Time(2.0, 1.0, 3.0) if op in otherwise.ops else Time()

    found = time_of(made.main.body, price, {})
    several = sum(op.opcode == "launch" for op in then.ops)
    assert (found.seconds, found.low) == ((4.0 * several + 2.0) / 2, 1.0)
    assert found.high == pytest.approx(4.0 * several + math.sqrt(several))  # launches that have nothing in common
    assert "branches" in remarks_of(made.main.body, {})[0]


def test_associative_scans_that_stay_operators() -> None:
    """As torch keeps those of `combine_mode="pointwise"`, which it takes on a GPU only."""
    from torch.fx import Graph, GraphModule

    from codesign.frontend.translate import Translation, translate
    from codesign.ir.core import Value

    part, whole = torch.empty(4), torch.empty(5, 4)
    inner = Graph()
    a, b = (inner.placeholder(name) for name in ("a", "b"))
    a.meta["val"] = b.meta["val"] = part
    product = inner.call_function(torch.ops.aten.mul.Tensor, (a, b))
    product.meta["val"] = part
    inner.output([product])
    outer = Graph()
    x = outer.placeholder("x")
    combine = outer.get_attr("combine")
    node = outer.call_function(torch.ops.higher_order.associative_scan, (combine, [x], ()))
    x.meta["val"], node.meta["val"] = whole, (whole,)
    outer.output(node)
    graph = GraphModule({"combine": GraphModule({}, inner)}, outer)

    def bind(translation: Translation, placeholder: Any) -> Value:
        return Value(translation.type_of(placeholder.meta["val"]), placeholder.name)

    module, results, _ = translate(graph, bind)
    module.main.body.yields = tuple(results)
    (found,) = evaluate(module, [X.numpy()])
    np.testing.assert_allclose(found, X.cumprod(0).numpy(), rtol=1e-5)


def _longer(layer: nn.Module, x: torch.Tensor) -> Any:
    return cond(x.shape[0] > 4, lambda x: layer(x).sin(), lambda x: x * 2 + 1, (x,))


def test_a_branch_by_a_size_takes_each_way() -> None:
    model = Model(_longer)
    captured = capture(model, (X,), dynamic_shapes={"args": ({0: torch.export.Dim("n", min=2)},)}, strict=False)
    for rows in (3, 5):
        x = torch.randn(rows, 4)
        (found,) = evaluate(captured.module, captured.flatten_inputs((x,)))
        np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def _counting(layer: nn.Module, x: torch.Tensor) -> Any:
    n, total, y = while_loop(  # type: ignore[no-untyped-call]
        lambda i, j, y: i + j < 9, lambda i, j, y: (i + 1, j + i, y * 1.5 + i), (1, 0, x)
    )
    return y * n, x + total


def test_a_loop_carries_integers_of_python() -> None:
    captured = capture(Model(_counting), (X,), strict=False)
    found = evaluate(captured.module, captured.flatten_inputs((X,)))
    for got, want in zip(found, _counting(nn.Identity(), X), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-5)
    assert [op.steps({}) for op in _loops(captured.module)] == [3]  # (1, 0), (2, 1), (3, 3), (4, 6)
