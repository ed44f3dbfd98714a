"""`codesign.compile --backward`: a step of training, its price by parts, and what it is refused for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.commands.invoke import run

MODEL = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x, y):
        hidden = F.max_pool2d(F.relu(self.norm(self.convolution(x))), 2)
        return F.cross_entropy(self.last(hidden.mean((2, 3))), y)


training = True


def get_model():
    torch.manual_seed(0)
    return Net()


def get_inputs():
    return torch.randn(2, 2, 8, 8), torch.randint(3, (2,))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


@pytest.mark.parametrize("machine", ["h100_sxm", "maia100"])
def test_a_step_is_verified_and_priced_by_parts(folder: Path, machine: str) -> None:
    done = run("compile", "model.py", "-t", machine, "--optimizer", "adamw", "--no-kernels", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verified"]["ok"]
    assert all(kernel["verified"]["ok"] for kernel in document["kernels"])
    assert not document["external_calls"]
    parts = document["parts"]
    assert {name for together in parts for name in together.split(" + ")} == {"forward", "backward", "optimizer"}
    assert sum(parts.values()) == pytest.approx(document["seconds"])


def test_a_forward_pass_has_no_parts(folder: Path) -> None:
    done = run("compile", "model.py", "--no-kernels", "--no-verify", "--json", cwd=folder)
    assert json.loads(done.stdout)["parts"] == {}


def test_sizes_that_change_are_refused(folder: Path) -> None:
    done = run("compile", "model.py", "--backward", "--dynamic", cwd=folder)
    assert done.returncode == 2
    assert "--backward: gradients are captured for the sizes of the example only" in done.stderr


def test_a_model_that_fails_is_blamed_on_its_line(folder: Path) -> None:
    (folder / "model.py").write_text(MODEL.replace("hidden.mean((2, 3))", "hidden"))
    done = run("compile", "model.py", "--backward", cwd=folder)
    assert done.returncode == 2
    assert "model.py:14: RuntimeError: only batches of spatial targets supported" in done.stderr


def test_an_exported_program_is_refused_for_what_it_lacks(folder: Path) -> None:
    """Not for sizes that change, which would come to the same."""
    torch.export.save(torch.export.export(torch.nn.Linear(4, 3), (torch.randn(2, 4),)), folder / "model.pt2")
    done = run("compile", "model.pt2", "--backward", "--dynamic", cwd=folder)
    assert done.returncode == 2
    assert "an exported program has no gradients" in done.stderr
