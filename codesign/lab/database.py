"""The record of studies: an SQLite file through SQLAlchemy, in which every row is keyed by the content that it follows from.

Several processes may work on one file: each claims runs one at a time, and one whose process has died is free again. Nothing that is read
from a file is executed, wherever the file comes from.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from codesign.command import file_at
from codesign.ir.errors import CodesignError
from codesign.lab.prices import Prices, small
from codesign.lab.problem import Floats
from codesign.lab.rows import (
    BATCHES,
    MEMBERS,
    PROBLEMS,
    RUNS,
    STUDIES,
    Description,
    Marks,
    Plan,
    Result,
    WrongRow,
    check_rows,
    check_sum,
    checksum,
    lacking,
    make_tables,
    read_evaluations,
    read_json,
    read_row,
)
from codesign.passes.schedule.space import Ints

SILENT_SECONDS = 120.0
"""A run whose process has not been heard of for so long is taken over, where it can't be asked whether that process lives."""

ASKED_AT_ONCE = 500
"""Keys that one question to the file names."""

PAGE_BYTES = 1 << 14
"""Batches of rows lie over many pages of a file, each of which SQLite handles by itself: of its usual 4 KiB these take twice the time."""

GLANCE = -1
"""In place of a schedule's number: an evaluation of the budget that went into quicker prices, and found nothing itself."""


# What each run of a study says to the file, made once: each of these takes longer to make than the file to answer it.
_MEMBERS = (
    sa.select(RUNS, PROBLEMS.c.description)
    .join(PROBLEMS, PROBLEMS.c.key == RUNS.c.problem)
    .join(MEMBERS, MEMBERS.c.run == RUNS.c.key)
    .where(MEMBERS.c.study == sa.bindparam("study"))
    .order_by(RUNS.c.problem, RUNS.c.key)
)
_FREE = _MEMBERS.where(RUNS.c.state == "waiting").limit(1)
_RUNNING = _MEMBERS.where(RUNS.c.state == "running")
_CLAIM = (
    sa.update(RUNS)
    .where(RUNS.c.key == sa.bindparam("claimed"))
    .values(state="running", owner=sa.bindparam("owner"), heard=sa.bindparam("heard"))
)
_MINE = sa.update(RUNS).where(
    RUNS.c.key == sa.bindparam("mine"), RUNS.c.owner == sa.bindparam("me"), RUNS.c.state == "running"
)
_HEARD = _MINE.values(heard=sa.bindparam("heard"))
_DONE = _MINE.values(state="done", owner=None, result=sa.bindparam("result"), checksum=sa.bindparam("checksum"))
_RELEASE = _MINE.values(state="waiting", owner=None)
_ADD = insert(BATCHES)


@dataclass(frozen=True)
class Run:
    """One policy on one problem under one budget and seed. `result`: what is left of it when it is done; `description`: of its problem, for
    who claims it."""

    key: str
    problem: str
    policy: str
    budget: str
    seed: int
    state: str = "waiting"
    result: Mapping[str, Any] | None = None
    description: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Stretch:
    """Evaluations of a run from position `start` on: schedules by their numbers, what they cost, and marks: after how many of them how many
    seconds of the policy's own time had passed."""

    start: int
    numbers: Ints
    seconds: Floats
    marks: Sequence[tuple[int, float]]


class Database:
    """An open file; `read_only` for showing what is in one."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        if read_only and not path.is_file():
            raise CodesignError("no such database" if not path.exists() else "not a file", place=str(path))
        where = f"file:{quote(path.resolve().as_posix())}?mode={'ro' if read_only else 'rwc'}&uri=true"
        self.engine = sa.create_engine(
            f"sqlite:///{where}", connect_args={"timeout": 60.0, "uri": True}, json_deserializer=read_json
        )
        sa.event.listen(self.engine, "connect", _connect)
        sa.event.listen(self.engine, "begin", _begin_reading if read_only else _begin)
        with self._errors():
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._see_whose(empty=not read_only)
            if not read_only:
                with self.engine.connect() as base:
                    base.exec_driver_sql("COMMIT")
                    base.exec_driver_sql("PRAGMA journal_mode=WAL")
                with self.engine.begin() as base:
                    make_tables(base)

    def _see_whose(self, *, empty: bool) -> None:
        """CodesignError where the file has other tables than studies have, other columns, or rows that can be no studies'; `empty`: whether it
        may have no tables yet."""
        seen = sa.inspect(self.engine)
        if empty and not seen.get_table_names():
            return
        missing = lacking(seen)
        if missing == "":
            raise CodesignError("not a database of studies", place=str(self.path))
        if missing:
            raise self.wrong(missing)
        with self.engine.connect() as base:
            check_rows(base)

    def wrong(self, what: str) -> CodesignError:
        """The error that says what is wrong with what the file holds."""
        return CodesignError(
            f"not a database of studies of this version: {what}",
            place=str(self.path),
            hint="the version that wrote it reads it, unless it was changed or damaged; name another with --database",
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except WrongRow as error:
            raise self.wrong(str(error)) from error
        except (sa.exc.DatabaseError, OSError) as error:
            cause = str(getattr(error, "orig", error)).splitlines()[0][:120]
            left = self._read_only and self.path.with_name(f"{self.path.name}-wal").exists()
            hint = (
                "a process writes it, or was killed: where its folder can't be written, copy it together with its -wal file"
                if left
                else None
            )
            raise CodesignError(f"database: {cause}", place=str(self.path), hint=hint) from error

    # -- what there is to do -------------------------------------------------------------------------------------------
    def enter(
        self, study: str, plan: Mapping[str, Any], problems: Sequence[Mapping[str, Any]], runs: Sequence[Run]
    ) -> None:
        """Enter a study with its problems and runs; what is there stays, and is shared between studies."""
        with self._errors(), self.engine.begin() as base:
            entry = insert(STUDIES).values(name=study, plan=dict(plan))
            base.execute(entry.on_conflict_do_update(index_elements=["name"], set_={"plan": dict(plan)}))
            base.execute(sa.delete(MEMBERS).where(MEMBERS.c.study == study))
            _add_runs(base, study, problems, runs)

    def extend(self, study: str, problems: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> None:
        """Add runs to a study; those that it has stay."""
        with self._errors(), self.engine.begin() as base:
            base.execute(insert(STUDIES).values(name=study, plan={}).on_conflict_do_nothing())
            _add_runs(base, study, problems, runs)

    def claim(self, study: str, besides: Collection[str] = ()) -> Run | None:
        """Take a run that nobody does; None when there is none. `besides`: runs by key that this process is doing."""
        with self._errors(), self.engine.begin() as base:
            free = base.execute(_FREE, {"study": study}).mappings().first()
            for row in [free] if free else base.execute(_RUNNING, {"study": study}).mappings():
                if row["key"] in besides:
                    continue
                if row["state"] == "running" and row["owner"] != self.owner and _lives(row["owner"], row["heard"]):
                    continue
                base.execute(_CLAIM, {"claimed": row["key"], "owner": self.owner, "heard": time.time()})
                return replace(_run(row), description=read_row(Description, row["description"]))
        return None

    def add(self, run: str, stretches: Sequence[Stretch]) -> None:
        """Add evaluations to a run, all or none; CodesignError when someone else has taken it over."""
        self._write(run, stretches, _HEARD, {"heard": time.time()})

    def finish(self, run: str, result: Mapping[str, Any], stretches: Sequence[Stretch] = ()) -> None:
        """A run is done, with its last evaluations."""
        found = dict(result)
        self._write(run, stretches, _DONE, {"result": found, "checksum": checksum(found)})

    def _write(self, run: str, stretches: Sequence[Stretch], change: sa.Update, values: Mapping[str, Any]) -> None:
        rows = [{"run": run, **_row(stretch)} for stretch in stretches]
        with self._errors(), self.engine.begin() as base:
            if base.execute(change, {"mine": run, "me": self.owner, **values}).rowcount != 1:
                raise CodesignError("another process has taken this run over", place=str(self.path))
            if rows:
                base.execute(_ADD, rows)

    def release(self, run: str) -> None:
        """A run is left for another time."""
        with self._errors(), self.engine.begin() as base:
            base.execute(_RELEASE, {"mine": run, "me": self.owner})

    # -- prices of whole spaces ----------------------------------------------------------------------------------------
    def prices(self, problem: str, make: Callable[[], Prices] | None = None) -> Prices | None:
        """All prices of a problem, made and kept when there are none; the file is held meanwhile, so nobody makes them twice."""
        wanted = sa.select(PROBLEMS.c.prices).where(PROBLEMS.c.key == problem)
        with self._errors(), self.engine.connect() as base:
            found = base.execute(wanted).scalar()
            base.rollback()
        if found is None and make is not None:
            with self._errors(), self.engine.begin() as base:
                found = base.execute(wanted).scalar()
                if found is None:
                    made = make()
                    base.execute(sa.update(PROBLEMS).where(PROBLEMS.c.key == problem).values(prices=made.encoded()))
                    return made
        return None if found is None else Prices.decoded(found, str(self.path))

    # -- what was done -------------------------------------------------------------------------------------------------
    def studies(self) -> dict[str, Mapping[str, Any]]:
        """Names and plans of the studies."""
        with self._errors(), self.engine.connect() as base:
            return {
                row.name: read_row(Plan, row.plan) for row in base.execute(sa.select(STUDIES).order_by(STUDIES.c.name))
            }

    def problems(self, study: str) -> dict[str, Mapping[str, Any]]:
        """Descriptions of the problems of a study by key."""
        with self._errors(), self.engine.connect() as base:
            used = sa.select(RUNS.c.problem).join(MEMBERS, MEMBERS.c.run == RUNS.c.key).where(MEMBERS.c.study == study)
            rows = base.execute(sa.select(PROBLEMS.c.key, PROBLEMS.c.description).where(PROBLEMS.c.key.in_(used)))
            return {str(row.key): read_row(Description, row.description) for row in rows}

    def runs(self, study: str) -> list[Run]:
        """The runs of a study, in a fixed order."""
        with self._errors(), self.engine.connect() as base:
            mine = sa.select(RUNS).join(MEMBERS, MEMBERS.c.run == RUNS.c.key).where(MEMBERS.c.study == study)
            order = (RUNS.c.problem, RUNS.c.policy, RUNS.c.budget, RUNS.c.seed)
            return [_run(row) for row in base.execute(mine.order_by(*order)).mappings()]

    def progress(self, study: str) -> tuple[int, int]:
        """Runs that are done, and all of them."""
        count = sa.select(RUNS.c.state, sa.func.count()).join(MEMBERS, MEMBERS.c.run == RUNS.c.key)
        with self._errors(), self.engine.connect() as base:
            rows = base.execute(count.where(MEMBERS.c.study == study).group_by(RUNS.c.state))
            states = {str(state): int(number) for state, number in rows}
        return states.get("done", 0), sum(states.values())

    def results(self, runs: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Of runs by key those that are done, with their results."""
        found: dict[str, Mapping[str, Any]] = {}
        with self._errors(), self.engine.connect() as base:
            for start in range(0, len(runs), ASKED_AT_ONCE):
                some = RUNS.c.key.in_(runs[start : start + ASKED_AT_ONCE])
                for row in base.execute(sa.select(RUNS).where(some, RUNS.c.state == "done")).mappings():
                    found[str(row["key"])] = _run(row).result or {}
        return found

    def stretches(self, run: str) -> list[Stretch]:
        """The evaluations of a run in order."""
        with self._errors(), self.engine.connect() as base:
            rows = base.execute(sa.select(BATCHES).where(BATCHES.c.run == run).order_by(BATCHES.c.start))
            found = [_stretch(row) for row in rows]
            position = 0
            for stretch in found:
                if stretch.start != position:
                    raise WrongRow("evaluations of a run are not one after the other")
                position += len(stretch.numbers)
            return found

    def close(self) -> None:
        """Let go of the file, as one file when nobody else works on it."""
        if not self._read_only:
            with contextlib.suppress(sa.exc.OperationalError), self.engine.connect() as base:
                base.exec_driver_sql("COMMIT")
                base.exec_driver_sql("PRAGMA busy_timeout=0")
                base.exec_driver_sql("PRAGMA journal_mode=DELETE")
        self.engine.dispose()


def usable(path: Path) -> None:
    """See, before the work that it is to hold, that there can be a database; CodesignError otherwise."""
    file_at(path, "--database")
    if path.exists():
        Database(path).close()


def _add_runs(base: sa.Connection, study: str, problems: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> None:
    if problems:
        base.execute(insert(PROBLEMS).on_conflict_do_nothing(), [dict(problem) for problem in problems])
    if runs:
        rows = [
            {"key": r.key, "problem": r.problem, "policy": r.policy, "budget": r.budget, "seed": r.seed} for r in runs
        ]
        base.execute(insert(RUNS).on_conflict_do_nothing(), rows)
        base.execute(insert(MEMBERS).on_conflict_do_nothing(), [{"study": study, "run": run.key} for run in runs])


def _connect(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says so
    size = f"page_size={PAGE_BYTES}"  # of a new file, before its first transaction
    for pragma in (size, "trusted_schema=OFF", "foreign_keys=ON", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_reading(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _run(row: Mapping[Any, Any]) -> Run:
    result = None if row["result"] is None else read_row(Result, row["result"])
    check_sum(f"runs: results of {row['key'][:12]}", row["checksum"], row["result"])
    return Run(
        str(row["key"]), str(row["problem"]), str(row["policy"]), str(row["budget"]), int(row["seed"]), str(row["state"]), result
    )  # fmt: skip


def _row(stretch: Stretch) -> dict[str, Any]:
    """A stretch as a row of its run; `_stretch` is the way back."""
    numbers, seconds = (
        np.ascontiguousarray(column, dtype=kind)
        for column, kind in ((stretch.numbers, "<i8"), (stretch.seconds, "<f8"))
    )
    marks = [[count, round(spent, 6)] for count, spent in stretch.marks]
    return {
        "start": stretch.start,
        "numbers": small(stretch.numbers).data,
        "seconds": seconds.data,
        "marks": marks,
        "checksum": checksum(numbers, seconds, marks),
    }


def _stretch(row: Any) -> Stretch:
    numbers, seconds = read_evaluations(row.numbers, row.seconds)
    found = Stretch(row.start, numbers, seconds, read_row(Marks, row.marks))
    check_sum(f"batches: evaluations of {row.run[:12]}", row.checksum, numbers, seconds, row.marks)
    return found


def _lives(owner: str | None, heard: float | None) -> bool:
    """Whether the process that claimed a run is still at it."""
    host, _, number = (owner or "").rpartition(":")
    if host == socket.gethostname() and number.isdecimal() and os.name == "posix":
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
    return heard is not None and time.time() - heard < SILENT_SECONDS
