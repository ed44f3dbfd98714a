"""What each distance adds to an interval, learned from what was left out (`leaving_out.py`): the figures of `distances.toml`.

A distance's spread brings the coverage of the 90 % intervals to 90 %, each group that was left out (a machine, an operator) weighing the
same, and that of each group to 80 %. It is learned for each family of kernels of which groups were left out: of many groups for each side of
the interval, as what is not known is slower than predicted more often than faster. Where groups are few, all their rows are to be held; a
family of which nothing was left out takes what all groups together need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from codesign.costmodel.fitting import Floats
from codesign.costmodel.gpu.intervals import Sides, distances
from codesign.costmodel.leaving_out import Left

FEW = 3
"""Groups of a family from which on another one is thought to be like 90 % of them."""

MANY = 10
"""Groups of a family from which on they tell both sides of an interval apart."""

COVERED = 0.9
"""Share of what is left out that its intervals are to hold."""

LEAST = 0.8
"""Share of each group that they are to hold (of many groups, that each side is to)."""


@dataclass(frozen=True)
class Learned:
    """A distance: what it adds to the faster and the slower side for all families and for some, how many groups and rows that follows from, and
    the coverage of the groups by intervals without and with it (least, mean, most)."""

    name: str
    spread: Sides
    of: dict[str, Sides]
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
        of = {family: _spread([one for one in mine if one.family == family], family) for family in families}
        covered = {group: _covered(parts, of[parts[0].family]) for group, parts in _groups(mine).items()}
        without = float(np.mean([_covered(parts, (0.0, 0.0)) for parts in _groups(mine).values()]))
        rows = sum(len(one.error) for one in mine)
        found.append(Learned(name, _spread(mine), of, len(covered), rows, without, covered))
    return found


def _groups(left: Sequence[Left]) -> dict[str, list[Left]]:
    found: dict[str, list[Left]] = {}
    for one in left:
        found.setdefault(f"{one.group}: {one.family}", []).append(one)
    return found


def _spread(left: Sequence[Left], family: str = "") -> Sides:
    """The spread that covers so many rows, every group weighing the same, and of each group so many; of few groups all rows. What several
    families have in common says nothing of the sides of another's interval."""
    groups = _groups(left).values()
    if len(groups) < MANY or not family:
        one = _reached([np.concatenate([one.beyond for one in parts]) for parts in groups], COVERED)
        return one, one
    faster, slower = (
        _reached([np.concatenate([one.sides[side] for one in parts]) for parts in groups], (1.0 + COVERED) / 2.0)
        for side in (0, 1)
    )
    return faster, slower


def _reached(groups: Sequence[Floats], share: float) -> float:
    """The spread within which so much of all groups lies, and of each the least that is asked for."""
    values = np.concatenate(groups)
    if len(groups) < FEW:
        return _rounded_up(float(values.max()))
    weights = np.concatenate([np.full(len(group), 1.0 / len(group)) for group in groups])
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    least = max(float(np.quantile(group, LEAST, method="higher")) for group in groups)
    return _rounded_up(max(float(values[order][np.searchsorted(reached, share)]), least))


def _rounded_up(spread: float) -> float:
    return math.ceil(round(spread * 1e3, 6)) / 1e3


def _covered(parts: Sequence[Left], spread: Sides) -> float:
    inside = [(one.sides[0] <= spread[0]) & (one.sides[1] <= spread[1]) for one in parts]
    return round(float(np.mean(np.concatenate(inside))), 3)


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
# predicted differs from what was measured: what is added (in squares) to the logarithm of each side of the 90 % interval (a pair: to the
# faster and the slower side), for families of kernels (`of`) and others. Learned by leaving out, with the coverage of each group that was left out:
#   {command}
"""


def document(learned: Sequence[Learned], common: dict[str, float], command: str) -> str:
    """The text of `distances.toml`; distances of which nothing was left out stay as they are."""
    lines = [HEAD.format(command=command)]
    by_name = {one.name: one for one in learned}
    for name, known in distances().items():
        one = by_name.get(name)
        spread, of = (one.spread, one.of) if one else (known.spread, dict(known.of))
        lines.append(f'[{name}]\nspread = {_figure(spread)}\nof = {_table(of)}\nwhy = "{known.why}"')
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


def _table(values: Mapping[str, float | Sides]) -> str:
    return "{" + ", ".join(f'"{key}" = {_figure(value)}' for key, value in values.items()) + "}"


def _figure(value: float | Sides) -> str:
    """A number, or a pair of them where they differ."""
    if isinstance(value, tuple):
        return str(value[0]) if value[0] == value[1] else f"[{value[0]}, {value[1]}]"
    return str(value)
