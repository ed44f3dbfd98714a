"""Lines that kernels show come from files of the user's model, and from no others."""

from pathlib import Path

import pytest

from codesign.backends.triton.emit import emission
from codesign.backends.triton.source import source_line
from codesign.frontend.externals import _operator
from codesign.ir.location import Location
from codesign.ir.text import parse

KERNEL = """module @m
kernel @k(%x: buffer<f32[4]>) -> (%y: buffer<f32[4]>)
    grid(g: 1)
    schedule {} {
  %a = load %x [i: 4] at [i]
  store %a -> %y [i: 4] at [i]
}
"""


def test_lines_below_the_models_folder_only(tmp_path: Path) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    for folder, text in ((model, "y = torch.exp(x)"), (other, "password = 1")):
        folder.mkdir()
        (folder / "a.py").write_text(f"{text}\n")
    (model / "link.py").symlink_to(other / "a.py")
    assert source_line(model, str(model / "a.py"), 1) == "y = torch.exp(x)"
    assert source_line(model, str(other / "a.py"), 1) == ""
    assert source_line(model, str(model / ".." / "other" / "a.py"), 1) == ""
    assert source_line(model, str(model / "link.py"), 1) == ""
    assert source_line(None, str(model / "a.py"), 1) == ""
    kernel = parse(KERNEL).kernels["k"]
    kernel.location = Location(str(other / "a.py"), 1)
    assert "password" not in emission(kernel, None, model).source
    kernel.location = Location(str(model / "a.py"), 1)
    assert "torch.exp(x)" in emission(kernel, None, model).source


@pytest.mark.parametrize(
    "target", ["aten.__class__.__init__", "load_library.__call__.x", "aten.sort.__call__", "aten.sort", "a.b.c.d"]
)
def test_only_operators_are_called(target: str) -> None:
    with pytest.raises((AttributeError, ValueError)):
        _operator(target)
