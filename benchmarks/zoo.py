"""Architectures that people run, compiled and checked: `python benchmarks/zoo.py [NAME ...] [--targets h100_sxm maia100]`.

Each (benchmarks/architectures: tiny, with random weights) is captured, compiled for each machine, and run whole: kernels (in Triton's
interpreter, on the accelerator's simulator) against torch on the example, the meanings of the fused groups on other inputs. A row says whether
the values agree, what stays an external call and its share of the predicted time, and whether every price is possible: none below the time that
the bytes or the operations of a kernel take at the machine's peak. The rows of what was run replace those of results/zoo.json, and `--print`
shows what that holds. Exit code 1 where a row that was run does not hold.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "zoo.json"
KINDS = (
    "plain",
    "recent",
    "newest",
    "mixers",
    "papers",
    "senses",
    "sparse",
    "language",
    "text",
    "vision",
    "audio",
    "diffusion",
    "caches",
    "serving",
    "training",
)
LARGEST_SHARE = 0.05
"""Of the predicted time, for the external calls of one operator."""


def examples() -> dict[str, tuple[str, Callable[[], Any]]]:
    """Every architecture by name, with what it is: a whole call or a step."""
    from benchmarks import architectures

    for kind in KINDS:
        importlib.import_module(f"benchmarks.architectures.{kind}")
    both = (("forward", architectures.FORWARD), ("step", architectures.STEPS))
    return {name: (what, make) for what, table in both for name, make in table.items()}


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """TimeoutError in the block when it takes more seconds of the CPU, however busy the machine is."""

    def expired(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} CPU s")

    before = signal.signal(signal.SIGPROF, expired)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def captured(name: str, make: Callable[[], Any]) -> Any:
    """A model of the zoo, captured."""
    import torch

    from codesign.frontend import ModelSource
    from codesign.frontend import capture as capture_model
    from codesign.pipeline import Model

    torch.manual_seed(0)
    model, inputs = make()
    source = ModelSource(model.eval(), (), inputs, name=name)
    found = capture_model(source)
    return Model(source, found, found.seconds)


def impossible(document: Any) -> list[str]:
    """Kernels and calls below the least time of their bytes and operations."""
    return [
        f"{kernel.name}: {kernel.seconds:.3g} s, at least {kernel.roofline_seconds:.3g} s"
        for kernel in document.kernels
        if not kernel.seconds >= kernel.roofline_seconds * (1 - 1e-6) > 0
    ]


def shares(document: Any) -> dict[str, float]:
    """External calls by operator, and their share of the predicted time."""
    found: dict[str, float] = {}
    for call in document.external_calls:
        operator = call.op.partition(" #")[0]
        found[operator] = found.get(operator, 0.0) + call.count * call.seconds / document.seconds
    return {operator: round(share, 4) for operator, share in found.items()}


def versions() -> dict[str, str]:
    """The releases that the models come from."""
    return {package: metadata.version(package) for package in ("torch", "transformers", "diffusers")}


def row_of(name: str, what: str, model: Any, target: str) -> dict[str, Any]:
    """What became of a captured model on one machine."""
    from codesign import execution
    from codesign.command import Steps
    from codesign.costmodel.machine import load_machine
    from codesign.pipeline import Options, compile_for
    from codesign.report import launch_count

    started = time.process_time()
    compilation = compile_for(model, load_machine(target), Options(kernels=False, verify=False), Steps(None))
    document, planned = compilation.document, compilation.compiled.planned
    remarks: list[str] = []
    backend, kernels, sizes = compilation.backend, planned.kernels, planned.sizes
    whole = execution.verify(model.source, model.captured, planned.module, kernels, backend, sizes, 0, remarks)
    calls = shares(document)
    notes = impossible(document)
    if whole is None or not whole.ok:
        notes.append(whole.note if whole else "; ".join(remarks))
    notes += [f"{op} takes {share:.1%}" for op, share in calls.items() if share > LARGEST_SHARE]
    return {
        "name": name,
        "what": what,
        "target": target,
        "ok": not notes,
        "error": whole.max_error if whole else None,
        "inputs": whole.inputs if whole else [],
        "kernels": len(document.kernels),
        "launches": launch_count(document),
        "calls": calls,
        "seconds": document.seconds,
        "cpu_seconds": round(time.process_time() - started, 1),
        "versions": versions(),
        "notes": notes,
    }


def rows(names: Sequence[str], targets: Sequence[str], seconds: int) -> Iterator[dict[str, Any]]:
    """A row for each architecture and machine; what fails is a row too."""
    for name in names:
        what, make = examples()[name]
        try:
            with limited(seconds):
                model = captured(name, make)
        except Exception as error:
            for target in targets:
                yield failure(name, what, target, error)
            continue
        for target in targets:
            try:
                with limited(seconds):
                    yield row_of(name, what, model, target)
            except Exception as error:
                yield failure(name, what, target, error)
        del model
        gc.collect()


def failure(name: str, what: str, target: str, error: Exception) -> dict[str, Any]:
    text = " ".join(str(error).split())[:300]
    return {"name": name, "what": what, "target": target, "ok": False, "notes": [f"{type(error).__name__}: {text}"]}


def keep(row: dict[str, Any], results: Path, order: Sequence[str] = ("what", "name", "target")) -> None:
    """Put a row in the place of an earlier one of the same model and machine."""
    held = json.loads(results.read_text()) if results.exists() else []
    others = [each for each in held if (each["name"], each["target"]) != (row["name"], row["target"])]
    ordered = sorted([*others, row], key=lambda each: [each[field] for field in order])
    results.write_text("[\n" + ",\n".join(json.dumps(each) for each in ordered) + "\n]\n")


def line(row: dict[str, Any]) -> str:
    """One row for people."""
    head = f"{row['name']:20s} {row['what']:8s}{row['target']:10s}{'ok' if row['ok'] else 'NO':3s}"
    if "kernels" not in row:
        return f"{head} {'; '.join(row['notes'])}"
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    calls = ", ".join(f"{op} {share:.1%}" for op, share in row["calls"].items()) or "no calls"
    counts = f"{row['kernels']:4d} kernels {row['launches']:5.0f} launches {row['seconds'] * 1e6:8.1f} µs"
    return f"{head} {error:8s}{counts}  {calls}  {'; '.join(row['notes'])}".rstrip()


def summary(found: Sequence[dict[str, Any]]) -> str:
    """How many architectures hold on every machine that they were run for."""
    lines = []
    for what in ("forward", "step"):
        names = {row["name"] for row in found if row["what"] == what}
        bad = {row["name"] for row in found if row["what"] == what and not row["ok"]}
        lines.append(
            f"{what}: {len(names - bad)} of {len(names)} hold" + (f" (not: {', '.join(sorted(bad))})" if bad else "")
        )
    share = max((value for row in found for value in row.get("calls", {}).values()), default=0.0)
    return "\n".join([*lines, f"largest share of an external call: {share:.1%}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="all by default")
    parser.add_argument("--targets", nargs="+", default=["h100_sxm", "maia100"])
    parser.add_argument("--limit", type=int, default=600, help="CPU seconds for one capture or compilation")
    parser.add_argument("--print", action="store_true", help="only show the rows of results/zoo.json")
    given = parser.parse_args()
    if given.print:
        held = json.loads(RESULTS.read_text())
        print("\n".join([*map(line, held), summary(held)]))
        return 0
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    names = given.names or list(examples())
    found = []
    for row in rows(names, given.targets, given.limit):
        print(line(row), flush=True)
        keep(row, RESULTS)
        found.append(row)
    print(summary(found))
    return 0 if all(row["ok"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
