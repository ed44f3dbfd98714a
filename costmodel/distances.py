"""What each distance adds to an interval, learned from what was left out (`leaving_out.py`): the figures of `distances.toml`.

A distance's spread brings the coverage of the 90 % intervals to 90 %, each group that was left out (a machine, an operator) weighing the
same. It is learned for each family of kernels of which groups were left out. Where these are few, all their rows are to be held; a family of
which nothing was left out takes what all groups together need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from codesign.costmodel.gpu.intervals import distances
from codesign.costmodel.leaving_out import Left

FEW = 3
"""Groups of a family from which on another one is thought to be like 90 % of them."""

COVERED = 0.9
"""Share of what is left out that its intervals are to hold."""


@dataclass(frozen=True)
class Learned:
    """A distance: what it adds to the logarithm of each side for all families and for some, how many groups and rows that follows from, and
    the coverage of the groups by intervals without and with it (least, mean, most)."""

    name: str
    spread: float
    of: dict[str, float]
    groups: int
    rows: int
    without: float
    covered: dict[str, float] = field(default_factory=dict)


def learn(left: Sequence[Left]) -> list[Learned]:
    """All distances of which something was left out."""
    found = []
    for name in dict.fromkeys(one.distance for one in left if one.distance):
        mine = [one for one in left if one.distance == name]
        families = dict.fromkeys(one.family for one in mine)
        of = {family: _spread([one for one in mine if one.family == family]) for family in families}
        covered = {group: _covered(parts, of[parts[0].family]) for group, parts in _groups(mine).items()}
        without = float(np.mean([_covered(parts, 0.0) for parts in _groups(mine).values()]))
        rows = sum(len(one.error) for one in mine)
        found.append(Learned(name, _spread(mine), of, len(covered), rows, without, covered))
    return found


def _groups(left: Sequence[Left]) -> dict[str, list[Left]]:
    found: dict[str, list[Left]] = {}
    for one in left:
        found.setdefault(f"{one.group}: {one.family}", []).append(one)
    return found


def _spread(left: Sequence[Left]) -> float:
    """The spread that covers so many rows, every group weighing the same; of few groups all rows."""
    groups = [np.concatenate([one.beyond for one in parts]) for parts in _groups(left).values()]
    values = np.concatenate(groups)
    if len(groups) < FEW:
        return round(float(values.max()), 3)
    weights = np.concatenate([np.full(len(group), 1.0 / len(group)) for group in groups])
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return round(float(values[order][np.searchsorted(reached, COVERED)]), 3)


def _covered(parts: Sequence[Left], spread: float) -> float:
    return round(float(np.mean(np.concatenate([one.beyond <= spread for one in parts]))), 3)


def common_shares(left: Sequence[Left]) -> dict[str, float]:
    """How much of the square of the residual kernels of a family have in common on one machine: the correlation of the errors of rows of
    one operator and number of tokens at different sites, as a model runs them together."""
    found = {}
    for family in dict.fromkeys(one.family for one in left if not one.distance):
        shares = [_alike(one) for one in left if not one.distance and one.family == family and len(one.error) >= 20]
        if shares:
            found[family] = round(float(np.clip(np.mean(shares), 0.0, 1.0)), 2)
    return found


def _alike(one: Left) -> float:
    """Share of the mean square error that the mean errors of classes of rows make (intraclass correlation without its mean)."""
    classes = [one.error[one.together == value] for value in np.unique(one.together)]
    pairs = sum(len(part) * (len(part) - 1.0) for part in classes)
    products = sum(float(part.sum() ** 2 - (part**2).sum()) for part in classes)
    return products / pairs / float(np.mean(one.error**2)) if pairs else 0.0


HEAD = """# How far a prediction's error reaches beyond the residual of the regime that it was calibrated in, for each way in which what is
# predicted differs from what was measured: what is added (in squares) to the logarithm of each side of the 90 % interval, for
# families of kernels (`of`) and others. Learned by leaving out, with the coverage of each group that was left out:
#   {command}
"""


def document(learned: Sequence[Learned], common: dict[str, float], command: str) -> str:
    """The text of `distances.toml`; distances of which nothing was left out stay as they are."""
    lines = [HEAD.format(command=command)]
    by_name = {one.name: one for one in learned}
    for name, known in distances().items():
        one = by_name.get(name)
        spread, of = (one.spread, one.of) if one else (known.spread, dict(known.of))
        lines.append(f'[{name}]\nspread = {spread}\nof = {_table(of)}\nwhy = "{known.why}"')
        if one is None:
            lines.append('from = "as before: nothing of the tables was left out this way"\n')
            continue
        text = (
            f"{one.rows:,} rows of {one.groups} groups left out, of which intervals without it hold {one.without:.1%}"
        )
        lines.append(f'from = "{text}"\ncovered = {_table(one.covered)}\n')
    mean = round(float(np.mean(list(common.values()))), 2) if common else 0.0
    lines.append(f"[residual]\ncommon = {mean}\nof = {_table(common)}")
    lines.append('why = "how much of the square of the residual kernels of a family have in common on one machine"')
    lines.append('from = "correlation of the errors of rows of one operator and number of tokens"')
    return "\n".join(lines) + "\n"


def _table(values: dict[str, float]) -> str:
    return "{" + ", ".join(f'"{key}" = {value}' for key, value in values.items()) + "}"
