"""Capture: what a model becomes, against eager torch, with places, names, dynamic sizes and state."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from codesign.frontend import capture
from codesign.frontend.export import ExportFailure
from codesign.ir.core import tensor_type
from codesign.ir.dtypes import BF16
from codesign.ir.errors import CodesignError, UnsupportedError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call, Compute, Constant, If, While
from tests.frontend.checks import assert_close, assert_wellformed, check, run


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 32)
        self.norm = nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x)
        return torch.relu(self.norm(hidden))


def of(function: Any) -> nn.Module:
    """A function as a module."""

    class Wrapped(nn.Module):
        def forward(self, *args: Any) -> Any:
            return function(*args)

    return Wrapped()


def test_values_names_and_constants() -> None:
    net = Net().eval()
    captured = check(net, torch.randn(3, 16))
    assert captured.input_names == ["x"]
    constants = [op for op in captured.module.main.body.ops if isinstance(op, Constant)]
    assert [op.constant for op in constants] == ["up.weight", "up.bias", "norm.weight", "norm.bias"]
    data = captured.module.constants["up.weight"]
    assert np.shares_memory(np.asarray(data), net.up.weight.detach().numpy()), "parameters must not be copied"


def test_places() -> None:
    captured = capture(Net().eval(), (torch.randn(3, 16),))
    first = inspect.getsourcelines(Net.forward)[1]
    seen = {}
    for op in captured.module.main.body.ops:
        if isinstance(op, Compute):
            seen[op.location.origin] = (op.location.line - first, op.location.module)
            assert op.location.file.endswith("test_capture.py")
    assert seen["aten.linear.default"] == (1, "up")
    assert seen["aten.native_layer_norm.default"] == (2, "norm")
    assert seen["aten.relu.default"] == (2, "")


def helper(x: torch.Tensor) -> torch.Tensor:
    return x.sinh()


def test_places_are_in_the_helper_that_wrote_the_operator() -> None:
    captured = capture(of(lambda x: helper(x) + 1), (torch.randn(3),))
    (op,) = [op for op in captured.module.main.body.ops if op.location.origin == "aten.sinh.default"]
    assert op.location.line == inspect.getsourcelines(helper)[1] + 1


def test_bfloat16_constants_are_rounded_floats() -> None:
    net = nn.Linear(4, 4).to(torch.bfloat16)
    captured = check(net, torch.randn(2, 4, dtype=torch.bfloat16), rtol=1e-2, atol=1e-2)
    array = np.asarray(captured.module.constants["weight"])
    assert array.dtype == np.float32
    assert np.array_equal(array, net.weight.detach().float().numpy())
    assert tensor_type(captured.module.main.results[0]).dtype is BF16


def test_meta_models_keep_no_data() -> None:
    with torch.device("meta"):
        net = nn.Linear(50_000, 50_000)
        x = torch.empty(8, 50_000)
    captured = capture(net, (x,))
    assert captured.module.constants == {}
    assert_wellformed(captured.module)


def test_dynamic_batch_runs_at_other_sizes() -> None:
    net, batch = Net().eval(), torch.export.Dim("batch", min=2, max=512)
    captured = capture(net, (torch.randn(4, 16),), dynamic_shapes=({0: batch},))
    symbol = captured.module.symbols["batch"]
    assert (symbol.low, symbol.high, symbol.example) == (2, 512, 4)
    assert_wellformed(captured.module)
    for size in (2, 7, 100):
        x = torch.randn(size, 16)
        assert_close(run(captured, (x,)), net(x).detach())


def test_dynamic_sizes_in_views_and_attention() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        b, s, _ = x.shape
        q, k, v = x.view(b, s, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(b, s, 16)
        return torch.cat([y, y.flip(1)], dim=1)[:, 1:] * s

    batch, length = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=3, max=64)
    captured = capture(of(model), (torch.randn(2, 6, 48),), dynamic_shapes={"args": ({0: batch, 1: length},)})
    assert_wellformed(captured.module)
    assert set(captured.module.symbols) == {"batch", "length"}
    for sizes in ((2, 6), (3, 5), (5, 17)):
        x = torch.randn(*sizes, 48)
        assert_close(run(captured, (x,)), model(x))


def test_structured_inputs_and_outputs() -> None:
    class Model(nn.Module):
        def forward(self, pair: Any, flag: bool, scale: torch.Tensor) -> Any:
            a, b = pair
            return {"sum": a + b * scale, "nothing": None, "many": [a, a - b]}

    inputs = ((torch.randn(3), torch.randn(3)), True, torch.tensor(2.0))
    captured = check(Model(), *inputs)
    assert len(captured.input_names) == 3
    assert run(captured, inputs)["nothing"] is None


def test_keyword_inputs_in_any_order() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor, *, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return x + first / second

    kwargs = {"second": torch.full((3,), 4.0), "first": torch.ones(3)}
    captured = capture(Model(), (torch.zeros(3),), kwargs)
    for order in (["first", "second"], ["second", "first"]):
        given = {key: kwargs[key] for key in order}
        assert_close(run(captured, (torch.zeros(3),), given), torch.full((3,), 0.25))


def test_buffer_that_the_model_writes_is_an_extra_result() -> None:
    class Counter(nn.Module):
        count: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x + self.count

    captured = capture(Counter(), (torch.zeros(2),))
    ((kind, name, position),) = [(m.kind, m.name, m.position) for m in captured.mutations]
    assert (kind, name, position) == ("buffer", "count", 1)
    assert_close(run(captured, (torch.zeros(2),)), torch.ones(2))


def test_input_that_the_model_writes_is_an_extra_result() -> None:
    captured = capture(of(lambda x, y: y.add_(x) * 2), (torch.ones(2), torch.zeros(2)))
    assert [(m.kind, m.position) for m in captured.mutations] == [("input", 1)]


def test_branches_and_loops_of_torch() -> None:
    def branch(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda t: t.sin(), lambda t: t.cos() + 1, (x,))  # type: ignore[no-any-return]

    captured = check(of(branch), torch.ones(3))
    assert any(isinstance(op, If) for op in captured.module.main.body.ops)
    assert_close(run(captured, (-torch.ones(3),)), branch(-torch.ones(3)))

    from torch._higher_order_ops.while_loop import while_loop

    def loop(x: torch.Tensor) -> Any:
        return while_loop(  # type: ignore[no-untyped-call]
            lambda n, y: n < 4, lambda n, y: (n + 1, y * 2 + n), (torch.tensor(0), x)
        )

    captured = capture(of(loop), (torch.ones(3),))
    assert any(isinstance(op, While) for op in captured.module.main.body.ops)
    assert_close(run(captured, (torch.ones(3),)), (torch.tensor(4), torch.tensor([27.0] * 3)))


def test_numbers_read_from_data() -> None:
    check(of(lambda x, n: x * n.item() + n.item()), torch.randn(3), torch.tensor(5))


def test_gradient_mode_regions_are_inlined() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = x * 2
        return y + x

    check(of(model), torch.randn(3))


def test_operator_without_a_rule_is_an_external_call_with_a_warning() -> None:
    captured = check(of(lambda x: torch.linalg.qr(x)[1].abs() + 1), torch.randn(4, 4))
    calls = [op for op in captured.module.main.body.ops if isinstance(op, Call)]
    assert [op.target for op in calls] == ["aten.linalg_qr.default"]
    (warning,) = captured.warnings
    assert "test_capture.py" in warning
    assert "aten.linalg_qr.default" in warning


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: torch.fft.fft(x).logcumsumexp(0), r"test_capture\.py:\d+.*aten\.logcumsumexp\.default.*complex"),
        (lambda x: torch._standard_gamma(x.abs()), r"test_capture\.py:\d+.*aten\._standard_gamma\.default.*random"),
    ],
)
def test_what_has_no_meaning_here_is_an_error_with_its_place(model: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        capture(of(model), (torch.randn(5),))


def test_fallback_to_symbolic_trace_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.export refuses, symbolic_trace's module is exported: shown with an export that fails on this class only."""
    original = torch.export.export

    def refuse(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, Net):
            raise RuntimeError("this module cannot be exported")
        return original(module, *args, **kwargs)

    monkeypatch.setattr(torch.export, "export", refuse)
    net = Net().eval()
    captured = check(net, torch.randn(3, 16))
    assert captured.method == "torch.fx.symbolic_trace"
    assert "this module cannot be exported" in captured.warnings[0]
    names = [op.constant for op in captured.module.main.body.ops if isinstance(op, Constant)]
    assert names == ["up.weight", "up.bias", "norm.weight", "norm.bias"]


class Counting(nn.Module):
    """Writes a buffer and reads a view of it before and after; `held`: a tensor that it has not registered is written as well."""

    seen: torch.Tensor

    def __init__(self, held: bool = False) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 3))
        self.other = [torch.zeros(3)] if held else []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        row = self.seen[1]
        before = row * 2
        self.seen.add_(1)
        self.seen[1:3].mul_(x)
        for other in self.other:
            other.add_(1)
        return before + row


def test_fallback_to_symbolic_trace_records_what_is_done_to_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And does it to none of the model's own."""
    original = torch.export.export

    def refuse(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, Counting):
            raise RuntimeError("this module cannot be exported")
        return original(module, *args, **kwargs)

    monkeypatch.setattr(torch.export, "export", refuse)
    model = Counting()
    captured = capture(model, (torch.full((3,), 2.0),))
    assert captured.method == "torch.fx.symbolic_trace"
    assert not model.seen.any()
    results = evaluate(captured.module, captured.flatten_inputs((torch.full((3,), 5.0),)))
    (written,) = captured.mutations
    expected = model(torch.full((3,), 5.0))
    torch.testing.assert_close(torch.from_numpy(results[written.position]), model.seen)
    torch.testing.assert_close(captured.unflatten_outputs(results), expected)
    model = Counting(held=True)
    with pytest.raises(CodesignError, match="this module cannot be exported"):
        capture(model, (torch.full((3,), 2.0),))
    assert not model.seen.any()
    assert not model.other[0].any()


def test_what_cannot_be_captured_says_why_and_what_to_try() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x + 1
        return x - 1

    with pytest.raises(CodesignError, match=r"test_capture\.py:\d+.*can't capture.*torch\.(where|cond)") as caught:
        capture(of(model), (torch.ones(3),))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_draw_that_torch_cannot_trace_says_how_to_write_it() -> None:
    with pytest.raises(CodesignError, match=r"random_\(high - low\)\.add_\(low\)"):
        capture(of(lambda x: torch.empty_like(x).random_(2, 9) + x), (torch.ones(3),))


def test_wrong_inputs_are_the_users_fault() -> None:
    with pytest.raises(CodesignError, match="can't capture"):
        capture(Net(), (torch.randn(3, 5),))


def test_what_python_itself_refuses_has_no_place_in_pythons_library() -> None:
    class Named(nn.Module):
        def forward(self, *, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    with pytest.raises(CodesignError, match=r"missing a required .*make the inputs") as caught:
        capture(Named(), ())
    assert "inspect.py" not in str(caught.value)


@pytest.mark.parametrize("overlap", [0, 1])
def test_inputs_in_the_same_memory_that_are_written_are_named_as_such(overlap: int) -> None:
    def model(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x * y

    whole = torch.randn(4, 6)
    with pytest.raises(CodesignError, match=r"inputs lie in the same memory.*clone\(\)"):
        capture(of(model), (whole[: 4 - overlap], whole[overlap:]))


def test_solvers_are_taken_whose_checks_torch_puts_in_order() -> None:
    def model(x: torch.Tensor, y: torch.Tensor) -> Any:
        positive = x @ x.mT + 5 * torch.eye(5)
        return torch.linalg.solve(positive, y), torch.linalg.cholesky(positive), torch.linalg.det(x)

    captured = check(of(model), torch.randn(5, 5), torch.randn(5, 2))
    assert sum(isinstance(op, Call) for op in captured.module.main.body.ops) == 3


def test_reasons_of_several_attempts_are_parted_once() -> None:
    failure = ExportFailure([("strict", ValueError("not this.")), ("symbolic", TypeError("nor that"))])
    assert str(failure) == "strict: ValueError: not this; symbolic: TypeError: nor that"


class Uncertain(nn.Module):
    """How sure a distribution is, and how likely a value, which torch checks as data decides."""

    def forward(self, logits: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        choice: Any = torch.distributions.Categorical(logits=logits)
        normal: Any = torch.distributions.Normal(logits, scale.abs())
        return choice.entropy(), normal.log_prob(scale)


@pytest.mark.parametrize("checked", [False, True])
def test_distributions_are_captured_without_their_checks_which_stay_as_the_user_has_them(checked: bool) -> None:
    kind = torch.distributions.Distribution
    before = kind._validate_args
    kind.set_default_validate_args(checked)
    try:
        check(Uncertain(), torch.randn(3, 5), torch.rand(3, 5) + 0.1)
        assert kind._validate_args is checked
    finally:
        kind.set_default_validate_args(before)
