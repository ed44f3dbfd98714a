"""Emitted kernels of small models, as they stand in the files beside this one.

`EXPECTTEST_ACCEPT=1 make test ARGS=tests/golden` writes the files anew; read the difference that git shows before it is
committed. Nothing here follows a price: groups are as large as they can be (`policy.py`), and the schedules of
`NAME.TARGET.json` are replayed. Without that file schedules are searched for, and written on acceptance.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import cache
from pathlib import Path

import expecttest
import pytest

from codesign import artifacts, pipeline
from codesign.command import Steps
from codesign.costmodel.machine import load_machine
from codesign.passes.schedule.replay import Schedules, read_schedules, write_schedules

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
MODELS = {
    "mlp": EXAMPLES / "mlp.py",
    "naive_attention": EXAMPLES / "naive_attention.py",
    "dynamic_mlp": EXAMPLES / "dynamic_mlp.py",
    "convolution": HERE / "models" / "convolution.py",
    "layer_norm": HERE / "models" / "layer_norm.py",
    "argmax": HERE / "models" / "argmax.py",
}
OPTIONS = pipeline.Options(fusion="tests.golden.policy:Together", verify=False, kernels=False, reuse=False)


@cache
def captured(name: str) -> pipeline.Model:
    return pipeline.capture(MODELS[name], OPTIONS, Steps(None))


def emitted(name: str, target: str, schedules: Schedules) -> tuple[str, Schedules]:
    """All kernels of a model in one text, and their schedules."""
    options = replace(OPTIONS, schedules=schedules)
    made = pipeline.compile_for(captured(name), load_machine(target), options, Steps(None))
    texts = artifacts.texts(made, made.backend.form)
    used = {kernel: info.tuned.schedule for kernel, info in made.kernels.items()}
    structures = {kernel: info.structure for kernel, info in made.kernels.items()}
    files = [f"===== {file}\n{text.rstrip()}\n" for file, text in sorted(texts.items())]
    return "\n".join(files), Schedules(used, structures)


@pytest.mark.parametrize("target", ["h100_sxm", "maia100"])
@pytest.mark.parametrize("name", MODELS)
def test_kernels_are_as_they_were(name: str, target: str) -> None:
    golden, chosen = HERE / f"{name}.{target}.txt", HERE / f"{name}.{target}.json"
    text, schedules = emitted(name, target, read_schedules(chosen) if chosen.exists() else Schedules({}))
    if expecttest.ACCEPT:
        golden.write_text(text, encoding="utf-8")
        write_schedules(chosen, schedules)
        return
    assert golden.exists(), f"{golden.name} is missing; EXPECTTEST_ACCEPT=1 writes it"
    before = golden.read_text(encoding="utf-8")
    lines = difflib.unified_diff(before.splitlines(), text.splitlines(), f"{golden.name}", "now", lineterm="")
    if text != before:
        pytest.fail("\n".join([*lines, "", "If this is meant: EXPECTTEST_ACCEPT=1"]), pytrace=False)


def test_nothing_of_this_machine_is_in_them() -> None:
    for golden in sorted(HERE.glob("*.txt")):
        text = golden.read_text(encoding="utf-8")
        assert str(HERE.parents[1]) not in text
        assert "0x" not in text
