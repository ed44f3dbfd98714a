"""Experiments with passes, and the reducer: pairs, what changed, what broke, and the smallest module that shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from codesign import experiment as experiment_command
from codesign import reduce as reduce_command
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.scalar import Apply, Scalar, apply
from codesign.ir.tensor import Compute
from codesign.ir.text import parse
from codesign.lab.passes.experiment import Figures, Pair, Pipeline, summarise
from codesign.lab.passes.reducer import reduce_module
from codesign.passes import Context, Pass
from tests.commands.invoke import run

MODEL = """
import torch

class Model(torch.nn.Module):
    def forward(self, x, y):
        return torch.relu(x @ y) * 2

def get_init_inputs():
    return []

def get_inputs():
    return [torch.randn(16, 32), torch.randn(32, 8)]
"""

CHAIN = """module @chain

func @main(%x: f32[6, 128], %y: f32[6, 128]) {
  %a = compute f32[i: 6, j: 128] { %x[i, j] + %y[i, j] }
  %top = compute f32[i: 6] max(j: 128) { %a[i, j] }
  %b = compute f32[i: 6, j: 128] { exp(%a[i, j] - %top[i]) }
  %c = compute f32[i: 6] sum(j: 128) { %b[i, j] }
  %d = compute f32[i: 6, j: 128] { %b[i, j] / %c[i] }
  return %d, %a
}
"""


@dataclass(frozen=True)
class Forgetful(Pass):
    """exp as exp2, the base forgotten."""

    name: ClassVar[str] = "forgets_the_base"

    def run(self, module: Module, context: Context) -> Module:
        def change(node: Scalar) -> Scalar | None:
            return apply("exp2", *node.args) if isinstance(node, Apply) and node.function == "exp" else None

        for op in module.main.body.walk():
            if isinstance(op, Compute):
                op.body = op.body.rewrite(change)
        return module


@dataclass(frozen=True)
class Crashing(Pass):
    """Fails where something is summed over more than three."""

    name: ClassVar[str] = "crashing"

    def run(self, module: Module, context: Context) -> Module:
        for op in module.main.body.walk():
            if isinstance(op, Compute) and op.monoid == "sum" and op.reductions[0].extent.constant > 3:
                raise RuntimeError("boom")
        return module


def sums(module: Module) -> bool:
    """A predicate: something is summed over at least five."""
    found = [op for op in module.main.body.walk() if isinstance(op, Compute) and op.monoid == "sum"]
    return any(op.reductions[0].extent.constant >= 5 for op in found)


def never(module: Module) -> bool:
    """A predicate: nothing is interesting."""
    return False


@pytest.mark.parametrize(
    ("broken", "size", "why"),
    [("Forgetful", 1, "Forgetful changed result 0 at ["), ("Crashing", 4, "RuntimeError: boom")],
)
def test_what_is_left_is_one_operation_that_still_breaks(broken: str, size: int, why: str, tmp_path: Path) -> None:
    (tmp_path / "chain.tile").write_text(CHAIN)
    arguments = [str(tmp_path / "chain.tile"), "--passes", f"canonicalize,{__name__}:{broken}", "--json"]
    result = CliRunner().invoke(reduce_command.application, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["ops_before"], document["ops_after"]) == (5, 1)
    assert why in document["why"]
    (op,) = parse(document["module"]).main.body.ops
    assert isinstance(op, Compute)
    assert max(int(d.extent.constant) for d in (*op.dims, *op.reductions)) == size


def test_a_predicate_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "chain.tile").write_text(CHAIN)
    arguments = [str(tmp_path / "chain.tile"), "--predicate", f"{__name__}:sums", "-o", str(tmp_path)]
    result = CliRunner().invoke(reduce_command.application, arguments)
    assert result.exit_code == 0, result.output
    assert f"what is left: --predicate {__name__}:sums holds" in result.stderr
    module = parse((tmp_path / "reduced.tile").read_text())
    assert len(module.main.body.ops) == 1
    assert sums(module)
    assert not sums(reduce_module(parse(CHAIN), lambda m: not sums(m) or True).module)


def test_what_does_not_hold_at_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodesignError, match="does not hold"):
        reduce_module(parse(CHAIN), lambda module: False)
    (tmp_path / "chain.tile").write_text(CHAIN)
    for arguments in (
        [],
        ["--passes", "dce", "--predicate", "a:b"],
        ["--predicate", "nowhere:f"],
        ["--passes", "nothing"],
    ):
        result = CliRunner().invoke(reduce_command.application, [str(tmp_path / "chain.tile"), *arguments])
        assert isinstance(result.exception, CodesignError), arguments


def test_a_pass_that_breaks_nothing_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "chain.tile").write_text(CHAIN)
    for how, said in (
        (
            ["--passes", "dce"],
            "--passes dce breaks nothing: what it leaves is valid, and results on random inputs (--seed 0)",
        ),
        (["--predicate", f"{__name__}:never"], f"--predicate {__name__}:never does not hold of it"),
    ):
        result = CliRunner().invoke(reduce_command.application, [str(tmp_path / "chain.tile"), *how])
        assert isinstance(result.exception, CodesignError)
        assert f"chain.tile: {said}" in str(result.exception)
        assert "there is nothing to reduce" in str(result.exception)


def test_what_can_not_be_run_before_the_passes_is_said_so(tmp_path: Path) -> None:
    text = 'func @main(%x: f32[4]) { %y = call "nobody.has_this"(%x) : f32[4] return %y }'
    (tmp_path / "far.tile").write_text(text)
    arguments = [str(tmp_path / "far.tile"), "--passes", "dce"]
    result = CliRunner().invoke(reduce_command.application, arguments)
    assert isinstance(result.exception, CodesignError)
    assert "running it before the passes failed" in str(result.exception)


def test_a_pipeline_that_does_not_parse_is_told_as_the_pipeline_that_it_is() -> None:
    with pytest.raises(CodesignError, match=r"^pipeline 'dce,fuze', column 5: unknown pass 'fuze'; nearest: fuse"):
        Pipeline.parse("dce,fuze")


def test_pipelines_are_passes_and_who_fuses() -> None:
    assert Pipeline.parse("default") == Pipeline("default")
    found = Pipeline.parse("canonicalize,dce,fuse{policy=none}")
    assert [str(one) for one in found.passes] == ["canonicalize", "dce"]
    assert found.fusion == "none"
    with pytest.raises(CodesignError, match="only the policy"):
        Pipeline.parse("fuse{policy=none,chain=3}")
    with pytest.raises(CodesignError, match="unknown fusion policy 'non'"):
        Pipeline.parse("fuse{policy=non}")
    with pytest.raises(CodesignError, match="its own place"):
        Pipeline.parse("fuse,dce")


def test_ratios_are_paired_and_tested() -> None:
    def pair(first: float, second: float | None) -> Pair:
        return Pair(model="m", machine="n", first=Figures(seconds=first), second=Figures(seconds=second))

    pairs = [pair(1.0, 0.5 + 0.01 * i) for i in range(8)]
    seconds = summarise([*pairs, pair(1.0, None)])[0]
    assert seconds.ratio == pytest.approx(0.534, abs=0.01)
    assert (seconds.better, seconds.worse) == (8, 0)
    assert seconds.probability is not None
    assert seconds.probability < 0.01
    assert summarise([pair(1.0, 1.0)])[0].ratio == 1.0


def test_a_model_without_fusion_takes_more_launches_and_its_kernels_are_named(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    (tmp_path / "m.py").write_text(MODEL)
    page = tmp_path / "e.html"
    arguments = [
        "default",
        "fuse{policy=none}",
        "-m",
        str(tmp_path / "m.py"),
        "--no-verify",
        "--json",
        "--report",
        str(page),
    ]
    result = CliRunner().invoke(experiment_command.application, arguments)
    assert result.exit_code == 0, result.output
    (pair,) = json.loads(result.stdout)["pairs"]
    assert pair["first"]["launches"] < pair["second"]["launches"]
    assert pair["first"]["seconds"] < pair["second"]["seconds"]
    assert {kernel["kind"] for kernel in pair["kernels"]} == {"only in the first", "only in the second"}
    assert "+kernel @" in pair["diff"]
    assert "<svg" in page.read_text()


def test_a_kernel_that_another_pipeline_writes_otherwise_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODEL)
    arguments = ["default", "precision{products=tf32x3}", "-m", str(tmp_path / "m.py"), "--no-verify", "--json"]
    result = CliRunner().invoke(experiment_command.application, arguments)
    assert result.exit_code == 0, result.output
    (pair,) = json.loads(result.stdout)["pairs"]
    (kernel,) = pair["kernels"]
    assert kernel["kind"] == "another program"
    assert kernel["first"] == kernel["second"]
    assert kernel["first_seconds"] is not None is not kernel["second_seconds"]
    assert "+" in pair["diff"]
    assert "precision tf32x3" in pair["diff"]


def test_a_pass_that_breaks_values_fails_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODEL.replace("torch.relu(x @ y) * 2", "torch.exp(x[:4, :8] + y[:4])"))
    result = run("experiment", "default", f"{__name__}:Forgetful", "-m", "m.py", "--json", cwd=tmp_path)
    (pair,) = json.loads(result.stdout)["pairs"]
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: m on h100_sxm, second: disagrees with torch (error ")
    assert pair["first"]["verified"] is True
    assert pair["second"]["verified"] is False


def test_a_pass_that_fails_is_told_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODEL)
    arguments = ["default", f"{__name__}:Crashing", "-m", str(tmp_path / "m.py"), "--no-verify", "--json"]
    result = CliRunner().invoke(experiment_command.application, arguments)
    (pair,) = json.loads(result.stdout)["pairs"]
    assert "RuntimeError: boom" in pair["second"]["error"]
    assert pair["first"]["error"] == ""
