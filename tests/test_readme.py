"""The README's Python is run, block after block, as a reader would; its commands and files exist."""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def restored_registries() -> Iterator[None]:
    """Undo what the README registers."""
    from codesign.frontend.lowering.registry import RULES
    from codesign.passes import PASSES
    from codesign.passes.knobs import ROOMS

    rules, passes, rooms = dict(RULES), dict(PASSES), dict(ROOMS)
    yield
    for table, saved in ((RULES, rules), (PASSES, passes), (ROOMS, rooms)):
        table.clear()
        table.update(saved)  # type: ignore[arg-type]


@pytest.mark.usefixtures("restored_registries")
def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) >= 4
    module = types.ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)
    namespace: dict[str, Any] = module.__dict__
    for number, block in enumerate(blocks):
        exec(compile(block, f"README.md python block {number + 1}", "exec", dont_inherit=True), namespace)

    from codesign.costmodel.machine import load_machine
    from codesign.ir.tensor import Fusion
    from codesign.passes import Context, optimize
    from codesign.passes.schedule.tuner import Tuner

    captured = namespace["capture"](namespace["Model"](), (namespace["x"],))
    fused = optimize(captured.module, Context())
    group = next(op for op in fused.main.body.ops if isinstance(op, Fusion))
    tuned = Tuner(load_machine("h100_sxm"), policy=namespace["Sampler"]()).tune(group)
    assert 0 < tuned.seconds < 1


def test_commands_named_exist() -> None:
    for name in set(re.findall(r"python -m (codesign(?:\.\w+)+)", TEXT)):
        assert callable(importlib.import_module(name).main)


def test_files_named_exist() -> None:
    for name in set(
        re.findall(r"`((?:ir|passes|backends|costmodel|frontend|benchmarks|examples|tests)/[\w./]+\.\w+)`", TEXT)
    ):
        assert (ROOT / name).exists(), name


def test_make_targets_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in set(re.findall(r"`?make ([a-z-]+)", TEXT)):
        assert re.search(rf"^{name}:", makefile, re.M), name
