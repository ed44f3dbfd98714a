"""Groups drawn at random: any graph of element-wise computes and reductions over a few dims, under any schedule."""

from __future__ import annotations

from typing import cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign.ir.core import Value
from codesign.ir.dtypes import F32
from codesign.ir.index import index
from codesign.ir.scalar import IndexValue, Read, Scalar, apply, literal, select
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Dim, Fusion, Monoid
from codesign.ir.types import tensor
from codesign.passes.normalize import normalize
from tests.passes.tiling import groups

NAMES = ("a", "b", "c", "d")


@st.composite
def random_group(draw: st.DrawFn) -> Fusion:
    """Two to seven computes over subsets of four dims; each reads inputs and earlier results, and may reduce."""
    extents = {name: draw(st.sampled_from([1, 2, 3, 5, 8, 11])) for name in NAMES}
    dims = {name: Dim(name, index(extent)) for name, extent in extents.items()}
    computes: list[Compute] = []
    for position in range(draw(st.integers(2, 7))):
        domain = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
        body: Scalar = literal(0.25)
        for number in range(draw(st.integers(1, 3))):
            body = apply(
                draw(st.sampled_from(["add", "mul", "max"])),
                body,
                draw(operand(computes, domain, dims, f"{position}{number}")),
            )
        reduced = draw(st.lists(st.sampled_from(domain), max_size=2, unique=True)) if draw(st.booleans()) else []
        kept = [name for name in domain if name not in reduced]
        monoid = cast(Monoid, draw(st.sampled_from(["sum", "max", "min"]))) if reduced else None
        compute = Compute(
            [dims[name] for name in kept],
            body,
            reductions=[dims[name] for name in reduced],
            monoid=monoid,
            name=f"v{position}",
        )
        computes.append(compute)
    yields = [compute for compute in computes[:-1] if draw(st.integers(0, 3)) == 0]
    return groups.group(computes, [*yields, computes[-1]])


@st.composite
def operand(draw: st.DrawFn, computes: list[Compute], domain: list[str], dims: dict[str, Dim], label: str) -> Scalar:
    """Something bounded that a body over a domain may read: an earlier result, an input, or a condition on indices."""
    earlier = [c for c in computes if {dim.name for dim in c.dims} <= set(domain)]
    kind = draw(st.integers(0, 3))
    if earlier and kind < 2:
        source = draw(st.sampled_from(earlier))
        return apply("tanh", Read(source.result, [dim.name for dim in source.dims]))
    places = draw(st.lists(st.sampled_from(domain), min_size=1, max_size=3, unique=True))
    x = Value(tensor(F32, *(dims[name].extent for name in places)), f"x{label}")
    read = Read(x, places)
    if kind == 3 and len(domain) > 1:
        return select(apply("lt", IndexValue(domain[0]), IndexValue(domain[1])), read, literal(0.5))
    return read


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_random_groups_under_random_schedules(data: st.DataObject) -> None:
    fusion = data.draw(random_group())
    normal = data.draw(st.booleans())
    seen = normalize(fusion).fusion if normal else fusion
    tiles = {name: data.draw(st.sampled_from([1, 2, 4, 8, 16])) for name in seen.dims()}
    reduce = {name: data.draw(st.sampled_from(["looped", "resident"])) for name in seen.inner_dims()}
    schedule = Schedule(tiles, reduce=reduce, extras={"partial": data.draw(st.integers(0, 1))})
    groups.check(fusion, schedule, normal=normal)
