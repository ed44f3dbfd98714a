"""Who does the runs of a study: this process, others on this machine that share its database, or a cluster's workers."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from codesign.command import need
from codesign.ir.errors import CodesignError
from codesign.lab.engine import Study

WATCH_SECONDS = 0.05
"""How often it is looked whether others are done."""


class Crew:
    """This process alone."""

    def __init__(self, study: Study) -> None:
        self.study = study

    def work(self, tick: Callable[[], None] = lambda: None) -> None:
        """Do all runs that are open, and wait for those that another command does; it may be called again when there are more."""
        database, name = self.study.database, self.study.name
        self.study.work(tick)
        done, total = database.progress(name)
        while done < total:
            time.sleep(WATCH_SECONDS)
            self._see()
            self.study.work(tick)  # what one that died has left
            before, (done, total) = done, database.progress(name)
            for _ in range(done - before):
                tick()

    def _see(self) -> None:
        """Look after the others."""

    def close(self) -> None:
        """Nobody is needed any longer."""


class Processes(Crew):
    """This process and others that it starts, each of which claims what is open."""

    def __init__(self, study: Study, jobs: int) -> None:
        super().__init__(study)
        self.jobs = jobs
        self.others: list[subprocess.Popen[bytes]] = []

    def work(self, tick: Callable[[], None] = lambda: None) -> None:
        done, total = self.study.database.progress(self.study.name)
        if total - done > 1:
            if not self.others:
                doer = pickle.dumps(self.study.doer)
                self.others = [self._started(doer) for _ in range(min(self.jobs, total - done) - 1)]
            for other in self.others:
                _tell(other, b"\n")
        super().work(tick)

    def _started(self, doer: bytes) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "codesign.lab.helper", str(self.study.database.path), self.study.name]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        helper = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        _tell(helper, doer)
        return helper

    def _see(self) -> None:
        for other in self.others:
            if other.poll() not in (0, None):
                raise CodesignError(
                    f"a helper process failed with exit code {other.returncode}", hint="--jobs 1 shows why"
                )

    def close(self) -> None:
        for other in self.others:
            if other.poll() is None:
                other.terminate()
            assert other.stdin is not None
            with contextlib.suppress(OSError):
                other.stdin.close()
            other.wait()


@contextmanager
def crew(study: Study, *, jobs: int = 1, ray: bool = False, address: str | None = None) -> Iterator[Crew]:
    """`jobs` processes here, or (`ray`) workers of the Ray cluster at `address`, or of one that is started here."""
    hands: Crew
    if ray:
        need("ray", "ray")
        from codesign.lab.on_ray import Cluster

        hands = Cluster(study, jobs, address)
    else:
        hands = Processes(study, jobs) if jobs > 1 else Crew(study)
    try:
        yield hands
    finally:
        hands.close()


def _tell(helper: subprocess.Popen[bytes], message: bytes) -> None:
    assert helper.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # one that died; `_see` finds it
        helper.stdin.write(message)
        helper.stdin.flush()
