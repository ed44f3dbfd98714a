"""Studies that are stopped, shared and damaged: every row once, and nothing executed."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sqlalchemy")
from codesign.ir.errors import CodesignError
from codesign.lab.contest import open_study
from codesign.lab.database import GLANCE, PAGE_BYTES, Stretch
from codesign.lab.export import rows
from codesign.lab.laboratory import Database, make_plan, read_plan, run_study
from codesign.lab.measured import cache_text
from codesign.lab.prices import COLUMNS, Prices, price_all
from tests.codesign.lab.studies import bowl, measured, plan_file

RESULT = {"evaluations": 2, "best": 0.25, "policy_seconds": 0.1, "allowed": None}
FORK = multiprocessing.get_context("fork")
SLOW = """
import time
class Slow:
    def start(self, space, context):
        self.space, self.codes = space, space.sample(15, context.rng)
    def propose(self, count):
        if not len(self.codes): return None
        time.sleep(0.003)
        first, self.codes = self.codes[:1], self.codes[1:]
        return self.space.batch(first)
    def observe(self, batch, cost): ...
    def best(self): ...
"""


def test_killed_twice_and_finished_it_has_the_rows_of_an_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_policy.py").write_text(SLOW)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "space.json").write_text(cache_text(measured()))
    plan = read_plan(plan_file(tmp_path, ["space.json"], policies=["slow_policy:Slow", "evolutionary"], seeds=4))
    for already in (1, 3):  # kill when so many runs are done
        process = FORK.Process(target=run_study, args=(plan, tmp_path / "killed.db"))
        process.start()
        deadline = time.monotonic() + 60
        while _done(tmp_path / "killed.db") < already and time.monotonic() < deadline and process.is_alive():
            time.sleep(0.005)
        process.kill()
        process.join()
        assert _done(tmp_path / "killed.db") < 8
    found = [rows(run_study(plan, tmp_path / name), "study") for name in ("killed.db", "whole.db")]
    assert found[0].equals(found[1])
    assert not found[0].duplicated(["run", "schedule"]).any()
    assert not found[0].duplicated(["run", "position"]).any()
    assert len(found[0].run.unique()) == 8


def _done(path: Path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
            return int(base.execute("SELECT count(*) FROM runs WHERE state = 'done'").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_a_run_that_was_stopped_goes_on_without_pricing_again(tmp_path: Path) -> None:
    calls: list[int] = []
    plan = make_plan({"policies": ["evolutionary"], "kernels": ["add.8x8"], "seeds": 1, "budget": 60})
    whole = Database(tmp_path / "whole.db")
    open_study(plan, whole, made=[bowl(fidelity=2)]).work()
    expected = rows(whole, "study")
    database = Database(tmp_path / "s.db")
    study = open_study(plan, database, made=[bowl(fidelity=2, calls=calls)])
    run = database.claim("study")
    assert run is not None
    (stretch,) = whole.stretches(run.key)
    batches = [16, 16]  # generations that were recorded
    database.add(run.key, [Stretch(0, stretch.numbers[:32], stretch.seconds[:32], [(n, 0.1) for n in batches])])
    study.do(run)
    assert sum(calls) == len(expected) - 32
    assert rows(database, "study").equals(expected)


def test_two_processes_share_the_runs(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(cache_text(measured()))
    plan = read_plan(plan_file(tmp_path, ["space.json"], policies=["random", "beam", "annealing"], seeds=3))
    processes = [FORK.Process(target=run_study, args=(plan, tmp_path / "s.db")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    database = Database(tmp_path / "s.db", read_only=True)
    assert database.progress("study") == (9, 9)
    table = rows(database, "study")
    assert not table.duplicated(["run", "position"]).any()
    assert rows(run_study(plan, tmp_path / "alone.db"), "study").equals(table)


@pytest.mark.slow
def test_helpers_of_one_command_share_the_runs(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(cache_text(measured()))
    plan = plan_file(tmp_path, ["space.json"], policies=["random", "beam"], seeds=3)
    database = run_study(read_plan(plan), tmp_path / "s.db", jobs=2)
    assert database.progress("study") == (6, 6)


def test_a_claimed_run_is_free_again_only_when_its_process_is_gone(tmp_path: Path) -> None:
    database, other = Database(tmp_path / "s.db"), Database(tmp_path / "s.db")
    plan = make_plan({"policies": ["random"], "kernels": ["add.8x8"], "seeds": 1})
    open_study(plan, database, made=[bowl()])
    claimed = database.claim("study")
    assert claimed is not None
    other.owner = "elsewhere:1"
    assert other.claim("study") is None
    with database.engine.begin() as base:
        base.exec_driver_sql("UPDATE runs SET owner = 'elsewhere:2', heard = heard - 1000")
    assert other.claim("study") is not None
    with pytest.raises(CodesignError, match="taken this run over"):
        database.add(claimed.key, [])


@pytest.mark.parametrize("largest", [100, (1 << 31) - 1, 1 << 31, 1 << 40])
def test_rows_are_read_back_whatever_their_numbers_and_as_earlier_versions_wrote_them(
    largest: int, tmp_path: Path
) -> None:
    plan = make_plan({"policies": ["random"], "kernels": ["add.8x8"], "seeds": 1, "budget": 20})
    database = Database(tmp_path / "s.db")
    open_study(plan, database, made=[bowl()])
    run = database.claim("study")
    assert run is not None
    numbers, seconds = np.array([largest, GLANCE, 3]), np.array([0.5, np.inf, 0.25])
    database.finish(run.key, RESULT, [Stretch(0, numbers, seconds, [(3, 0.1)])])
    database.close()
    with sqlite3.connect(tmp_path / "s.db") as base:
        assert base.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
    for earlier in (False, True):
        if earlier:
            with sqlite3.connect(tmp_path / "s.db") as base:
                base.execute("UPDATE batches SET numbers = ?", (numbers.astype("<i8").tobytes(),))
        (found,) = Database(tmp_path / "s.db", read_only=True).stretches(run.key)
        assert found.numbers.tolist() == numbers.tolist()
        assert found.seconds.tolist() == seconds.tolist()


def test_runs_that_wait_are_claimed_before_those_of_processes_that_died(tmp_path: Path) -> None:
    plan = make_plan({"policies": ["random"], "kernels": ["add.8x8"], "seeds": 3})
    database, other = Database(tmp_path / "s.db"), Database(tmp_path / "s.db")
    other.owner = f"{database.owner.rpartition(':')[0]}:{1 << 30}"  # no process has this number
    open_study(plan, database, made=[bowl()])
    left = other.claim("study")
    assert left is not None
    claimed = [database.claim("study") for _ in range(3)]
    assert [run.key for run in claimed[:2] if run] == sorted({r.key for r in database.runs("study")} - {left.key})
    assert claimed[2] is not None
    assert claimed[2].key == left.key
    assert database.claim("study", besides={run.key for run in claimed if run}) is None


def test_all_prices_of_a_space_are_kept_as_they_are() -> None:
    prices = price_all(bowl())
    assert not np.isfinite(prices.seconds).all()
    kept = Prices.decoded(prices.encoded())
    assert kept.numbers.tolist() == prices.numbers.tolist()
    assert kept.cost.term_names == prices.cost.term_names
    for name in (*COLUMNS, "reason"):
        np.testing.assert_array_equal(getattr(kept.cost, name), getattr(prices.cost, name))


@pytest.mark.parametrize("text", [b"", b"not a database at all, but text" * 50, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_refused(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(text)
    with pytest.raises(CodesignError):
        Database(path, read_only=True)


@pytest.mark.parametrize("tables", [["users"], ["runs"], ["studies", "runs"]])
def test_a_database_of_another_program_stays_as_it_is(tables: list[str], tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as base:
        for table in tables:
            base.execute(f"CREATE TABLE {table} (name TEXT)")
            base.execute(f"INSERT INTO {table} VALUES ('theirs')")
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(CodesignError, match="not a database of studies"):
            Database(path, read_only=read_only)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs.db"]


def test_a_database_of_another_version_says_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    Database(path).close()
    with sqlite3.connect(path) as base:
        base.execute("ALTER TABLE runs DROP COLUMN heard")
    for read_only in (False, True):
        with pytest.raises(CodesignError, match=r"of this version: runs without heard; .* --database"):
            Database(path, read_only=read_only)


def test_a_place_for_a_database_is_seen_before_the_work(tmp_path: Path) -> None:
    plan = make_plan({"policies": ["no such policy"], "kernels": ["add.8x8"]})
    (tmp_path / "text.db").write_text("not a database")
    for path, said in ((tmp_path / "text.db", "file is not a database"), (tmp_path, "a folder, where a file")):
        with pytest.raises(CodesignError, match=said):
            run_study(plan, path)
    with pytest.raises(CodesignError, match="unknown policy"):
        run_study(plan, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_a_database_of_a_stranger_executes_nothing(tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text(cache_text(measured()))
    plan = plan_file(tmp_path, ["space.json"], policies=["random"], seeds=1)
    run_study(read_plan(plan), tmp_path / "s.db").close()
    import io
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "boom"),))

    archive = io.BytesIO()
    np.savez(archive, numbers=np.array([Bomb()], dtype=object))
    for blob in (archive.getvalue(), pickle.dumps(Bomb()), b"\x80"):
        with sqlite3.connect(tmp_path / "s.db") as base:
            base.execute("UPDATE problems SET prices = ?", (blob,))
            base.execute("UPDATE runs SET policy = 'os:system'")
        from codesign.lab.laboratory import Scores

        with pytest.raises(CodesignError, match=r"s\.db: database: prices of a space can't be read"):
            Scores(Database(tmp_path / "s.db", read_only=True), "study")
    with sqlite3.connect(tmp_path / "s.db") as base:
        text = json.dumps({"name": "../../evil", "machine": "/etc/x", "knobs": [["a", [1, 2]]], "measured": True})
        base.execute("UPDATE problems SET description = ?, prices = NULL", (text,))
    from codesign.lab.export import write

    with pytest.raises(CodesignError, match="no schedule of the space"):
        write(Database(tmp_path / "s.db", read_only=True), "study", "cache", tmp_path / "out")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE problems SET description = '{}'",
        "UPDATE problems SET description = '[1'",
        'UPDATE runs SET result = \'{"best": "soon"}\'',
        "UPDATE batches SET marks = '3'",
        "UPDATE batches SET seconds = x'00'",
        "UPDATE batches SET start = 7",
        "UPDATE runs SET seed = 'abc'",
    ],
)
def test_rows_that_are_not_as_they_must_be_are_refused(change: str, tmp_path: Path) -> None:
    from codesign.lab.laboratory import Scores

    plan = make_plan({"policies": ["random"], "kernels": ["add.8x8"], "seeds": 1, "budget": 20})
    database = Database(tmp_path / "s.db")
    open_study(plan, database, made=[bowl()]).work()
    database.close()
    with sqlite3.connect(tmp_path / "s.db") as base:
        base.execute(change)
    with pytest.raises(CodesignError):
        Scores(Database(tmp_path / "s.db", read_only=True), "study")


def test_a_budget_of_the_policys_own_seconds_ends_and_is_scored(tmp_path: Path) -> None:
    from codesign.lab.laboratory import Scores

    plan = make_plan({"policies": ["random", "beam"], "kernels": ["add.8x8"], "seeds": 2, "budget": {"seconds": 0.02}})
    database = Database(tmp_path / "s.db")
    open_study(plan, database, made=[bowl()]).work()
    for run in database.runs("study"):
        assert run.result is not None
        assert run.result["allowed"] is None
        assert run.result["evaluations"] > 0
    assert {standing.policy for standing in Scores(database, "study").standings()} == {"random", "beam"}


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from codesign.lab.face import _laboratory

    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(CodesignError, match=r"sqlalchemy is not installed.*") as error:
        _laboratory()
    assert "codesign[lab]" in error.value.one_line()
