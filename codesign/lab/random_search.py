"""What random search is expected to find, in closed form: the yardstick of every other policy.

The best of t schedules drawn without replacement from N is not better than the i-th best with probability C(N - i, t) / C(N, t)
(Willemsen et al. 2024, "A methodology for comparing optimization algorithms for auto-tuning").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codesign.lab.problem import Floats


def expected_best(seconds: Floats, draws: npt.ArrayLike) -> Floats:
    """Expected best time after so many draws [T] from a space whose prices are `seconds` [N]; what does not fit counts as the worst that
    does."""
    values = np.sort(np.where(np.isfinite(seconds), seconds, np.inf))
    finite = values[np.isfinite(values)]
    values[len(finite) :] = finite[-1] if len(finite) else np.inf
    count = len(values)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])  # of factorials
    steps = np.diff(values)
    found = []
    for drawn in np.minimum(np.asarray(draws, dtype=np.int64), count):
        if drawn < 1:
            found.append(values[-1])
            continue
        most = count - drawn  # beyond which nothing worse is possible
        left = count - np.arange(1, most + 1)
        survival = np.exp(logs[left] - logs[left - drawn] - logs[count] + logs[most])
        found.append(values[0] + float(survival @ steps[:most]))
    return np.array(found)


def evaluations_until(seconds: Floats, share: float) -> int:
    """Draws after which random search is expected to be the `share` of the way from the median to the best."""
    finite = seconds[np.isfinite(seconds)]
    if not len(finite):
        return 1
    goal = float(np.median(finite)) - share * (float(np.median(finite)) - float(finite.min()))
    low, high = 1, len(seconds)
    while low < high:
        middle = (low + high) // 2
        if expected_best(seconds, [middle])[0] <= goal:
            high = middle
        else:
            low = middle + 1
    return low
