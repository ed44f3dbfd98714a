"""Fusion: groups are legal, keep values, are what prices say, and come out the same on every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast as typed

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.ir.core import Block, Function, Module, Symbol, Value
from codesign.ir.dtypes import BF16, F32
from codesign.ir.errors import CodesignError
from codesign.ir.index import IndexLike, index, product
from codesign.ir.interpreter import evaluate
from codesign.ir.scalar import Literal, Read, Scalar, apply, cast
from codesign.ir.tensor import Compute, Dim, Fusion, Monoid, Sort
from codesign.ir.text import parse, print_module
from codesign.ir.tiling.strands import strands
from codesign.ir.types import tensor
from codesign.passes import CLEAN_UP, Context, optimize
from codesign.passes.fusion.graph import GroupGraph
from codesign.passes.fusion.group import NotFusable
from codesign.passes.fusion.policy import FusionSearch, GreedyFusion
from codesign.passes.fusion.tidy import WHOLE
from tests.passes import models

ONE = f"{CLEAN_UP},fuse"


def fewest(fusion: Fusion) -> float:
    """A price that makes every merge pay: only legality limits what is fused."""
    return 1.0


def fusions(module: Module) -> list[Fusion]:
    return [op for op in module.main.body.ops if isinstance(op, Fusion)]


def check_legal(module: Module) -> None:
    """What the docstring of Fusion demands, and that only what one program can have whole makes a result again."""
    for fusion in fusions(module):
        extents: dict[str, object] = {}
        made: dict[Value, tuple[str, ...]] = {}
        for op in fusion.body.ops:
            assert isinstance(op, Compute)
            names = [dim.name for dim in op.domain]
            assert len(set(names)) == len(names)
            for dim in op.domain:
                assert extents.setdefault(dim.name, dim.extent) == dim.extent
            for read in op.body.reads():
                if read.source in made:
                    assert read.otherwise is None
                    assert tuple(i.variable for i in read.indices) == made[read.source]
            made[op.result] = tuple(dim.name for dim in op.dims)
        for strand in strands(fusion):
            outer = {name for name in strand.fusion.outer_dims() if extents[name] != 1}
            for value in strand.fusion.body.yields:
                assert product(fusion.dims()[name] for name in outer - set(made[value])).constant <= WHOLE
    defined = set(module.main.args)
    for op in module.main.body.ops:  # no group before what it reads
        assert set(op.uses()) <= defined
        defined.update(op.results)


def same_values(module: Module, changed: Module, tolerance: float = 2e-5) -> None:
    rng = np.random.default_rng(0)
    sizes = {name: symbol.example or 3 for name, symbol in module.symbols.items()}
    inputs = [
        rng.standard_normal([int(s.evaluate(sizes)) for s in v.shape]).astype(np.float32) for v in module.main.args
    ]
    for old, new in zip(evaluate(module, inputs, symbols=sizes), evaluate(changed, inputs, symbols=sizes), strict=True):
        np.testing.assert_allclose(new, old, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", sorted(models.ALL))
@pytest.mark.parametrize("policy", ["none", "greedy"])
@pytest.mark.parametrize("pricer", [None, fewest])
def test_models_keep_their_values(name: str, policy: str, pricer: Callable[[Fusion], float] | None) -> None:
    module = models.ALL[name]()
    fused = optimize(module, Context(pricer=pricer), pipeline=f"{CLEAN_UP},fuse{{policy={policy}}}")
    check_legal(fused)
    same_values(module, fused)
    assert not any(isinstance(op, Compute) for op in fused.main.body.ops)  # each is in a group, even alone


def test_softmax_is_one_group_over_one_row_dim() -> None:
    (fusion,) = fusions(optimize(models.softmax(4096, 1000), pipeline=ONE))
    assert [c.monoid for c in fusion.computes if c.reductions] == ["max", "sum"]
    assert len(fusion.inner_dims()) == 1
    assert {c.reductions[0].name for c in fusion.computes if c.reductions} == set(fusion.inner_dims())


def test_layer_norm_is_one_group() -> None:
    (fusion,) = fusions(optimize(models.layer_norm(4096, 768), pipeline=ONE))
    assert [c.monoid for c in fusion.computes if c.reductions] == ["sum", "sum"]
    assert len(fusion.dims()) == 2


def test_an_epilogue_behind_a_view_joins_its_matmul() -> None:
    """The rows of a matmul of flattened tokens are cut into batch and token, as the element-wise reader walks them."""
    fused = optimize(models.mlp(512, 1024, 4096, 1024), pipeline=ONE)
    first, second = fusions(fused)
    for fusion, width in ((first, 4096), (second, 1024)):
        assert [c.monoid for c in fusion.computes if c.reductions] == ["sum"]
        assert [size.constant for size in fusion.results[0].shape] == [2, 512, width]
    assert "erf" in str(first.computes[-1].body)  # gelu is the first matmul's epilogue, not the second's prologue


def test_gate_and_up_projections_share_a_group() -> None:
    b = models.Builder(dtype=BF16)
    x, gate, up = b.input(2048, 1024), b.input(4096, 1024), b.input(4096, 1024)
    b.pointwise("mul", b.pointwise("tanh", b.linear(x, gate)), b.linear(x, up))
    out = b.block.ops[-1].result
    (fusion,) = fusions(optimize(b.module(out), pipeline=ONE))
    products = [c for c in fusion.computes if c.reductions]
    assert len(products) == 2
    assert products[0].reductions == products[1].reductions


@pytest.mark.parametrize("kept", [False, True])
def test_a_softmax_of_groups_of_columns_joins_its_product(kept: bool) -> None:
    """Its result is over groups and columns of groups, and has the shape of both as one in memory, as has the product where it is needed."""
    b = models.Builder()
    rows, groups, width = 12, 3, 8
    product = b.linear(b.input(rows, 16), b.input(groups * width, 16))
    shares = b.view(b.softmax(b.view(product, rows, groups, width)), rows, groups * width)
    module = b.module(product, shares) if kept else b.module(shares)
    fused = optimize(module, Context(pricer=fewest), pipeline=ONE)
    (fusion,) = fusions(fused)
    check_legal(fused)
    same_values(module, fused)
    assert len(fusion.inner_dims()) == 2
    assert all([size.constant for size in value.shape] == [rows, groups * width] for value in fusion.results)
    assert len(fusion.shapes) == len(fusion.results)
    text = print_module(fused)
    assert print_module(parse(text)) == text


def test_an_element_wise_value_needed_elsewhere_keeps_its_dims_behind_a_reshape() -> None:
    """Its reader, a softmax of groups of its columns, computes it again; a product in its place is cut (above)."""
    b = models.Builder()
    total = b.pointwise("add", b.input(12, 24), b.input(12, 24))
    module = b.module(total, b.softmax(b.view(total, 12, 3, 8)))
    fused = optimize(module, Context(pricer=fewest), pipeline=ONE)
    (fusion,) = fusions(fused)
    same_values(module, fused)
    assert [[size.constant for size in value.shape] for value in fusion.body.yields] == [[12, 24], [12, 3, 8]]
    assert not fusion.shapes


def test_a_value_needed_elsewhere_is_yielded() -> None:
    b = models.Builder()
    x, y = b.input(4096, 512), b.input(4096, 512)
    h = b.pointwise("add", x, y)
    n = b.softmax(h)
    (fusion,) = fusions(optimize(b.module(h, n), pipeline=ONE))
    assert len(fusion.results) == 2


@pytest.mark.parametrize(("function", "monoid"), [("mul", "sum"), ("abs", "max")])
@pytest.mark.parametrize(("rows", "width"), [(4096, 2048), (1024, 8192)])
def test_what_only_a_reduction_reads_is_computed_there(function: str, monoid: Monoid, rows: int, width: int) -> None:
    """The square of a residual's norm, or the magnitudes of a quantiser: in float32, they are twice what they are made from."""
    at = ("i", "j")
    over = [Dim("i", index(rows)), Dim("j", index(width))]
    x, w = Value(tensor(BF16, rows, 1024), "x"), Value(tensor(BF16, width, 1024), "w")
    r = Value(tensor(BF16, rows, width), "r")
    product = apply("mul", cast(Read(x, ("i", "k")), F32), cast(Read(w, ("j", "k")), F32))
    h = Compute(over, product, reductions=[Dim("k", index(1024))], monoid="sum", dtype=BF16, name="h")
    a = Compute(over, apply("add", Read(h.result, at), Read(r, at)), name="a")
    wide = cast(Read(a.result, at), F32)
    single = Compute(over, apply(function, wide, wide) if function == "mul" else apply(function, wide), name="single")
    folded = Compute(over[:1], Read(single.result, at), reductions=over[1:], monoid=monoid, name="folded")
    scaled = apply("mul", wide, apply("rsqrt", Read(folded.result, ("i",))))
    out = Compute(over, cast(scaled, BF16), name="out")
    body = Block([x, w, r], [h, a, single, folded, out], [a.result, out.result])
    first, second = fusions(optimize(Module(functions={"main": Function("main", body)}), pipeline=ONE))
    assert [value.type.dtype for value in (*first.results, *second.results)] == [BF16, BF16]
    assert [c.monoid for c in second.computes if c.reductions] == [monoid]


def test_no_merge_around_an_op_that_is_no_compute() -> None:
    """exp -> sort -> add(exp, sorted): merging exp with add would need the sort's result before it is made."""
    x = Value(tensor(F32, 64), "x")
    e = Compute([Dim("i", index(64))], apply("exp", Read(x, ["i"])))
    s = Sort(e.result, 0, names=("values", "positions"))
    out = Compute([Dim("i", index(64))], apply("add", Read(e.result, ["i"]), Read(s.results[0], ["i"])))
    module = Module("m", {}, {"main": Function("main", Block([x], [e, s, out], [out.result]))})
    fused = optimize(module, Context(pricer=fewest), pipeline="fuse")
    check_legal(fused)
    assert [op.opcode for op in fused.main.body.ops] == ["fusion", "sort", "fusion"]
    same_values(module, fused)


def _pair(first: Compute, second: Compute, keep: bool = False) -> str:
    args = [value for value in first.operands() if isinstance(value, Value)]
    results = (first.result, second.result) if keep else (second.result,)
    module = Module("m", {}, {"main": Function("main", Block(args, [first, second], results))})
    graph = GroupGraph(module.main.body, module.bounds())
    one, two = graph.groups()
    try:
        graph.try_merge(one, two)
    except NotFusable as reason:
        return str(reason)
    return ""


def _sum(rows: int = 8) -> Compute:
    x = Value(tensor(F32, rows, 4), "x")
    return Compute([Dim("p", index(rows))], Read(x, ["p", "k"]), reductions=[Dim("k", index(4))], monoid="sum")


def _reader(source: Value, size: IndexLike, *places: IndexLike, otherwise: Scalar | None = None) -> Compute:
    body: Scalar = Read(source, [places[0]], otherwise)
    for place in places[1:]:
        body = apply("add", body, Read(source, [place], otherwise))
    return Compute([Dim("c", index(size))], body)


def test_reasons_for_leaving_apart() -> None:
    one = _sum()
    assert _pair(one, _reader(one.result, 8, "c")) == ""
    one = _sum()
    assert "not at each point once" in _pair(one, _reader(one.result, 8, "c", index(7) - "c"))
    one = _sum()
    twice = Compute(
        [Dim("c", index(8)), Dim("d", index(8))], apply("add", Read(one.result, ["c"]), Read(one.result, ["d"]))
    )
    assert "two different points" in _pair(one, twice)
    one = _sum()
    assert "not at each point once" in _pair(one, _reader(one.result, 4, index("c") * 2))
    one = _sum()
    zero = Literal(0.0, F32)
    assert "padding" in _pair(one, _reader(one.result, 10, index("c") - 1, otherwise=zero))
    one = _sum()
    wide = Compute([Dim("c", index(8)), Dim("d", index(3))], Read(one.result, ["c"]))
    assert _pair(one, wide, keep=True) == ""
    one = _sum()
    wide = Compute([Dim("c", index(8)), Dim("d", index(1000))], Read(one.result, ["c"]))
    assert "written again along d" in _pair(one, wide, keep=True)


def test_an_argmax_dim_is_not_cut() -> None:
    x = Value(tensor(F32, 2, 4), "x")
    e = Compute(
        [Dim("a", index(2)), Dim("b", index(4))], Read(x, ["a", "b"]), reductions=[Dim("z", index(3))], monoid="sum"
    )
    k = index("k")
    arg = Compute([], Read(e.result, [k // 4, k % 4]), reductions=[Dim("k", index(8))], monoid="argmax")
    assert "argmax" in _pair(e, arg)
    total = Compute([], Read(e.result, [k // 4, k % 4]), reductions=[Dim("k", index(8))], monoid="sum")
    assert _pair(e, total) == ""


def test_an_argmax_dim_is_not_cut_on_the_producers_side() -> None:
    """A sum and the argmax over it share a loop; a reader of the sum under another shape would cut the argmax's dim."""
    x = Value(tensor(F32, 8, 4), "x")
    total = Compute([Dim("p", index(8))], Read(x, ["p", "k"]), reductions=[Dim("k", index(4))], monoid="sum")

    def refused(monoid: str) -> str:
        over = Compute([], Read(total.result, ["q"]), reductions=[Dim("q", index(8))], monoid=typed(Monoid, monoid))
        place = index("a") * 4 + "b"
        shaped = Compute([Dim("a", index(2)), Dim("b", index(4))], apply("exp", Read(total.result, [place])))
        body = Block([x], [total, over, shaped], [over.result, shaped.result])
        graph = GroupGraph(body, Module("m", {}, {"main": Function("main", body)}).bounds())
        first, second, reader = graph.groups()
        both = graph.put(first, second, graph.try_merge(first, second))
        try:
            graph.try_merge(both, reader)
        except NotFusable as reason:
            return str(reason)
        return ""

    assert "argmax" in refused("argmax")
    assert "argmax" in refused("argmin")
    assert refused("max") == ""


def test_equal_pairs_have_their_own_offers_where_one_value_is_needed_elsewhere() -> None:
    """The price counts results: a merge must write a producer's value too where it is returned."""
    ops: list[Compute] = []
    args = [Value(tensor(F32, 8), name) for name in ("x", "y")]
    for x in args:
        producer = Compute([Dim("p", index(8))], apply("exp", Read(x, ["p"])))
        ops += [producer, Compute([Dim("c", index(8))], apply("tanh", Read(producer.result, ["c"])))]
    body = Block(args, ops, [ops[0].result, ops[1].result, ops[3].result])
    graph = GroupGraph(body, Module("m", {}, {"main": Function("main", body)}).bounds())
    search = FusionSearch(graph, lambda fusion: float(len(fusion.results)))
    first, second, third, fourth = graph.groups()
    assert search.offer(first, second).seconds == 2.0
    assert search.offer(third, fourth).seconds == 1.0


def test_element_wise_producers_follow_their_reader_anywhere() -> None:
    x = Value(tensor(F32, 8), "x")
    e = Compute([Dim("p", index(8))], apply("exp", Read(x, ["p"])))
    zero = Literal(0.0, F32)
    reader = _reader(e.result, 10, index("c") - 1, index("c") - 2, otherwise=zero)
    module = Module("m", {}, {"main": Function("main", Block([x], [e, reader], [reader.result]))})
    fused = optimize(module, Context(pricer=fewest), pipeline="fuse")
    assert len(fusions(fused)) == 1
    same_values(module, fused)


def test_symbolic_sizes_cut_too() -> None:
    batch, tokens = index("B"), index("T")
    x, w = Value(tensor(F32, batch, tokens, 8), "x"), Value(tensor(F32, 6, 8), "w")
    m = index("m")
    product = Compute(
        [Dim("m", batch * tokens), Dim("n", index(6))],
        apply("mul", Read(x, [m // tokens, m % tokens, "k"]), Read(w, ["n", "k"])),
        reductions=[Dim("k", index(8))],
        monoid="sum",
    )
    out = Compute(
        [Dim("b", batch), Dim("t", tokens), Dim("n", index(6))],
        apply("tanh", Read(product.result, [index("b") * tokens + "t", "n"])),
    )
    symbols = {"B": Symbol("B", 1, None, 3), "T": Symbol("T", 1, None, 5)}
    module = Module("m", symbols, {"main": Function("main", Block([x, w], [product, out], [out.result]))})
    fused = optimize(module, Context(sizes={"B": 3, "T": 5}), pipeline="fuse")
    (fusion,) = fusions(fused)
    assert [str(d) for d in fusion.computes[0].dims] == ["b: B", "t: T", "n: 6"]
    assert "//" not in str(fusion.computes[0].body)
    same_values(module, fused)


def test_repeated_layers_are_priced_once_and_fused_alike() -> None:
    calls: list[int] = []

    def counted(fusion: Fusion) -> float:
        calls.append(1)
        return 1.0

    def stack(depth: int) -> Module:
        b = models.Builder()
        x = b.input(64, 32)
        for _ in range(depth):
            x = b.softmax(b.linear(x, b.input(32, 32)))
        return b.module(x)

    def partition(module: Module) -> list[tuple[int, ...]]:
        search = FusionSearch(GroupGraph(module.main.body, module.bounds()), counted, largest=6)
        GreedyFusion().decide(search)
        return [tuple(len(node.group.computes) for node in search.graph.groups() if node.group)]

    small, large = optimize(stack(4), pipeline=CLEAN_UP), optimize(stack(12), pipeline=CLEAN_UP)
    partition(small)
    few = len(calls)
    calls.clear()
    partition(large)
    assert len(calls) <= few + 4


def test_unknown_policies_and_prices() -> None:
    with pytest.raises(CodesignError, match="fuse: chain=-1: a number of products, 0 or more"):
        optimize(models.softmax(), pipeline="fuse{chain=-1}")
    with pytest.raises(CodesignError, match="unknown fusion policy 'greedi'; nearest: greedy"):
        optimize(models.softmax(), pipeline="fuse{policy=greedi}")
    with pytest.raises(CodesignError, match="can't be loaded"):
        optimize(models.softmax(), pipeline="fuse{policy=no.such:Policy}")
    with pytest.raises(CodesignError, match="policy 'collections:OrderedDict' has no method decide"):
        optimize(models.softmax(), pipeline="fuse{policy=collections:OrderedDict}")
    with pytest.raises(CodesignError, match="fusion policy 'operator:add' can't be loaded: add expected 2 arguments"):
        optimize(models.softmax(), pipeline="fuse{policy=operator:add}")
    with pytest.raises(CodesignError, match="prices: tuned, roofline"):
        optimize(models.softmax(), pipeline="fuse{prices=guess}")


class OnePair:
    """A policy of a third party: merges the first pair that can be."""

    def decide(self, search: FusionSearch) -> None:
        for node in list(search.graph.groups()):
            for first, second in search.neighbours(node):
                if search.allowed(first, second) and search.accept(first, second):
                    return


def test_a_policy_from_elsewhere() -> None:
    fused = optimize(models.softmax(), Context(pricer=fewest), pipeline=f"fuse{{policy={__name__}:OnePair}}")
    assert len(fusions(fused)) == 4
    check_legal(fused)


# -- random graphs ----------------------------------------------------------------------------------------------------
@st.composite
def _graphs(draw: st.DrawFn) -> Module:
    """Random graphs of element-wise ops, reductions, reshapes, permutations and products over small matrices."""
    b = models.Builder()
    values = [b.input(4, 6), b.input(4, 6)]
    for _ in range(draw(st.integers(2, 9))):
        v = draw(st.sampled_from(values))
        rows, columns = (int(s.constant) for s in v.shape)
        kind = draw(st.sampled_from(["unary", "binary", "sum", "max", "view", "permute", "matmul", "softmax", "shift"]))
        if kind == "unary":
            new = b.pointwise("tanh", v)
        elif kind == "binary":
            others = [
                o for o in values if o.shape == v.shape or [s.constant for s in o.shape] in ([rows, 1], [1, columns])
            ]
            new = b.pointwise("add", v, draw(st.sampled_from(others)))
        elif kind in ("sum", "max"):
            new = b.reduce(v, "sum" if kind == "sum" else "max")
        elif kind == "view":
            total = rows * columns
            first = draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
            new = b.view(v, first, total // first)
        elif kind == "permute":
            new = b.permute(v, 1, 0)
        elif kind == "matmul":
            others = [o for o in values if o.shape[0] == columns] or [b.permute(v, 1, 0)]
            new = b.pointwise("tanh", b.matmul(v, draw(st.sampled_from(others))))
        elif kind == "softmax":
            new = b.softmax(v)
        else:
            zero = Literal(0.5, F32)
            new = b.compute({"a": rows, "b": columns}, Read(v, [index("a") - 1, "b"], zero))
        values.append(new)
    extra = draw(st.sampled_from(values[2:]))
    return b.module(values[-1], extra)


@settings(max_examples=120, deadline=None)
@given(_graphs(), st.sampled_from(["fewest", "roofline"]))
def test_random_graphs(module: Module, prices: str) -> None:
    context = Context(pricer=fewest) if prices == "fewest" else Context()
    fused = optimize(module, context, pipeline=f"{CLEAN_UP},fuse{{prices=roofline}}")
    check_legal(fused)
    same_values(module, fused, 1e-4)


def test_each_edge_left_is_explained() -> None:
    context = Context()
    fused = optimize(models.mlp(512, 1024, 4096, 1024), context, pipeline=f"{CLEAN_UP},fuse{{explain=true}}")
    assert len(fusions(fused)) == 2
    (edge,) = [edge for edge in context.fusion if not edge.fused]
    assert (edge.first, edge.second) == ("v9", "v14")
    assert edge.seconds >= edge.apart
    context = Context(pricer=fewest)
    one = _sum()
    flipped = _reader(one.result, 8, index(7) - "c")
    block = Block(list(one.operands()), [one, flipped], [flipped.result])
    optimize(Module("m", {}, {"main": Function("main", block)}), context, pipeline="fuse{explain=true}")
    assert [str(edge) for edge in context.fusion] == [
        "% -> %: apart, read at -c + 7 along dim p, not at each point once"
    ]
