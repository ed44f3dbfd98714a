"""What torch is told of float32 reaches the products of a captured model, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.nn import functional as F

from codesign.frontend import capture
from codesign.ir.text import print_module
from tests.frontend.checks import Of


@pytest.fixture(autouse=True)
def _flags() -> Iterator[None]:
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def text(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> str:
    return print_module(capture(Of(function), inputs).module)


X, W = torch.randn(20, 24), torch.randn(24, 32)
IMAGE, FILTER = torch.randn(1, 4, 8, 8), torch.randn(4, 4, 3, 3)
PRODUCTS: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "mm": (lambda x, w: x @ w, (X, W)),
    "linear": (lambda x, w: F.linear(x, w.t()), (X, W)),
    "addmm": (torch.addmm, (torch.randn(32), X, W)),
    "bmm": (torch.bmm, (X[None], W[None])),
    "einsum": (lambda x, w: torch.einsum("ik,kj->ij", x, w), (X, W)),
    "attention": (F.scaled_dot_product_attention, (torch.randn(1, 2, 16, 8),) * 3),
}
CONVOLUTIONS: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "conv2d": (F.conv2d, (IMAGE, FILTER)),
    "transposed": (F.conv_transpose2d, (IMAGE, FILTER)),
    "conv1d": (F.conv1d, (torch.randn(1, 3, 8), FILTER[0])),
}


@pytest.mark.parametrize("name", [*PRODUCTS, *CONVOLUTIONS])
@pytest.mark.parametrize("matmul", [False, True])
def test_each_kind_follows_its_own_flag(name: str, matmul: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, not matmul
    function, inputs = {**PRODUCTS, **CONVOLUTIONS}[name]
    assert ("mul_tf32(" in text(function, *inputs)) == (matmul == (name in PRODUCTS))


@pytest.mark.parametrize(("setting", "rounded"), [("highest", False), ("high", True), ("medium", True)])
def test_the_setting_of_all_products(setting: str, rounded: bool) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(setting)
        assert ("mul_tf32(" in text(torch.mm, X, W)) == rounded
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    "inputs", [(X.double(), W.double()), (X.bfloat16(), W.bfloat16()), (X.half(), W.half())], ids=["f64", "bf16", "f16"]
)
def test_other_dtypes_have_nothing_to_round(inputs: tuple[torch.Tensor, ...]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    assert "tf32" not in text(torch.mm, *inputs)


def test_our_own_products_stay_exact() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    assert "tf32" not in text(lambda x: torch.fft.rfft(x).real, X)
