"""What the cost model assumes of a kernel against what the compiler reports: registers, shared memory, spills, blocks per SM.

    OMP_NUM_THREADS=1 python benchmarks/compiled_truth.py --models llama_block mlp --schedules 4

For groups of the real examples and schedules drawn at random among the faster half of those that the model says fit, or
the fastest with `--best`, on sm_80, sm_90, sm_100, gfx942 and gfx950. Blocks per SM follow from the compiled registers and
shared memory by the rules of the hardware's allocation (costmodel/gpu/occupancy.py).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from codesign.backends.triton.aot import Compiled, compile_all
from codesign.costmodel.gpu.occupancy import blocks_of
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import KernelSummary, summarize
from codesign.ir.errors import CodesignError
from codesign.ir.tensor import Fusion
from codesign.ir.tile import Kernel
from codesign.passes import Context, optimize
from codesign.passes.normalize import Normalized, normalize
from codesign.passes.schedule.build import space
from codesign.passes.tile import lower

ROOT = Path(__file__).resolve().parents[1]
MACHINES = {"sm_80": "a100_sxm", "sm_90": "h100_sxm", "sm_100": "b200_sxm", "gfx942": "mi300x", "gfx950": "mi355x"}
ASSUMED = ("blocks_per_sm", "registers", "shared_bytes", "spilled_bytes")


def groups(names: list[str]) -> list[Normalized]:
    """The distinct fused groups of real example models."""
    from codesign.frontend import capture, load_model
    from codesign.ir.analysis import structural_hash

    found: dict[str, Normalized] = {}
    for name in names:
        module = capture(load_model(ROOT / "examples" / "real" / f"{name}.py")).module
        if module.symbols:
            continue
        for op in optimize(module, Context(machine=load_machine("h100_sxm"))).main.body.ops:
            if isinstance(op, Fusion):
                found.setdefault(structural_hash(op), normalize(op, module.bounds()))
    return list(found.values())


def kind(summary: KernelSummary) -> str:
    """What sort of kernel a group is."""
    products = sum(nest.contraction is not None for nest in summary.nests)
    if products:
        return "product" if products == 1 else "chain"
    return "reduction" if any(nest.reductions for nest in summary.nests) else "element-wise"


def blocks_per_sm(compiled: Compiled, machine: Machine) -> int:
    """Blocks resident on one SM by the compiled code's needs; 0 where one block is over a limit."""
    registers = max(-(-compiled.registers // 8) * 8, 24)
    reserved = machine.limit("shared_reserved_per_block_bytes")
    found = blocks_of(machine, registers, compiled.warps, compiled.shared_bytes + reserved)
    return int(found) if compiled.shared_bytes <= machine.limit("shared_per_block_bytes") else 0


def sweep(
    group: Normalized, number: int, arch: str, count: int, rng: np.random.Generator, best: bool = False
) -> list[dict[str, Any]]:
    """Some schedules of one group for one target; `best`: those that the model finds fastest."""
    machine = load_machine(MACHINES[arch])
    summary = summarize(group.fusion, f"group{number}")
    batch_space = space(summary, machine, {})
    batch = batch_space.batch(batch_space.sample(max(512, 8 * count), rng))
    cost = cost_model_for(machine).predict(summary, machine, batch)
    fits = np.flatnonzero(np.isfinite(cost.seconds))
    fits = fits[np.argsort(cost.seconds[fits])]
    if best:
        chosen = fits[:count]
    else:  # among the faster half: what a search would look at
        fits = fits[: max(count, len(fits) // 2)]
        chosen = rng.choice(fits, min(count, len(fits)), replace=False)
    kernels: list[Kernel] = []
    kept: list[int] = []
    for row in chosen:
        try:
            kernels.append(
                lower(group.fusion, batch.row(int(row)), name=f"group{number}_{len(kept)}", outputs=group.outputs)
            )
            kept.append(int(row))
        except CodesignError:
            continue
    rows = []
    for row, compiled in zip(kept, compile_all(kernels, arch), strict=True):
        rows.append(
            {
                "arch": arch,
                "group": number,
                "kind": kind(summary),
                "schedule": batch.row(row).to_json(),
                "assumed": {name: float(cost.details[name][row]) for name in ASSUMED},
                "compiled": {**compiled.to_json(), "blocks_per_sm": blocks_per_sm(compiled, machine)},
            }
        )
    return rows


def agreement(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """How the model's assumptions agree with compiled kernels. `near`: blocks per SM within one or a tenth; errors are
    medians of the absolute difference over the compiled value; spills agree where both or neither have any."""
    pairs = [(row["assumed"], row["compiled"]) for row in rows]
    right = [a["blocks_per_sm"] == c["blocks_per_sm"] for a, c in pairs]
    near = [abs(a["blocks_per_sm"] - c["blocks_per_sm"]) <= max(1.0, 0.1 * c["blocks_per_sm"]) for a, c in pairs]
    shared = [abs(a["shared_bytes"] - c["shared_bytes"]) <= 0.1 * c["shared_bytes"] + 2048 for a, c in pairs]
    spills = [(a["spilled_bytes"] > 0) == (c["spills"] > 0) for a, c in pairs]
    off = Counter(int(a["blocks_per_sm"] - c["blocks_per_sm"]) for a, c in pairs)
    return {
        "kernels": len(pairs),
        "blocks_per_sm_right": _share(right),
        "blocks_per_sm_near": _share(near),
        "registers_median_error": _median(abs(a["registers"] / c["registers"] - 1.0) for a, c in pairs),
        "shared_median_error": _median(
            abs(a["shared_bytes"] - c["shared_bytes"]) / max(c["shared_bytes"], 1024.0) for a, c in pairs
        ),
        "shared_within_10_percent": _share(shared),
        "spilling": sum(c["spills"] > 0 for _, c in pairs),
        "spills_agree": _share(spills),
        "blocks_assumed_minus_compiled": dict(sorted(off.items())),
    }


def _share(true: list[bool]) -> float:
    return round(float(np.mean(true)), 3)


def _median(values: Iterable[float]) -> float:
    return round(float(np.median(list(values))), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["llama_block", "gpt2", "mlp"])
    parser.add_argument("--schedules", type=int, default=4, help="per group and target")
    parser.add_argument("--best", action="store_true", help="the fastest schedules of the sample, not random ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, help="write every row to this JSON file")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(groups(arguments.models)):
        for arch in MACHINES:
            rows += sweep(group, number, arch, arguments.schedules, rng, arguments.best)
    if arguments.rows:
        arguments.rows.write_text(json.dumps(rows, indent=1))
    report: dict[str, Any] = {"benchmark": "compiled_truth", "date": date.today().isoformat(), "kernels": len(rows)}
    for arch in MACHINES:
        report[arch] = agreement(row for row in rows if row["arch"] == arch)
    report["kinds"] = {
        name: agreement(row for row in rows if row["kind"] == name) for name in sorted({row["kind"] for row in rows})
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
