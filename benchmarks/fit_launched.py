"""The constants of `costmodel/launched.toml`, fitted to a table of FP32 library kernels: `python benchmarks/fit_launched.py TABLE`.

Bounded robust least squares on the logarithm of time: for each make of products what a thread issues besides its multiply-adds, and for
the table the launch that its times hold. Then the same without a fifth of the (n, k) sites, with the error on those, and the quantiles
of measured over predicted time that intervals are made of.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import least_squares

from codesign.costmodel.calibration import TAIL
from codesign.costmodel.gpu.model import family_of
from codesign.costmodel.gpu.parameters import load_calibration
from codesign.costmodel.gpu.timing import estimate
from codesign.costmodel.launched import Launch, launches
from codesign.costmodel.machine import load_machine
from codesign.costmodel.tables import read_table, set_aside

Floats = npt.NDArray[np.float64]

NAMES = ("issue_share", "step_slots", "block_slots")
START, LEAST, MOST = (0.9, 10.0, 500.0), (0.5, 0.0, 0.0), (1.0, 100.0, 20000.0)
SCALE = (0.1, 5.0, 300.0)


class Table:
    """The kernels of a table by machine, with their measured seconds and sites."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.entries: list[tuple[str, Launch, Floats, Floats]] = []
        for machine, part in frame.groupby("machine"):
            for found in launches(part):
                rows = part[found.picked]
                site = (rows["n"] * 131 + rows["k"]).to_numpy(dtype=np.float64)
                self.entries.append((str(machine), found, rows["seconds"].to_numpy(dtype=np.float64), site))
        self.families = sorted({found.family for _, found, _, _ in self.entries} - {""})

    def errors(self, x: Floats) -> Iterator[tuple[str, Launch, Floats, Floats]]:
        """Of each kernel, log of predicted over measured time and the sites; `x`: the launch in 10 us, then each make's constants."""
        for machine, found, seconds, site in self.entries:
            knobs = {name: np.float64(value) for name, value in found.knobs.items()}
            if found.family:
                at = 1 + 3 * self.families.index(found.family)
                share, step, block = (value * unit for value, unit in zip(x[at : at + 3], SCALE, strict=True))
                knobs |= {"issue_share": share, "step_slots": step / found.slices, "block_slots": block}
            target = load_machine(machine)
            p = replace(load_calibration(target).parameters, launch_seconds=float(x[0]) * 1e-5)
            total = estimate(found.kernel, target, knobs, found.sizes, p, compiled=False).total
            yield machine, found, np.log(np.broadcast_to(total, seconds.shape) / seconds), site

    def fit(self, held: float | None = None) -> Floats:
        """The constants, without the products of a fifth of the sites where `held` says which."""

        def residuals(x: Floats) -> Floats:
            parts = [e[site % 5 != held] for _, found, e, site in self.errors(x) if found.family]
            return np.concatenate(parts)

        count = len(self.families)
        start, low, high = (np.array([first, *(np.array(each) / SCALE).tolist() * count]) for first, each in (
            (1.5, START), (0.1, LEAST), (6.0, MOST),
        ))  # fmt: skip
        found = least_squares(
            residuals,
            start,
            bounds=(low, high),
            loss="soft_l1",
            f_scale=0.05,
            diff_step=[0.02] * len(start),
            max_nfev=20,
        )
        return np.asarray(found.x)


def main(path: str) -> None:
    frame = read_table(path)
    table = Table(frame[~set_aside(frame, "launched")])
    x = table.fit()
    print(f"launch_seconds = {x[0] * 1e-5:.3g}")
    for position, family in enumerate(table.families):
        values = (value * unit for value, unit in zip(x[1 + 3 * position : 4 + 3 * position], SCALE, strict=True))
        print(family, {name: float(f"{value:.3g}") for name, value in zip(NAMES, values, strict=True)})
    kinds: dict[tuple[str, str], dict[str, list[Floats]]] = {}
    for machine, found, error, _ in table.errors(x):
        kinds.setdefault((machine, family_of(found.kernel)), {}).setdefault(found.op, []).append(error)
    for (machine, kind), ops in kinds.items():
        ratio = np.exp(-np.concatenate([part for parts in ops.values() for part in parts]))
        each = [
            np.random.default_rng(0).choice(np.concatenate(parts), 2000) for parts in ops.values()
        ]  # weigh the same
        low, high = np.quantile(np.exp(-np.concatenate(each)), [TAIL, 1 - TAIL])
        print(
            f"{machine} {kind}: {len(ratio)} rows, MAPE {np.abs(1 / ratio - 1).mean():.1%}, interval [{low:.4g}, {high:.4g}]"
        )
    out = [e[site % 5 == 0] for _, found, e, site in table.errors(table.fit(0)) if found.family]
    print(f"sites left out: MAPE {np.abs(np.expm1(np.concatenate(out))).mean():.1%}")


if __name__ == "__main__":
    main(sys.argv[1])
