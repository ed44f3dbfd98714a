"""Bayesian optimisation with a Gaussian process (scikit-learn's; extra `lab`) and expected improvement (Jones et al. 1998)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from codesign.ir.schedule import ScheduleBatch
from codesign.passes.schedule.policies.fresh import Fresh, badness
from codesign.passes.schedule.policy import Floats
from codesign.passes.schedule.space import Ints, Space

if TYPE_CHECKING:
    from codesign.passes.schedule.context import Context


class Gaussian(Fresh):
    """A Matérn 5/2 process over the positions of the knobs, fitted to logarithms of seconds.

    `first`: schedules drawn before the first fit. `pool`: candidates that the next is the most promising of, the neighbours of the best
    known among them. `refit`: evaluations between fits of the kernel's own parameters. `most`: points that the process is fitted to at most,
    the best and the latest.
    """

    def __init__(self, first: int = 12, pool: int = 512, refit: int = 24, most: int = 256) -> None:
        super().__init__()
        self.first = first
        self.pool = pool
        self.refit = refit
        self.most = most

    def start(self, space: Space, context: Context) -> None:
        super().start(space, context)
        self._scale = np.array([max(len(knob.values) - 1, 1) for knob in space.knobs], dtype=np.float64)
        self._codes, self._costs = np.zeros((0, len(space.knobs)), np.int64), np.zeros(0)
        self._kernel = ConstantKernel(1.0) * Matern(np.full(len(self._scale), 0.5), (0.05, 20.0), nu=2.5)
        self._kernel += WhiteKernel(1e-3, (1e-6, 1.0))
        self._fitted_at = 0

    def propose(self, count: int) -> ScheduleBatch | None:
        if len(self._codes) < self.first or len(self._scale) == 0:
            return self.ask(self.draw(min(max(self.first - len(self._codes), 1), count)), count)
        best = self._codes[np.argsort(self._costs, kind="stable")[:4]]
        pool = self.fresh(np.concatenate([self.space.neighbours(best), self.draw(self.pool)]))
        return self.ask(pool[[int(np.argmax(self._promise(pool)))]], 1) if len(pool) else None

    def learn(self, codes: Ints, seconds: Floats) -> None:
        self._codes = np.concatenate([self._codes, codes])
        self._costs = np.concatenate([self._costs, seconds])

    def _promise(self, pool: Ints) -> Floats:
        """Expected improvement on the best known, in standard deviations of what was seen."""
        kept = np.argsort(self._costs, kind="stable")[: self.most // 2]
        kept = np.union1d(kept, np.arange(max(len(self._costs) - self.most // 2, 0), len(self._costs)))
        values = badness(self._costs[kept])
        values = (values - values.mean()) / (values.std() or 1.0)
        again = self._fitted_at == 0 or len(self._costs) - self._fitted_at >= self.refit
        process = GaussianProcessRegressor(self._kernel, optimizer="fmin_l_bfgs_b" if again else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(self._codes[kept] / self._scale, values)
        if again:
            self._kernel, self._fitted_at = process.kernel_, len(self._costs)
        mean, deviation = process.predict(pool / self._scale, return_std=True)
        deviation = np.maximum(deviation, 1e-9)
        better = (values.min() - mean) / deviation
        promise: Floats = deviation * (better * norm.cdf(better) + norm.pdf(better))
        return promise
