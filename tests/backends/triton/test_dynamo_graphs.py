"""Kinds of functions through `torch.compile(..., backend="codesign")`, held to eager: results, arguments written to, layouts, gradients."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from codesign.backends.triton.dynamo import compile_fx_graph

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def twin(args: Any) -> Any:
    """Copies of tensors with their strides, offsets and common storages."""
    memo: dict[int, Tensor] = {}

    def one(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        storage = value.untyped_storage()
        if storage.data_ptr() not in memo or not storage.nbytes():
            memo[storage.data_ptr()] = torch.tensor([], dtype=torch.uint8).set_(storage.clone())  # type: ignore[no-untyped-call]
        base = memo[storage.data_ptr()].untyped_storage()
        made = torch.empty(0, dtype=value.dtype).set_(base, value.storage_offset(), value.shape, value.stride())
        return made.requires_grad_(value.requires_grad)

    return pytree.tree_map(one, args)


def same(got: Any, want: Any, layout: bool = True) -> None:
    """Equal in structure, dtype, shape, (to rounding) value, and where `layout` in strides."""
    got_leaves, got_spec = pytree.tree_flatten(got)
    want_leaves, want_spec = pytree.tree_flatten(want)
    assert got_spec == want_spec
    for ours, theirs in zip(got_leaves, want_leaves, strict=True):
        if not isinstance(theirs, Tensor):
            assert type(ours) is type(theirs)
            assert ours == theirs
            continue
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5, equal_nan=True)
        assert ours.requires_grad == theirs.requires_grad
        if layout and theirs.numel():
            strides = zip(theirs.shape, ours.stride(), theirs.stride(), strict=True)
            assert all(n == 1 or a == b for n, a, b in strides), f"{ours.stride()}, {theirs.stride()} expected"


def check(function: Callable[..., Any], *calls: Any, **how: Any) -> None:
    """Each call of the compiled function, as eager: what it returns and what its arguments hold afterwards."""
    compiled = torch.compile(function, backend=compile_fx_graph, **how)
    for args in calls:
        ours, theirs = twin(args), twin(args)
        same(compiled(*ours), function(*theirs))
        same(ours, theirs)


def halve(x: Tensor) -> Tensor:
    x.mul_(0.5)
    return x.t() + 1


def append(cache: Tensor, new: Tensor, position: Tensor) -> Tensor:
    cache.index_copy_(1, position, new)
    return cache.sum(1)


def into_slice(x: Tensor, y: Tensor) -> None:
    x[1:3].copy_(y)


def through_a_view(x: Tensor) -> Tensor:
    row = x.view(-1)[2:5]
    row.add_(10)
    return x * 2


def masked(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x + 1


def adam(p: Tensor, g: Tensor, m: Tensor, v: Tensor, step: Tensor) -> None:
    step += 1
    m.lerp_(g, 0.1)
    v.mul_(0.99).addcmul_(g, g, value=0.01)
    p.addcdiv_(m / (1 - 0.9**step), (v / (1 - 0.99**step)).sqrt().add_(1e-8), value=-0.1)


@dataclasses.dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None


pytree.register_dataclass(Answer)


def answer(x: Tensor) -> Answer:
    return Answer(x.softmax(-1), None)


def systems(a: Tensor, b: Tensor) -> Tensor:
    """Calls that raise for what has no solution: torch keeps their checks in order by a token that goes from one to the next."""
    root = torch.linalg.cholesky(a @ a.mT + torch.eye(2))
    result: Tensor = torch.linalg.inv(a) @ torch.linalg.solve(root, b) + torch.linalg.det(a)[:, None, None]
    return result


def dropped_inverse(a: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.inv(a)
    return inverse + 0 * F.dropout(inverse, 0.5, training=True)


SQUARES = torch.randn(3, 2, 2) + 4 * torch.eye(2)

BASE = torch.arange(24.0).reshape(4, 6)

FUNCTIONS: dict[str, tuple[Callable[..., Any], Any]] = {
    "write in place and return a view of the new": (halve, (torch.randn(5, 7),)),
    "cache": (append, (torch.zeros(2, 8, 3), torch.randn(2, 1, 3), torch.tensor([4]))),
    "copy into a slice": (into_slice, (torch.zeros(4, 3), torch.randn(2, 3))),
    "write through a view": (through_a_view, (torch.randn(3, 4),)),
    "write where a mask holds": (masked, (torch.randn(3, 4),)),
    "write to a view of its base": (lambda x: x.add_(1), (BASE[1:3, ::2],)),
    "write to one of two views of a base": (lambda x, y: x.add_(1).sum() + y, (BASE[:2], BASE[2:])),
    "write a resized copy": (lambda x, y: x.copy_(y.expand(3, 4)), (torch.zeros(3, 4), torch.randn(4))),
    "in-place activation": (lambda x: F.relu_(x + 1), (torch.randn(3, 4),)),
    "optimiser step": (adam, (*(torch.randn(5).abs() for _ in range(4)), torch.tensor(3.0))),
    "return the argument": (lambda x: x, (torch.randn(3),)),
    "return a view of the argument": (lambda x: (x.t(), x[1], x * 2), (torch.randn(3, 4),)),
    "return one tensor twice": (lambda x: (y := x + 1, y, y[0]), (torch.randn(3, 4),)),
    "slice": (lambda x: x + 1, (torch.arange(12.0)[3:],)),
    "transposed and stepping": (lambda x: x * 2, (BASE.t()[1:, ::2],)),
    "expanded": (lambda x: x * 2, (torch.randn(3, 1).expand(3, 4),)),
    "channels last": (lambda x: x * 2 + 1, (torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),)),
    "temperature": (lambda x, t: (x / t).softmax(-1), (torch.randn(2, 4), torch.tensor(0.7, dtype=torch.float64))),
    "scalars": (lambda x, i, b: torch.where(b, x * i, x), (torch.randn(4), torch.tensor(3), torch.tensor(True))),
    "item of an integer": (lambda x, n: x * n + 1, (torch.randn(4), torch.tensor(3, dtype=torch.int32))),
    "Python numbers": (lambda x, a, n, flag: x * a + n if flag else x, (torch.randn(4), 0.3, 7, True)),
    "a literal": (lambda x: x * torch.tensor([1.0, 2.0, 3.0]), (torch.randn(2, 3),)),
    "integers": (lambda x: (x.argmax(-1), (x > 0).sum(), x.shape[0]), (torch.randn(3, 4),)),
    "dict, None, numbers": (lambda x: {"a": x.exp(), "b": None, "c": [x.dim(), 1.5]}, (torch.randn(3),)),
    "dataclass": (answer, (torch.randn(2, 3),)),
    "no tensor": (lambda: torch.arange(6).reshape(2, 3) * 2, ()),
    "no operator": (lambda x: None, (torch.randn(3),)),
    "empty": (lambda x: (x + 1, x.sum()), (torch.empty(0, 4),)),
    "zero-dimensional": (lambda x: x.sin() + 1, (torch.tensor(0.3),)),
    "half precision": (lambda x: x * 2 + 1, (torch.randn(3, 4).bfloat16(),)),
    "expanded result": (lambda x: (x + 1).expand(3, 4), (torch.randn(3, 1),)),
    "transposed result": (lambda x: (x + 1).t().exp(), (torch.randn(3, 4),)),
    "systems": (systems, (SQUARES, torch.randn(3, 2, 1))),
    "systems and drawn numbers": (dropped_inverse, (SQUARES,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_eager_without_gradients(name: str) -> None:
    function, args = FUNCTIONS[name]
    with torch.no_grad():
        check(function, args)


DYNAMIC: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "rows": (lambda x: (x * 2).relu().sum(-1), [(torch.randn(n, 8),) for n in (4, 7, 1, 9)]),
    "a quotient that becomes 1": (
        lambda x: x.reshape(-1, 7, x.shape[1] // 7).sum(1),
        [(torch.randn(1, 7),), (torch.randn(2, 14),), (torch.randn(3, 21),)],
    ),
    "size 0": (lambda x: (x + 1, x.sum(0)), [(torch.randn(3, 4),), (torch.randn(0, 4),), (torch.randn(1, 4),)]),
    "a slice whose base is not seen": (
        lambda x: x + 1,
        [(torch.arange(12.0)[3:],), (torch.arange(20.0)[5:],), (torch.arange(30.0)[4:24:2],)],
    ),
    "sizes as results and operands": (
        lambda x: (x / x.shape[0], x.shape[0] * 2, x.new_zeros(x.shape[0] + 1)),
        [(torch.randn(n, 3),) for n in (4, 5)],
    ),
    "joined sizes": (
        lambda x, y: torch.cat([x, y]).view(-1, 2).sum(1),
        [(torch.randn(n), torch.randn(m)) for n, m in ((4, 6), (3, 9), (2, 2))],
    ),
    "a float that changes": (lambda x, a: x * a, [(torch.randn(4), a) for a in (0.5, 0.25, 2.0)]),
    "an integer that changes": (lambda x, n: x * n + n, [(torch.randn(4), n) for n in (2, 3, 5)]),
    "writes": (lambda x: x[1:].mul_(x.shape[0]), [(torch.randn(n, 3),) for n in (3, 5)]),
}


@pytest.mark.parametrize("dynamic", [True, None])
@pytest.mark.parametrize("name", DYNAMIC)
def test_sizes_that_change(name: str, dynamic: bool | None) -> None:
    function, calls = DYNAMIC[name]
    check(function, *calls, dynamic=dynamic, options={"kernels": "reference"})


TRAINED: dict[str, tuple[Callable[[], Any], Any]] = {
    "a literal": (lambda: lambda x: x * torch.tensor([1.0, 2.0, 3.0]), (torch.ones(3, requires_grad=True),)),
    "some need gradients": (
        lambda: lambda x, y: (x @ y).relu(),
        (torch.randn(3, 4), torch.randn(4, 2).requires_grad_()),
    ),
    "attention": (
        lambda: F.scaled_dot_product_attention,
        tuple(torch.randn(2, 2, 6, 4, requires_grad=True) for _ in range(3)),
    ),
    "running statistics": (lambda: nn.BatchNorm1d(4), (torch.randn(6, 4),)),
    "written between": (lambda: lambda x: (x * 2).add_(1).sigmoid().t(), (torch.randn(3, 4, requires_grad=True),)),
    "an argument is written": (
        lambda: lambda x, n: (n.add_(1), x * n)[1],
        (torch.randn(3, requires_grad=True), torch.ones(3)),
    ),
    "a view comes out": (lambda: lambda x: (x.t(), (x * x).view(-1)[1:]), (torch.randn(3, 4, requires_grad=True),)),
    "systems": (lambda: systems, (SQUARES.clone().requires_grad_(), torch.randn(3, 2, 1, requires_grad=True))),
    "a system in the gradients alone": (lambda: torch.linalg.det, (SQUARES.clone().requires_grad_(),)),
    "a slice comes in": (lambda: nn.Linear(3, 2), (torch.arange(24.0).reshape(4, 6)[1:, ::2],)),
}


@pytest.mark.parametrize("dynamic", [True, None])
@pytest.mark.parametrize("name", TRAINED)
def test_training_step_as_eager(name: str, dynamic: bool | None) -> None:
    make, args = TRAINED[name]
    function: Callable[..., Any] = make()
    other: Callable[..., Any] = copy.deepcopy(function)
    compiled = torch.compile(function, backend=compile_fx_graph, dynamic=dynamic)
    ours, theirs = twin(args), twin(args)
    for _ in range(2):
        got, want = compiled(*ours), other(*theirs)
        same(got, want, layout=name != "attention")  # eager chooses other strides than it tells its tracer
        for outputs in (got, want):
            torch.autograd.backward([o.square().sum() for o in pytree.tree_leaves(outputs)])
    same(ours, theirs)
    same([a.grad for a in ours], [a.grad for a in theirs])
    if isinstance(function, nn.Module) and isinstance(other, nn.Module):
        same(dict(function.named_buffers()), dict(other.named_buffers()))
        same([p.grad for p in function.parameters()], [p.grad for p in other.parameters()])


def exchanged(x: Tensor, y: Tensor) -> Tensor:
    """Each input gets the value of the other."""
    before = x.clone()
    x.copy_(y)
    y.copy_(before)
    return x - y


def kept_before(x: Tensor, y: Tensor) -> Tensor:
    before = x.clone()
    x.add_(y)
    return before


def shifted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A ring of values, and one that left it."""
    gone = x[0].clone()
    x[:-1] = x[1:].clone()
    x[-1] = y[0]
    return gone, x.clone()


@pytest.mark.parametrize("kernels", ["triton", "reference"])
@pytest.mark.parametrize("function", [exchanged, kept_before, shifted])
def test_old_values_of_arguments_that_are_written(function: Callable[..., Any], kernels: str) -> None:
    """A copy that the graph makes of an argument is no part of it: torch writes to the argument afterwards."""
    given = (torch.randn(4, 6), torch.randn(4, 6))
    compiled = torch.compile(function, backend="codesign", options={"kernels": kernels})
    ours, theirs = twin(given), twin(given)
    same(compiled(*ours), function(*theirs))
    same(ours, theirs)


def test_copies_have_memory_of_their_own() -> None:
    """The caller may write to a copy, of an argument or of another result, and to nothing else with it."""

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        total = x + y
        return x.clone(), x.to(torch.float32, copy=True), total, total.clone(), total.view(-1)

    given = (torch.randn(4, 6), torch.randn(4, 6))
    compiled = torch.compile(function, backend=compile_fx_graph)
    ours, theirs = twin(given), twin(given)
    got, want = compiled(*ours), function(*theirs)
    for k in (0, 1, 3):
        for results in (got, want):
            results[k].fill_(float(k))
    same(got, want)
    same(ours, theirs)
