"""Groups with several short reduced dims: the search looks at few of their texts, and finds what there is among all."""

from __future__ import annotations

import pytest

from codesign.costmodel import structures
from codesign.costmodel.machine import load_machine
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.schedule.tuner import Tuned, Tuner

H100 = load_machine("h100_sxm")


def sums_of_sums(count: int, rows: int, extent: int) -> Fusion:
    """Sums of which each needs the one before, over so many dims of one length."""
    lines = [
        f" %s{n} = compute f32[i: {rows}] sum(k{n}: {extent}) {{ exp(%x{n}[i, k{n}]{f' * %s{n - 1}[i]' if n else ''}) }}"
        for n in range(count)
    ]
    params = ", ".join(f"%x{n}: f32[{rows}, {extent}]" for n in range(count))
    body = "\n".join([*lines, f" yield %s{count - 1}"])
    (fusion,) = parse(f"func @f({params}) {{\n%o = fusion {{\n{body}\n}}\nreturn %o\n}}").main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


def texts(found: Tuned) -> int:
    return len(structures._KNOWN[found.normalized.fusion])


@pytest.mark.parametrize(("rows", "extent"), [(4096, 4), (16, 8), (1 << 18, 3)])
def test_the_best_schedule_is_among_few_texts(rows: int, extent: int) -> None:
    found, every = (
        Tuner(H100, policy=policy).tune(sums_of_sums(3, rows, extent), split=False)
        for policy in ("default", "exhaustive")
    )
    assert found.seconds <= every.seconds * (1 + 1e-12)
    assert texts(found) < texts(every) / 2


def test_texts_grow_with_the_number_of_short_dims_and_not_as_its_power() -> None:
    few, many = (texts(Tuner(H100).tune(sums_of_sums(count, 4096, 4), split=False)) for count in (3, 6))
    assert many <= 3 * few
