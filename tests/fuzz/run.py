"""`python tests/fuzz/run.py --inputs 100000`: files as strangers send them, to every reader of the product.

An input may be read, or refused by a CodesignError; it may not raise anything else, take longer than `SECONDS`, or more than a gigabyte. Input
number n of a seed is the same in every run, so a failure is repeated by `--seed S --only n`. Failures are kept in build/fuzz/.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from codesign.ir.errors import CodesignError
from tests.fuzz.kinds import KINDS, Kind

SECONDS = 10
"""Of a processor that an input may take; six times as long by the clock, on which others may be."""
BYTES = 1 << 30
TIMERS = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, 6 * SECONDS))


class TooLong(BaseException):
    """A reader took longer than an input may."""


def _late(signum: int, frame: FrameType | None) -> None:
    raise TooLong


def chosen(seed: int, number: int) -> tuple[Kind, bytes]:
    """Input number n of a seed."""
    rng = random.Random(f"{seed}:{number}")
    kind = rng.choices(KINDS, [kind.share for kind in KINDS])[0]
    return kind, kind.make(rng)


def outcome(kind: Kind, data: bytes) -> str:
    """`read`, `refused`, or the failure: an exception's type and place, or a time that ran out."""
    for name, timer, seconds in TIMERS:
        signal.signal(name, _late)
        signal.setitimer(timer, seconds)
    try:
        kind.read(data)
    except CodesignError as error:
        return "refused" if len(error.one_line()) < 4000 else "FAIL the refusal is a page long"
    except TooLong:
        return f"FAIL no answer in {SECONDS} s"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"FAIL {type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error)[:100]}"
    finally:
        for _, timer, _ in TIMERS:
            signal.setitimer(timer, 0)
    return "read"


def _work(task: tuple[int, int, int]) -> tuple[Counter[str], list[tuple[int, str, str]], int]:
    """Inputs [first, last) of a seed: how they ended, by kind, the failures, and the peak memory in bytes."""
    seed, first, last = task
    counts: Counter[str] = Counter()
    failures = []
    for number in range(first, last):
        kind, data = chosen(seed, number)
        result = outcome(kind, data)
        counts[f"{kind.name} {result.split(' ')[0]}"] += 1
        if result.startswith("FAIL"):
            failures.append((number, kind.name, result))
            folder = Path("build/fuzz")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{seed}_{number}.{kind.name}").write_bytes(data)
    return counts, failures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Run, print how inputs ended, and fail if any ended badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, help="run this input alone, and show it")
    given = parser.parse_args()
    if given.only is not None:
        kind, data = chosen(given.seed, given.only)
        sys.stdout.write(f"{kind.name}: {outcome(kind, data)}\n{data.decode('utf-8', 'replace')}\n")
        return 0
    started, counts, failures, peak = time.monotonic(), Counter[str](), [], 0
    size = 500
    tasks = [(given.seed, n, min(n + size, given.inputs)) for n in range(0, given.inputs, size)]
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for part, bad, memory in pool.imap_unordered(_work, tasks):
            counts += part
            failures += bad
            peak = max(peak, memory)
    for number, name, text in sorted(failures)[:40]:
        sys.stdout.write(f"input {number} ({name}): {text}\n")
    for name, count in sorted(counts.items()):
        sys.stdout.write(f"{name:24} {count:8,}\n")
    seconds = time.monotonic() - started
    sys.stdout.write(
        f"{sum(counts.values()):,} inputs in {seconds:,.0f} s, {len(failures)} failures, peak memory {peak / 2**20:,.0f} MiB\n"
    )
    return 1 if failures or peak > BYTES else 0


if __name__ == "__main__":
    sys.exit(main())
