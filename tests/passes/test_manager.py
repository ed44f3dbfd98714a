"""Pipelines as text, their errors with columns, the manager, bisection, and the watch between passes."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from codesign.ir.core import Block, Module
from codesign.ir.interpreter import evaluate
from codesign.ir.scalar import Literal, apply
from codesign.ir.tensor import Compute
from codesign.passes import PASSES, Context, Pass, PassManager, manager, optimize, parse_pipeline, print_pipeline
from codesign.passes.manager import FunctionPass, PassError, PipelineError, first_failure
from codesign.passes.observers import Equivalence
from tests.passes import models


@dataclasses.dataclass(frozen=True)
class _Spoil(FunctionPass, Pass):
    """Doubles the result of the last compute."""

    name = "spoil"

    def run_block(self, module: Module, block: Block, context: Context) -> None:
        op = block.ops[-1]
        assert isinstance(op, Compute)
        op.body = apply("mul", op.body, Literal(2.0, op.body.dtype))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("canonicalize", "canonicalize"),
        (" canonicalize , cse ", "canonicalize,cse"),
        ("canonicalize{signed-zeros=false},dce", "canonicalize{signed_zeros=false},dce"),
        ("constant-fold{limit=16}", "constant-fold{limit=16}"),
        ("constant-fold{limit=4096}", "constant-fold"),
        ('fuse{policy="a b",prices=roofline}', 'fuse{policy="a b",prices=roofline}'),
        ("", ""),
    ],
)
def test_parse_and_print(text: str, printed: str) -> None:
    assert print_pipeline(parse_pipeline(text)) == printed
    assert parse_pipeline(printed) == parse_pipeline(text)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("canonicalize,fusse", 14, "unknown pass 'fusse'; nearest: fuse"),
        ("fuse{policies=none}", 6, "fuse has no option 'policies'; options of fuse: policy, prices"),
        ("cse{x=1}", 5, "cse takes no options"),
        ("constant-fold{limit=many}", 15, "constant-fold.limit needs a whole number, got 'many'"),
        ("canonicalize{signed-zeros=perhaps}", 14, "needs true or false"),
        ("fuse{policy}", 6, "option 'policy' needs a value"),
        ("fuse{policy=none", 17, "missing '}'"),
        ("cse dce", 5, "expected ',' between passes"),
        ("cse,;dce", 5, "unexpected ';'"),
    ],
)
def test_errors_name_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse_pipeline(text)
    assert caught.value.column == column
    assert message in caught.value.one_line()


def test_every_pass_prints_back_and_is_documented() -> None:
    for name, cls in PASSES.items():
        assert parse_pipeline(name) == [cls()]
        assert cls.__doc__


def test_the_given_module_is_not_changed() -> None:
    module = models.mlp()
    before = [(op, getattr(op, "body", None)) for op in module.main.body.ops]
    optimize(module)
    assert [(op, getattr(op, "body", None)) for op in module.main.body.ops] == before


def test_timings_and_stop_after() -> None:
    manager = PassManager(parse_pipeline("canonicalize,fold-views,dce"), stop_after=2)
    result = manager.run(models.mlp())
    assert [timing.name for timing in manager.timings] == ["canonicalize", "fold-views"]
    assert manager.timings[-1].ops == len(result.main.body.ops)


def test_a_wrong_pass_is_caught_with_the_least_differing_value() -> None:
    passes = [*parse_pipeline("canonicalize"), _Spoil(), *parse_pipeline("dce")]
    with pytest.raises(
        PassError, match=r"pass 2 \(spoil\) changed result 0 at \[\d+, \d+\]: (\S+) became (\S+)"
    ) as caught:
        PassManager(passes, [Equivalence()]).run(models.softmax())
    old, new = (float(word) for word in caught.value.message.split(": ")[1].split(" became "))
    assert new == pytest.approx(2 * old)
    module = models.softmax()
    rng = np.random.default_rng(0)
    (result,) = evaluate(module, [rng.standard_normal((6, 10)).astype(np.float32)])
    assert old == pytest.approx(float(result.min()), rel=1e-5)  # every value differs; the least is shown


def test_bisection_finds_the_first_wrong_pass() -> None:
    module = models.softmax()
    x = np.random.default_rng(1).standard_normal((6, 10)).astype(np.float32)
    (expected,) = evaluate(module, [x])

    def broken(changed: Module) -> bool:
        return not np.allclose(evaluate(changed, [x])[0], expected)

    good = parse_pipeline("canonicalize,fold-views,cse,dce")
    assert first_failure([*good, _Spoil(), *good], module, broken) == 5
    assert first_failure(good, module, broken) == 5  # one more than there are
    assert first_failure(good, PassManager([_Spoil()]).run(module), broken) == 0


_OUTSIDE = '''
from dataclasses import dataclass
from typing import ClassVar
from codesign.passes import Pass

@dataclass(frozen=True)
class Rename(Pass):
    """Gives the module a name."""
    name: ClassVar[str] = "rename"
    to: str = "renamed"
    def run(self, module, context):
        module.name = self.to
        return module

@dataclass(frozen=True)
class Taken(Pass):
    """A name that another pass has."""
    name: ClassVar[str] = "dce"

number = 3
'''


@pytest.mark.parametrize(("text", "column"), [("fuse{policy=", 13), ("fuse{policy=}", 13), ("fuse{policy=,b=1}", 13)])
def test_an_option_without_its_value_is_pointed_at(text: str, column: int) -> None:
    with pytest.raises(PipelineError, match="option 'policy' needs a value") as error:
        parse_pipeline(text)
    assert error.value.column == column


def test_a_pass_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passes_from_outside.py").write_text(_OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(manager, "PASSES", dict(PASSES))
    pipeline = parse_pipeline("dce,passes_from_outside:Rename{to=mine},dce")
    assert print_pipeline(pipeline) == "dce,rename{to=mine},dce"
    assert parse_pipeline("rename{to=mine}") == pipeline[1:2]
    assert PassManager(pipeline).run(Module("before")).name == "mine"
    for text, message in [
        ("dce,no_such_module:Class", "no_such_module"),
        ("passes_from_outside:Missing", "Missing"),
        ("passes_from_outside:number", "not a subclass"),
        ("passes_from_outside:Taken", "taken by"),
        ("passes_from_outside.Rename", "package.module:Class"),
    ]:
        with pytest.raises(PipelineError, match=message):
            parse_pipeline(text)


def test_a_pass_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("halve", "tests.passes.test_manager:_Spoil", manager.ENTRY_POINTS)
    monkeypatch.setattr(manager, "PASSES", dict(PASSES))
    monkeypatch.setattr(manager, "entry_points", lambda group: [point] if group == "codesign.passes" else [])
    (one,) = parse_pipeline("halve")
    assert isinstance(one, _Spoil)
