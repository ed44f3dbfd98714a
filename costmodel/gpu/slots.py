"""Who does an operation on a GPU, and in how many issue slots."""

from __future__ import annotations

DOUBLE_SPECIAL = 20.0
"""FP64 instructions for an issue slot of the special unit in f32: there is no such unit for FP64, and functions are
polynomials. The median of what ptxas 13 makes of ten functions for sm_90: exp 19, log 31, square root 23, its reciprocal
17, tanh 35, pow 23, log1p 23 a slot, a division 8."""


def slots_of(unit: str, dtype: str, cost: float) -> tuple[str, float]:
    """Who does an operation of a unit on a dtype (`vector`, `integer`, `special`, `double`), and its slots there: integers of 64 bits are
    done in halves."""
    if dtype == "f64":
        return "double", cost * (DOUBLE_SPECIAL if unit == "special" else 1.0)
    if unit == "special":
        return "special", cost
    if unit == "integer" or dtype.startswith(("i", "u", "bool")):
        return "integer", cost * (2.0 if dtype in ("i64", "u64") else 1.0)
    return "vector", cost
