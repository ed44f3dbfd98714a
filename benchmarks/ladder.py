"""Speed and error of every fidelity of the GPU cost model: `python benchmarks/ladder.py [-o DIR] [--rows N]`.

Runs the ladder's kernels on the calibrated machines and, where the measured tables lie beside the checkout
(`../shared/measured`), prices rows of them at every fidelity. Prints Markdown; with -o also writes ladder.json and a
picture of the errors.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

from codesign import ladder
from codesign.costmodel.machine import load_machine

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT.parent / "shared" / "measured"
TABLES = {
    "h100_sxm": ("gpu_gemm.parquet", "gpu_attention.parquet"),
    "a100_sxm": ("gpu_gemm.parquet", "gpu_attention.parquet", "gpu_transformer_ops_a100.parquet"),
}


def measure(name: str, rows: int, sample: int) -> dict[str, Any]:
    """One machine: the suite's rungs, the speeds, and the errors by table."""
    machine = load_machine(name)
    rungs = [ladder.climb(case, machine, sample) for case in ladder.suite()]
    errors = {
        file: ladder.against(MEASURED / file, machine, rows) for file in TABLES[name] if (MEASURED / file).is_file()
    }
    return {
        "machine": name,
        "schedules_per_second": ladder.speeds(ladder.suite()[0], machine),
        "kernels": [
            {"name": rung.name, "seconds": rung.seconds, "tau": rung.tau, "regret": rung.regret} for rung in rungs
        ],
        "errors": {
            file: [{"op": e.op, "rows": e.rows, "mape": e.mape, "bias": e.bias} for e in found]
            for file, found in errors.items()
        },
    }


def markdown(found: list[dict[str, Any]]) -> str:
    """Two tables: what each fidelity costs and how far fidelities 1 and 2 are apart; errors against measurement."""
    lines = [f"{date.today()}, one core of {platform.processor() or platform.machine()}", ""]
    lines += ["| machine | roofline /s | tile model /s | events /s | median apart | largest apart | mean rank tau |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for entry in found:
        apart = sorted(abs(k["seconds"][2] / k["seconds"][1] - 1.0) for k in entry["kernels"])
        taus = [k["tau"] for k in entry["kernels"] if k["tau"] is not None]
        speeds = " | ".join(f"{rate:,.0f}" for rate in entry["schedules_per_second"])
        tau = sum(taus) / max(len(taus), 1)
        lines.append(f"| {entry['machine']} | {speeds} | {apart[len(apart) // 2]:.1%} | {apart[-1]:.1%} | {tau:.2f} |")
    lines += ["", "| machine | op | rows | roofline | tile model | event simulation |", "|---|---|---|---|---|---|"]
    for entry in found:
        for op in (op for ops in entry["errors"].values() for op in ops):
            errors = " | ".join(f"{100 * value:.1f} %" for value in op["mape"])
            lines.append(f"| {entry['machine']} | {op['op']} | {op['rows']} | {errors} |")
    return "\n".join(lines)


def picture(found: list[dict[str, Any]], path: Path) -> None:
    """Bars of the mean absolute error of each op at every fidelity."""
    import matplotlib.pyplot as plt

    ops = [(e["machine"], op) for e in found for ops in e["errors"].values() for op in ops]
    if not ops:
        return
    figure, axes = plt.subplots(figsize=(max(6.0, 0.5 * len(ops)), 4.0))
    for fidelity, name in enumerate(ladder.FIDELITIES):
        places = [i + 0.27 * (fidelity - 1) for i in range(len(ops))]
        axes.bar(places, [100 * op["mape"][fidelity] for _, op in ops], width=0.25, label=name)
    axes.set_xticks(range(len(ops)), [f"{op['op']}\n{machine}" for machine, op in ops], rotation=90, fontsize=7)
    axes.set_ylabel("mean absolute error, %")
    axes.legend()
    figure.savefig(path, bbox_inches="tight", dpi=150)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", dest="directory", type=Path)
    parser.add_argument("--rows", type=int, default=60, help="rows of each op of a table")
    parser.add_argument("--sample", type=int, default=16, help="schedules of each kernel to compare the ranks of")
    options = parser.parse_args()
    found = [measure(name, options.rows, options.sample) for name in TABLES]
    print(markdown(found))
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=True)
        (options.directory / "ladder.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        picture(found, options.directory / "ladder.png")


if __name__ == "__main__":
    main()
