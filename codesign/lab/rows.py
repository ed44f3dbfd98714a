"""What a database of studies holds: its tables, and what each row of a file must be to be read, whoever wrote it."""

from __future__ import annotations

import json
import math
import zlib
from typing import Annotated, Any

import numpy as np
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from codesign.costmodel.faults import fault
from codesign.lab.problem import Floats
from codesign.passes.schedule.space import Ints

MOST = (1 << 63) - 1
"""The largest whole number of an array's element."""

_tables = sa.MetaData()
STUDIES = sa.Table(
    "studies",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("plan", sa.JSON, nullable=False),
)
PROBLEMS = sa.Table(
    "problems",
    _tables,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("description", sa.JSON, nullable=False),
    sa.Column("prices", sa.LargeBinary),
)
RUNS = sa.Table(
    "runs",
    _tables,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("problem", sa.ForeignKey("problems.key"), nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("budget", sa.Text, nullable=False),
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("owner", sa.Text),
    sa.Column("heard", sa.Float),
    sa.Column("result", sa.JSON),
    sa.Column("checksum", sa.Integer),
)
sa.Index("runs_by_state", RUNS.c.state, RUNS.c.problem, RUNS.c.key)
MEMBERS = sa.Table(
    "members",
    _tables,
    sa.Column("study", sa.ForeignKey("studies.name"), primary_key=True),
    sa.Column("run", sa.ForeignKey("runs.key"), primary_key=True),
)
BATCHES = sa.Table(
    "batches",
    _tables,
    sa.Column("run", sa.ForeignKey("runs.key"), primary_key=True),
    sa.Column("start", sa.Integer, primary_key=True),
    sa.Column("numbers", sa.LargeBinary, nullable=False),
    sa.Column("seconds", sa.LargeBinary, nullable=False),
    sa.Column("marks", sa.JSON, nullable=False),
    sa.Column("checksum", sa.Integer),
)


STORED = {
    "Text": {"text"},
    "JSON": {"text"},
    "Integer": {"integer"},
    "Float": {"real", "integer"},
    "LargeBinary": {"blob"},
}
"""How SQLite may store values of each type; it takes any value into any column."""

STATES = ("waiting", "running", "done")

Count = Annotated[int, Field(ge=0, le=MOST)]


class WrongRow(ValueError):
    """What a row of a file holds is not what such a row can hold."""


class Result(BaseModel):
    """What a run leaves."""

    model_config = ConfigDict(extra="forbid")
    evaluations: Count
    best: float | None
    policy_seconds: float
    allowed: Count | None
    outcome: dict[str, Any] | None = None


class Description(BaseModel):
    """A problem."""

    model_config = ConfigDict(extra="forbid")
    name: str
    machine: str
    knobs: list[tuple[str, list[Annotated[int, Field(ge=-MOST, le=MOST)] | float | str | bool]]]
    measured: bool

    @model_validator(mode="after")
    def _numbered(self) -> Description:
        if math.prod(len(values) for _, values in self.knobs) > MOST:
            raise ValueError("more schedules than can be numbered")
        return self


class Plan(RootModel[dict[str, Any]]):
    """What a study was to do."""


class Marks(RootModel[list[tuple[Count, float]]]):
    """After how many evaluations how many seconds had passed."""


def read_row(kind: type[BaseModel], data: Any) -> Any:
    """Data of a file as plain data that it must be; WrongRow says what is wrong with it."""
    try:
        return kind.model_validate(data).model_dump()
    except ValidationError as error:
        raise WrongRow(f"{kind.__name__.lower()}: {fault(error, kind, data)}") from None


def read_json(text: Any) -> Any:
    """JSON of a row."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongRow(f"a row holds no JSON: {error}") from None


def checksum(*parts: Any) -> int:
    """CRC-32 of what a row says, arrays by their bytes and all else as JSON."""
    found = 0
    for part in parts:
        plain = part.data if isinstance(part, np.ndarray) else json.dumps(part, sort_keys=True).encode()
        found = zlib.crc32(plain, found)
    return found


def check_sum(what: str, written: int | None, *parts: Any) -> None:
    """WrongRow where a row has another checksum than what it says; one without (None) was written by hand."""
    if written is not None and written != checksum(*parts):
        raise WrongRow(f"{what} were damaged: their checksum is another")


def read_evaluations(numbers: Any, seconds: Any) -> tuple[Ints, Floats]:
    """Schedules by number and what each costs, as a batch has them."""
    try:
        times = np.frombuffer(seconds, dtype="<f8")
        kind = "<i4" if len(numbers) == 4 * len(times) else "<i8"
        found = np.frombuffer(numbers, dtype=kind).astype(np.int64)
    except ValueError:
        raise WrongRow("a batch of evaluations is cut off") from None
    if len(found) != len(times):
        raise WrongRow("a batch has other schedules than seconds")
    if not (times >= 0).all():
        raise WrongRow("a batch has seconds that are no time")
    return found, times


def make_tables(base: sa.Connection) -> None:
    """The tables that are not there yet."""
    _tables.create_all(base)


def lacking(seen: sa.Inspector) -> str | None:
    """What a file lacks of the columns that studies have; empty where it has none of their tables."""
    known = set(seen.get_table_names())
    if not known & set(_tables.tables):
        return ""
    columns = {name: {str(column["name"]) for column in seen.get_columns(name)} for name in known}
    for table in _tables.sorted_tables:
        for column in table.columns:
            if column.name not in columns.get(table.name, ()):
                return f"{table.name} without {column.name}"
    return None


def check_rows(base: sa.Connection) -> None:
    """WrongRow where a column holds another type than its own, or a row belongs to one that is not there.

    SQLite says how each value is stored without reading it, so that this takes no time beside what a file's rows took to make.
    """
    for table in _tables.sorted_tables:
        columns = list(table.columns)
        kinds = base.execute(sa.select(*(sa.func.typeof(column).label(column.name) for column in columns)).distinct())
        for column, found in ((column, found) for row in kinds for column, found in zip(columns, row, strict=True)):
            allowed = STORED[type(column.type).__name__] | ({"null"} if column.nullable else set())
            if found not in allowed:
                raise WrongRow(f"{table.name}.{column.name} must be {' or '.join(sorted(allowed))}, and one is {found}")
        for key in table.foreign_keys:
            there = sa.select(sa.literal(1)).where(key.column == key.parent).exists()
            alone = base.execute(sa.select(key.parent).where(~there).limit(1)).scalar()
            if alone is not None:
                where = f"{key.column.table.name}.{key.column.name}"
                raise WrongRow(f"{table.name}.{key.parent.name}: there is no {alone[:40]!r} in {where}")
    states = base.execute(sa.select(RUNS.c.state, RUNS.c.result.is_(sa.null())).distinct())
    for state, without in states:
        if state not in STATES:
            raise WrongRow(f"runs.state must be {', '.join(STATES)}, and one is {state[:40]!r}")
        if state == "done" and without:
            raise WrongRow("runs.result: a run that is done has none")
