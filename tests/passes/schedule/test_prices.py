"""Prices that fusion asks for: near the best schedule, which is searched to its end where it is chosen, and nothing searched twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from codesign.costmodel.machine import load_machine
from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.schedule.context import Context
from codesign.passes.schedule.found import Found, search
from codesign.passes.schedule.tuner import Tuner
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")
GROUPS = {
    "square gemm": groups.gemm(4096, 4096, 4096),
    "ragged gemm": groups.gemm(1000, 700, 333),
    "softmax": groups.softmax(4096, 1024),
    "long softmax": groups.softmax(512, 50257),
    "element-wise": groups.element_wise(64, 128, 512),
}


def product(name: str, side: str, columns: int) -> str:
    return f"%{name} = compute f32[{side}: 512, {side}c: {columns}] sum({side}k: 1024) {{ %{name}x[{side}, {side}k] * %{name}w[{side}k, {side}c] }}"


def group_of(**columns: int) -> Fusion:
    """Products that have nothing in common, by name, with so many columns each."""
    params = ", ".join(f"%{n}x: f32[512, 1024], %{n}w: f32[1024, {size}]" for n, size in columns.items())
    lines = "\n".join(product(name, f"{name}i", size) for name, size in columns.items())
    gives = ", ".join(f"%{name}" for name in columns)
    names = ", ".join(f"%{name}o" for name in columns)
    text = f"func @f({params}) {{\n{names} = fusion {{\n{lines}\nyield {gives}\n}}\nreturn {names}\n}}"
    (fusion,) = parse(text).main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels for which a policy is begun, by name."""
    begun: list[str] = []

    def counted(search: Callable[..., object]) -> Callable[..., object]:
        def one(policy: object, space: object, context: Context) -> object:
            begun.append(context.summary.name)
            return search(policy, space, context)

        return one

    monkeypatch.setattr("codesign.passes.schedule.tuner.search", counted(search))
    return begun


@pytest.mark.parametrize("budget", [None, 64])
@pytest.mark.parametrize("machine", ["h100_sxm", "maia100"])
@pytest.mark.parametrize("name", GROUPS)
def test_what_is_chosen_does_not_depend_on_a_price_asked_for_before(
    name: str, machine: str, budget: int | None
) -> None:
    asked, fresh = (Tuner(load_machine(machine), budget=budget) for _ in range(2))
    price, chosen, wanted = asked.price(GROUPS[name]), asked.tune(GROUPS[name]), fresh.tune(GROUPS[name])
    assert chosen.seconds == wanted.seconds
    assert chosen.schedule == wanted.schedule
    assert 1.0 <= price / chosen.seconds <= 1.02
    assert asked.price(GROUPS[name]) == fresh.price(GROUPS[name]) == chosen.seconds


def test_a_price_does_not_depend_on_what_is_asked_for_before_nor_on_the_limit() -> None:
    parts = [group_of(a=256), group_of(b=384), group_of(a=256, b=384)]
    prices = set()
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        tuner = Tuner(H100)
        found = {k: tuner.price(parts[k], below=limit) for k in order for limit in (1e-9, 1.0)}
        prices.add(tuple(found[k] for k in range(3)))
    assert len(prices) == 1


def test_a_price_takes_fewer_schedules_than_a_choice() -> None:
    fusion, tuner = GROUPS["square gemm"], Tuner(H100)
    form = tuner.form(fusion)
    near, best = tuner._search(form, closely=False), tuner._search(form)
    assert isinstance(near, Found)
    assert isinstance(best, Found)
    assert near.context.settled
    assert near.context.evaluated < best.context.evaluated
    assert best.seconds <= near.seconds <= 1.01 * best.seconds


def test_groups_that_are_searched_are_not_searched_again_side_by_side(searches: list[str]) -> None:
    tuner, both = Tuner(H100), group_of(a=256, b=384)
    for alone in (group_of(a=256), group_of(b=384)):
        tuner.price(alone)
    searches.clear()
    price = tuner.price(both)
    assert tuner.form(both).summary.strands
    assert not searches
    fresh = Tuner(H100)
    assert fresh.price(both) == pytest.approx(price, rel=0.01)
    assert tuner.tune(both).seconds == fresh.tune(both).seconds
