"""State that a model holds under several names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codesign.frontend import capture
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate


class Layer:
    """A cache as an object of the user's own."""

    def __init__(self, size: int) -> None:
        self.values = torch.zeros(size)


class Cached(nn.Module):
    """Buffers that are also in the objects of a list; one name is written, the other one read."""

    def __init__(self, write: str, read: str) -> None:
        super().__init__()
        self.layers = [Layer(3), Layer(3)]
        for k, layer in enumerate(self.layers):
            self.register_buffer(f"cache_{k}", layer.values)
        self.names = (write, read)

    def state(self, name: str, k: int) -> torch.Tensor:
        return self.layers[k].values if name == "object" else self.get_buffer(f"cache_{k}")

    def forward(self, x: Tensor) -> Tensor:
        write, read = self.names
        for k in range(2):
            self.state(write, k).add_(x * (k + 1))
        return self.state(read, 0) * 2 + self.state(read, 1)


def ran(model: nn.Module, x: Tensor, strict: bool | None) -> tuple[Any, dict[str, Any]]:
    """The output and the written buffers, by the interpreter."""
    captured = capture(model, (x,), strict=strict)
    results = evaluate(captured.module, captured.flatten_inputs((x,)))
    return captured.unflatten_outputs(results), {m.name: results[m.position] for m in captured.mutations}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("write", "read"), [("object", "object"), ("object", "buffer"), ("buffer", "object")])
def test_a_write_under_one_name_is_seen_under_the_other(write: str, read: str, strict: bool) -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    model = Cached(write, read)
    output, state = ran(model, x, strict)
    assert torch.equal(output, 4 * x)
    assert {name: value.tolist() for name, value in state.items()} == {
        "cache_0": x.tolist(),
        "cache_1": (2 * x).tolist(),
    }
    assert all(model.layers[k].values is model.get_buffer(f"cache_{k}") for k in range(2))
    assert not model.get_buffer("cache_0").any()


class Unregistered(nn.Module):
    """What is written is no buffer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer(3)

    def forward(self, x: Tensor) -> Tensor:
        self.layer.values.add_(x)
        return self.layer.values * 2


def test_a_written_tensor_that_is_not_registered_is_refused() -> None:
    with pytest.raises(CodesignError, match="mutated") as raised:
        capture(Unregistered(), (torch.ones(3),))
    assert "register_buffer" in str(raised.value.hint)


class Windowed(nn.Module):
    """A view of a buffer that is written, kept in a list."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.register_buffer("whole", torch.zeros(4))
        self.views = [self.get_buffer("whole")[start : start + 2]]

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("whole")[:2].add_(x)
        return self.views[0] * 2


def test_a_view_of_a_written_buffer_is_not_taken_for_a_constant() -> None:
    with pytest.raises(CodesignError) as raised:
        capture(Windowed(1), (torch.ones(2),), strict=False)
    assert "register_buffer" in str(raised.value.hint)


def test_a_view_of_what_is_not_written_may_be_held() -> None:
    class Read(Windowed):
        def forward(self, x: Tensor) -> Tensor:
            return self.views[0] * x + self.get_buffer("whole")[2:]

    output, state = ran(Read(1), torch.ones(2), False)
    assert torch.equal(output, torch.zeros(2))
    assert not state
