"""What torch is told of float32 reaches the products of a captured model, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from codesign.frontend import capture
from codesign.frontend.lowering import products
from codesign.ir.text import print_module
from tests.frontend.checks import Of

BACKENDS: Any = torch.backends


def as_shipped() -> None:
    """Torch's own settings, whatever was set before by which of its two interfaces."""
    BACKENDS.fp32_precision = BACKENDS.cudnn.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    for kind in (BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul):
        kind.fp32_precision = "none"


@pytest.fixture(autouse=True)
def _flags() -> Iterator[None]:
    """Settings as shipped before and after; what other tests import of torch's own forbids setting them otherwise."""
    with BACKENDS.__allow_nonbracketed_mutation():
        as_shipped()
        yield
        as_shipped()


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
    torch.set_float32_matmul_precision(setting)
    assert ("mul_tf32(" in text(torch.mm, X, W)) == rounded


def older(matmul: bool, convolution: bool) -> None:
    BACKENDS.cuda.matmul.allow_tf32, BACKENDS.cudnn.allow_tf32 = matmul, convolution


def newer(matmul: bool, convolution: bool) -> None:
    BACKENDS.cuda.matmul.fp32_precision, BACKENDS.cudnn.conv.fp32_precision = (
        "tf32" if rounds else "ieee" for rounds in (matmul, convolution)
    )


@pytest.mark.parametrize(
    ("first", "last", "matmul"),
    [(older, newer, True), (newer, older, True), (older, newer, False), (newer, older, False)],
)
def test_the_last_word_counts_of_either_interface(
    first: Callable[[bool, bool], None], last: Callable[[bool, bool], None], matmul: bool
) -> None:
    first(not matmul, matmul)
    last(matmul, not matmul)
    assert ("mul_tf32(" in text(torch.mm, X, W)) == matmul
    assert ("mul_tf32(" in text(F.conv2d, IMAGE, FILTER)) != matmul


@pytest.mark.parametrize("place", [BACKENDS, BACKENDS.cudnn], ids=["all", "cuda"])
def test_a_setting_of_all_operators(place: Any) -> None:
    """What a kind of operators inherits stays inherited, whatever was captured."""
    for kind in (BACKENDS.cudnn.conv, BACKENDS.cuda.matmul):
        kind.fp32_precision = "none"
    for precision in ("ieee", "tf32"):
        place.fp32_precision = precision
        for function, inputs in (PRODUCTS["mm"], CONVOLUTIONS["conv2d"]):
            assert ("mul_tf32(" in text(function, *inputs)) == (precision == "tf32")
    assert BACKENDS.cudnn.enabled
    assert BACKENDS.mkldnn.enabled


@pytest.mark.parametrize("matmul", [False, True])
def test_a_torch_without_the_newer_interface(matmul: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(
        cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=matmul)), cudnn=SimpleNamespace(allow_tf32=not matmul)
    )
    monkeypatch.setattr(products, "torch", SimpleNamespace(backends=old))
    assert products.allowed_by_torch().kinds == {"matmul" if matmul else "convolution": "tf32"}


@pytest.mark.parametrize(
    "inputs", [(X.double(), W.double()), (X.bfloat16(), W.bfloat16()), (X.half(), W.half())], ids=["f64", "bf16", "f16"]
)
def test_other_dtypes_have_nothing_to_round(inputs: tuple[torch.Tensor, ...]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    assert "tf32" not in text(torch.mm, *inputs)


def test_our_own_products_stay_exact() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    assert "tf32" not in text(lambda x: torch.fft.rfft(x).real, X)
