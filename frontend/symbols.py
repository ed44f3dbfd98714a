"""torch's symbolic sizes as index expressions over named symbols with ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._sympy import functions as torch_sympy

from codesign.ir.core import Symbol
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Index, index, maximum, minimum

_DIMENSION_NAME = re.compile(r"[ir]\d+")
"""What lowering calls the dimensions of a compute; a size symbol must not share such a name."""


SIZE_BY_DATA = "take a part of a known length, or all of it and a mask (torch.arange(n) <= position)"
"""What to do instead of a size that a number in a tensor decides."""


class SymbolTable:
    """The size symbols of a captured model: torch's name -> ours, with ranges, and values that stand for unbacked symbols.

    `values`: symbols that are fixed to a number, by torch's name; `used`: those of them that something was made with.
    """

    def __init__(
        self, names: dict[str, str] | None = None, values: Mapping[str, bool | int | float] | None = None
    ) -> None:
        self.names = dict(names or {})
        self.values = dict(values or {})
        self.used: set[str] = set()
        self.symbols: dict[str, Symbol] = {}
        self.unbacked: dict[str, Index] = {}
        self._cache: dict[Any, Index] = {}

    def declare(self, symbol: str, low: int, high: int | None, example: int | None) -> None:
        """A symbol of torch (`s77`) with its range; it keeps the user's `Dim` name where one is known."""
        name = self.names.setdefault(symbol, symbol)
        if _DIMENSION_NAME.fullmatch(name):
            name = self.names[symbol] = f"{name}_"
        self.symbols[name] = Symbol(name, low, high, example)

    def read(self, symbol: str, value: Index) -> None:
        """From here on a symbol of torch stands for a number that is read from data."""
        if symbol in self.unbacked:
            self._cache.clear()
        self.unbacked[symbol] = value

    def declare_made(self, sizes: Iterable[Any]) -> None:
        """The symbols in sizes that an operator's data decides, each with the range that torch knows of it."""
        for size in sizes:
            if isinstance(size, torch.SymInt):
                ranges = size.node.shape_env.var_to_range
                for symbol in self._with_values(size.node.expr).free_symbols:
                    if str(symbol) not in self.unbacked and self.names.get(str(symbol)) not in self.symbols:
                        self.declare(str(symbol), *range_of(ranges[symbol]), None)

    def declare_ranges(self, ranges: Any, hints: dict[str, int]) -> None:
        """Every entry of `ExportedProgram.range_constraints`: of sizes that data decides, which what makes them declares, those with one
        possible value."""
        for symbol, limits in ranges.items():
            if free_unbacked_symbols(symbol):
                if limits.is_singleton():
                    self.values[str(symbol)] = int(limits.lower)
            else:
                self.declare(str(symbol), *range_of(limits), hints.get(str(symbol)))

    def to_index(self, value: Any) -> Index:
        """An int, SymInt or sympy expression as an index expression; UnsupportedError for what has no such form."""
        if isinstance(value, Index):
            return value
        if isinstance(value, (bool, int)):
            return index(int(value))
        expression = value.node.expr if isinstance(value, torch.SymInt) else value
        found = self._cache.get(expression)
        if found is None:
            found = self._convert(self._with_values(expression))
            self._cache[expression] = found
        return found

    def to_number(self, value: Any) -> bool | int | float:
        """A number of torch's (`SymFloat`, `SymBool`, `SymInt`) whose symbols are all fixed; UnsupportedError for any other."""
        expression = self._with_values(value.node.expr)
        if expression.free_symbols:
            raise UnsupportedError(f"the number {expression} is not known when the graph is compiled")
        if expression in (sympy.true, sympy.false):
            return bool(expression)
        return int(expression) if expression.is_Integer else float(expression)

    def is_fixed(self, value: Any) -> bool:
        """Whether all symbols of a number of torch's are fixed."""
        return not self._with_values(value.node.expr).free_symbols

    def _with_values(self, expression: Any) -> Any:
        """The expression with the fixed symbols replaced by their numbers."""
        plain = sympy.sympify(expression)
        known = {
            symbol: sympy.sympify(self.values[str(symbol)])
            for symbol in plain.free_symbols
            if str(symbol) in self.values
        }
        self.used.update(map(str, known))
        return plain.xreplace(known) if known else plain

    def _convert(self, e: Any) -> Index:
        if e.is_Integer:
            return index(int(e))
        if e.is_Symbol:
            return self._symbol(str(e))
        args = e.args
        if isinstance(e, sympy.Add):
            total = index(0)
            for arg in args:
                total = total + self._convert(arg)
            return total
        if isinstance(e, sympy.Mul):
            return self._product(e)
        if isinstance(e, (sympy.Pow, torch_sympy.PowByNatural)) and args[1].is_Integer and int(args[1]) >= 0:
            result = index(1)
            for _ in range(int(args[1])):
                result = result * self._convert(args[0])
            return result
        if isinstance(e, (torch_sympy.FloorDiv, torch_sympy.CleanDiv)):
            return self._convert(args[0]) // self._convert(args[1])
        if isinstance(e, torch_sympy.ModularIndexing):
            return (self._convert(args[0]) // self._convert(args[1])) % self._convert(args[2])
        if isinstance(e, (torch_sympy.Mod, torch_sympy.PythonMod, sympy.Mod)):
            return self._convert(args[0]) % self._convert(args[1])
        if isinstance(e, sympy.floor):
            return self._product(args[0], floor=True)
        if isinstance(e, (sympy.Max, torch_sympy.Max)):
            return maximum(*(self._convert(arg) for arg in args))
        if isinstance(e, (sympy.Min, torch_sympy.Min)):
            return minimum(*(self._convert(arg) for arg in args))
        raise UnsupportedError(
            f"the size expression {e} has no index form", hint="fix the dimension (drop it from dynamic_shapes)"
        )

    def _symbol(self, name: str) -> Index:
        if name in self.unbacked:
            return self.unbacked[name]
        if name not in self.names or self.names[name] not in self.symbols:
            if name.startswith("u"):
                raise UnsupportedError(f"a size depends on data ({name})", hint=SIZE_BY_DATA)
            self.declare(name, 0, None, None)
        return index(self.names[name])

    def _product(self, e: Any, floor: bool = False) -> Index:
        numerator, denominator = e.as_numer_denom()
        if denominator != 1 and not floor:
            raise UnsupportedError(f"the size expression {e} is not an integer", hint="fix the dimension")
        if denominator != 1:
            return self._convert(numerator) // self._convert(denominator)
        result = index(1)
        for factor in sympy.Mul.make_args(numerator):
            result = result * self._convert(factor)
        return result


def range_of(limits: Any) -> tuple[int, int | None]:
    """The least and greatest size (None: no limit) of a range of torch's."""
    low = 0 if _infinite(limits.lower) else int(limits.lower)
    return max(low, 0), None if _infinite(limits.upper) else int(limits.upper)


def _infinite(value: Any) -> bool:
    try:
        return bool(math.isinf(float(value))) or int(value) >= 2**62
    except (TypeError, ValueError, OverflowError):
        return True
