"""PyTorch's own operator samples all the way through kernels: captured, fused, tiled, run in Triton's interpreter, against eager torch.

The front end's conformance tests hold the tensor IR to torch over all samples; this one holds the kernels to it over the first sample of
each operator that has elements.
"""

import logging
import warnings

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from codesign.backends.triton.interpret import run_kernel
from codesign.backends.verification import difference
from codesign.costmodel.machine import load_machine
from codesign.frontend import capture
from codesign.frontend.conformance import samples_of
from codesign.frontend.load import FunctionModule
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call, Random
from codesign.passes.context import Context
from codesign.passes.lowering import tile_module
from codesign.passes.pipeline import optimize
from codesign.passes.schedule.tuner import Tuner

TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 5e-2}

QUICK = (
    "softmax",
    "cumsum",
    "var",
    "nn.functional.conv2d",
    "index_select",
    "amax",
    "argmax",
    "std",
    "logsumexp",
    "matmul",
    "tril",
    "roll",
)
"""Run by default; the others are slow only because there are five hundred of them."""


def names(dtype: torch.dtype) -> list[object]:
    found: list[object] = []
    for info in op_db:
        if dtype in info.dtypes:
            label = f"{info.name}-{info.variant_test_name}".rstrip("-")
            quick = info.name in QUICK and dtype is torch.float32
            found.append(pytest.param(info, id=label, marks=() if quick else pytest.mark.slow))
    return found


def through_kernels(info: object, dtype: torch.dtype) -> None:
    logging.disable(logging.WARNING)
    for sample in samples_of(info, dtype, 4):
        leaves = pytree.tree_leaves(sample.expected)
        tensors = (*sample.tensors, *(leaf for leaf in leaves if isinstance(leaf, torch.Tensor)))
        if not sample.tensors or any(t.layout is not torch.strided or not 0 < t.numel() < 100_000 for t in tensors):
            continue
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                captured = capture(FunctionModule(sample.function), sample.tensors)
        except CodesignError as reason:
            pytest.skip(f"the front end does not take it: {reason}")
        module = captured.module
        if any(isinstance(op, (Call, Random)) for op in module.main.body.walk()) or sample.shape_only or sample.ties:
            pytest.skip("an external call, random numbers, or any of several equal results")
        machine = load_machine("h100_sxm")
        tuner = Tuner(machine, bounds=module.bounds())
        tiled = optimize(module, Context(machine=machine, pricer=tuner.price))
        tile_module(tiled, tuner)
        arrays = captured.flatten_inputs(sample.tensors)
        results = evaluate(tiled, arrays, launcher=lambda k, given, sizes: run_kernel(k, given, sizes, device="cpu"))
        got = [
            leaf for leaf in pytree.tree_leaves(captured.unflatten_outputs(results)) if isinstance(leaf, torch.Tensor)
        ]
        want = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        for ours, theirs in zip(got, want, strict=True):
            if theirs.is_floating_point():
                error, text = difference(theirs.double().numpy(), ours.double().numpy())
                assert error < TOLERANCE[dtype], text
            else:
                assert torch.equal(ours, theirs)
        return
    pytest.skip("no sample with elements")


@pytest.mark.parametrize("info", names(torch.float32))
def test_float32(info: object) -> None:
    through_kernels(info, torch.float32)


@pytest.mark.parametrize("info", names(torch.bfloat16))
def test_bfloat16(info: object) -> None:
    through_kernels(info, torch.bfloat16)
