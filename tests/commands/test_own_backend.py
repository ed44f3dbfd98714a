"""A backend from another's package: a machine file names it, and commands build, check, run and print by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.backend import backend_for
from codesign.costmodel.machine import MACHINE_FOLDER, load_machine
from codesign.ir.core import Block, Function, Module
from codesign.ir.errors import CodesignError
from codesign.passes.lowering import tile_module
from codesign.passes.schedule.tuner import Tuner
from tests.commands.invoke import run
from tests.passes.tiling import groups

LAB = '''
import numpy as np

from codesign.document import Compiled, Verified
from codesign.ir.interpreter import run_kernel
from codesign.ir.text import print_kernel


class Toy:
    """Kernels as their own text, run by the interpreter of the IR."""

    form = "toy"

    def __init__(self, machine, module, sizes, sources):
        self.machine, self.module = machine, module

    def build(self, infos, tick):
        return {info.kernel.name: Compiled(arch="toy", instructions=len(list(info.kernel.body.walk()))) for info in infos}

    def verify(self, info, seed):
        return Verified(against="nothing", max_error=0.0, tolerance=0.0, ok=True, note="")

    def launcher(self):
        def run(kernel, inputs, sizes):
            types = [value.type for value in kernel.results]
            made = [np.zeros([size.evaluate(sizes) for size in t.shape], t.dtype.numpy) for t in types]
            run_kernel(kernel, [*inputs, *made], sizes)
            return made

        return run

    def texts(self):
        return {f"toys/{name}.toy": print_kernel(kernel) for name, kernel in self.module.kernels.items()}

    def binaries(self):
        return {}

    def simulated_seconds(self, kernel):
        return None
'''
MODEL = """
import torch

model = torch.nn.Linear(8, 8)
example_inputs = (torch.randn(4, 8),)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lab_of_backends.py").write_text(LAB, encoding="utf-8")
    about = tmp_path / "lab_of_backends-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-of-backends\nVersion: 1\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[codesign.backends]\ntoy = lab_of_backends:Toy\n", encoding="utf-8")
    text = (MACHINE_FOLDER / "maia100.toml").read_text(encoding="utf-8").replace('"maia100"', '"toy1"', 1)
    for name in ("toy", "tyo"):
        given = text.replace('kind = "dataflow"', f'kind = "dataflow"\nbackend = "{name}"', 1)
        (tmp_path / f"{name}.toml").write_text(given, encoding="utf-8")
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_machine_file_chooses_it(folder: Path) -> None:
    fusion = groups.gemm(32, 16, 48)
    module = Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})
    machine = load_machine(str(folder / "toy.toml"))
    infos = tile_module(module, Tuner(machine))
    backend = backend_for(machine, module, {})
    assert backend.form == "toy"
    assert [made.arch for made in backend.build(infos.values(), lambda: None).values()] == ["toy"]
    assert list(backend.texts()) == ["toys/r.toy"]
    with pytest.raises(CodesignError, match="toy1: no backend 'tyo'; nearest: toy"):
        backend_for(load_machine(str(folder / "tyo.toml")), module, {})


def test_commands_go_by_it(folder: Path) -> None:
    done = run("compile", "model.py", "--target", "toy.toml", "-o", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["kernels"][0]["compiled"]["arch"] == "toy"
    assert report["verified"]["ok"]
    assert len(list((folder / "out" / "toys").glob("*.toy"))) == len(report["kernels"])
    done = run("compile", "model.py", "--target", "toy.toml", "--emit", "toys", cwd=folder)
    assert done.returncode == 2
    assert "--emit toys: no such form; forms: tensor, tile, mlir, accelerator, toy, triton" in done.stderr
