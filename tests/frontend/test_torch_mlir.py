"""The way through torch-mlir gives the numbers of the direct one: torch's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from codesign.frontend import capture, mlir
from codesign.frontend.conformance import compare
from codesign.frontend.load import FunctionModule
from codesign.frontend.mlir.generic import NARROW_SUMS
from codesign.ir.errors import CodesignError, UnsupportedError
from codesign.ir.interpreter import evaluate
from codesign.ir.verify import verify

needs_torch_mlir = pytest.mark.skipif(
    not mlir.installed(), reason='torch_mlir is not installed: pip install "codesign[torch-mlir]"'
)

PLACES = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 4]])


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


MODELS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "products": (
        lambda x, y, w: (x @ y, torch.einsum("ij,kj->ik", x, w), F.linear(x, w), x.to(torch.int32) @ y.to(torch.int32)),
        (normal(3, 4), normal(4, 5), normal(2, 4)),
    ),
    "convolutions": (
        lambda x, w, t: (F.conv2d(x, w, stride=2, padding=1, groups=2), F.conv_transpose2d(x, t, stride=2)),
        (normal(1, 4, 5, 5), normal(6, 2, 3, 3), normal(4, 2, 3, 3)),
    ),
    "pools": (
        lambda x: (F.max_pool2d(x, 2, padding=1), F.avg_pool2d(x, 3, stride=2, padding=1)),
        (normal(1, 2, 6, 6),),
    ),
    "extrema": (
        lambda x: (x.max(1), x.argmin(0), x.amax(0), torch.maximum(x, x.flip(0))),
        (torch.tensor([[1.0, float("nan"), 3.0], [3.0, 3.0, 1.0]]),),
    ),
    "reductions": (
        lambda x: (x.sum(), x.mean(0), x.var(1), x.prod(1), x.logsumexp(0), (x > 0).any(1), torch.softmax(x, 0)),
        (normal(4, 5),),
    ),
    "running": (lambda x: (x.cumsum(1), x.sort(0, descending=True), x.topk(2, 1)), (normal(4, 5),)),
    "places": (
        lambda x, i, y: (x.gather(0, i), x[i[0]], x.scatter_add(0, i, y), x.index_put((i[1],), y[:1])),
        (normal(5, 4), PLACES, normal(2, 4)),
    ),
    "views": (
        lambda x: (x.reshape(2, 6, 2).permute(2, 0, 1).flatten(), x.roll(1, 0).tril(), F.pad(x, (1, 2), value=3.0)),
        (normal(4, 6),),
    ),
    "integers": (
        lambda n, u: (
            n // 3,
            -n % 7,
            u // 2,
            n.clamp(-1, 2),
            torch.div(n, 3, rounding_mode="trunc"),
            u + u,
            u.float() / 3,
            u > 100,
            n < 0,
        ),
        (torch.arange(-4, 4) + 2**60, torch.tensor([1, 200, 255], dtype=torch.uint8)),
    ),
    "floats": (
        lambda x: (F.gelu(x), F.softplus(x), x.round(), x.sign(), x.isnan(), x**-1, x.clamp(-1, 0.5), x.erf()),
        (torch.tensor([1.5, float("nan"), float("-inf"), -2.5, 0.0]),),
    ),
    "numbers read from tensors": (
        lambda x, f, n, u, h: (
            x * f.item() + h.item(),
            x.clamp(min=f.item()),
            n + n[1].item(),
            u[1].item() + n,
            torch.full((2,), x.sum().item()),
        ),
        (
            normal(2, 3),
            torch.tensor(-0.5),
            torch.tensor([7, 2**60 + 1]),
            torch.tensor([0, 200], dtype=torch.uint8),
            torch.tensor(1.5, dtype=torch.bfloat16),
        ),
    ),
    "windows of a storage": (
        lambda x, y, mask: (
            x.as_strided((2, 3), (1, 2), 1) + torch.as_strided_copy(y, (2, 3), (3, 1)),
            x.t().as_strided((4,), (0,), 5),
            (y * 2).as_strided((1,), (1,), 3),
            y.as_strided((2, 2), (1, 4), 2),
            mask.as_strided((3, 2), (1, 2), 5),
        ),
        (normal(3, 4), normal(4, 3).t(), normal(3, 4) > 0),
    ),
    "complex": (lambda z: (z * z, z + 1), (torch.complex(normal(3), normal(3)),)),
}


@needs_torch_mlir
@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_torch_s(name: str) -> None:
    function, inputs = MODELS[name]
    captured = capture(FunctionModule(function), inputs, frontend="torch-mlir")
    verify(captured.module)
    found = captured.unflatten_outputs(evaluate(captured.module, captured.flatten_inputs(inputs)))
    assert (difference := compare(found, function(*inputs))) == "", difference


class Block(torch.nn.Module):
    """A weight, a buffer that is written, and a result that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)
        self.linear = torch.nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(()))

    calls: torch.Tensor

    def forward(self, x: torch.Tensor, unused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        self.calls.add_(1)
        rows = torch.cat([x, x[:1]])
        return x, torch.softmax(self.linear(self.norm(rows)), -1).reshape(-1, 2), None


@needs_torch_mlir
def test_weights_are_bound_by_name_and_sizes_stay_dynamic() -> None:
    model, inputs = Block(), (normal(3, 8), normal(2))
    shapes = ({0: torch.export.Dim("batch", min=2, max=64)}, None)
    captured = capture(model, inputs, frontend="torch-mlir", dynamic_shapes=shapes)
    verify(captured.module)
    assert set(captured.module.constants) == {"norm.weight", "norm.bias", "linear.weight", "linear.bias", "calls"}
    assert list(captured.module.symbols) == ["batch"]
    for rows in (3, 6):
        given = (normal(rows, 8), inputs[1])
        results = evaluate(captured.module, captured.flatten_inputs(given))
        found, expected = captured.unflatten_outputs(results), model(*given)
        assert compare(found, pytree.tree_map(lambda t: t.detach() if t is not None else None, expected)) == ""
        assert float(results[captured.mutations[0].position]) == float(model.calls)


@needs_torch_mlir
def test_sums_of_16_bits_are_kept_wide_and_said() -> None:
    x = torch.ones(2, 4096, dtype=torch.bfloat16)
    captured = capture(FunctionModule(lambda x: x.sum(1)), (x,), frontend="torch-mlir")
    (total,) = evaluate(captured.module, captured.flatten_inputs((x,)))
    assert total.tolist() == [4096.0, 4096.0]
    assert captured.warnings == [NARROW_SUMS]


@needs_torch_mlir
def test_what_it_refuses_is_one_line_that_names_the_operator() -> None:
    with pytest.raises(UnsupportedError, match="eig") as failure:
        capture(FunctionModule(torch.linalg.eigvals), (normal(3, 3),), frontend="torch-mlir")
    assert "\n" not in failure.value.one_line()


@needs_torch_mlir
def test_a_crash_of_its_passes_is_an_error_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    died = subprocess.CompletedProcess([], -11, b"", b"")
    monkeypatch.setattr("codesign.frontend.mlir.passes.subprocess.run", lambda *_, **__: died)
    with pytest.raises(UnsupportedError, match="crashed"):
        capture(FunctionModule(torch.relu), (normal(2),), frontend="torch-mlir")


def test_absence_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_mlir", None)
    monkeypatch.setitem(sys.modules, "torch_mlir.fx", None)
    with pytest.raises(CodesignError, match="torch_mlir is not installed") as failure:
        capture(FunctionModule(torch.relu), (normal(2),), frontend="torch-mlir")
    assert failure.value.hint == 'pip install "codesign[torch-mlir]"'
