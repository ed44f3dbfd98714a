"""Doing a study: every process that works on it claims one of its runs after the other, and leaves their rows in the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from codesign.lab.database import Database, Run, Stretch
from codesign.lab.prices import Prices
from codesign.lab.rows import WrongRow

Done = tuple[Mapping[str, Any], list[Stretch]]
"""What a run leaves: its result, and evaluations that were not recorded on the way."""

Record = Callable[[list[Stretch]], None]


class Doer(Protocol):
    """Does the runs of a study, wherever it is: it travels to other processes as a pickle. WrongRow where a run is none of the study's."""

    def do(self, run: Run, *, prices: Prices | None, past: Sequence[Stretch], record: Record) -> Done:
        """Do a run. `prices`: all of its problem, where they are had; `past`: what was recorded of the run before."""

    def pricer(self, run: Run) -> Callable[[], Prices] | None:
        """How all prices of a run's problem are made; None where they are not had."""


@dataclass
class Study:
    """A study that is being done: who does its runs, and the database that their rows go to."""

    name: str
    doer: Doer
    database: Database
    _tables: dict[str, Prices] = field(default_factory=dict)

    def work(self, tick: Callable[[], None] = lambda: None, alive: Callable[[], bool] = lambda: True) -> None:
        """Claim runs and do them until nobody has left any (or this process is not to live any longer)."""
        while alive():
            run = self.database.claim(self.name)
            if run is None:
                break
            self.do(run)
            tick()

    def do(self, run: Run) -> None:
        """Do one run that was claimed, from where it was left."""
        try:
            past = self.database.stretches(run.key)
            prices = self.table(run)
            done = self.doer.do(run, prices=prices, past=past, record=lambda new: self.database.add(run.key, new))
        except WrongRow as error:
            self.database.release(run.key)
            raise self.database.wrong(str(error)) from error
        except BaseException:
            self.database.release(run.key)
            raise
        self.database.finish(run.key, *done)

    def table(self, run: Run) -> Prices | None:
        """All prices of a run's problem where they can be had, which the database keeps."""
        make = self.doer.pricer(run)
        if make is None:
            return None
        if run.problem not in self._tables:
            self._tables[run.problem] = self.database.prices(run.problem, make) or make()
        return self._tables[run.problem]
