"""What is worked out in each lane of an expression, and what of it apart."""

from __future__ import annotations

from codesign.costmodel.dataflow.lanes import parts_of, slots_apart, slots_of
from codesign.ir.dtypes import F32
from codesign.ir.scalar import Scalar, apply, literal
from codesign.ir.tensor import Compute
from codesign.ir.text import parse


def body(text: str) -> Scalar:
    function = parse(
        f"func @main(%x: f32[8], %y: f32[4]) {{\n  %a = compute f32[i: 8, j: 4] {{ {text} }}\n  return %a\n}}"
    ).main
    op = function.body.ops[0]
    assert isinstance(op, Compute)
    return op.body


def test_a_part_that_stands_in_an_expression_twice_is_worked_out_once() -> None:
    whole = body("%y[j] * exp(%x[i]) + exp(%x[i])")
    parts = dict(parts_of(whole, frozenset({"i", "j"})))
    assert list(parts.values()) == [frozenset({"i"})]
    outside, (inside,) = slots_apart(whole, parts)
    assert outside == {("fma", "f32"): 2.0}
    assert inside == slots_of(next(iter(parts))) == {("special", "f32"): 1.0}


def test_parts_that_hold_the_same_have_it_once_between_them() -> None:
    """Whatever is worked out in its place, all of an expression and its parts come to what it is."""
    whole = body("(exp(%x[i]) + 1.0) * %y[j] + (exp(%x[i]) * 3.0) / %y[j]")
    parts = dict(parts_of(whole, frozenset({"i", "j"})))
    assert len(parts) == 2
    outside, inside = slots_apart(whole, parts)
    assert sorted(found.get(("special", "f32"), 0.0) for found in inside) == [0.0, 1.0]
    assert all(cost > 0 for cost in outside.values())
    total = dict(outside)
    for found in inside:
        total = {key: total.get(key, 0.0) + found.get(key, 0.0) for key in {*total, *found}}
    assert total == slots_of(whole)


def test_a_whole_expression_without_parts_is_all_outside() -> None:
    number = apply("mul", literal(2.0, F32), literal(3.0, F32))
    assert slots_apart(number, ()) == (slots_of(number), [])
