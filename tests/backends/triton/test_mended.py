"""The interpreter's process without torch: its own bfloat16, its own tensors, and torch's where a kernel's file imports it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from codesign.backends.triton import mended
from codesign.backends.triton import worker as protocol
from codesign.backends.triton.interpret import Worker

LAUNCH = """
import sys


def launch(x, out):
    out.fill_(1.0 if "torch" in sys.modules else -1.0)
"""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    process = Worker()
    yield process
    process.close()


def ask(worker: Worker, path: Path, *tensors: torch.Tensor) -> list[torch.Tensor]:
    packed = [protocol.packed_of(tensor) for tensor in tensors]
    request = {"path": str(path), "tensors": packed, "sizes": [], "kind": "kernel", "first_output": len(tensors) - 1}
    return [protocol.tensor_of(answer) for answer in worker.ask(request, "kernel")]


def test_bfloat16_rounds_as_torch_does() -> None:
    high = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    single = (high[:, None] | low).view(np.float32)
    expected, got = torch.from_numpy(single).to(torch.bfloat16), mended.bfloat16_bits(single)
    number = ~np.isnan(single)  # torch has several NaNs, depending on the length of its vectors
    np.testing.assert_array_equal(got[number], expected.view(torch.uint16).numpy()[number])
    assert set(got[~number].tolist()) == {0x7FC0}
    assert expected[torch.from_numpy(~number)].isnan().all()


def test_torch_is_imported_for_files_that_import_it_and_for_bytes(worker: Worker, tmp_path: Path) -> None:
    """In this order: what one kernel has imported stays."""
    plain, asking = tmp_path / "plain.py", tmp_path / "asking.py"
    plain.write_text(LAUNCH)
    asking.write_text(f"import torch\n{LAUNCH}    assert isinstance(x, torch.Tensor)\n")
    for dtype in (torch.float32, torch.bfloat16, torch.int8, torch.float16, torch.float64):
        (out,) = ask(worker, plain, torch.zeros(3), torch.zeros(2, 5, dtype=dtype))
        assert out.dtype == dtype
        assert torch.equal(out, torch.full((2, 5), -1, dtype=dtype))
    (out,) = ask(worker, plain, torch.zeros(0), torch.zeros(0, 4))
    assert out.shape == (0, 4)
    (out,) = ask(worker, asking, torch.zeros(3), torch.zeros(()))
    assert out == 1.0
    (out,) = ask(worker, plain, torch.zeros(3).to(torch.float8_e5m2), torch.zeros(4))
    assert out.tolist() == [1.0] * 4


KERNEL = """
import triton
import triton.language as tl


@triton.jit
def double(x):
    return x + x


@triton.jit
def kernel(x, out):
    lanes = tl.arange(0, 4)
    row = tl.program_id(0)
    tile = tl.load(x + 4 * row + lanes).to(tl.float32)
    tl.store(out + 4 * row + lanes, double(tile) + tl.sum(tile, 0))


def launch(x, out):
    kernel[(2,)](x, out)
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_kernels_and_their_functions_run_again_and_again(worker: Worker, tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "kernel.py"
    path.write_text(KERNEL)
    for start in range(3):
        x = torch.arange(start, start + 8).reshape(2, 4).to(dtype)
        (out,) = ask(worker, path, x, torch.zeros(2, 4, dtype=dtype))
        assert torch.equal(out, 2 * x + x.sum(1, keepdim=True).to(dtype))
