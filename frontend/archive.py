"""Load `model.pt2`, what `torch.export.save` writes: a program with its weights and example inputs, taken as data.

torch's own loader unpickles weights, constants and example inputs without restraint, evaluates the expressions of sizes as Python, and
takes any function of torch by its name. Here pickles are read with `weights_only=True`, expressions may only be
arithmetic, and a program may only call operators; so that nothing in the file is run but the operators themselves.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import torch
from torch.export import ExportedProgram

from codesign.frontend.load import ModelSource, first_line
from codesign.ir.errors import CodesignError

_HINT = "write it with torch.export.save(torch.export.export(model, inputs), path), in this torch or an older one"

_ARITHMETIC = re.compile(r"[\w\s+\-*/%(),<>=.!&|~]*")
_QUOTED = re.compile(r"'[\w.+-]*'")
"""A name or a number."""

_CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z_]")
_FUNCTIONS_OF_SIZES = frozenset({"floor", "ceiling", "sqrt"})
"""Beside classes, whose names are capitalised: FloorDiv, Mod, Max."""


def load_archive(path: Path) -> ModelSource:
    """The program of an archive with its example inputs; CodesignError (one line) where there is none to be had."""
    _check_expressions(path)
    try:
        with _as_data():
            program = torch.export.load(path)
        _check_targets(program, path)
        model = program.module()
    except CodesignError:
        raise
    except Exception as error:
        message = f"torch can't read this archive: {first_line(error)}"
        raise CodesignError(message, place=str(path), hint=_HINT) from error
    if program.example_inputs is None:
        raise CodesignError(
            "the archive has no example inputs", place=str(path), hint="export the model again and save it as it is"
        )
    args, kwargs = program.example_inputs
    return ModelSource(model, tuple(args), dict(kwargs), name=path.stem, path=path, program=program)


@contextmanager
def _as_data() -> Iterator[None]:
    """While it lasts, torch's loader unpickles tensors and plain containers only, and logs nothing."""
    load = torch.load
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)

    def weights_only(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    try:
        with (
            mock.patch.object(torch, "load", weights_only),
            mock.patch.object(pickle, "loads", _refuse_objects),
            mock.patch.object(torch._C, "_pickle_load_obj", _refuse_objects),
        ):
            yield
    finally:
        logging.disable(previous)


def _refuse_objects(*_: Any, **__: Any) -> NoReturn:
    raise CodesignError(
        "the archive holds a pickled object, which is code", hint="export a model whose constants are tensors"
    )


def _check_expressions(path: Path) -> None:
    """Refuse what is no archive, and size expressions that are not plain arithmetic (torch evaluates them)."""
    try:
        with zipfile.ZipFile(path) as archive:
            graphs = [name for name in archive.namelist() if name.endswith(".json")]
            documents = [json.loads(archive.read(name)) for name in graphs]
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        message = f"not an archive of torch.export: {first_line(error)}"
        raise CodesignError(message, place=str(path), hint=_HINT) from error
    for document in documents:
        for text in _expressions(document):
            if not _is_arithmetic(_QUOTED.sub("x", text)):
                raise CodesignError(f"the archive has a size that is not arithmetic: {text[:60]!r}", place=str(path))


def _is_arithmetic(text: str) -> bool:
    """Whether an expression only computes: `FloorDiv(Add(s, Integer(1)), Integer(2))`, `(s + 1)//2`."""
    calls = set(_CALLED.findall(text)) - _FUNCTIONS_OF_SIZES
    plain = _ARITHMETIC.fullmatch(text) is not None and "__" not in text and not _ATTRIBUTE.search(text)
    return plain and all(name[0].isupper() for name in calls)


def _expressions(document: Any) -> Iterator[str]:
    """Every text that torch's loader evaluates: those under `expr_str`."""
    stack = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            stack.extend(node.values())
            if isinstance(node.get("expr_str"), str):
                yield node["expr_str"]
        elif isinstance(node, list):
            stack.extend(node)


def _check_targets(program: ExportedProgram, path: Path) -> None:
    """Refuse a program that calls anything else than operators and arithmetic."""
    for module in program.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        for node in module.graph.nodes:
            target = node.target
            known = isinstance(target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)) or (
                getattr(target, "__module__", "") in ("_operator", "math")
                or getattr(target, "__name__", "").startswith("sym_")
            )
            if node.op == "call_function" and not known:
                raise CodesignError(f"the archive calls {target}, which is no operator", place=str(path))
