"""Spaces, policies and the tuner: what is offered, what is found, and what is said when nothing fits."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import replace

import numpy as np
import pytest

from codesign.costmodel.machine import Machine, load_machine
from codesign.costmodel.protocol import CostBatch
from codesign.costmodel.summary import summarize
from codesign.ir.core import Block, Function, Module, Symbol, Value
from codesign.ir.dtypes import F16, F32, DType
from codesign.ir.errors import CodesignError, ScheduleError
from codesign.ir.index import index
from codesign.ir.interpreter import evaluate
from codesign.ir.scalar import Read, Scalar, apply, literal
from codesign.ir.schedule import Schedule, ScheduleBatch
from codesign.ir.tensor import Compute, Fusion, Launch, Monoid
from codesign.ir.types import tensor
from codesign.ir.verify import verify
from codesign.passes.lowering import tile_module
from codesign.passes.normalize import normalize
from codesign.passes.schedule.build import space
from codesign.passes.schedule.context import Context
from codesign.passes.schedule.found import go_on, search
from codesign.passes.schedule.policy import Random, Tracking, make_policy, policy_names
from codesign.passes.schedule.space import Knob, Space
from codesign.passes.schedule.tuner import Tuner, tune
from codesign.passes.tile import lower
from codesign.passes.tiling.cut import part_length, whole_parts
from codesign.passes.tiling.split import split_reduction, splittable
from tests.passes.tiling import groups

H100 = load_machine("h100_sxm")
GROUPS = {
    "square gemm": groups.gemm(4096, 4096, 4096),
    "ragged gemm": groups.gemm(1000, 700, 333),
    "matrix-vector": groups.gemm(1, 4096, 4096),
    "softmax": groups.softmax(4096, 1024),
    "long softmax": groups.softmax(512, 50257),
    "convolution": groups.convolution(8, 64, 28, 128, 3, 1, 1),
    "element-wise": groups.element_wise(64, 128, 512),
    "transposed": groups.element_wise(2048, 2048, permuted=True),
}


def space_of(fusion: Fusion) -> Space:
    return space(summarize(normalize(fusion).fusion), H100)


@pytest.mark.parametrize("name", GROUPS)
def test_the_default_policy_is_quick_and_as_good_as_the_whole_space(name: str) -> None:
    best = tune(GROUPS[name], H100, policy="exhaustive")
    found = tune(GROUPS[name], H100)
    assert found.seconds <= 1.03 * best.seconds
    assert found.evaluated < 8192
    assert best.space_size >= best.evaluated


def test_what_is_drawn_at_first_from_a_large_space_reduces_as_the_grid_does() -> None:
    """Each further way is a text of its own."""
    sizes = tuple(1 << exponent for exponent in range(10))
    knobs = [Knob(name, sizes, 16) for name in ("tile.i", "tile.j", "tile.r")]
    kernel_space = Space(
        (*knobs, Knob("reduce.r", (0, 1, 2), 0), Knob("warps", (1, 2, 4, 8), 4), Knob("group", sizes, 1))
    )
    policy = make_policy("default")
    policy.start(kernel_space, Context(summarize(normalize(GROUPS["softmax"]).fusion), H100, Tuner(H100).model))
    batch = policy.propose(1 << 16)
    assert batch is not None
    assert len(np.unique(batch.columns["group"])) == len(sizes)  # which only what is drawn has
    assert {*batch.columns["reduce.r"].tolist()} == {0}
    assert {*batch.columns["tile.r"].tolist()} <= {*sizes[1::2], 16}


def test_tuning_one_kernel_takes_a_fraction_of_a_second() -> None:
    tuner = Tuner(H100)
    tuner.tune(groups.gemm(512, 512, 512))
    times = []
    for size in (2048, 3072, 4096):
        started = time.process_time()
        tuner.tune(groups.gemm(size, size, size))
        times.append(time.process_time() - started)
    assert min(times) < 0.1


@pytest.mark.parametrize("name", GROUPS)
def test_every_schedule_of_the_space_can_be_lowered(name: str) -> None:
    fusion = GROUPS[name]
    form = normalize(fusion)
    kernel_space = space_of(fusion)
    batch = kernel_space.batch(kernel_space.sample(12, np.random.default_rng(1)))
    for row in range(len(batch)):
        kernel = lower(form.fusion, batch.row(row), outputs=form.outputs)
        assert kernel.schedule == batch.row(row)
        assert kernel_space.explain(batch.row(row)) == ""


def test_enumeration_is_the_product_less_what_constraints_forbid() -> None:
    kernel_space = space_of(groups.gemm(64, 64, 64))
    codes = np.concatenate(list(kernel_space.enumerate()))
    assert len(codes) == int(kernel_space.legal(codes).sum())
    assert len({code.tobytes() for code in codes}) == len(codes) <= kernel_space.points
    tiles = {knob.name: knob.values for knob in kernel_space.knobs if knob.name.startswith("tile.")}
    assert tiles == {"tile.i": (16, 32, 64), "tile.j": (16, 32, 64), "tile.k": (16, 32, 64)}


@pytest.mark.parametrize("policy", ["beam", "climb", "default", "evolutionary", "gradient", "quasi_random", "random"])
def test_policies_search_spaces_of_more_points_than_64_bits_count(policy: str) -> None:
    """Many programs in one kernel have many dims, more than arrays of NumPy may have."""
    summary = summarize(normalize(GROUPS["softmax"]).fusion)
    own = space(summary, H100)
    kernel_space = replace(own, knobs=(*own.knobs, *(Knob(f"other.{k}", (1, 2, 4), 1) for k in range(70))))
    assert kernel_space.points == own.points * 3**70
    context = Context(summary, H100, Tuner(H100).model, budget=100)
    best = search(make_policy(policy), kernel_space, context)
    assert best is not None
    assert context.evaluated > 1
    assert kernel_space.explain(best) == ""


@pytest.mark.parametrize(("knobs", "budget", "said"), [(70, 100, "take another policy"), (16, None, "a budget")])
def test_what_has_no_end_is_said_before_it_begins(knobs: int, budget: int | None, said: str) -> None:
    summary = summarize(normalize(GROUPS["softmax"]).fusion)
    wide = Space(tuple(Knob(f"knob.{k}", (1, 2, 4), 1) for k in range(knobs)))
    context = Context(summary, H100, Tuner(H100).model, budget=budget)
    with pytest.raises(ScheduleError, match="exhaustive: its space has") as refused:
        search(make_policy("exhaustive"), wide, context)
    assert f"{3**knobs:.3g} points" in str(refused.value)
    assert said in refused.value.one_line()
    assert not context.evaluated


def test_a_grid_and_its_parts_are_rows_of_the_product() -> None:
    knobs = tuple(Knob(f"knob.{k}", tuple(range(2 + k)), 0) for k in range(3))
    kernel_space = Space(knobs)
    rows = [list(row) for row in itertools.product(range(2), range(3), range(4))]
    assert np.concatenate(list(kernel_space.enumerate(chunk=5))).tolist() == rows
    assert kernel_space.grid({knob.name: knob.values for knob in knobs}).tolist() == rows
    assert kernel_space.grid({"knob.1": (1, 2)}).tolist() == [[0, 1, 0], [0, 2, 0]]
    assert Space(()).grid({}).shape == (1, 0)


def test_a_schedule_outside_the_space_is_explained() -> None:
    kernel_space = space_of(groups.gemm(4096, 4096, 4096))
    assert "tile.i = 8: values are 16" in kernel_space.explain(Schedule({"i": 8, "j": 64, "k": 64}))
    assert "a tile of 262,144 values, limit 32,768" in kernel_space.explain(Schedule({"i": 512, "j": 512, "k": 16}))


def test_the_budget_holds_and_rejections_carry_reasons() -> None:
    for policy in ("default", "exhaustive", "random"):
        assert tune(groups.gemm(4096, 4096, 4096), H100, policy=policy, budget=100).evaluated <= 100
    context = Context(summarize(normalize(groups.gemm(64, 64, 64)).fusion), H100, Tuner(H100).model, budget=3)
    with pytest.raises(ScheduleError, match="a batch of 4 schedules, but only 3 of the budget are left"):
        context.evaluate(ScheduleBatch({"tile.i": np.array([16, 32, 64, 64])}))
    found = tune(groups.gemm(4096, 4096, 4096), H100, policy="exhaustive")
    count, example = found.rejected["shared memory"]
    assert count > 0
    assert example.startswith("shared memory: needs ")
    assert example.endswith("limit 232,448 B")


def test_a_group_of_which_nothing_fits_says_why() -> None:
    small = H100.with_figures({"limits.shared_per_block_bytes": 512.0})
    with pytest.raises(ScheduleError, match=r"none of .* schedules fits h100_sxm; shared memory: needs"):
        tune(groups.gemm(4096, 4096, 4096), small)


class Stubborn(Tracking):
    """Evaluates one schedule only."""

    def propose(self, count: int) -> ScheduleBatch | None:
        return None if self._best is not None else self.space.batch(self.space.start())

    def observe(self, batch: ScheduleBatch, cost: CostBatch) -> None:
        super().observe(batch, cost)


def test_policies_by_name_by_path_and_unknown() -> None:
    assert {"default", "exhaustive", "random"} <= set(policy_names())
    assert isinstance(make_policy("random"), Random)
    assert isinstance(make_policy("codesign.passes.schedule.policy:Random"), Random)
    assert tune(groups.gemm(256, 256, 256), H100, policy=Stubborn()).evaluated == 1
    with pytest.raises(CodesignError, match="unknown policy 'exhaustiv'; nearest: exhaustive"):
        make_policy("exhaustiv")
    with pytest.raises(CodesignError, match="No module named"):
        make_policy("no_such_package:Policy")


def test_searches_repeat() -> None:
    a, b = (tune(groups.softmax(4096, 1000), H100, policy="random", seed=3) for _ in range(2))
    assert a.schedule == b.schedule
    assert a.seconds == b.seconds


def test_terms_add_up_and_contain_the_interval() -> None:
    found = tune(groups.gemm(2048, 2048, 2048), H100)
    assert sum(found.terms.values()) == pytest.approx(found.seconds)
    assert found.low <= found.seconds <= found.high
    assert found.runners_up
    assert found.runners_up[0].seconds >= found.seconds


def test_results_are_priced_where_they_go_in_memory() -> None:
    """The pixels of a convolution's result lie side by side, though its normal form has one dim for all rows of the product."""
    pixels = 14 * 14
    tuned = tune(groups.convolution(8, 64, 14, 128, 3, 1, 1), H100)
    (store,) = (access for nest in tuned.summary.nests for access in nest.stores)
    assert [int(size.constant) for size in store.shape] == [8, 128, 14, 14]
    values = {dim: np.arange(pixels) if extent == 8 * pixels else 0 for dim, extent in tuned.summary.extents.items()}
    address = sum(i.evaluate(values) * int(s.constant) for i, s in zip(store.index, store.strides, strict=True))
    assert np.array_equal(address, np.arange(pixels))


# -- split reductions -----------------------------------------------------------------------------------------------------
def _sum_of(scalar: Scalar, monoid: Monoid, x: Value) -> Fusion:
    """A reduction of a scalar over the columns of a matrix `x`."""
    columns = x.shape[1].constant
    over = Compute(
        groups.dims(i=x.shape[0].constant), scalar, reductions=groups.dims(j=columns), monoid=monoid, name="r"
    )
    return groups.group([over], [over])


X = Value(tensor(F32, 3, 200), "x")
READ = Read(X, ["i", "j"])
HALVED = Read(Value(tensor(F32, 3, 100), "half"), ["i", index("j") // 2])
SPLIT = [
    groups.gemm(5, 7, 96),
    groups.gemm(5, 7, 197),
    groups.gemm(5, 7, 197, transposed=False, swapped=True),
    groups.gemm(3, 4, 200, batch=2),
    groups.convolution(1, 8, 5, 3, 3, 1, 1),
    groups.convolution(1, 131, 5, 3, 3, 1, 1),
    _sum_of(READ, "sum", X),
    _sum_of(READ, "max", X),
    _sum_of(apply("mul", READ, literal(0.9)), "prod", X),
    _sum_of(apply("gt", READ, literal(-1e9)), "all", X),
    _sum_of(apply("div", literal(1.0), READ), "sum", X),
    _sum_of(apply("mul", apply("log", apply("abs", READ)), HALVED), "sum", X),
    groups.softmax(4, 197),
    groups.layer_norm(3, 197),
    groups.padded(4, 195, 1),
]


@pytest.mark.parametrize("parts", [3, 4, 7])
@pytest.mark.parametrize("fusion", SPLIT)
def test_a_reduction_in_any_number_of_parts_computes_the_same(fusion: Fusion, parts: int) -> None:
    where = splittable(fusion)
    assert where is not None
    arrays = groups.random_inputs(fusion)
    wanted = groups.reference(fusion, arrays)
    partial, combination = split_reduction(fusion, where, parts)
    verify(Module(functions={"main": Function("main", Block(list(partial.uses()), [partial], partial.results))}))
    groups.check(partial, Schedule(dict.fromkeys(normalize(partial).fusion.dims(), 16)))
    body = Block(list(fusion.uses()), [partial, combination], combination.results)
    found = evaluate(Module(functions={"main": Function("main", body)}), arrays)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("extent", "parts"), [(16384, 32), (16385, 32), (100, 6), (8, 3), (1000, 7), (65, 64)])
def test_parts_cover_the_extent_and_are_counted_once(extent: int, parts: int) -> None:
    found = whole_parts(extent, parts)
    length = part_length(extent, found)
    assert found <= parts
    assert (found - 1) * length < extent <= found * length
    assert whole_parts(extent, found) == found


def test_the_place_of_an_extreme_is_not_split() -> None:
    only = groups.reduction(4, 64, "argmax").computes[0]
    assert splittable(groups.group([only], [only])) is None


def test_a_long_sum_on_a_small_grid_is_split_where_that_is_faster() -> None:
    fusion = groups.gemm(16, 16, 65536)
    found = tune(fusion, H100)
    assert found.schedule.split["k"] > 1
    assert len(found.phases) == 2
    whole = Tuner(H100).tune(fusion, split=False)
    assert found.seconds < whole.seconds
    assert Tuner(H100).price(fusion) == pytest.approx(found.seconds), "fusion sees what the tuner would do"


@pytest.mark.parametrize("machine", ["h100_sxm", "a100_sxm", "maia100"])
@pytest.mark.parametrize("dtype", [F16, F32])
def test_an_odd_length_splits_as_well_as_an_even_one(machine: str, dtype: DType) -> None:
    tuner = Tuner(load_machine(machine))
    even, odd = (tuner.price(groups.gemm(200, 16, k, dtype)) for k in (16384, 16385))
    assert odd < 1.6 * even


@pytest.mark.parametrize("dtype", [F16, F32])
def test_tile_and_split_are_chosen_together(dtype: DType) -> None:
    """Small tiles fill the machine without a split, but read each operand many times."""
    fusion = groups.gemm(256, 256, 262144, dtype)
    found, whole = Tuner(H100).tune(fusion), Tuner(H100).tune(fusion, split=False)
    assert found.schedule.split["k"] >= 16
    assert found.seconds < 0.5 * whole.seconds
    assert found.phases[0].tuned.schedule.tiles["i"] * found.phases[0].tuned.schedule.tiles["j"] >= 64 * 64


LIMITED = {
    "splits": groups.gemm(16, 16, 65536),
    "does not": groups.gemm(1024, 1024, 1024),
    "chain": groups.softmax(64, 4096),
}


@pytest.mark.parametrize("share", [0.5, 0.99, 1.01, 3.0])
@pytest.mark.parametrize("name", LIMITED)
def test_a_price_is_the_same_whatever_the_limit_below_which_it_lies(name: str, share: float) -> None:
    fusion = LIMITED[name]
    seconds = Tuner(H100).price(fusion)
    limited = Tuner(H100)
    found = limited.price(fusion, share * seconds)
    if share > 1.0:
        assert found == seconds
    else:
        assert found >= share * seconds
    assert limited.price(fusion) == seconds, "asked again without a limit"
    assert limited.tune(fusion).seconds == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("k", [4096, 65536])
def test_splits_that_are_not_priced_to_their_end_are_no_better(k: int) -> None:
    """The parts that are chosen against all powers of two of them, each priced in full."""
    fusion = groups.gemm(128, 64, k)
    tuner = Tuner(H100)
    where = splittable(fusion)
    assert where is not None
    every = {1: tuner.price_whole(fusion, tuner.form(fusion))}
    for parts in (2**power for power in range(1, (k // 16).bit_length())):
        pair = split_reduction(fusion, where, parts)
        every[parts] = sum(tuner.price_whole(group, tuner.form(group)) for group in pair)
    assert Tuner(H100).price(fusion) <= min(every.values()) * (1 + 1e-12)


# -- modules --------------------------------------------------------------------------------------------------------------
def test_groups_of_one_structure_share_a_kernel() -> None:
    first, second, other = groups.gemm(40, 24, 33), groups.gemm(40, 24, 33), groups.softmax(8, 50)
    everything = [first, second, other]
    args = [value for fusion in everything for value in fusion.uses()]
    results = [value for fusion in everything for value in fusion.results]
    module = Module(functions={"main": Function("main", Block(args, everything, results))})
    arrays = [array for fusion in everything for array in groups.random_inputs(fusion)]
    wanted = evaluate(module, arrays)
    kernels = tile_module(module, Tuner(H100))
    assert sorted(info.count for info in kernels.values()) == [1, 2]
    assert all(isinstance(op, Launch) for op in module.main.body.ops)
    for a, b in zip(evaluate(module, arrays), wanted, strict=True):
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-2, atol=1e-2)


def test_a_split_group_becomes_two_launches() -> None:
    fusion = groups.gemm(16, 16, 65536, F16)
    module = Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})
    arrays = groups.random_inputs(fusion)
    (wanted,) = evaluate(module, arrays)
    tile_module(module, Tuner(H100))
    assert [op.opcode for op in module.main.body.ops] == ["launch", "launch"]
    (found,) = evaluate(module, arrays)
    np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64), rtol=2e-2, atol=0.5)


@pytest.mark.parametrize("name", ["a100_sxm", "mi300x", "maia100", "tpu_v4", "systolic_16x16"])
def test_a_schedule_of_one_machine_is_priced_on_another_or_says_what_does_not_fit(name: str) -> None:
    made, machine = tune(groups.gemm(1024, 1024, 1024), H100), load_machine(name)
    schedule = made.schedule
    if (
        machine.kind != "gpu"
    ):  # knobs of the other kind of machine are refused, and tiles, loops and pipelines are of every machine
        with pytest.raises(ScheduleError, match=r"extras\.warps: .*leave it out; read here: tile, (levels, )?pipeline"):
            Tuner(machine).predict(made.normalized, schedule)
        schedule = replace(schedule, extras={})
    reason = ""
    try:
        other = Tuner(machine).predict(made.normalized, schedule)
    except ScheduleError as error:
        reason = str(error)
    if reason:
        assert re.search(r"needs [\d,]+.*limit [\d,]+", reason)
    else:
        assert other.seconds > 0
        assert other.schedule == schedule


def test_a_dynamic_size_is_costed_at_its_example_and_right_at_every_size() -> None:
    rows = index("N")
    x, w = Value(tensor(F32, rows, 24), "x"), Value(tensor(F32, 40, 24), "w")
    body = apply("mul", Read(x, ["i", "k"]), Read(w, ["j", "k"]))
    out = Compute(groups.dims(i=rows, j=40), body, reductions=groups.dims(k=24), monoid="sum", name="out")
    fusion = groups.group([out], [out])
    module = Module(
        symbols={"N": Symbol("N", 1, 4096, 128)},
        functions={"main": Function("main", Block([x, w], [fusion], fusion.results))},
    )
    tuner = Tuner(H100, sizes={"N": 128}, bounds=module.bounds())
    (info,) = tile_module(module, tuner).values()
    assert info.kernel.symbols == ("N",)
    for size in (1, 17, 130):
        arrays = groups.random_inputs(fusion, sizes={"N": size})
        (found,) = evaluate(module, arrays)
        np.testing.assert_allclose(found, arrays[0] @ arrays[1].T, rtol=1e-4, atol=1e-4)
    with pytest.raises(ScheduleError, match="no value for size N"):
        Tuner(H100).tune(fusion)


@pytest.mark.parametrize(
    "fusion", [groups.element_wise(4, 0, 3), groups.gemm(0, 8, 16), groups.gemm(8, 8, 0), groups.softmax(0, 5)]
)
@pytest.mark.parametrize("machine", [H100, load_machine("maia100")])
def test_an_empty_tensor_costs_a_launch(fusion: Fusion, machine: Machine) -> None:
    found = Tuner(machine).tune(fusion)
    assert np.isfinite(found.seconds)
    module = Module(functions={"main": Function("main", Block(list(fusion.uses()), [fusion], fusion.results))})
    arrays = groups.random_inputs(fusion)
    wanted = evaluate(module, arrays)
    tile_module(module, Tuner(machine))
    for a, b in zip(evaluate(module, arrays), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["square gemm", "ragged gemm"])
def test_a_price_that_can_not_be_below_a_limit_takes_fewer_schedules_and_one_that_can_is_the_same(name: str) -> None:
    whole, hopeless, asked = Tuner(H100), Tuner(H100), Tuner(H100)
    seconds = whole.price(GROUPS[name])
    assert whole.least(GROUPS[name]) == seconds  # known by now
    assert 0.0 < asked.least(GROUPS[name]) < seconds
    assert asked.price(GROUPS[name], 1.01 * seconds) == seconds
    few = seconds / 1000
    assert hopeless.price(GROUPS[name], few) >= few
    assert hopeless.price(GROUPS[name]) == seconds  # that it gave up before is no answer to this


def test_a_search_gives_up_where_no_step_can_reach_what_is_asked_for_and_goes_on_when_more_is() -> None:
    summary = summarize(normalize(GROUPS["square gemm"]).fusion)
    kernel_space, policy = space(summary, H100), make_policy("default")
    whole, context = (Context(summary, H100, Tuner(H100).model, below=below) for below in (np.inf, 1e-6))
    best = search(make_policy("default"), kernel_space, whole)
    assert search(policy, kernel_space, context) is not None
    assert context.gave_up
    assert not whole.gave_up
    assert context.evaluated < whole.evaluated
    context.below = np.inf
    assert go_on(policy, context) == best
    assert context.evaluated == whole.evaluated
