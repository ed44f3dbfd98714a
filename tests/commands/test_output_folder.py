"""The output folder: what of an earlier run goes, and what stays because it is somebody's own."""

from __future__ import annotations

import json
from pathlib import Path

from codesign.manifest import NAME, claim, settle


def put(folder: Path, name: str, text: str = "ours") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_only_files_of_an_earlier_run_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = [put(out, "kernels/a.py"), put(out, "kernels/b.py"), put(out, "report.json"), put(out, "old/c.py")]
    own = put(out, "kernels/notes.py", "the user's")
    assert settle(out, first) == []
    put(out, "kernels/b.py", "edited by the user")
    removed = settle(out, [put(out, "report.json", "new"), put(out, "kernels/d.py")])
    assert sorted(path.name for path in removed) == ["a.py", "c.py"]
    assert own.is_file()
    assert (out / "kernels/b.py").is_file(), "it was changed since"
    assert not (out / "old").exists()


def test_what_a_stopped_run_left_goes_with_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settle(out, [put(out, "earlier/a.py")])
    claim(out, [put(out, "stopped/b.py")])
    removed = settle(out, [put(out, "c.py")])
    assert sorted(path.name for path in removed) == ["a.py", "b.py"]


def test_a_record_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outside = put(tmp_path, "precious.txt")
    settle(out, [put(out, "a.py")])
    digest = next(iter(json.loads((out / NAME).read_text()).values()))
    (out / "link.py").symlink_to(outside)
    names = ("../precious.txt", str(outside), "link.py", "", "a\0b")
    (out / NAME).write_text(json.dumps(dict.fromkeys(names, digest)))
    assert settle(out, [out / "a.py"]) == []
    assert outside.is_file()
    (out / NAME).write_text("{cut")
    assert settle(out, [out / "a.py"]) == [], "a damaged record removes nothing"
