"""The mutants of `make mutants` can be planted: what each replaces stands in its file once, and its tests are there."""

from __future__ import annotations

import tomllib
from pathlib import Path


def test_what_mutants_replace_and_their_tests_are_there(root_dir: Path) -> None:
    mutants = tomllib.loads((root_dir / "benchmarks" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
    found = {m["name"]: (root_dir / m["file"]).read_text(encoding="utf-8").count(m["old"]) for m in mutants}
    assert {name: count for name, count in found.items() if count != 1} == {}
    assert len(found) == len(mutants)
    assert [
        (m["name"], test) for m in mutants for test in m["tests"] if not (root_dir / test.split("::")[0]).is_file()
    ] == []
