"""A step of training: gradients as autograd has them, weights as torch's optimisers make them, and whose they are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from codesign.frontend import capture
from codesign.frontend.arrays import to_torch
from codesign.frontend.load import FunctionModule, ModelSource
from codesign.frontend.training import BACKWARD, FORWARD, OPTIMIZER, STEP, part_of, trained
from codesign.ir.core import tensor_type
from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.norm(F.silu(self.first(x)))
        return F.cross_entropy(self.last(F.mish(hidden)), y)


def batch() -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.randn(5, 6), torch.randint(3, (5,))


def step_of(model: nn.Module, inputs: tuple[Any, ...], optimizer: str = "") -> Any:
    """What the captured step gives in the IR's interpreter, and the new values of what it writes as `written`."""
    source = trained(ModelSource(model, inputs), optimizer)
    captured = capture(source)
    results = evaluate(captured.module, captured.flatten_inputs(inputs))
    kinds = captured.module.main.results
    written = {
        m.name: to_torch(results[m.position], tensor_type(kinds[m.position]).dtype, is_complex=m.is_complex)
        for m in captured.mutations
    }
    return source.model, {**captured.unflatten_outputs(results), "written": written}


def same(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted.detach(), rtol=2e-5, atol=1e-6)


def test_gradients_of_a_loss_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    model, inputs = Classifier(), batch()
    _, got = step_of(model, inputs)
    loss = model(*inputs)
    loss.backward()
    same(got["results"], loss)
    assert list(got["gradients"]) == [name for name, _ in model.named_parameters()]
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        same(got["gradients"][name], weight.grad)


TORCHS: dict[str, Any] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=1e-3),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=1e-3, momentum=0.9),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@pytest.mark.parametrize("name", TORCHS)
def test_new_weights_are_those_of_torchs_optimiser(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = Classifier(), batch()
    step, got = step_of(model, inputs, name)
    optimizer = TORCHS[name](model.parameters())
    for path, weight in model.named_parameters():
        key = path.replace(".", "__")
        state = {kind: step.kept[f"{kind}__{key}"].clone() for kind in step.optimizer.kept}
        optimizer.state[weight] = {"step": torch.tensor(STEP - 1.0), **state}
    model(*inputs).backward()
    optimizer.step()
    assert len(got["written"]) == len(list(model.parameters())) * (1 + len(step.optimizer.kept))
    for path, weight in model.named_parameters():
        same(got["written"][f"model.{path}"], weight)
        for kind in step.optimizer.kept:
            same(got["written"][f"kept.{kind}__{path.replace('.', '__')}"], optimizer.state[weight][kind])


def test_results_that_are_no_loss_take_the_gradients_of_what_follows() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(2, 4, requires_grad=True)
    step, got = step_of(model, (x,))
    (after,) = step.following
    wanted = torch.autograd.grad(model(x), [model.weight, model.bias, x], after)
    for name, gradient in zip(("weight", "bias", "input 0"), wanted, strict=True):
        same(got["gradients"][name], gradient)


def test_the_loss_of_several_results_is_the_one_of_that_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            logits = self.part(x)
            return {"logits": logits, "loss": logits.square().mean()}

    torch.manual_seed(0)
    model, x = Named(), torch.randn(2, 4)
    step, got = step_of(model, (x,))
    assert not len(step.following)
    model(x)["loss"].backward()
    assert model.part.weight.grad is not None
    same(got["gradients"]["part.weight"], model.part.weight.grad)


def test_the_only_scalar_of_several_results_is_the_loss() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.part(x)
            return logits, logits.square().mean()

    torch.manual_seed(0)
    model, x = Pair(), torch.randn(2, 4)
    step, got = step_of(model, (x,))
    model(x)[1].backward()
    assert model.part.weight.grad is not None
    same(got["gradients"]["part.weight"], model.part.weight.grad)
    assert step.remark.startswith("gradients are those of the loss")
    assert "gives no loss" in step_of(nn.Linear(4, 3), (x,))[0].remark


def test_statistics_that_training_writes_are_written() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train(), torch.randn(2, 2, 6, 6)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    _, got = step_of(model, (x,))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model(x)
    assert set(got["written"]) == {"model.1.running_mean", "model.1.running_var", "model.1.num_batches_tracked"}
    for name, buffer in model.named_buffers():
        same(got["written"][f"model.{name}"], buffer)


def test_a_step_run_by_torch_writes_what_its_record_gives() -> None:
    """A second one goes on from there; a result that is a weight is as it was before the step."""

    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": self.part(x).square().mean(), "weight": self.part.weight}

    torch.manual_seed(0)
    model, x = Shown(), torch.randn(2, 4)
    step, got = step_of(model, (x,), "momentum")
    before = model.part.weight.detach().clone()
    first = step(x)
    assert torch.equal(first["results"]["weight"], before)
    same(got["results"]["weight"], before)
    for name, value in got["written"].items():
        same(value, step._tensor(name))
    after = model.part.weight.detach().clone()
    step(x)
    assert not torch.equal(model.part.weight, after)


def test_each_operator_is_of_a_part_and_a_module() -> None:
    torch.manual_seed(0)
    captured = capture(trained(ModelSource(Classifier(), batch()), "adamw"))
    places = {leaf for op in captured.module.main.body.walk() for leaf in op.location.leaves()}
    modules = {place.module for place in places}
    assert {"first", "backward.first", "optimizer.first", "backward.norm", "optimizer.last"} <= modules
    count = Counter(part_of(place) for place in places)
    assert all(count[part] > 3 for part in (FORWARD, BACKWARD, OPTIMIZER))
    assert all(place.file.endswith("test_training.py") for place in places if place.module == "backward.first")


def test_modules_may_be_named_as_parts_are() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backward, self.optimizer = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            loss: Tensor = self.optimizer(self.backward(x).relu()).sum()
            return loss

    captured = capture(trained(ModelSource(Named(), (torch.randn(2, 4),)), "sgd"))
    places = {leaf for op in captured.module.main.body.walk() for leaf in op.location.leaves()}
    products = {place.module: part_of(place) for place in places if place.origin == "aten.addmm.default"}
    assert products == {"forward.backward": FORWARD, "forward.optimizer": FORWARD}
    modules = {place.module for place in places}
    assert {"backward.backward", "backward.optimizer", "optimizer.backward", "optimizer.optimizer"} <= modules


@pytest.mark.parametrize("name", TORCHS)
def test_planes_of_complex_weights_change_on_their_own(name: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight).abs().sum()

    torch.manual_seed(0)
    model, x = Scaled(), torch.randn(2, 4, dtype=torch.complex64)
    step, got = step_of(model, (x,), name)
    optimizer = TORCHS[name](model.parameters())
    state = {kind: step.kept[f"{kind}__weight"].clone() for kind in step.optimizer.kept}
    optimizer.state[model.weight] = {"step": torch.tensor(STEP - 1.0), **state}
    model(x).backward()
    optimizer.step()
    same(got["written"]["model.weight"], model.weight)
    for kind in state:
        same(got["written"][f"kept.{kind}__weight"], optimizer.state[model.weight][kind])


def test_recurrent_layers_have_gradients_of_plain_operators() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            loss: Tensor = self.layer(x)[0].square().sum()
            return loss

    torch.manual_seed(0)
    model, x = Last(), torch.randn(2, 3, 3)
    _, got = step_of(model, (x,))
    model(x).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        same(got["gradients"][name], weight.grad)


def test_what_cannot_be_trained_is_refused() -> None:
    x = torch.randn(2, 4)
    with pytest.raises(CodesignError, match="nothing that the model gives hangs on a weight"):
        trained(ModelSource(nn.ReLU(), (x,)))
    frozen = nn.Linear(4, 3).requires_grad_(False)
    with pytest.raises(CodesignError, match="nothing that the model gives"):
        trained(ModelSource(frozen, (x,)))
    held = nn.Linear(4, 3)
    with pytest.raises(CodesignError, match=r"hangs on a weight \(3 x 4\) that is no parameter of it"):
        trained(ModelSource(FunctionModule(lambda x: held(x).sum()), (x,)))
    program = torch.export.export(nn.Linear(4, 3), (x,))
    with pytest.raises(CodesignError, match="an exported program has no gradients"):
        trained(ModelSource(program.module(), (x,), program=program))


def test_weights_that_the_module_does_not_hold_are_refused() -> None:
    """Beside some that it does hold, and where an input asks for gradients: theirs would be left out without a word."""

    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.others = nn.Linear(4, 4), [nn.Linear(4, 3)]

        def forward(self, x: Tensor) -> Tensor:
            loss: Tensor = self.others[0](self.part(x)).sum()
            return loss

    x = torch.randn(2, 4)
    with pytest.raises(CodesignError, match="that is no parameter of it") as caught:
        trained(ModelSource(Listed(), (x,)))
    assert "nn.ParameterList" in (caught.value.hint or "")
    held = nn.Linear(4, 3)
    with pytest.raises(CodesignError, match="that is no parameter of it"):
        trained(ModelSource(FunctionModule(lambda x: held(x).sum()), (x.clone().requires_grad_(),)))
    own = nn.Linear(4, 3)
    trained(ModelSource(own, (x.clone().requires_grad_(),)))
    frozen = held.requires_grad_(False)
    trained(ModelSource(FunctionModule(lambda x: frozen(x).sum()), (x.clone().requires_grad_(),)))


def test_what_forward_itself_takes_gradients_of_is_no_weight() -> None:
    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.part(x).tanh().sum(), x, create_graph=True)
            return slope.square().sum()

    torch.manual_seed(0)
    model, x = Slope(), torch.randn(2, 3)
    _, got = step_of(model, (x,))
    (wanted,) = torch.autograd.grad(model(x), model.part.weight)
    same(got["gradients"]["part.weight"], wanted)


def test_lazy_layers_take_their_sizes_from_the_inputs() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d()), torch.randn(5, 4)
    model[1].train()
    step, got = step_of(model, (x,))
    assert model[1].training
    assert torch.equal(model.get_buffer("1.running_mean"), torch.zeros(3))
    (after,) = step.following
    wanted = torch.autograd.grad(model(x), list(model.parameters()), after)
    for (name, _), gradient in zip(model.named_parameters(), wanted, strict=True):
        same(got["gradients"][name], gradient)


class _Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.part, x.float().expand(1, 4).requires_grad_(), use_reentrant=True)


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        (nn.Embedding(5, 4, sparse=True), "leave sparse=True out"),
        (nn.Embedding(5, 4, max_norm=1.0), "an Embedding with max_norm does"),
        (_Checkpointed(), "use_reentrant=False"),
    ],
    ids=["sparse", "max_norm", "reentrant"],
)
def test_what_stands_in_the_way_is_said(model: nn.Module, hint: str) -> None:
    with pytest.raises(CodesignError) as caught:
        capture(trained(ModelSource(model, (torch.tensor([1]),))))
    assert hint in (caught.value.hint or "")


class Taught(nn.Module):
    """A network that is to say what a slow copy of itself says, which the call moves."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = nn.Linear(4, 3), nn.Linear(4, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for mine, its in zip(self.slow.parameters(), self.fast.parameters(), strict=True):
                mine.lerp_(its, 0.25)
        return F.mse_loss(self.fast(x), self.slow(x))


@pytest.mark.parametrize("optimizer", ["", "sgd"])
def test_a_slow_copy_of_the_weights_is_moved_once(optimizer: str) -> None:
    """Weights without gradients that forward writes: the loss sees their new values, and a step writes them, before the optimiser's."""
    torch.manual_seed(3)
    model, x = Taught(), torch.randn(5, 4)
    moved = {
        f"model.slow.{name}": torch.lerp(w, model.fast.get_parameter(name), 0.25).detach()
        for name, w in model.slow.named_parameters()
    }
    _, got = step_of(model, (x,), optimizer)
    loss = F.mse_loss(model.fast(x), F.linear(x, moved["model.slow.weight"], moved["model.slow.bias"]))
    same(got["results"], loss)
    for name, wanted in moved.items():
        same(got["written"][name], wanted)
    (gradient,) = torch.autograd.grad(loss, [model.fast.weight])
    if optimizer:
        same(got["written"]["model.fast.weight"], model.fast.weight - 1e-3 * gradient)
    else:
        same(got["gradients"]["fast.weight"], gradient)
