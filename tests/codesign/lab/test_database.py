"""Studies that are stopped, shared and damaged: every row once, and nothing executed."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("sqlalchemy")
from codesign.ir.errors import CodesignError
from codesign.lab.contest import open_study
from codesign.lab.database import GLANCE, PAGE_BYTES, Stretch
from codesign.lab.export import rows
from codesign.lab.face import application as studies
from codesign.lab.laboratory import Database, make_plan, read_plan, run_study
from codesign.lab.measured import cache_text
from codesign.lab.prices import COLUMNS, Prices, price_all
from codesign.lab.repeats import repeated
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


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of a study of two policies, with the prices of the space."""
    path = tmp_path_factory.mktemp("sound") / "s.db"
    plan = make_plan({"policies": ["random", "beam"], "kernels": ["add.8x8"], "seeds": 2, "budget": 20})
    database = Database(path)
    open_study(plan, database, made=[bowl()]).work()
    database.close()
    return path


WRONG_ROWS = {
    "UPDATE problems SET description = '{}'": "description: name: missing",
    "UPDATE problems SET description = '[1'": "a row holds no JSON",
    f"UPDATE problems SET description = '{'[' * 100_000}'": "a row holds no JSON",
    """UPDATE problems SET description = json_set(description, '$.knobs[0]', json('["a", [1]]'))""": "no schedule of the space",
    """UPDATE problems SET description = json_set(description, '$.knobs[0][1]', json('[]'))""": "no schedule of the space",
    "UPDATE problems SET key = 'other'": "runs.problem: there is no '[0-9a-f]{32}' in problems.key",
    "UPDATE problems SET key = x'ff'": "problems.key must be text, and one is blob",
    "UPDATE problems SET prices = 1000000000000": "problems.prices must be blob or null, and one is integer",
    "DELETE FROM problems": "runs.problem: there is no",
    "DELETE FROM runs WHERE seed = 1": "(members|batches).run: there is no",
    "UPDATE runs SET problem = 'gone' WHERE seed = 1": "runs.problem: there is no 'gone' in problems.key",
    "UPDATE members SET study = 'gone'": "members.study: there is no 'gone' in studies.name",
    "UPDATE batches SET run = 'gone' WHERE run = (SELECT max(run) FROM batches)": "batches.run: there is no 'gone' in runs.key",
    """UPDATE runs SET result = '{"best": "soon"}'""": "result: .*missing",
    "UPDATE runs SET result = NULL": "a run that is done has none",
    f"UPDATE runs SET result = json_set(result, '$.allowed', {10**18}0)": "result: allowed: ",
    "UPDATE runs SET result = json_set(result, '$.allowed', json('9e999'))": "result: allowed: must be",
    "UPDATE runs SET budget = 'soon', checksum = NULL, result = json_set(result, '$.allowed', null)": "a budget of seconds is called 'soon'",
    "UPDATE runs SET seed = 'abc'": "runs.seed must be integer, and one is text",
    "UPDATE runs SET seed = 9e999": "runs.seed must be integer, and one is real",
    "UPDATE runs SET state = 'asleep'": "runs.state must be waiting, running, done, and one is 'asleep'",
    "UPDATE runs SET policy = CAST(x'ff' AS TEXT)": "decode",
    "UPDATE batches SET marks = '3'": "batches.marks must be text, and one is integer",
    """UPDATE batches SET marks = '{"a": 3}'""": "marks: ",
    "UPDATE batches SET marks = '[[9e999, 1]]'": "marks: ",
    "UPDATE batches SET marks = '[[1]]'": "marks: ",
    "UPDATE batches SET start = 7": "not one after the other",
    "UPDATE batches SET start = 9e999": "batches.start must be integer, and one is real",
    "UPDATE batches SET seconds = x'00'": "cut off",
    "UPDATE batches SET seconds = 'ab'": "batches.seconds must be blob, and one is text",
    "UPDATE batches SET numbers = x'00'": "cut off",
    "UPDATE batches SET numbers = zeroblob(8)": "other schedules than seconds",
    "UPDATE batches SET numbers = zeroblob(4), seconds = x'000000000000f8ff'": "seconds that are no time",
    "UPDATE runs SET result = json_set(result, '$.best', 0.125)": "results of [0-9a-f]{12} were damaged",
    "UPDATE batches SET seconds = zeroblob(length(seconds))": "evaluations of [0-9a-f]{12} were damaged",
    "UPDATE batches SET marks = json_set(marks, '$[0][1]', 1234)": "evaluations of [0-9a-f]{12} were damaged",
    "UPDATE batches SET checksum = checksum + 1": "evaluations of [0-9a-f]{12} were damaged",
    "UPDATE studies SET plan = '[1]'": "plan: ",
    "UPDATE studies SET plan = 3": "studies.plan must be text, and one is integer",
}


def _changed(sound: Path, folder: Path, *changes: tuple[str, tuple[object, ...]]) -> Path:
    """A copy of a database in which tables are as another program may have made them: without keys that must be there."""
    path = folder / "s.db"
    path.write_bytes(sound.read_bytes())
    with sqlite3.connect(path) as base:
        for change, values in changes:
            assert base.execute(change, values).rowcount > 0
    return path


@pytest.mark.parametrize("change", WRONG_ROWS)
def test_rows_that_are_not_as_they_must_be_are_refused_by_every_command(
    change: str, sound: Path, tmp_path: Path
) -> None:
    path = _changed(sound, tmp_path, (change, ()))
    faults = _faults(path, tmp_path)
    assert faults
    for fault in faults:
        assert re.match(rf"{re.escape(str(path))}: (not a database of studies of this version|database): ", fault)
        assert re.search(WRONG_ROWS[change], fault)


def _faults(path: Path, folder: Path) -> list[str]:
    """What commands that read a database complain of; anything but a line for the user is raised."""
    found = []
    for command in (
        ["show", str(path)],
        ["compare", str(path), "random", "beam"],
        *(["export", str(path), "--format", form, "-o", str(folder / "out")] for form in ("csv", "cache", "t4")),
    ):
        result = CliRunner().invoke(studies, command)
        if isinstance(result.exception, CodesignError):
            found.append(result.exception.one_line())
        elif result.exception is not None:
            raise result.exception
    return found


def test_an_untouched_database_has_no_fault(sound: Path, tmp_path: Path) -> None:
    assert not _faults(sound, tmp_path)


def _archive(**changed: Any) -> bytes:
    """The prices of the space with some arrays in place of their own."""
    with np.load(io.BytesIO(price_all(bowl()).encoded())) as own:
        arrays = {name: own[name] for name in own.files} | changed
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


def test_damaged_prices_are_refused_whichever_byte_is_wrong(sound: Path, tmp_path: Path) -> None:
    """A byte flipped at a time all over the archive: prices as they were (in what nobody reads), or one line that names the file."""
    whole = price_all(bowl()).encoded()
    Prices.decoded(whole, "s.db")
    refused: list[str] = []
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        try:
            Prices.decoded(bytes(damaged), "s.db")
        except CodesignError as error:
            refused.append(error.one_line())
    assert len(refused) > len(whole) / 7 / 2
    assert all(re.match(r"s\.db: database: prices of a space can't be read: .*--database", said) for said in refused)
    middle = bytearray(whole)
    middle[len(whole) // 3 : len(whole) // 3 + 64] = b"\xff" * 64
    path = _changed(sound, tmp_path, ("UPDATE problems SET prices = ?", (bytes(middle),)))
    faults = _faults(path, tmp_path)
    assert len(faults) == 4  # all but rows as a table, which need no prices
    assert all(fault.startswith(f"{path}: database: prices of a space can't be read: ") for fault in faults)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seconds": None}, "no 'seconds"),
        ({"seconds": np.array("soon")}, "seconds of another kind"),
        ({"seconds": np.array(1.0)}, "seconds of another kind"),
        ({"seconds": np.ones(3)}, "different lengths"),
        ({"which": np.ones(425, np.uint32)}, "different lengths"),
        ({"which": np.full(474, 474, np.uint32)}, "a price that is not there"),
        ({"numbers": np.array([["a"]])}, "numbers of another kind"),
        ({"terms": np.ones(425)}, "terms of another kind"),
        ({"term_names": np.array(["a", "b"])}, "other terms than names"),
        ({"reasons": np.array(["a"])[:0]}, "a reason that is not there"),
    ],
)
def test_prices_of_another_form_are_refused(changed: dict[str, Any], said: str) -> None:
    Prices.decoded(_archive())
    with pytest.raises(CodesignError, match=rf"s\.db: database: prices of a space can't be read: .*{said}"):
        Prices.decoded(_archive(**changed), "s.db")


def test_a_run_is_done_as_its_own_plan_calls_it(tmp_path: Path) -> None:
    """One that another study entered and left, where the policy had another name."""
    database = Database(tmp_path / "s.db")
    for name in ("first", "second"):
        policies = [{"policy": "random", "name": name}]
        plan = make_plan({"policies": policies, "kernels": ["add.8x8"], "seeds": 1, "budget": 20})
        study = open_study(plan, database, made=[bowl()])
    study.work()
    assert database.progress("study") == (1, 1)


@pytest.mark.parametrize("change", ["UPDATE runs SET seed = 5", "UPDATE runs SET key = 'mine'"])
def test_a_run_that_is_not_what_its_key_says_is_not_done(change: str, tmp_path: Path) -> None:
    plan = make_plan({"policies": ["random"], "kernels": ["add.8x8"], "seeds": 1, "budget": 20})
    database = Database(tmp_path / "s.db")
    study = open_study(plan, database, made=[bowl()])
    with sqlite3.connect(tmp_path / "s.db") as base:
        base.execute(change)
        base.execute("UPDATE members SET run = (SELECT key FROM runs)")
    with pytest.raises(CodesignError, match=r"s\.db: not a database of studies of this version: runs: "):
        study.work()


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


def test_rows_that_repeat_are_known_by_one_of_them() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 3))
    rows[::7, 1], rows[::5, 2], rows[:3, 0] = np.inf, np.nan, (0.0, -0.0, 0.0)
    drawn = rows[rng.integers(50, size=5000)]
    flags = drawn[:, 0] > 0
    first, which = repeated([*drawn.T, flags])
    assert len(first) == len({row.tobytes() for row in drawn})  # none meet by chance, so few there are
    assert drawn[first][which].tobytes() == drawn.tobytes()
    assert (flags[first][which] == flags).all()


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_rows_that_all_differ_are_known_by_themselves(count: int) -> None:
    first, which = repeated([np.arange(count, dtype=np.float64)])
    assert first[which].tolist() == list(range(count))
