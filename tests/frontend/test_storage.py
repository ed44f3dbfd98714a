"""as_strided counts in the storage of a tensor, whatever its strides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codesign.frontend import capture
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate

STRIDED = torch.empty_strided((10,), (2,)).copy_(torch.arange(0.0, 20.0, 2))
TURNED = torch.arange(12.0).view(3, 4).t()


class Window(torch.nn.Module):
    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], offset: int | None = None) -> None:
        super().__init__()
        self.window = size, stride, offset

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_strided_copy(x, *self.window) + 1


@pytest.mark.parametrize(
    ("x", "window"),
    [
        (STRIDED, ((3,), (2,))),
        (STRIDED, ((3,), (4,), 2)),
        (TURNED, ((12,), (1,))),
        (TURNED, ((3, 4), (4, 1))),
        (TURNED, ((2, 3), (1, 4), 1)),
        (torch.arange(12.0).view(3, 4), ((5,), (2,), 1)),
    ],
)
def test_windows_of_storages(x: Tensor, window: tuple[tuple[int, ...], ...]) -> None:
    model = Window(*window)  # type: ignore[arg-type]
    captured = capture(model, (x,))
    (got,) = evaluate(captured.module, [x.numpy()])
    assert torch.equal(torch.from_numpy(got), model(x))


def test_what_the_tensor_does_not_hold_is_refused() -> None:
    with pytest.raises(CodesignError, match="storage between or around"):
        capture(Window((3,), (1,)), (STRIDED,))


@pytest.mark.parametrize("window", [((3,), (1,), 2), ((4,), (3,), 5)])
def test_storage_around_a_row_major_view_is_refused(window: tuple[tuple[int, ...], tuple[int, ...], int]) -> None:
    view = torch.arange(20.0)[5:12]
    with pytest.raises(CodesignError, match="storage between or around"):
        capture(Window(*window), (view,))


class Written(Window):
    def forward(self, x: Tensor) -> Tensor:
        return torch.as_strided_scatter(x, torch.full(self.window[0], -1.0), *self.window)


@pytest.mark.parametrize(
    ("x", "window"),
    [(TURNED, ((2, 3), (1, 4), 1)), (TURNED, ((12,), (1,))), (torch.arange(12.0).view(3, 4), ((5,), (2,), 1))],
)
def test_windows_that_are_written(x: Tensor, window: tuple[tuple[int, ...], ...]) -> None:
    model = Written(*window)  # type: ignore[arg-type]
    (got,) = evaluate(capture(model, (x,)).module, [x.numpy()])
    assert torch.equal(torch.from_numpy(got), model(x))
