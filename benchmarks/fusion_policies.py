"""Predicted time of models without fusion, with the greedy policy and with a search: `python benchmarks/fusion_policies.py [NAME ...]`.

Names are of examples/real; every machine is priced from one capture of a model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from codesign import pipeline
from codesign.command import Steps
from codesign.costmodel.machine import load_machine
from codesign.passes.planning import Choices, plan_module

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ("none", "greedy", "beam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["mlp", "naive_attention", "llama_block"])
    parser.add_argument("--target", action="append", help="machines (default: h100_sxm and maia100)")
    parser.add_argument("--policy", action="append", help="policies of fusion (default: none, greedy and beam)")
    given = parser.parse_args()
    rows = []
    for name in given.names:
        model = pipeline.capture(ROOT / "examples" / "real" / f"{name}.py", pipeline.Options(), Steps(None))
        for target in given.target or ("h100_sxm", "maia100"):
            row: dict[str, object] = {"model": name, "machine": target}
            for policy in given.policy or POLICIES:
                planned = plan_module(model.captured.module, load_machine(target), Choices(fusion=policy))
                row[policy] = sum(info.tuned.seconds * info.count for info in planned.kernels.values())
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    print(json.dumps({"benchmark": "fusion_policies", "unit": "seconds", "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
