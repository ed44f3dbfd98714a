"""Complex tensors, carried as real ones: values against eager torch, at every place where a model may have one."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codesign.frontend import capture
from codesign.frontend.arrays import as_complex, as_real
from codesign.frontend.inputs import drawn
from codesign.ir.core import tensor_type
from codesign.ir.dtypes import F32
from codesign.ir.errors import UnsupportedError
from codesign.ir.tensor import Compute, Constant
from tests.frontend.checks import assert_close, check, run
from tests.frontend.test_capture import of

CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def numbers(*shape: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def rotary(x: Tensor, frequencies: Tensor) -> Tensor:
    """As Llama 2 writes it."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * frequencies[None, :, None]).flatten(3).type_as(x)


def table(length: int, dim: int) -> Tensor:
    rates = 1.0 / (10000.0 ** (torch.arange(0, dim, 2).float() / dim))
    angles = torch.outer(torch.arange(length), rates)
    return torch.polar(torch.ones_like(angles), angles)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_embedding(dtype: torch.dtype) -> None:
    class Rotary(nn.Module):
        frequencies: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("frequencies", table(6, 8))

        def forward(self, x: Tensor) -> Tensor:
            return rotary(x, self.frequencies)

    captured = check(Rotary(), torch.randn(2, 6, 3, 8, dtype=dtype))
    (constant,) = [op for op in captured.module.main.body.ops if isinstance(op, Constant)]
    assert constant.constant == "frequencies"
    assert [size.constant for size in tensor_type(constant.result).shape] == [6, 4, 2]
    check(of(lambda x: rotary(x, table(6, 8))), torch.randn(2, 6, 3, 8, dtype=dtype))


MODELS: dict[str, Any] = {
    "product": lambda z, w: (z * w * 2j + w - (1 - 2j), z * 1.5, 2 - z, torch.sub(z, w, alpha=2j)),
    "quotient": lambda z, w: (z / w, 1 / z, z / (3 - 4j), z / 2, w.reciprocal(), 2j / z),
    "conjugate": lambda z, w: (z.conj() * w, z.mH, z.conj().imag, torch.vdot(z[0], w[0]), z.conj().resolve_conj()),
    "parts": lambda z, w: (z.real + w.imag, z.abs(), z.angle(), z.sgn(), torch.complex(z.real, w.imag[:1])),
    "powers": lambda z, w: (z**2, z**3, z**-2, z**0, z.square(), z**0.5, z**w, 2**z, (z * 0) ** w),
    "exponentials": lambda z, w: (z.exp(), z.log(), z.log10(), z.sqrt(), z.rsqrt(), z.sigmoid(), torch.exp2(w)),
    "circular": lambda z, w: (z.sin(), z.cos(), z.tan(), z.sinh(), z.cosh(), z.tanh()),
    "inverse circular": lambda z, w: (z.asin(), z.acos(), z.atan(), z.asinh(), z.acosh(), z.atanh()),
    "near one and zero": lambda z, w: (z.log1p(), z.expm1(), (z * 1e-5).log1p(), (w * 1e-5).expm1(), (z * 9).log1p()),
    "sums": lambda z, w: (z.sum(), z.mean(1), z.sum(0, keepdim=True), z.cumsum(1), z.var(), torch.linalg.norm(w)),
    "matrices": lambda z, w: (z @ w, torch.einsum("ij,kj->ik", z, w), torch.addmm(z, z, w, alpha=2j), z.mv(w[0])),
    "linear": lambda z, w: (nn.functional.linear(z, w), nn.functional.linear(z, w, z[0])),
    "compared": lambda z, w: (z == w, z != z.real, z.isnan(), torch.isfinite(z), (z - z).any(), z.bool()),
    "views": lambda z, w: (z.reshape(-1).view(2, 8).T, z[None].expand(3, 4, 4), z.unsqueeze(1).squeeze(1), z.flip(0)),
    "pieces": lambda z, w: (*z.chunk(2, 1), *w.unbind(0), z[1:, ::2], z[torch.tensor([2, 0])], z.diagonal()),
    "joined": lambda z, w: (torch.cat([z, w.real]), torch.stack([z, w]), nn.functional.pad(z, (1, 2), value=1.5)),
    "masked": lambda z, w: (
        torch.where(z.real > 0, z, w),
        z.masked_fill(w.imag > 0, 1 + 2j),
        torch.where(w.imag > 0, z, 1.0),
    ),
    "bits": lambda z, w: (z.view(torch.float32), w.real.contiguous().view(torch.complex64)),
    "made": lambda z, w: (torch.ones_like(z) + w, torch.full((4,), 1 - 2j) * z, torch.zeros_like(z), torch.eye(4) * 1j),
    "types": lambda z, w: (z.to(torch.complex128), z.real.to(torch.complex64), z.real * w, z.to(torch.float32)),
    "promoted": lambda z, w: (
        z * w.to(torch.complex128),
        z + torch.arange(4),
        z.real.double() * 1j,
        z * torch.tensor(2.0).double(),
    ),
    "products": lambda z, w: (z.prod(), z.prod(0), w[:3].prod(0, keepdim=True), (z * w).sum().prod()),
    "real results": lambda z, w: (torch.ones_like(z, dtype=torch.float64), torch.zeros_like(w, dtype=torch.int32)),
    "running products": lambda z, w: (z.cumprod(0), w[:3].cumprod(1), z.sum().cumprod(0), z.cumprod(-1)[:, 1]),
    "spread": lambda z, w: (*torch.var_mean(z, 1), *torch.std_mean(w), z.std(0), torch.var(z, correction=0)),
    "distance": lambda z, w: (torch.dist(z, w), torch.dist(z, w[:1], 1), torch.dist(z, w, 3.0)),
    "by powers of two": lambda z, w: (torch.ldexp(z, torch.tensor([1, -2, 0, 3])), torch.ldexp(w, torch.tensor(4))),
    "windows": lambda z, w: (
        z.as_strided((3, 2), (4, 1), 1),
        (z * w).as_strided((2, 3), (1, 2)),
        (z * w).T.as_strided((4,), (5,)),
        z.T.clone().as_strided((2, 2), (1, 4), 3),
    ),
    "put": lambda z, w: (z.put(torch.tensor([3, 0]), w[0, :2]), z.put(torch.tensor([1, 1]), w[0, :2], accumulate=True)),
    "combined": lambda z, w: (
        z.scatter(0, torch.tensor([[1, 0, 2, 2], [1, 3, 2, 0]]), w, reduce="add"),
        z.scatter(0, torch.tensor([[1, 0, 2, 2], [1, 3, 2, 0]]), w, reduce="multiply"),
        z.scatter(0, torch.tensor([[1, 0, 2, 2]]), 2.0, reduce="multiply"),
    ),
    "products of nothing": lambda z, w: (z[:0].prod(), z[:, :0].prod(1), w[:0].prod(0, keepdim=True)),
    "polar": lambda z, w: torch.polar(z.real.abs(), w.real[:1]),
}


@pytest.mark.filterwarnings("ignore:Casting complex values to real:UserWarning")  # which `types` does on purpose
@pytest.mark.parametrize("name", MODELS)
def test_operators(name: str) -> None:
    check(of(MODELS[name]), numbers(4, 4), numbers(4, 4), **CLOSE)


def test_complex128() -> None:
    wide = torch.complex128
    check(of(lambda z, w: (z / w, z.exp() @ w, z.abs())), numbers(4, 4, dtype=wide), numbers(4, 4, dtype=wide))


def test_what_is_large_small_zero_or_on_an_axis() -> None:
    corners = torch.tensor([0, 1, -1, 1j, -1j, 3e30 + 3e30j, 1e-30 - 1e-30j, -2 + 0j, 20 + 1j, -20 - 1j])
    check(
        of(lambda z: (z.sqrt(), z.tanh(), z.sigmoid(), 1 / (z + 1e-31), z / z.abs().max(), z.abs(), z.angle())),
        corners,
        **CLOSE,
    )
    check(of(lambda z: (z.sgn(), z * 0.0, z**2.5)), corners[:5], **CLOSE)
    cuts = torch.tensor([0, 2, -2, 2j, -2j, 0.5, complex(2, -0.0), complex(-2, -0.0), 1e-20 + 1e-6j, -3 + 4j])
    check(of(lambda z: (z.asin(), z.acos(), z.atan(), z.asinh(), z.acosh(), z.atanh(), z.log1p())), cuts, **CLOSE)


def test_parameters_keep_their_names_and_are_stored_in_real_form() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing = nn.Parameter(numbers(4, 4))
            self.kept = numbers(4).conj()  # neither parameter nor buffer

        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_real(x.to(torch.complex64) @ self.mixing * self.kept)

    model = Spectral()
    captured = check(model, torch.randn(3, 4), **CLOSE)
    data = np.asarray(captured.module.constants["mixing"])
    assert np.shares_memory(data, model.mixing.detach().numpy()), "parameters must not be copied"
    assert np.array_equal(data, torch.view_as_real(model.mixing.detach()).numpy())


def test_inputs_and_outputs_are_complex_outside_and_real_inside() -> None:
    z = numbers(2, 3)
    captured = check(of(lambda z, x: {"turned": z.T * 1j, "same": z, "real": x}), z, torch.randn(3))
    types = [tensor_type(value) for value in (*captured.module.main.args, *captured.module.main.results)]
    assert all(kind.dtype is F32 for kind in types)
    assert [array.shape for array in captured.flatten_inputs((z.conj(), torch.ones(3)))] == [(2, 3, 2), (3,)]
    assert_close(run(captured, (z.conj(), torch.ones(3)))["turned"], (z.conj().T * 1j).resolve_conj())


def test_a_conjugated_example_leaves_no_size_open() -> None:
    z = numbers(3, 4).conj()
    captured = check(of(lambda z: z * 2j), z)
    assert not captured.module.symbols


def test_open_sizes() -> None:
    rows = torch.export.Dim("rows", min=2, max=64)

    def model(z: Tensor) -> Any:
        return z.reshape(z.shape[0] * 3), (z * z.conj()).sum(1), torch.complex(z.real, z.imag[:, :1])

    captured = capture(of(model), (numbers(4, 3),), dynamic_shapes={"args": ({0: rows},)})
    for count in (2, 9):
        z = numbers(count, 3)
        assert_close(run(captured, (z,)), model(z))


def test_branches_and_regions() -> None:
    def model(z: Tensor) -> Any:
        with torch.no_grad():
            w = z * 2j
        return torch.cond(w.imag.sum() > 0, lambda t, x: (t * 2j, x * 3), lambda t, x: (t / w, -x), (w, z.real))

    z = numbers(3)
    captured = check(of(model), z)
    assert_close(run(captured, (-z,)), model(-z))


def test_buffers_and_inputs_that_the_model_writes() -> None:
    class State(nn.Module):
        state: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.ones(3, dtype=torch.complex64))

        def forward(self, z: Tensor) -> Tensor:
            self.state.mul_(z)
            z.add_(1j)
            return self.state + z

    captured = capture(State(), (numbers(3),))
    assert [(m.kind, m.name, m.is_complex) for m in captured.mutations] == [
        ("buffer", "state", True),
        ("input", "z", True),
    ]


def test_places_are_the_users_lines() -> None:
    def model(z: Tensor) -> Tensor:
        w = z * 2j
        return w.abs()

    captured = capture(of(model), (numbers(3),))
    first = inspect.getsourcelines(model)[1]
    lines = {op.location.line - first for op in captured.module.main.body.ops if isinstance(op, Compute)}
    assert lines == {1, 2}


def test_what_has_no_rule_is_named_with_its_line() -> None:
    message = r"test_complex\.py:\d+.*aten\.logcumsumexp\.default.*complex.*view_as_real"
    with pytest.raises(UnsupportedError, match=message):
        capture(of(lambda z: z.logcumsumexp(0)), (numbers(4),))


def test_sizes_that_data_decides() -> None:
    """Both parts of what a mask chooses have as many numbers."""

    def model(z: Tensor) -> Any:
        chosen = z[z.real > 0]
        return chosen * 2j, z.masked_select(z.imag > 0), torch.nonzero(z), chosen.sum()

    z = numbers(5, 4)
    z[1] = 0
    captured = check(of(model), z, **CLOSE)
    assert_close(run(captured, (-z,)), model(-z), **CLOSE)


def test_a_running_product_is_as_near_as_torchs() -> None:
    z = torch.polar(torch.rand(200) * 0.2 + 0.9, torch.rand(200) * 6)
    found = run(capture(of(lambda z: z.cumprod(0)), (z,)), (z,))
    assert_close(found, z.to(torch.complex128).cumprod(0).to(torch.complex64), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 7, 64, 67, 96, 210])
def test_fourier_transforms(length: int) -> None:
    def model(x: Tensor, z: Tensor) -> Any:
        half = torch.fft.rfft(x, norm="ortho")
        there = torch.fft.fft(z, dim=0)
        return (
            half,
            torch.fft.irfft(half, n=length),
            there,
            torch.fft.ifft(there, dim=0),
            torch.fft.fft(x).real,
            torch.fft.hfft(z.T, n=length),
        )

    check(of(model), torch.randn(2, length), numbers(length, 3), rtol=1e-4, atol=1e-4)


def test_fourier_transforms_of_several_dims() -> None:
    def model(x: Tensor) -> Any:
        waves = torch.fft.rfft2(x, norm="ortho")
        return (
            waves,
            torch.fft.irfft2(waves * waves.conj(), s=x.shape[-2:]),
            torch.fft.fft2(x).real,
            torch.fft.fftn(x, dim=(0, 2)),
        )

    check(of(model), torch.randn(3, 8, 9), rtol=1e-4, atol=1e-4)


def test_fourier_transforms_in_float64_and_along_a_long_prime() -> None:
    check(of(lambda x: torch.fft.rfft(x)), torch.randn(2, 150, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    with pytest.raises(UnsupportedError, match=r"test_complex\.py:\d+.*prime length 4099"):
        capture(of(lambda x: torch.fft.rfft(x)), (torch.randn(4099),))


def test_fresh_inputs_are_drawn_for_both_parts() -> None:
    z = numbers(50)
    ((made,), _) = drawn(((z,), {}), 1, gentle=False)
    assert made.dtype is torch.complex64
    assert bool((made.real != z.real).any())
    assert bool((made.imag != z.imag).any())
    assert torch.equal(as_complex(as_real(z.conj())), z.conj())
