"""Products of quantised operands: the formats that serving systems have, as rows of `quantised.toml`.

A call holds the quantisation of its activations too, by small kernels before the product. Tables name the call by a dtype
(`fp8`, `fp8_block`, `nvfp4`); a dtype of the IR (`f8e4m3`) names the product alone.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from codesign.costmodel.rules import Value, number

FORMATS = Path(__file__).resolve().parent / "quantised.toml"


@dataclass(frozen=True)
class Format:
    """A format of a quantised product: the `operand` dtype that the tensor unit multiplies, elements in a `group` of one scale that is read
    beside them (0: none), whether the library offers parts of the reduction (`split`), and the sides of its tiles, `rows` x `columns`
    (none: any), which may be rules over the rows `m` of a product. A block waits for `ragged_clocks` in each step of 128 bytes for each row
    that its tile has beyond the product (a rule over `m` too)."""

    name: str
    operand: str
    group: int = 0
    split: bool = True
    rows: tuple[Value, ...] = ()
    columns: tuple[Value, ...] = ()
    ragged_clocks: Value = 0.0

    def tiles(self, m: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Rows and columns of the tiles that the library has for a product of `m` rows."""
        return self._sides(self.rows, m), self._sides(self.columns, m)

    def waits(self, m: float) -> float:
        """Clocks of a step and missing row, of a product of `m` rows."""
        return float(number(self.ragged_clocks, {"m": m}))

    @staticmethod
    def _sides(sides: tuple[Value, ...], m: float) -> tuple[int, ...]:
        return tuple(dict.fromkeys(int(number(side, {"m": m})) for side in sides))


@lru_cache(maxsize=1)
def formats() -> dict[str, Format]:
    """The formats that are known, by the name that tables give them."""
    rows = tomllib.loads(FORMATS.read_text(encoding="utf-8"))["format"]
    found: dict[str, Format] = {}
    for row in rows:
        sides = (tuple(row.get(side, ())) for side in ("rows", "columns"))
        made = (row["operand"], row["group"], row["split"], *sides, row.get("ragged_clocks", 0.0))
        found |= {name: Format(name, *made) for name in row["of"]}
    return found
