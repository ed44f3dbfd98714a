"""Sums of shifted values and of products of two shifted values, as moments: `sum (x - c)`, `sum (x - c) (y - d)`, `sum y (x - c)`.

About the means so far they are small where the shifts are near the means, and are brought to other means without loss (the parallel form of
Chan, Golub and LeVeque 1979); sums of squares would cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.ir.analysis import strip_exact_casts
from codesign.ir.dtypes import DType
from codesign.ir.fold.factor import Last
from codesign.ir.fold.forms import Forms
from codesign.ir.scalar import Apply, Literal, Scalar, apply, cast


@dataclass(frozen=True)
class Moment:
    """`last` of `sum (e1 + s1) (e2 + s2)`, or of one such: `elements` and `shifts`, the latter of earlier results."""

    elements: tuple[Scalar, ...]
    shifts: tuple[Scalar, ...]
    last: tuple[Last, ...]


def moment(body: Scalar, forms: Forms, dtype: DType) -> Moment | None:
    """The moment that a sum's body is of, in the dtype of the sum; None where it is none."""
    factors: list[Scalar] = []
    last: list[Last] = []
    plain: Scalar | None = None
    for factor, divides in factors_of(body):
        if forms.is_late(factor) and not forms.is_element(factor):
            last.append(Last("div" if divides else "mul", factor))
        elif divides and forms.is_late(factor):
            return None
        elif forms.is_late(factor):
            factors.append(factor)
        elif plain is None and not divides:
            plain = factor
        else:
            one = plain if plain is not None else Literal(1, factor.dtype)
            plain = apply("div" if divides else "mul", cast(one, body.dtype), cast(factor, body.dtype))
    if not factors or len(factors) + (plain is not None) > 2:
        return None
    split = [forms.split(factor) for factor in factors]
    elements, shifts = [], []
    for found in split:
        if found is None:
            return None
        elements.append(cast(found[0], dtype))
        shifts.append(cast(found[1], dtype))
    if plain is not None:
        elements.append(cast(plain, dtype))
        shifts.append(Literal(0, dtype))
    return Moment(tuple(elements), tuple(shifts), tuple(last))


def factors_of(body: Scalar) -> list[tuple[Scalar, bool]]:
    """The factors of a product, and whether each divides."""
    found: list[tuple[Scalar, bool]] = []
    pending = [(body, False)]
    while pending:
        node, divides = pending.pop()
        node = strip_exact_casts(node)
        if isinstance(node, Apply) and node.dtype.is_float:
            if node.function == "mul":
                pending.extend((arg, divides) for arg in reversed(node.args))
                continue
            if node.function == "div":
                pending.extend(((node.args[1], not divides), (node.args[0], divides)))
                continue
            if node.function == "pow" and isinstance(node.args[1], Literal) and node.args[1].value == 2:
                pending.extend([(node.args[0], divides)] * 2)
                continue
        found.append((node, divides))
    return found
