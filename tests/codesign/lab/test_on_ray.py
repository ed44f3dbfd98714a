"""A study done by Ray's workers has the rows of one that is done here; needs the extra `ray`."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.costmodel import workloads
from codesign.ir.errors import CodesignError
from codesign.lab.contest import open_study, run_study
from codesign.lab.database import Database
from codesign.lab.export import rows
from codesign.lab.machines.workload import Workload
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


@pytest.mark.slow
def test_variants_of_a_machine_are_priced_by_workers_too(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    from codesign.lab.machines.recorded import recorded
    from codesign.lab.machines.sweep import Range, sweep
    from tests.codesign.lab.test_machines import H100, kernel

    plain = Workload("add", H100, [kernel("add", workloads.add(), {"T": 4096, "N": 8192})])
    ranges = [Range.parse("levels.dram.bandwidth=x0.5:x2:3", H100)]
    with recorded(plain, tmp_path / "w.db", "", ray=True, jobs=2) as workload:
        assert sweep(workload, ranges) == sweep(plain, ranges)
    with recorded(plain, tmp_path / "p.db", "", jobs=2) as workload:  # and by processes
        assert sweep(workload, ranges) == sweep(plain, ranges)
