"""MX formats and NVFP4 against the published rules: numbers of 8 and 4 bits, scales of blocks, and the layout that tensor cores take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F
from torch.nn.functional import ScalingType, SwizzleType

from codesign.frontend import capture
from codesign.ir.analysis import contraction
from codesign.ir.dtypes import BF16
from codesign.ir.errors import UnsupportedError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call, Compute
from tests.frontend.checks import Of, check

E8, E4, F4 = torch.float8_e8m0fnu, torch.float8_e4m3fn, torch.float4_e2m1fn_x2
rng = torch.Generator().manual_seed(0)
M, N, K = 130, 64, 128
FOURS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
ALL_BYTES = torch.arange(256, dtype=torch.uint8)


def numbers(kind: str, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An operand as it is stored, in bytes or as it is, and its numbers."""
    if kind == "f8":
        found = torch.randn(rows, K, generator=rng).to(E4)
        return found, found.double()
    pairs = torch.randint(0, 256, (rows, K // 2), dtype=torch.uint8, generator=rng)
    halves = torch.stack((pairs & 15, pairs >> 4), dim=-1).reshape(rows, K).long()
    return pairs, torch.where(halves >= 8, -1.0, 1.0).double() * FOURS[halves & 7].double()


def scales(kind: str, rows: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales of blocks as they are stored, and their numbers."""
    if kind == "e8":
        bits = torch.randint(120, 134, (rows, K // size), dtype=torch.uint8, generator=rng)
        return bits, 2.0 ** (bits.double() - 127)
    found = torch.rand(rows, K // size, generator=rng).add(0.1).to(E4)
    return found, found.double()


def blocked(scale: torch.Tensor) -> torch.Tensor:
    """Scales in tiles of 128 x 4, four rows of 32 beside each other (cuBLAS: 1D block scaling factors layout)."""
    rows, columns = (scale.shape[0] + 127) // 128, (scale.shape[1] + 3) // 4
    whole = torch.zeros(rows * 128, columns * 4, dtype=torch.float64)
    whole[: scale.shape[0], : scale.shape[1]] = scale.double()
    tiles = whole.view(rows, 128, columns, 4).permute(0, 2, 1, 3).reshape(-1, 4, 32, 4).transpose(1, 2)
    return tiles.reshape(-1).to(scale.dtype)


def product(
    function: Callable[..., torch.Tensor], stored: list[torch.Tensor], kinds: list[torch.dtype]
) -> torch.Tensor:
    """What the captured product gives; torch runs it on a GPU alone."""
    like = [torch.empty(t.shape, dtype=kind, device="meta") for t, kind in zip(stored, kinds, strict=True)]
    module = capture(Of(function), tuple(like)).module
    ops = list(module.main.body.walk())
    assert not [op for op in ops if isinstance(op, Call)]
    forms = [form for form in (contraction(op) for op in ops if isinstance(op, Compute)) if form is not None]
    assert [form.operand for form in forms] == [BF16]  # in which no digit is lost
    arrays = [t.float().numpy() if t.dtype is E4 else t.numpy() for t in stored]
    return torch.from_numpy(evaluate(module, arrays)[0])


@pytest.mark.parametrize(("kind", "scale", "size"), [("f8", "e8", 32), ("f4", "e4", 16)])
@pytest.mark.parametrize("said", [False, True])
def test_products_of_blocks_are_those_of_the_numbers_they_stand_for(
    kind: str, scale: str, size: int, said: bool
) -> None:
    (x, left), (w, right) = numbers(kind, M), numbers(kind, N)
    (a, by_row), (c, by_column) = scales(scale, M, size), scales(scale, N, size)
    expected = (left * by_row.repeat_interleave(size, 1)) @ (right * by_column.repeat_interleave(size, 1)).t()
    recipe = ScalingType.BlockWise1x32 if size == 32 else ScalingType.BlockWise1x16
    order = SwizzleType.SWIZZLE_32_4_4

    def by_shape(x: torch.Tensor, w: torch.Tensor, a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch._scaled_mm(x, w.t(), a, c, out_dtype=torch.float32)

    def by_recipe(x: torch.Tensor, w: torch.Tensor, a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return F.scaled_mm(x, w.t(), a, recipe, c, recipe, order, order, output_dtype=torch.float32)

    kinds = [E4 if kind == "f8" else F4] * 2 + [E8 if scale == "e8" else E4] * 2
    found = product(by_recipe if said else by_shape, [x, w, blocked(a), blocked(c)], kinds)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


X = torch.cat(
    [torch.randn(200, generator=rng), 2.0 ** torch.arange(-140.0, 128), 1.5 * 2.0 ** torch.arange(-126.0, 127)]
)
ENDS = torch.tensor([0.0, -0.0, float("inf"), -3.0, 1e-45, 2.0**-127, 1.5 * 2.0**-127, 3.4e38])


@pytest.mark.parametrize("name", ["to", "back", "bytes", "moved"])
def test_scales_convert_as_in_torch(name: str) -> None:
    scale = ALL_BYTES.view(E8)
    function, inputs = {
        "to": (lambda x: x.to(E8).view(torch.uint8), (torch.cat([X, ENDS]),)),
        "back": (lambda s: s.to(torch.float32), (scale,)),
        "bytes": (lambda s: s.view(torch.uint8) + 1, (scale,)),
        "moved": (lambda s: s.reshape(16, 16).t()[:4].to(torch.bfloat16), (scale,)),
    }[name]
    check(Of(function), *inputs, rtol=0, atol=0)


def test_pairs_of_numbers_have_no_value_of_their_own() -> None:
    with pytest.raises(UnsupportedError, match="f4x2 holds two numbers"):
        capture(Of(lambda x: x.to(torch.float32)), (torch.empty(4, 4, dtype=F4, device="meta"),))
