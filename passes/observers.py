"""What watches passes from between them: verification, execution on random inputs, printing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.ir.core import Module
from codesign.ir.dtypes import BOOL, DType
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import External, evaluate
from codesign.ir.numerics import round_to
from codesign.passes.manager import Pass, PassError

Array = npt.NDArray[Any]


def example_sizes(module: Module) -> dict[str, int]:
    """A value for every size symbol: the one it was captured at, or a small one inside its range."""
    sizes: dict[str, int] = {}
    for symbol in module.symbols.values():
        size = symbol.example if symbol.example is not None else max(symbol.low, 5)
        sizes[symbol.name] = size if symbol.high is None else min(size, symbol.high)
    return sizes


def random_array(dtype: DType, shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Values of a dtype that are tame for most models: unit normal floats, small non-negative integers, fair booleans."""
    if dtype is BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_float:
        return round_to(rng.standard_normal(shape), dtype)
    return rng.integers(0, 2, shape).astype(dtype.numpy)


def random_inputs(module: Module, rng: np.random.Generator, sizes: Mapping[str, int]) -> list[Array]:
    """One array per argument of the main function."""
    return [
        random_array(value.type.dtype, [int(size.evaluate(sizes)) for size in value.shape], rng)
        for value in module.main.args
    ]


def with_random_constants(module: Module, rng: np.random.Generator) -> dict[str, Any]:
    """Data for every constant of the module: its own where it has some, random otherwise."""
    data = dict(module.constants)
    for function in module.functions.values():
        for op in function.body.walk():
            name = getattr(op, "constant", None)
            if name is not None and name not in data:
                value = op.result
                data[name] = random_array(value.type.dtype, [int(size.constant) for size in value.shape], rng)
    return data


@dataclass
class Verifier:
    """Runs the structural verifier after each pass."""

    def before(self, position: int, one: Pass, module: Module) -> None:
        return

    def check(self, module: Module) -> None:
        """VerificationError when the module breaks a rule."""
        from codesign.ir.verify import verify

        verify(module)

    def after(self, position: int, one: Pass, module: Module, seconds: float) -> None:
        try:
            self.check(module)
        except CodesignError as error:
            raise PassError(f"pass {position + 1} ({one}) left an invalid module: {error.one_line()}") from error


@dataclass
class Equivalence:
    """Runs the interpreter on random inputs before and after each pass and compares the results.

    The error of a pass that changes results names the smallest difference that is beyond the tolerance: the shortest
    counterexample in value, its position, and what was expected. `tolerance`: in units of the coarsest float format's spacing.
    """

    seed: int = 0
    tolerance: float = 16.0
    externals: Mapping[str, External] | None = None
    worst: list[tuple[str, float]] = field(default_factory=list)
    _inputs: list[Array] = field(default_factory=list)
    _before: list[Array] = field(default_factory=list)
    _data: dict[str, Any] = field(default_factory=dict)

    def _run(self, module: Module) -> list[Array]:
        kept = module.constants
        module.constants = {**self._data, **kept}
        try:
            sizes = example_sizes(module)
            return [np.asarray(a) for a in evaluate(module, self._inputs, symbols=sizes, externals=self.externals)]
        finally:
            module.constants = kept

    def start(self, module: Module) -> None:
        """Draw the inputs and take the module's results as the reference."""
        rng = np.random.default_rng(self.seed)
        self._inputs = random_inputs(module, rng, example_sizes(module))
        self._data = with_random_constants(module, rng)
        self._before = self._run(module)

    def before(self, position: int, one: Pass, module: Module) -> None:
        if position == 0:
            self.start(module)

    def after(self, position: int, one: Pass, module: Module, seconds: float) -> None:
        results = self.check(module, f"pass {position + 1} ({one})")
        self.worst.append((str(one), max(map(largest_difference, self._before, results), default=0.0)))
        self._before = results

    def check(self, module: Module, what: str) -> list[Array]:
        """The module's results, compared with the reference; PassError when they differ says `what` changed them."""
        results = self._run(module)
        if len(results) != len(self._before):
            raise PassError(f"{what}: {len(self._before)} results became {len(results)}")
        for number, (old, new) in enumerate(zip(self._before, results, strict=True)):
            dtype = module.main.results[number].type.dtype
            wrong = smallest_difference(
                old, new, max(dtype.epsilon, 2.0**-23) * self.tolerance if dtype.is_float else 0.0
            )
            if wrong is not None:
                place, expected, got = wrong
                raise PassError(
                    f"{what} changed result {number} at {list(place)}: {expected} became {got}",
                    hint="run with --print-before and --print-after to see the pass at work",
                )
        return results


def _scale(old: Array) -> float:
    finite = np.abs(old[np.isfinite(old)]) if old.size else old
    return float(finite.max()) if finite.size else 0.0


def smallest_difference(old: Array, new: Array, relative: float) -> tuple[tuple[int, ...], Any, Any] | None:
    """Where two arrays differ by more than `relative` times their scale: the position of least magnitude, and both values."""
    if old.shape != new.shape:
        return (), f"shape {old.shape}", f"shape {new.shape}"
    if old.dtype.kind == "f":
        a, b = old.astype(np.float64), new.astype(np.float64)
        with np.errstate(invalid="ignore"):
            near = np.abs(a - b) <= relative * np.maximum(np.abs(a), max(_scale(a), 1e-30))
        same = near | (a == b) | (np.isnan(a) & np.isnan(b))
    else:
        same = old == new
    places = np.argwhere(~same)
    if not len(places):
        return None
    order = np.abs(np.nan_to_num(np.asarray([old[tuple(p)] for p in places], dtype=np.float64)))
    place = tuple(int(i) for i in places[int(np.argmin(order))])
    return place, old[place], new[place]


def largest_difference(old: Array, new: Array) -> float:
    """Greatest absolute difference of finite values."""
    if old.dtype.kind != "f" or not old.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(old.astype(np.float64) - new.astype(np.float64))
    return float(np.nanmax(np.where(np.isfinite(gap), gap, 0.0)))


@dataclass
class Printer:
    """Prints the module before or after chosen passes (`*`: all); `write` receives the text."""

    write: Callable[[str], object]
    text: Callable[[Module], str]
    before_passes: frozenset[str] = frozenset()
    after_passes: frozenset[str] = frozenset()

    def before(self, position: int, one: Pass, module: Module) -> None:
        if {"*", one.name} & self.before_passes:
            self.write(f"// before pass {position + 1}: {one}\n{self.text(module)}")

    def after(self, position: int, one: Pass, module: Module, seconds: float) -> None:
        if {"*", one.name} & self.after_passes:
            self.write(f"// after pass {position + 1}: {one}\n{self.text(module)}")
