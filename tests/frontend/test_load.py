"""Loading model files: the three conventions, and one clear line for everything that goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codesign.frontend import load_model
from codesign.ir.errors import CodesignError

MODULE = "import torch\nlinear = torch.nn.Linear(4, 3)\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "some_model.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("given", "positional", "named"),
    [
        ("torch.ones(2, 4)", 1, []),
        ("(torch.ones(2, 4),)", 1, []),
        ("[torch.ones(2, 4)]", 1, []),
        ("{'input': torch.ones(2, 4)}", 0, ["input"]),
    ],
)
def test_model_and_example_inputs(tmp_path: Path, given: str, positional: int, named: list[str]) -> None:
    source = load_model(write(tmp_path, f"{MODULE}model = linear\nexample_inputs = {given}\n"))
    assert (len(source.inputs), list(source.kwargs)) == (positional, named)
    assert source.model(*source.inputs, **source.kwargs).shape == (2, 3)
    assert source.name == "some_model"


def test_functions_that_give_model_and_inputs(tmp_path: Path) -> None:
    text = f"{MODULE}def get_model():\n    return linear\ndef get_inputs():\n    return [torch.ones(2, 4)]\n"
    source = load_model(write(tmp_path, text))
    assert source.model(*source.inputs).shape == (2, 3)


def test_class_with_initial_inputs(tmp_path: Path) -> None:
    text = (
        "import torch\nclass Model(torch.nn.Module):\n"
        "    def __init__(self, width):\n        super().__init__()\n        self.inner = torch.nn.Linear(width, 5)\n"
        "    def forward(self, x):\n        return self.inner(x)\n"
        "def get_inputs():\n    return [torch.ones(2, 7)]\ndef get_init_inputs():\n    return [7]\n"
    )
    source = load_model(write(tmp_path, text))
    assert source.model(*source.inputs).shape == (2, 5)


def test_a_function_is_a_model(tmp_path: Path) -> None:
    text = "import torch\ndef model(x, y):\n    return x @ y\nexample_inputs = torch.ones(2, 3), torch.ones(3, 4)\n"
    source = load_model(write(tmp_path, text))
    assert torch.equal(source.model(*source.inputs), torch.full((2, 4), 3.0))


def test_evaluation_mode_unless_asked(tmp_path: Path) -> None:
    text = f"{MODULE}model = torch.nn.Dropout()\nexample_inputs = torch.ones(2)\n"
    assert not load_model(write(tmp_path, text)).model.training
    assert load_model(write(tmp_path, f"{text}training = True\n")).model.training


def test_dynamic_shapes_are_kept(tmp_path: Path) -> None:
    text = (
        f"{MODULE}model = linear\nexample_inputs = torch.ones(2, 4)\ndynamic_shapes = [{{0: torch.export.Dim('b')}}]\n"
    )
    assert load_model(write(tmp_path, text)).dynamic_shapes[0][0].__name__ == "b"


def test_neighbouring_files_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_model.py").write_text("width = 4\n")
    text = f"from neighbour_of_model import width\n{MODULE}model = linear\nexample_inputs = torch.ones(2, width)\n"
    assert load_model(write(tmp_path, text)).inputs[0].shape == (2, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\nx = 1 / 0\n", r"some_model\.py:2: ZeroDivisionError: division by zero"),
        ("import torch\ndef f(:\n    pass\n", r"some_model\.py:2: SyntaxError"),
        ("import no_such_package_at_all\n", r"some_model\.py:1: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", r"some_model\.py:1: SystemExit: 3"),
        ("x = 3\n", "no model in this file"),
        (f"{MODULE}model = linear\n", "`model` has no inputs.*example_inputs"),
        ("model = 3\nexample_inputs = ()\n", "`model` is an int"),
        (f"{MODULE}model = torch.nn.ReLU\nexample_inputs = ()\n", "`model` is a class"),
        (
            "def get_model():\n    a = 1\n    return a.b\ndef get_inputs():\n    return ()\n",
            r"some_model\.py:3: AttributeError",
        ),
    ],
)
def test_what_is_wrong_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CodesignError, match=message) as caught:
        load_model(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CodesignError, match=r"no such file: .*absent\.py"):
        load_model(tmp_path / "absent.py")
    with pytest.raises(CodesignError, match="is a folder"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "model.pt"])
def test_a_file_of_another_kind_is_not_run(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("raise SystemExit(3)")
    with pytest.raises(CodesignError, match="neither Python") as caught:
        load_model(path)
    assert "torch.export.save" in str(caught.value.hint)
