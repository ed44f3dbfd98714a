"""Simulated instructions a second, here and at another commit: `OMP_NUM_THREADS=1 python benchmarks/simulator_speed.py --against COMMIT`.

Both simulate the same programs (text of this commit), in processes that take turns; CPU seconds of one core, best of the rounds, and whether the
cycles are the same. Without `--against`, this commit alone. `programs`: files of programs, else products of three kinds on maia100.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PRODUCTS = {
    "small tiles": ((1024, 1024, 512), 16, 3, False),
    "long sums": ((1024, 1024, 4096), 32, 2, False),
    "shared loads": ((2048, 2048, 2048), 64, 2, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="*", type=Path)
    parser.add_argument("--machine", default="maia100")
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--values", action="store_true", help="with values, of random inputs")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps([_simulated(path, arguments.machine, arguments.values) for path in arguments.programs]))
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.programs or _products(Path(folder))
        trees = {"here": ROOT}
        if arguments.against:
            trees[arguments.against] = _checked_out(arguments.against, Path(folder) / "tree")
        found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in trees}
        for _ in range(arguments.rounds):
            for name, tree in trees.items():
                found[name].append(_run(tree, paths, arguments.machine, arguments.values))
        _report(paths, found)


def _products(folder: Path) -> list[Path]:
    """Programs of products with a bias and max(x, 0), from short steady states to long ones."""
    from codesign.backends.accelerator import lower
    from codesign.costmodel.machine import load_machine
    from codesign.ir.schedule import AtLevel, Schedule
    from codesign.ir.tensor import Fusion
    from codesign.ir.text import parse
    from codesign.ir.text.program import print_program
    from codesign.passes.tile import lower as tile

    paths = []
    for name, ((m, n, k), side, depth, shared) in PRODUCTS.items():
        (function,) = parse(f"""
func @product(%x: bf16[{m}, {k}], %w: bf16[{n}, {k}], %bias: bf16[{n}]) {{
  %o = fusion {{
    %h = compute bf16[i: {m}, j: {n}] sum(k: {k}) in f32 {{ f32(%x[i, k]) * f32(%w[j, k]) }}
    %r = compute bf16[i: {m}, j: {n}] {{ max(%h[i, j] + %bias[j], 0.0:bf16) }}
    yield %r
  }}
  return %o
}}""").functions.values()
        fusion = next(op for op in function.body.ops if isinstance(op, Fusion))
        levels = {"cluster": AtLevel({"i": 4, "j": 4}), "core": AtLevel({"i": 2, "j": 2})} if shared else {}
        schedule = Schedule({"i": side, "j": side, "k": side}, levels, reduce={"k": "looped"}, pipeline=depth)
        path = folder / f"{name.replace(' ', '_')}.casm"
        path.write_text(print_program(lower(tile(fusion, schedule), load_machine("maia100"))))
        paths.append(path)
    return paths


def _checked_out(commit: str, folder: Path) -> Path:
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x"], cwd=folder, input=archive, check=True)
    return folder


def _run(tree: Path, paths: list[Path], machine: str, values: bool) -> list[dict[str, Any]]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", "--machine", machine, *map(str, paths)]
    command += ["--values"] if values else []
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def _simulated(path: Path, name: str, values: bool) -> dict[str, Any]:
    """What one simulation takes, in this process's version of the product."""
    import numpy as np

    from codesign.backends.accelerator import simulate
    from codesign.costmodel.machine import load_machine
    from codesign.ir.numerics import convert
    from codesign.ir.program import buffer_shape
    from codesign.ir.text.program import parse_programs

    (program,) = parse_programs(path.read_text(), str(path))
    rng = np.random.default_rng(0)
    inputs = [convert(rng.standard_normal(buffer_shape(v)), v.type.dtype) for v in program.inputs] if values else None
    machine = load_machine(name)
    started = time.process_time()
    result = simulate(program, inputs, machine, values=values)
    seconds = time.process_time() - started
    return {"instructions": result.instructions, "seconds": seconds, "cycles": result.cycles}


def _report(paths: list[Path], found: dict[str, list[list[dict[str, Any]]]]) -> None:
    for position, path in enumerate(paths):
        best = {
            name: min((turn[position] for turn in turns), key=lambda r: r["seconds"]) for name, turns in found.items()
        }
        here = best.pop("here")
        row = {
            "program": path.stem,
            "instructions": here["instructions"],
            "instructions_per_second": round(here["instructions"] / here["seconds"]),
            "cycles": here["cycles"],
        }
        for name, other in best.items():
            row[f"{name}_instructions_per_second"] = round(other["instructions"] / other["seconds"])
            row["times_as_fast"] = round(other["seconds"] / here["seconds"], 1)
            row["cycles_apart"] = abs(other["cycles"] / here["cycles"] - 1.0)
        print(json.dumps(row))


if __name__ == "__main__":
    main()
