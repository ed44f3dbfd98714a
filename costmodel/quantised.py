"""Products of quantised operands: the formats that serving systems have, as rows of `quantised.toml`.

A call holds the quantisation of its activations too, by small kernels before the product. Tables name the call by a dtype
(`fp8`, `fp8_block`, `nvfp4`); a dtype of the IR (`f8e4m3`) names the product alone.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

from codesign.costmodel.rules import Value, number

Sides = tuple[tuple[int, ...], tuple[int, ...]]

FORMATS = Path(__file__).resolve().parent / "quantised.toml"


@dataclass(frozen=True)
class Format:
    """A format of a quantised product: the `operand` dtype that the tensor unit multiplies, elements in a `group` of one scale that is read
    beside them (0: none), whether the library offers parts of the reduction (`split`), and the sides of its tiles, `rows` x `columns`
    (none: any), which may be rules over the rows `m` of a product. It takes the quickest of them, or by the rule that is `chosen`; products of
    less than `swapped` rows are done with their operands exchanged, of `shared_from` rows and more by pairs of blocks where the columns divide
    so. A byte that a tile asks for beyond the rows of the product counts as
    `missing_reads` in L2."""

    name: str
    operand: str
    group: int = 0
    split: bool = True
    rows: tuple[Value, ...] = ()
    columns: tuple[Value, ...] = ()
    chosen: str = "quickest"
    swapped: float = 0.0
    shared_from: float = 0.0
    missing_reads: float = 0.0

    def tiles(self, m: float) -> Sides:
        """Rows and columns of the tiles that the library has for a product of `m` rows."""
        return self._sides(self.rows, m), self._sides(self.columns, m)

    def taken(self, m: float, n: float, sms: float) -> tuple[int, int, int]:
        """Rows and columns of the tile that a library of `fullest` waves takes for m x n results on so many SMs, and how many blocks share
        the rows that they read."""
        if m < self.swapped:
            columns, rows = self._fullest(n, m, sms)
            return rows, columns, 1
        rows, columns = self._fullest(m, n, sms)
        return rows, columns, 2 if self.shared_from and m >= self.shared_from and n % (2 * columns) == 0 else 1

    def _fullest(self, m: float, n: float, sms: float) -> tuple[int, int]:
        def ranked(tile: tuple[int, int]) -> tuple[float, float, int]:
            blocks = math.ceil(m / tile[0]) * math.ceil(n / tile[1])
            waves = math.ceil(blocks / sms)
            return waves, (waves - 1) * sms - blocks, tile[1]

        return min(product(*self.tiles(m)), key=ranked)

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
        made = (row["operand"], row["group"], row["split"], *sides)
        rule = (
            row.get("chosen", "quickest"),
            *(float(row.get(name, 0)) for name in ("swapped", "shared_from")),
            row.get("missing_reads", 0.0),
        )
        found |= {name: Format(name, *made, *rule) for name in row["of"]}
    return found
