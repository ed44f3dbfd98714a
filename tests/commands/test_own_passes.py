"""A pass from a file of the user's, in each command: it takes part, and what is wrong with it is said in one line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from codesign import compile as command
from tests.commands.invoke import run

LAB = '''
from dataclasses import dataclass
from typing import ClassVar

from codesign.ir.scalar import Apply, Literal, apply, literal
from codesign.ir.tensor import Compute
from codesign.passes import Pass


def rewrite(module, change):
    for op in module.main.body.walk():
        if isinstance(op, Compute):
            op.body = op.body.rewrite(change)
    return module


@dataclass(frozen=True)
class ByTwo(Pass):
    """exp(x) as 2 ** (x / ln 2), times a factor that should be 1."""

    name: ClassVar[str] = "by-two"
    factor: float = 1.0

    def run(self, module, context):
        def change(node):
            if isinstance(node, Apply) and node.function == "exp":
                power = apply("exp2", apply("mul", node.args[0], literal(1.4426950408889634, node.dtype)))
                return power if self.factor == 1 else apply("mul", power, literal(self.factor, node.dtype))
            return None

        return rewrite(module, change)


@dataclass(frozen=True)
class Forgetful(Pass):
    """Forgets to return the module."""

    name: ClassVar[str] = "forgetful"

    def run(self, module, context):
        pass


@dataclass(frozen=True)
class Failing(Pass):
    """Fails."""

    name: ClassVar[str] = "failing"

    def run(self, module, context):
        return module.functions["mian"]


@dataclass(frozen=True)
class Invalid(Pass):
    """Leaves the main function without the op that makes its result."""

    name: ClassVar[str] = "invalid"

    def run(self, module, context):
        del module.main.body.ops[-1]
        return module


class Undecided:
    """A fusion policy that fails."""

    def decide(self, search):
        raise KeyError("nothing to merge")


class Unmade:
    """A fusion policy that can't be made."""

    def __init__(self):
        raise ValueError("no table")


def unsure(module):
    """A predicate that fails."""
    return module.functions["mian"]


def whole(module):
    """One that fails on smaller modules than the first."""
    return bool(module.main.body.ops[1])
'''

CHAIN = """func @main(%x: f32[8]) {
%y = compute f32[i: 8] { exp(%x[i]) }
%z = compute f32[i: 8] { -%y[i] }
return %z
}"""

MODEL = """
import torch

model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Softmax(-1))
example_inputs = (torch.randn(4, 8),)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lab_of_passes.py").write_text(LAB, encoding="utf-8")
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compiled(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["codesign.compile", "model.py", "--no-kernels", *arguments])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("target", ["h100_sxm", "maia100"])
def test_it_takes_part_in_a_compilation(folder: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for passes, there in (([], "exp("), (["--passes", "lab_of_passes:ByTwo,dce"], "exp2(")):
        assert compiled(monkeypatch, "--target", target, "-o", "out", "--emit", "tile", *passes) == 0
        text = (folder / "out" / "model.tile").read_text(encoding="utf-8")
        assert there in text
        assert ("exp2(" in text) == bool(passes)


def test_a_wrong_one_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A factor of every exp, which a softmax would not show."""
    text = MODEL.replace("torch.nn.Softmax(-1)", "torch.nn.Sigmoid()")
    (folder / "model.py").write_text(text, encoding="utf-8")
    assert compiled(monkeypatch, "--passes", "lab_of_passes:ByTwo{factor=1.5}") != 0
    assert "DISAGREES" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ("lab_of_passes:Forgetful", "(forgetful) returned NoneType; run returns the module"),
        ("lab_of_passes:Failing", "lab_of_passes.py:51: pass N (failing) failed: KeyError: 'mian'"),
        ("lab_of_passes:Invalid", "pass N (invalid) left an invalid module"),
        ("lab_of_passes:Missing", "--passes column 1: pass 'lab_of_passes:Missing'"),
        ("cse,lab_of_passes:ByTwo{factor=x}", "--passes column 25: lab_of_passes:ByTwo.factor needs a number"),
        ("cse,fuse", "--passes column 5: fuse has its own place in a compilation"),
        ("lab_that_is_not:Any", "No module named 'lab_that_is_not'"),
    ],
)
def test_what_is_wrong_is_one_line(
    passes: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(monkeypatch, "--passes", passes) == 2
    said = re.sub(r"pass \d+ ", "pass N ", " ".join(capsys.readouterr().err.split()))
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["opt", "--passes", "fuse{policy=lab_of_passes:Undecided}"], "lab_of_passes.py:69: fusion policy 'lab_of_passes:Undecided' failed"),
        (["opt", "--passes", "fuse{policy=lab_of_passes:Unmade}"], "fusion policy 'lab_of_passes:Unmade' can't be loaded: no table"),
        (["opt", "--passes", "fuse{policy=:Unmade}"], "fusion policy ':Unmade' can't be loaded"),
        (["reduce", "--predicate", "lab_of_passes:unsure"], "lab_of_passes.py:81: --predicate lab_of_passes:unsure failed: KeyError: 'mian'"),
        (["reduce", "--predicate", "os.path:join"], "--predicate os.path:join failed: TypeError"),
    ],
)  # fmt: skip
def test_what_of_the_users_fails_elsewhere_is_one_line(arguments: list[str], message: str, folder: Path) -> None:
    (folder / "chain.tile").write_text(CHAIN, encoding="utf-8")
    name, *options = arguments
    done = run(name, "chain.tile", *options, cwd=folder)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_predicate_that_fails_on_what_is_left_does_not_hold_of_it(folder: Path) -> None:
    (folder / "chain.tile").write_text(CHAIN, encoding="utf-8")
    done = run("reduce", "chain.tile", "--predicate", "lab_of_passes:whole", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ops_after"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["opt", "--verify-each", "--passes", "dce"],
        ["opt", "--bisect", "--passes", "dce"],
        ["reduce", "--passes", "dce"],
        ["reduce", "--predicate", "lab_of_passes:whole"],
    ],
)
def test_a_file_without_functions_is_refused_where_one_is_run(arguments: list[str], folder: Path) -> None:
    (folder / "empty.tile").write_text("", encoding="utf-8")
    name, *options = arguments
    done = run(name, "empty.tile", *options, cwd=folder)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "has no function" in done.stderr


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("lab_of_passes:Unmade", "lab_of_passes.py:76: policy 'lab_of_passes:Unmade' failed: ValueError: no table"),
        (":Unmade", "policy ':Unmade': Empty module name; give package.module:Class"),
    ],
)
def test_a_search_policy_that_can_not_be_made_is_one_line(
    policy: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled(monkeypatch, "--no-verify", "--policy", policy) == 2
    assert message in " ".join(capsys.readouterr().err.split())
