"""Load `model.py`: any Python file that says what the model is and gives it inputs.

Three conventions: `model` and `example_inputs`; `get_model()` and `get_inputs()`; a class `Model` with `get_inputs()` and
`get_init_inputs()` beside it. An optional `dynamic_shapes` is passed to `torch.export`; `training = True` keeps a module in
training mode (otherwise it is put in evaluation mode); `get_fresh_inputs(seed)` makes other inputs to check the model on.
A file `model.pt2` is an exported program (`codesign.frontend.archive`).
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from codesign.ir.errors import CodesignError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

_CONVENTIONS = (
    "define `model` and `example_inputs`, or `get_model()` and `get_inputs()`, or a class `Model` with `get_inputs()`"
)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class ModelSource:
    """A model and the inputs to capture it with.

    `inputs`, `kwargs`: positional and keyword arguments of one call. `dynamic_shapes`: as `torch.export` takes it. `again`: makes inputs once
    more, as the file does. `fresh`: the file's own way to other inputs, by seed. `program`: the model, where it came exported.
    `trained`: the model of which `model` is a step of training.
    """

    model: torch.nn.Module
    inputs: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    dynamic_shapes: Any = None
    name: str = "model"
    path: Path | None = None
    again: Callable[[], Arguments] | None = None
    fresh: Callable[[int], Arguments] | None = None
    program: ExportedProgram | None = None
    trained: torch.nn.Module | None = None


class FunctionModule(torch.nn.Module):
    """A plain function as a module, so that it can be exported."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def load_model(path: str | Path) -> ModelSource:
    """The model of a file; CodesignError (one line, with the line of the file) when there is none to be had."""
    file = Path(path)
    if not file.exists():
        raise CodesignError(f"no such file: {file}", hint="give the path of a Python file that holds a model")
    if file.is_dir():
        raise CodesignError(f"{file} is a folder", hint="give the path of a Python file that holds a model")
    if file.suffix == ".pt2":
        from codesign.frontend.archive import load_archive

        return load_archive(file)
    if file.suffix not in (".py", ""):  # which would be run as if it were
        raise CodesignError(
            f"{file} is neither Python (.py) nor an exported program (.pt2)",
            hint="save what torch.export gives: torch.export.save(torch.export.export(model, inputs), 'model.pt2')",
        )
    namespace = _execute(file)
    with blame(file):
        model, make = _find(namespace, file)
        inputs, kwargs = _arguments(make())
    if isinstance(model, type):
        raise CodesignError(
            "`model` is a class", place=str(file), hint="make it an instance, or name the class `Model`"
        )
    if not isinstance(model, torch.nn.Module):
        if not callable(model):
            raise CodesignError(
                f"`model` is {_a(type(model).__name__)}, not a torch.nn.Module or a function",
                place=str(file),
                hint=_CONVENTIONS,
            )
        model = FunctionModule(model)
    if not getattr(namespace, "training", False):
        model.eval()
    return ModelSource(
        model,
        inputs,
        kwargs,
        getattr(namespace, "dynamic_shapes", None),
        file.stem,
        file,
        again=lambda: _arguments(make()),
        fresh=_fresh(namespace, file),
    )


def _fresh(namespace: ModuleType, file: Path) -> Callable[[int], Arguments] | None:
    """The file's `get_fresh_inputs(seed)`, whose failures are the file's."""
    make = getattr(namespace, "get_fresh_inputs", None)
    if make is None:
        return None

    def fresh(seed: int) -> Arguments:
        with blame(file):
            return _arguments(make(seed))

    return fresh


def _find(namespace: ModuleType, file: Path) -> tuple[Any, Callable[[], Any]]:
    """The model, and what makes its inputs."""

    def has(name: str) -> bool:
        return hasattr(namespace, name)

    if has("model") and has("example_inputs"):
        given = namespace.example_inputs
        return namespace.model, given if callable(given) and not isinstance(given, torch.Tensor) else lambda: given
    if has("get_model") and has("get_inputs"):
        return namespace.get_model(), namespace.get_inputs
    if has("Model"):
        owner = namespace if has("get_inputs") else namespace.Model
        if hasattr(owner, "get_inputs"):
            initial = owner.get_init_inputs() if hasattr(owner, "get_init_inputs") else ()
            args, kwargs = _arguments(initial)
            return namespace.Model(*args, **kwargs), owner.get_inputs
        raise CodesignError(
            "the class `Model` has no inputs to be called with", place=str(file), hint="add `get_inputs()`"
        )
    for name, missing in (("model", "example_inputs"), ("get_model", "get_inputs()")):
        if has(name):
            raise CodesignError(f"`{name}` has no inputs to be called with", place=str(file), hint=f"add `{missing}`")
    raise CodesignError("no model in this file", place=str(file), hint=_CONVENTIONS)


def _arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as written in the file: a tensor, a sequence of positional ones, or a dict of keyword arguments."""
    if isinstance(given, dict) or (hasattr(given, "keys") and hasattr(given, "__getitem__")):
        return (), {str(key): given[key] for key in given}
    if isinstance(given, (list, tuple)):
        return tuple(given), {}
    return (given,), {}


def _execute(file: Path) -> ModuleType:
    """Run the file as a module of its own; its folder, and the root of its package, are importable while it runs."""
    name = f"_codesign_model_{file.stem}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(file))
    assert spec is not None
    namespace = importlib.util.module_from_spec(spec)
    namespace.__file__ = str(file.resolve())
    folders = [str(file.resolve().parent), str(_package_root(file.resolve()))]
    with blame(file):
        code = compile(file.read_text(encoding="utf-8"), str(file.resolve()), "exec")
        sys.path[:0] = folders
        sys.modules[name] = namespace  # dataclasses and torch look a class's module up by name
        try:
            exec(code, namespace.__dict__)
        finally:
            for folder in folders:
                if folder in sys.path:
                    sys.path.remove(folder)
    return namespace


def _package_root(file: Path) -> Path:
    """The first folder above the file that is not a package, from which the file's own package can be imported."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


@contextmanager
def blame(file: Path) -> Iterator[None]:
    """Turn whatever the user's file raises into one line that names the line of the file."""
    try:
        yield
    except CodesignError:
        raise
    except SyntaxError as error:
        place = f"{error.filename or file}:{error.lineno}" if error.lineno else str(file)
        raise CodesignError(f"{type(error).__name__}: {error.msg}", place=_shorten(place, file)) from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file.resolve())]
        place = f"{file}:{lines[-1]}" if lines else str(file)
        raise CodesignError(first_line(error), place=place) from error


def first_line(error: BaseException) -> str:
    """The kind of an exception and the first line of its text."""
    text = str(error).strip().splitlines()
    return type(error).__name__ + (f": {text[0]}" if text else "")


def _shorten(place: str, file: Path) -> str:
    return place.replace(str(file.resolve()), str(file))


def _a(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
