"""A study done by Ray's workers has the rows of one that is done here; needs the extra `ray`."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.ir.errors import CodesignError
from codesign.lab.contest import open_study, run_study
from codesign.lab.database import Database
from codesign.lab.export import rows
from codesign.lab.measured import cache_text
from codesign.lab.plan import StudyPlan, read_plan
from tests.codesign.lab.studies import measured, plan_file


@pytest.fixture
def plan(tmp_path: Path) -> StudyPlan:
    (tmp_path / "space.json").write_text(cache_text(measured()))
    file = plan_file(tmp_path, ["space.json"], policies=["random", "beam"], seeds=3)
    file.write_text(file.read_text() + 'kernels = ["softmax.64x128"]\n')
    return read_plan(file)


def test_without_ray_the_extra_is_named(plan: StudyPlan, tmp_path: Path) -> None:
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(CodesignError, match="ray"):
            run_study(plan, tmp_path / "s.db", ray=True)
        assert not (tmp_path / "s.db").exists()
    else:
        pytest.skip("Ray is installed")


@pytest.mark.slow
def test_workers_of_a_local_ray_do_what_is_left(plan: StudyPlan, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    begun = Database(tmp_path / "ray.db")
    study = open_study(plan, begun)
    first = begun.claim("study")
    assert first is not None
    study.do(first)
    begun.close()
    found = run_study(plan, tmp_path / "ray.db", ray=True, jobs=2)
    assert found.progress("study") == (12, 12)
    assert rows(found, "study").equals(rows(run_study(plan, tmp_path / "here.db"), "study"))
