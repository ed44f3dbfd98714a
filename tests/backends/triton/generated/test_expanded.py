"""What functions take in generated code beside their text is priced: exact remainders, quotients rounded once, counters of two neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.issued_slots import CASES, counted, taken
from codesign.costmodel.events import EventModel
from codesign.costmodel.gpu.block import parts_of_block
from codesign.costmodel.gpu.geometry import geometry
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.costmodel.summary import summarize
from codesign.ir.dtypes import I32, I64
from codesign.ir.scalar import apply
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from tests.costmodel.groups import group

H100 = load_machine("h100_sxm")
COUNT = 1 << 22


def of_two(body: str, dtype: str = "f32") -> Fusion:
    return group(f"%a: {dtype}[{COUNT}], %b: {dtype}[{COUNT}]", f"%y = compute {dtype}[i: {COUNT}] {{ {body} }}")


def slots(fusion: Fusion, tile: int = 1024) -> dict[str, float]:
    """Slots of an element by lanes, as priced."""
    kernel = summarize(fusion)
    batch = ScheduleBatch.of([Schedule({"i": tile})])
    knobs = {name: np.asarray(column, float) for name, column in batch.columns.items()}
    (part,) = parts_of_block(kernel, geometry(kernel, knobs, {}), H100, knobs)
    return {name: float(np.max(getattr(part.work, name))) / tile for name in ("vector", "integer", "special", "double")}


@pytest.mark.parametrize(
    ("body", "integer"),
    [
        ("%a[i] % %b[i]", 130),
        ("%a[i] // %b[i]", 149),
        ("%a[i] % 0.3", 65),
        ("floor(%a[i] / %b[i])", 4),
        ("%a[i] / %b[i]", 0),
    ],
)
def test_slots_of_exact_division(body: str, integer: float) -> None:
    sums = slots(of_two("%a[i] + %b[i]"))
    assert slots(of_two(body))["integer"] - sums["integer"] == pytest.approx(integer, abs=0.5)


@pytest.mark.parametrize(
    ("body", "dtype", "integer", "special"),
    [
        ("%a[i] % %b[i]", "i32", 25, 3),
        ("%a[i] // %b[i]", "i32", 29, 3),
        ("%a[i] % 7:i32", "i32", 12, 0),
        ("%a[i] % 8:i32", "i32", 1, 0),
        ("%a[i] % %b[i]", "i64", 90, 3),
        ("%a[i] // %b[i]", "i64", 103, 3),
        ("%a[i] // 7", "i64", 20, 0),
        ("%a[i] // 8", "i64", 8, 0),
    ],
)
def test_slots_of_whole_division(body: str, dtype: str, integer: float, special: float) -> None:
    """By its width and by what is known of the divisor, beside the copy of a tile that does no division."""
    copies, found = slots(of_two("%a[i]", dtype)), slots(of_two(body, dtype))
    assert found["integer"] - copies["integer"] == pytest.approx(integer, abs=1.5)
    assert found["special"] == pytest.approx(special, abs=0.1)


@pytest.mark.parametrize(
    ("once", "twice"),
    [
        ("%a[i] % %b[i]", "(%a[i] % %b[i]) + (%a[i] % %b[i])"),
        ("floor(%a[i] / %b[i])", "floor(%a[i] / %b[i]) * floor(%a[i] / %b[i])"),
    ],
)
def test_a_division_that_stands_twice_is_expanded_once(once: str, twice: str) -> None:
    found, both = slots(of_two(once)), slots(of_two(twice))
    assert both["integer"] == pytest.approx(found["integer"], abs=0.5)
    assert both["vector"] == pytest.approx(found["vector"] + 1.0, abs=0.5)


@pytest.mark.parametrize("model", ["cost model", "events"])
def test_a_remainder_costs_what_its_code_does(model: str) -> None:
    """Both models: two vectors of 4 Mi elements are 130 integer slots an element, not 6 special ones."""
    predicts = cost_model_for(H100) if model == "cost model" else EventModel()
    seconds = [
        float(predicts.predict(summarize(of_two(body)), H100, ScheduleBatch.of([Schedule({"i": 1024})])).seconds[0])
        for body in ("%a[i] + %b[i]", "%a[i] % %b[i]")
    ]
    clock = H100.need(H100.unit("vector").clock_hz, "clock")
    least = COUNT * 130 / (64 * H100.instances("shared") * clock)
    assert seconds[1] > least > seconds[0]


def test_neighbours_that_share_a_counter_pay_for_one() -> None:
    """A tile of one column has no neighbours: it pays for the whole counter; lanes without an element draw too."""
    body = "f32(philox(3, 0, index(i // 2)))"
    fusion = group("", f"%y = compute f32[i: {COUNT}] {{ {body} }}")
    alone = group("", f"%y = compute f32[i: {COUNT}] {{ f32(philox(3, 0, index(i))) }}")
    assert slots(alone)["integer"] - slots(fusion)["integer"] == pytest.approx(20.0, abs=4.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if "drawn normal" not in name and "f32" in name])
def test_counted_slots_are_those_of_the_compiled_code(name: str) -> None:
    body, dtype = CASES[name]
    base, mine = taken(CASES["quotient by a number f32"][0], dtype, "sm_90"), taken(body, dtype, "sm_90")
    difference = sum(mine.values()) - sum(base.values()) + 1.0
    if any(word in name for word in ("mod", "trunc", "floordiv", "before")):
        assert sum(counted(body, dtype).values()) == pytest.approx(difference, rel=0.1, abs=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, dtype) in CASES.items() if dtype in (I32, I64)])
def test_counted_slots_of_integers_are_those_of_the_compiled_code(name: str) -> None:
    """Beside a sum's code, and the one or two additions that this is."""
    body, dtype = CASES[name]
    base, mine = taken(lambda a, b: apply("add", a, b), dtype, "sm_90"), taken(body, dtype, "sm_90")
    difference = sum(mine.values()) - sum(base.values()) + dtype.bits / 32
    assert sum(counted(body, dtype).values()) == pytest.approx(difference, rel=0.1, abs=1.0)
