"""How right the model's occupancy is: registers and shared memory of emitted kernels as the Triton compiler reports them.

`python benchmarks/compiled_truth.py [--json]` compiles a sweep of schedules of a GEMM, a softmax and an element-wise kernel for sm_80, sm_90 and
sm_100 (no GPU is needed) and compares what the cost model assumed. Shared memory and registers decide how many blocks an SM holds.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from codesign.backends.triton import compile_aot
from codesign.costmodel.gpu.geometry import geometry, work
from codesign.costmodel.gpu.model import knob_columns
from codesign.costmodel.gpu.occupancy import occupancy
from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.summary import summarize
from codesign.ir.index import Bounds
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.passes.normalize import normalize
from codesign.passes.tile import lower

MACHINES = {"sm_80": "a100_sxm", "sm_90": "h100_sxm", "sm_100": "b200_sxm"}


def sweep() -> list[tuple[str, Fusion, Schedule]]:
    """Kernels and schedules to compile."""
    from tests.passes.tiling import groups

    cases = []
    for m, n, k, warps, stages in (
        (32, 32, 32, 4, 3), (64, 64, 32, 4, 3), (64, 64, 64, 4, 4), (64, 128, 32, 4, 3), (64, 128, 64, 8, 3), (128, 64, 64, 4, 2),
        (128, 128, 32, 4, 4), (128, 128, 32, 8, 3), (128, 128, 64, 8, 3), (128, 256, 32, 8, 3), (128, 256, 64, 8, 2), (256, 64, 32, 4, 4),
    ):  # fmt: skip
        schedule = Schedule({"i": m, "j": n, "k": k}, pipeline=stages, extras={"warps": warps})
        cases.append(("gemm", groups.gemm(4096, 4096, 4096), schedule))
    for rows, warps in ((1, 4), (2, 4), (4, 8)):
        schedule = Schedule({"i": rows}, reduce={"j": "resident"}, extras={"warps": warps})
        cases.append(("softmax", groups.softmax(4096, 2048), schedule))
    return cases


def compare(name: str, group: Fusion, schedule: Schedule, arch: str, machine: Machine) -> dict[str, Any]:
    """Assumed and compiled resources of one kernel."""
    normal = normalize(group, Bounds({}, {}))
    kernel = lower(normal.fusion, schedule, name=name, outputs=normal.outputs)
    found = compile_aot(kernel, arch)
    summary = summarize(normal.fusion)
    knobs = {key: column.astype(np.float64) for key, column in knob_columns(ScheduleBatch.of([schedule])).items()}
    g = geometry(summary, knobs, {})
    wide = bool(machine.features.get("wgmma") or machine.features.get("tensor_memory"))
    assumed = occupancy(work(summary, g, 0.0, knobs["warps"], wide), machine, knobs["warps"], knobs["pipeline"])
    threads = float(np.ravel(assumed.threads)[0])
    granule = np.ceil(max(found.registers, 16) / 8.0) * 8.0
    capacity = machine.level("shared").capacity_bytes.value or 0.0
    reserved = machine.limit("shared_reserved_per_block_bytes")
    truth = min(
        machine.limit("registers_per_sm") // (granule * threads),
        capacity // (found.shared_bytes + reserved),
        machine.limit("threads_per_sm") // threads,
        machine.limit("blocks_per_sm"),
    )
    return {
        "kernel": name,
        "arch": arch,
        "schedule": schedule.to_json(),
        "registers": [float(np.ravel(assumed.registers)[0]), float(found.registers)],
        "shared_bytes": [float(np.ravel(assumed.shared_bytes)[0]), float(found.shared_bytes)],
        "spills": float(found.spills),
        "blocks_per_sm": [float(np.ravel(assumed.blocks)[0]), float(truth)],
    }


def main() -> None:
    rows = []
    for arch, name in MACHINES.items():
        machine = load_machine(name)
        rows += [compare(kernel, group, schedule, arch, machine) for kernel, group, schedule in sweep()]
    right = float(np.mean([row["blocks_per_sm"][0] == row["blocks_per_sm"][1] for row in rows]))
    if "--json" in sys.argv:
        print(json.dumps({"occupancy_right": right, "kernels": rows}, indent=1))
        return
    for row in rows:
        tiles = "x".join(str(size) for size in row["schedule"]["tiles"].values())
        pairs = " ".join(
            f"{key} {row[key][0]:,.0f}/{row[key][1]:,.0f}" for key in ("registers", "shared_bytes", "blocks_per_sm")
        )
        print(
            f"{row['arch']:7} {row['kernel']:8} {tiles:12} pipeline {row['schedule']['pipeline']} assumed/compiled: {pairs}"
        )
    print(f"occupancy right on {right:.0%} of {len(rows)} kernels")


if __name__ == "__main__":
    main()
