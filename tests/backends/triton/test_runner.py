"""Runners: the written file, as it stands, against torch on fresh inputs; and what it takes along."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codesign.backends.triton import runner as runner_module
from codesign.backends.triton.runner import Runner, write_runner
from codesign.backends.verification import difference
from codesign.costmodel.cache import write_atomically
from codesign.costmodel.machine import load_machine
from codesign.frontend import Captured, capture
from codesign.frontend.load import ModelSource
from codesign.frontend.training import trained
from codesign.ir.core import Module
from codesign.ir.interpreter import evaluate
from codesign.passes.context import Context
from codesign.passes.lowering import tile_module
from codesign.passes.memory import plan
from codesign.passes.pipeline import optimize
from codesign.passes.schedule.tuner import Tuner


def tiled(captured: Captured) -> Module:
    machine = load_machine("h100_sxm")
    module = captured.module
    sizes = {name: symbol.example or symbol.low for name, symbol in module.symbols.items()}
    tuner = Tuner(machine, bounds=module.bounds(), sizes=sizes)
    result = optimize(module, Context(machine=machine, pricer=tuner.price, sizes=sizes))
    tile_module(result, tuner)
    return result


def check(
    model: nn.Module, folder: Path, *inputs: Tensor, dynamic: Any = None, fresh: tuple[Tensor, ...] | None = None
) -> Runner:
    """Write a runner of the model, run it in the interpreter, compare every result with torch."""
    captured = capture(model, inputs, dynamic_shapes=dynamic)
    module = tiled(captured)
    runner = write_runner(module, None, folder, target="h100_sxm", input_names=captured.input_names)
    given = fresh or tuple(torch.randn_like(t) if t.is_floating_point() else t for t in inputs)
    results = captured.unflatten_outputs(runner.run_interpreted(module, captured.flatten_inputs(given)))
    with torch.no_grad():
        expected = model(*given)
    pairs = zip(expected, results, strict=True) if isinstance(expected, tuple) else [(expected, results)]
    for want, got in pairs:
        assert want.dtype == got.dtype
        error, text = difference(want.double().numpy(), got.double().numpy())
        assert error < (2e-5 if want.dtype == torch.float32 else 3e-2), text
    return runner


def test_files_are_readable_for_whom_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "runner.py", b"pass\n")
    finally:
        os.umask(old)
    assert (tmp_path / "runner.py").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["runner.py"]


class Mixed(nn.Module):
    """Kernels around what is no kernel: a sort, a running sum, a scatter, and a result that is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(24, 48)

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        h = F.gelu(self.up(x))
        top, where = torch.topk(h, 5, dim=-1)
        running = torch.cumsum(h.softmax(-1), dim=0)
        summed = torch.zeros(6, 48).index_add(0, ids, h)
        return top * 2, where, running, summed


class TwoLayers(nn.Module):
    def __init__(self, width: int = 32, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = nn.Linear(width, 2 * width, dtype=dtype)
        self.second = nn.Linear(2 * width, width, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(self.second(torch.relu(self.first(x))), (x.shape[-1],))


def test_kernels_with_torch_operations_between_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 6, (20,))
    runner = check(Mixed(), tmp_path, torch.randn(20, 24), ids)
    assert runner.missing == ()
    assert runner.peak_bytes > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    check(TwoLayers(dtype=dtype), tmp_path, torch.randn(16, 32, dtype=dtype))


def test_dynamic_batch_runs_at_sizes_it_was_not_captured_at(tmp_path: Path) -> None:
    torch.manual_seed(2)
    batch = torch.export.Dim("batch", min=2, max=512)
    for size in (3, 37):
        fresh = (torch.randn(size, 32),)
        check(TwoLayers(), tmp_path, torch.randn(8, 32), dynamic=({0: batch},), fresh=fresh)


def test_buffers_of_the_arena_do_not_overlap_while_live(tmp_path: Path) -> None:
    torch.manual_seed(3)

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(6))

        def forward(self, x: Tensor) -> Tensor:
            skip = x
            for layer in self.layers:
                x = layer(x).softmax(-1).sort(-1).values
            return x + skip

    runner = check(Chain(), tmp_path, torch.randn(32, 64))
    source = runner.path.read_text(encoding="utf-8")
    offsets = [int(offset) for offset in re.findall(r"_at\(arena, (\d+),", source)]
    assert len(offsets) > len(set(offsets)), "memory is used again"
    assert f"ARENA_BYTES = {runner.peak_bytes}" in source


def by_plain_python(code: str, folder: Path) -> str:
    """What a process of its own prints that runs code in the folder of a runner, with TRITON_INTERPRET=1."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_file_stands_alone(tmp_path: Path) -> None:
    """Loaded by plain Python where codesign cannot be imported, with TRITON_INTERPRET=1."""
    torch.manual_seed(4)
    model, x = TwoLayers(), torch.randn(8, 32)
    captured = capture(model, (x,))
    module = tiled(captured)
    write_runner(module, plan(module.main), tmp_path / "out")
    torch.save((x, model(x)), tmp_path / "case.pt")
    code = (
        "import sys; sys.modules['codesign'] = None\n"
        "import torch; from runner import Runner\n"
        f"x, expected = torch.load({str(tmp_path / 'case.pt')!r})\n"
        "(got,) = Runner(device='cpu')(x)\n"
        "print(float((got - expected).abs().max()))\n"
    )
    assert float(by_plain_python(code, tmp_path / "out")) < 1e-4


def test_a_step_of_training_goes_on_from_the_last_one(tmp_path: Path) -> None:
    """Weights, what the optimiser keeps and running statistics are written in the tensors that the runner was given."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    x = torch.randn(5, 6)
    source = trained(ModelSource(model, (x,)), "adam")
    captured = capture(source)
    module = tiled(captured)
    memory = plan(module.main, kernels=module.kernels)
    renewed = [value for value in module.main.results if value in memory.in_place]
    assert len(renewed) == 6 * 3 + 2  # not the count of batches
    write_runner(module, memory, tmp_path / "out")
    before = {name: tensor.detach().clone() for name, tensor in source.model.state_dict().items()}
    for _ in range(2):
        source.model(x)
    torch.save((x, before, dict(source.model.state_dict())), tmp_path / "case.pt")
    code = (
        "import torch; from runner import Runner\n"
        f"x, given, expected = torch.load({str(tmp_path / 'case.pt')!r})\n"
        "run = Runner(given, device='cpu')\n"
        "run(x); run(x)\n"
        "assert set(expected) - set(run.WEIGHTS) == set(), set(expected) - set(run.WEIGHTS)\n"
        "print(max(float((given[name] - wanted).abs().max()) for name, wanted in expected.items()))\n"
    )
    assert float(by_plain_python(code, tmp_path / "out")) < 1e-5


def test_what_is_written_is_seen_by_the_next_run_and_not_by_results(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.arange(3.0))
            self.register_buffer("last", torch.zeros(3))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            before = self.get_buffer("calls").clone()
            self.get_buffer("calls").copy_(self.get_buffer("calls").flip(0) + x.sum())
            self.get_buffer("last").copy_(x)
            return before, self.get_buffer("calls") * 2

    x = torch.randn(3)
    captured = capture(Counts(), (x,))
    write_runner(tiled(captured), None, tmp_path / "out")
    model, wanted = Counts(), []
    for scale in (1.0, 2.0):
        wanted.append([y.clone() for y in model(x * scale)])
    torch.save((x, wanted, model.calls, model.last), tmp_path / "case.pt")
    code = (
        "import torch; from runner import Runner\n"
        f"x, wanted, calls, last = torch.load({str(tmp_path / 'case.pt')!r})\n"
        "run = Runner(device='cpu')\n"
        "for scale, (before, after) in zip((1.0, 2.0), wanted):\n"
        "    found = run(x * scale)\n"
        "    torch.testing.assert_close(found[0], before)\n"
        "    torch.testing.assert_close(found[1], after)\n"
        "torch.testing.assert_close(run.weights['calls'], calls)\n"
        "torch.testing.assert_close(run.weights['last'], last)\n"
    )
    by_plain_python(code, tmp_path / "out")


def test_what_the_caller_gave_is_written_where_it_is_not_dense_or_not_read(tmp_path: Path) -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("turned", torch.zeros(3, 2).t())
            self.register_buffer("last", torch.zeros(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            self.get_buffer("turned").add_(x)
            self.get_buffer("last").copy_(x * 2)
            return x.mul_(3).sum()

    x = torch.arange(6.0).reshape(3, 2).t()
    captured = capture(Writes(), (x.clone(),))
    write_runner(tiled(captured), None, tmp_path / "out")
    code = (
        "import torch; from runner import Runner\n"
        "x = torch.arange(6.0).reshape(3, 2).t()\n"
        "given = {'turned': torch.zeros(3, 2).t(), 'last': torch.full((2, 3), 7.0)}\n"
        "run, first = Runner(given, device='cpu'), x.clone()\n"
        "total = run(x)[0]\n"
        "torch.testing.assert_close(total, 3 * first.sum())\n"
        "torch.testing.assert_close(x, 3 * first)\n"
        "torch.testing.assert_close(given['turned'], first)\n"
        "torch.testing.assert_close(given['last'], 2 * first)\n"
        "run(x)\n"
        "torch.testing.assert_close(given['turned'], 4 * first)\n"
        "torch.testing.assert_close(given['last'], 6 * first)\n"
    )
    by_plain_python(code, tmp_path / "out")


def test_a_copy_of_an_input_has_memory_of_its_own(tmp_path: Path) -> None:
    class Copies(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.clone(), x.clone()

    module = tiled(capture(Copies(), (torch.ones(3),)))
    write_runner(module, plan(module.main), tmp_path / "out")
    code = (
        "import torch; from runner import Runner\n"
        "x = torch.ones(3)\n"
        "first, second = Runner(device='cpu')(x)\n"
        "first.add_(1), second.add_(2)\n"
        "print(x.tolist(), first.tolist(), second.tolist())\n"
    )
    assert by_plain_python(code, tmp_path / "out").split() == f"{[1.0] * 3} {[2.0] * 3} {[3.0] * 3}".split()


def test_complex_tensors_go_in_and_out(tmp_path: Path) -> None:
    """Inputs, weights by the state dict and results, as the model has them; run in another process as they are."""

    class Turned(nn.Module):
        rates: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("rates", torch.randn(4, dtype=torch.complex64))

        def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
            turned = torch.view_as_complex(x.reshape(3, 4, 2)) * self.rates
            return torch.view_as_real(turned).flatten(-2), turned + z.conj()

    torch.manual_seed(5)
    model, x, z = Turned(), torch.randn(3, 8), torch.randn(3, 4, dtype=torch.complex64).conj()
    captured = capture(model, (x, z))
    made = write_runner(
        tiled(captured),
        None,
        tmp_path / "out",
        complex_inputs=captured.complex_inputs,
        complex_results=captured.complex_results,
    )
    torch.save((x, z.resolve_conj(), model.state_dict(), model(x, z)), tmp_path / "case.pt")
    code = (
        "import torch; from runner import Runner\n"
        f"x, z, state, expected = torch.load({str(tmp_path / 'case.pt')!r})\n"
        "for got, want in zip(Runner(state, device='cpu')(x, z), expected, strict=True):\n"
        "    torch.testing.assert_close(got, want)\n"
    )
    by_plain_python(code, made.path.parent)
    again = made.run_interpreted(captured.module, captured.flatten_inputs((x, z)))
    torch.testing.assert_close(captured.unflatten_outputs(again), model(x, z))


def test_large_weights_come_from_the_state_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "KEPT_BYTES", 1000)
    monkeypatch.setattr(runner_module, "SMALL_BYTES", 500)
    torch.manual_seed(5)
    runner = check(TwoLayers(), tmp_path, torch.randn(8, 32))
    assert set(runner.missing) == {"first.weight", "second.weight"}
    kept = torch.load(tmp_path / "weights.pt")
    assert set(kept) == {"first.bias", "second.bias"}


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    captured = capture(TwoLayers(), (torch.randn(8, 32),))
    module = tiled(captured)
    runner = write_runner(module, None, tmp_path)
    with pytest.raises(Exception, match=r"x has shape \(9, 32\)"):
        runner.run_interpreted(module, [np.zeros((9, 32), np.float32)])


def test_random_numbers_are_those_of_the_reference(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x) + 2 * torch.randn(7, 300)

    captured = capture(Noisy(), (torch.zeros(7, 300),))
    module = tiled(captured)
    runner = write_runner(module, None, tmp_path)
    zeros = [np.zeros((7, 300), np.float32)]
    (got,) = runner.run_interpreted(module, zeros)
    (want,) = evaluate(captured.module, zeros)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert got.std() > 1.5
