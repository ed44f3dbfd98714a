"""How many wrong lines the tests find: `python benchmarks/mutants.py [WORD ...] [--list] [--jobs N]`.

Each mutant of `mutants.toml` is planted alone in a copy of the tree, and the tests named with it are run there, in the same
order and with the same random examples every time: they must fail. Before that they must pass without it. WORDs choose
mutants by name or file. Prints one JSON document on stdout, a line for each mutant on stderr, and fails where one survived.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 600.0
"""A run of tests that takes longer has found the mutant, too: it made something endless."""


@dataclass(frozen=True)
class Mutant:
    """`old` in `file` becomes `new`, which `tests` must find."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted(self, root: Path) -> str:
        """The text of the file with the mutant in it; ValueError where `old` does not stand there just once, or a test is gone."""
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} stands {text.count(self.old)} times in {self.file}")
        if missing := [test for test in self.tests if not (root / test.split("::")[0]).is_file()]:
            raise ValueError(f"{self.name}: there is no {', '.join(missing)}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Outcome:
    """`killed` by a failing test; `by`: the first that failed."""

    mutant: str
    file: str
    killed: bool
    by: str
    seconds: float


def mutants() -> list[Mutant]:
    """All mutants of the list."""
    rows = tomllib.loads((ROOT / "benchmarks" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def copy_tree(target: Path) -> Path:
    """A copy of what git tracks or would, links kept as links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        source, place = ROOT / name, target / name
        if source.is_symlink() or source.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place, follow_symlinks=False)
    return target


def run_tests(root: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Exit status of pytest in a tree, and its output; status 1 when it took too long."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "HYPOTHESIS_PROFILE": "unshrunk",
        "PYTHONHASHSEED": "0",
        "CODESIGN_CACHE": str(root / "cache"),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, "FAILED (no end in sight)"
    return done.returncode, done.stdout


def attempt(mutant: Mutant) -> Outcome:
    """Plant one mutant in a copy of its own and run its tests."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = copy_tree(Path(folder))
        (root / mutant.file).write_text(mutant.planted(root), encoding="utf-8")
        status, output = run_tests(root, mutant.tests)
    failed = [line.removeprefix("FAILED ").split(" - ")[0] for line in output.splitlines() if line.startswith("FAILED")]
    if status not in (0, 1):  # not collected, interrupted: no test has judged
        failed = [line for line in output.splitlines() if line.startswith("ERROR")] or [f"pytest ended with {status}"]
    outcome = Outcome(mutant.name, mutant.file, status != 0, failed[0] if failed else "", time.monotonic() - start)
    verdict = "killed  " if outcome.killed else "SURVIVED"
    print(f"{verdict} {outcome.mutant} ({outcome.file}) {outcome.by}", file=sys.stderr, flush=True)
    return outcome


def check_without(chosen: list[Mutant], jobs: int) -> None:
    """The tests named must pass in an unchanged copy; SystemExit says which do not."""
    files = sorted({test for mutant in chosen for test in mutant.tests})
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = copy_tree(Path(folder))
        with ThreadPoolExecutor(jobs) as pool:
            statuses = list(pool.map(lambda test: run_tests(root, (test,)), files))
    wrong = [file for file, (status, _) in zip(files, statuses, strict=True) if status]
    if wrong:
        raise SystemExit(f"fail without any mutant: {', '.join(wrong)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name or file")
    parser.add_argument("--list", action="store_true", help="only print their names")
    parser.add_argument("--jobs", type=int, default=max((os.cpu_count() or 2) // 2, 1))
    parser.add_argument("--trusting", action="store_true", help="do not run the tests without mutants first")
    arguments = parser.parse_args()
    words = arguments.words
    chosen = [m for m in mutants() if not words or any(word in m.name or word in m.file for word in words)]
    try:
        for mutant in chosen:
            mutant.planted(ROOT)
    except ValueError as error:
        raise SystemExit(f"{error}; mend benchmarks/mutants.toml") from None
    if arguments.list:
        print("\n".join(mutant.name for mutant in chosen))
        return
    if not arguments.trusting:
        check_without(chosen, arguments.jobs)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = list(pool.map(attempt, chosen))
    killed = sum(outcome.killed for outcome in outcomes)
    rows = [{**asdict(outcome), "seconds": round(outcome.seconds, 1)} for outcome in outcomes]
    print(json.dumps({"benchmark": "mutants", "planted": len(outcomes), "killed": killed, "rows": rows}, indent=1))
    if killed < len(outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
