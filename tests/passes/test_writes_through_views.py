"""Writes through views become writes into the tensor only where both write the same elements: held against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Scatter
from codesign.ir.text import parse
from codesign.passes import optimize
from codesign.passes.cleanup import remove_dead
from codesign.passes.writes.flatten import flatten_writes

PROGRAM = """
module @m
func @main(%x: f32[8, 6], %v: f32[{points}], %n: i64[]) {{
  %view = compute f32[{view}] {{ %x[{shown}] }}
  %new = scatter set %view over (p: {points}) at [{inner}] {{ %v[p] }}
  %r = scatter set %x over ({back}) at [{outer}] {{ %new[{taken}] }}
  return %r
}}
"""

WHOLE_ROW = {"view": "j: 6", "shown": "3, j", "back": "j: 6", "outer": "3, j", "taken": "j"}
FIRST_ROWS = {"view": "i: 5, j: 6", "shown": "i, j", "back": "i: 5, j: 6", "outer": "i, j", "taken": "i, j"}
SOME_COLUMNS = {"view": "i: 8, j: 3", "shown": "i, j + 1", "back": "i: 8, j: 3", "outer": "i, j + 1", "taken": "i, j"}

CASES: dict[str, tuple[dict[str, str], int]] = {
    "an element of a row": ({**WHOLE_ROW, "points": "1", "inner": "5"}, 1),
    "some of a row": ({**WHOLE_ROW, "points": "2", "inner": "p + 3"}, 1),
    "a part of the row goes back": ({**WHOLE_ROW, "back": "j: 4", "points": "2", "inner": "p + 3"}, 2),
    "beyond the end of a whole row": ({**WHOLE_ROW, "points": "2", "inner": "p + 5"}, 1),
    "beyond the rows of a view": ({**FIRST_ROWS, "points": "6", "inner": "p + 2, p"}, 2),
    "beyond the columns of a view": ({**SOME_COLUMNS, "points": "6", "inner": "p, p"}, 2),
    "a column read from data": ({**SOME_COLUMNS, "points": "6", "inner": "p, data(%n[])"}, 2),
    "a row read from data": ({**SOME_COLUMNS, "points": "3", "inner": "data(%n[]), p"}, 1),
}
"""And how many writes are left once those that may be one are."""


@pytest.mark.parametrize("name", CASES)
def test_only_what_the_view_gives_back_is_written(name: str) -> None:
    parts, count = CASES[name]
    module = parse(PROGRAM.format(**parts))
    flat = parse(PROGRAM.format(**parts))
    flatten_writes(flat.main.body, flat.bounds())
    remove_dead(flat.main.body)
    assert sum(isinstance(op, Scatter) for op in flat.main.body.ops) == count
    settled = optimize(module, pipeline="settle-writes")
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((8, 6), np.float32), rng.standard_normal(int(parts["points"]), np.float32)
    for position in (0, 4, 5, 9):
        inputs = [x, v, np.array(position)]
        (expected,) = evaluate(module, inputs)
        for other in (flat, settled):
            np.testing.assert_array_equal(evaluate(other, inputs)[0], expected)
