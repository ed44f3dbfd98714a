"""Grouped products: right for all ways to cut rows into groups, and products of tiles on the machine's matrix unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from codesign.backends.triton.interpret import run_kernel
from codesign.costmodel.machine import load_machine
from codesign.frontend import capture
from codesign.frontend.lowering.grouped import block_size
from codesign.ir.core import Module
from codesign.ir.index import index
from codesign.ir.interpreter import evaluate
from codesign.ir.tile import Dot
from codesign.passes import Context, optimize
from codesign.passes.lowering import KernelInfo, tile_module
from codesign.passes.schedule.tuner import Tuner


class Grouped(nn.Module):
    """Rows by their groups' matrices, which are stored transposed."""

    def forward(self, x: torch.Tensor, w: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.aten._grouped_mm(x, w.transpose(1, 2), ends)
        return product


def expected(x: torch.Tensor, w: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
    starts = [0, *ends[:-1]]
    parts = [x[a:b].float() @ w[g].float().T for g, (a, b) in enumerate(zip(starts, ends, strict=True))]
    rest = torch.zeros(len(x) - ends[-1], w.shape[1])
    return torch.cat([*parts, rest])


def tiled(module: Module, machine_name: str = "h100_sxm") -> tuple[Module, dict[str, KernelInfo]]:
    machine = load_machine(machine_name)
    tuner = Tuner(machine, bounds=module.bounds(), budget=64)
    fused = optimize(module, Context(machine=machine, pricer=tuner.price))
    return fused, tile_module(fused, tuner)


@pytest.mark.parametrize(
    "ends",
    [(3, 3, 20, 37), (0, 0, 0, 37), (37, 37, 37, 37), (0, 16, 32, 32), (1, 2, 3, 4), (0, 0, 0, 0)],
    ids=str,
)
def test_rows_of_groups_of_any_size_even_none(ends: tuple[int, ...]) -> None:
    x, w = torch.randn(37, 24, dtype=torch.bfloat16), torch.randn(4, 20, 24, dtype=torch.bfloat16)
    limits = torch.tensor(ends, dtype=torch.int32)
    captured = capture(Grouped(), (x, w, limits))
    inputs = captured.flatten_inputs((x, w, limits))
    (found,) = evaluate(captured.module, inputs)
    np.testing.assert_allclose(found, expected(x, w, ends).bfloat16().float(), atol=0.1, rtol=0.02)
    module, _ = tiled(captured.module)
    (again,) = evaluate(module, inputs)
    np.testing.assert_allclose(again, found, atol=0.1, rtol=0.02)
    assert sum(any(isinstance(op, Dot) for op in kernel.body.walk()) for kernel in module.kernels.values()) == 1


@pytest.mark.slow
def test_the_code_of_the_kernels_gives_the_same() -> None:
    """By Triton's interpreter, with a group of none and rows that are of no group."""
    x, w = torch.randn(37, 24, dtype=torch.bfloat16), torch.randn(4, 20, 24, dtype=torch.bfloat16)
    ends = (3, 3, 20, 35)
    limits = torch.tensor(ends, dtype=torch.int32)
    captured = capture(Grouped(), (x, w, limits))
    module, _ = tiled(captured.module)
    inputs = captured.flatten_inputs((x, w, limits))
    (found,) = evaluate(
        module, inputs, launcher=lambda kernel, given, sizes: run_kernel(kernel, given, sizes, device="cpu")
    )
    np.testing.assert_allclose(found[:35], expected(x, w, ends).bfloat16().float()[:35], atol=0.1, rtol=0.02)


def test_dynamic_rows() -> None:
    x, w = torch.randn(40, 24, dtype=torch.bfloat16), torch.randn(3, 20, 24, dtype=torch.bfloat16)
    limits = torch.tensor((7, 30, 40), dtype=torch.int32)
    captured = capture(Grouped(), (x, w, limits), dynamic_shapes=({0: torch.export.Dim("rows", max=512)}, None, None))
    (found,) = evaluate(captured.module, captured.flatten_inputs((x, w, limits)))
    np.testing.assert_allclose(found, expected(x, w, (7, 30, 40)).bfloat16().float(), atol=0.1, rtol=0.02)


@pytest.mark.parametrize(("rows", "size"), [(8, 16), (1024, 128), (300, 64), (1 << 20, 128)])
def test_blocks_have_the_rows_that_groups_have_on_average(rows: int, size: int) -> None:
    assert block_size(index(rows), index(8)) == size


@pytest.mark.parametrize(("experts", "rows", "inner", "width"), [(8, 4096, 4096, 28672), (64, 8192, 2048, 1408)])
def test_a_mixture_takes_its_products_and_its_weights(experts: int, rows: int, inner: int, width: int) -> None:
    """Between what the padded rows take at the peak, or the weights from memory, and half as much again and the copies around."""
    with torch.device("meta"):
        x, w = torch.zeros(rows, inner, dtype=torch.bfloat16), torch.zeros(experts, width, inner, dtype=torch.bfloat16)
        limits = torch.zeros(experts, dtype=torch.int32)
    _, kernels = tiled(capture(Grouped(), (x, w, limits)).module)
    seconds = sum(info.tuned.seconds * info.count for info in kernels.values())
    operations, weights = 2 * rows * inner * width, 2 * experts * inner * width
    least = max(operations / 989e12, weights / 3.35e12)
    assert least < seconds < 2.5 * least + 4 * rows * width / 2e12 + 20e-6
