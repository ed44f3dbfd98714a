"""A step of training as one model: what it gives, the gradients of its weights and, with an optimiser, the weights after a step.

What the step computes is recorded by running it, so that loss, gradients and new weights are one graph: kernels may be made of parts of all
three. What the step writes (weights, what the optimiser keeps, running statistics) are results of the graph that take the place of the old
values. Each part is known by the path of its operators' module: `backward.PATH` for the gradients of what the module at PATH computes,
`optimizer.PATH` for its new weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.fx.traceback import annotate, reset_grad_fn_seq_nr, set_grad_fn_seq_nr
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import CheckpointFunction

from codesign.frontend.inputs import cloned
from codesign.frontend.load import Arguments, ModelSource, blame
from codesign.ir.errors import CodesignError
from codesign.ir.location import Location

Written = Literal["parameter", "buffer"]
"""What a tensor of a model is that a step writes."""

Updated = tuple[Tensor, tuple[Tensor, ...]]
"""A weight after a step, and what the optimiser keeps of it."""


@dataclass(frozen=True)
class Optimizer:
    """How a weight changes: `rule(weight, gradient, *kept)` gives it after the step and what is kept, `kept` tensors like the weight."""

    rule: Callable[..., Updated]
    kept: tuple[str, ...] = ()


PART = "part of a step"
"""The key of an annotation that says which part an operator is of: `backward`, or `optimizer.PATH`; nothing of what the model computes."""

PARTS = FORWARD, BACKWARD, OPTIMIZER = "forward", "backward", "optimizer"

REENTRANT = "torch.utils.checkpoint.checkpoint: with use_reentrant=False"

STEP = 10
"""Which step of training a graph stands for: what corrects the first steps of Adam's averages is a number in it."""


def _sgd(weight: Tensor, gradient: Tensor) -> Updated:
    return weight - 1e-3 * gradient, ()


def _momentum(weight: Tensor, gradient: Tensor, velocity: Tensor) -> Updated:
    velocity = 0.9 * velocity + gradient
    return weight - 1e-3 * velocity, (velocity,)


def _adam(decay: float) -> Callable[..., Updated]:
    """Kingma and Ba 2015, with the weights' own decay of Loshchilov and Hutter 2019; rates and decays as torch has them by default."""
    rate, first, second, least = 1e-3, 0.9, 0.999, 1e-8

    def rule(weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> Updated:
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient * gradient
        size = (square / (1 - second**STEP)).sqrt() + least
        return (1 - rate * decay) * weight - (rate / (1 - first**STEP)) * mean / size, (mean, square)

    return rule


OPTIMIZERS = {
    "sgd": Optimizer(_sgd),
    "momentum": Optimizer(_momentum, ("momentum_buffer",)),
    "adam": Optimizer(_adam(0.0), ("exp_avg", "exp_avg_sq")),
    "adamw": Optimizer(_adam(1e-2), ("exp_avg", "exp_avg_sq")),
}
"""By the names that torch.optim has for them and for what they keep."""


class TrainingStep(nn.Module):
    """A model, the gradients of its weights and of inputs that ask for them, and an optimiser's new weights.

    Gives a dict: `results` of the model, and `gradients` by name, with an optimiser those of inputs alone. Writes the buffers that the model writes
    in training mode, and with an optimiser the weights and what it keeps of each, `kept`: `writes` names them, in order. Gradients are those of the
    loss that the model gives (what is named `loss`, or the only scalar); where it gives none they are those of a model that goes on from its
    results, whose gradients are tensors in memory, `following`.
    """

    def __init__(self, source: ModelSource, optimizer: str = "") -> None:
        super().__init__()
        self.model = source.model
        self.optimizer = OPTIMIZERS[optimizer] if optimizer else None
        self.statistics = {
            f"{path}.{name}".removeprefix(".")
            for path, part in self.model.named_modules()
            for name, _ in part.named_buffers(recurse=False)
            if getattr(part, "track_running_stats", False)
        }
        """Buffers that operators of torch write without counting it."""
        leaves = pytree.tree_leaves((source.inputs, source.kwargs))
        self.asking = [place for place, leaf in enumerate(leaves) if _asks(leaf)]
        with blame(source.path) if source.path is not None else nullcontext():
            _sized(self.model, source)
            copied = copy.deepcopy(self.model)
            before = {name: weight._version for name, weight in copied.named_parameters()}
            self.moved: set[str] = set()
            """Weights without gradients that forward writes: a slow copy of others is one."""
            results, own, others = self._leaves(copied, source)
            self.moved = {
                name
                for name, weight in copied.named_parameters()
                if weight._version != before[name] and not weight.requires_grad
            }
            if others:  # those that forward makes are others in the next call
                others &= self._leaves(copied, source)[2]
        asked = _asking(results)
        _check_reach(asked, others, source)
        if not own:
            raise CodesignError(
                "--backward: nothing that the model gives hangs on a weight or an input that asks for a gradient",
                place=str(source.path) if source.path else None,
                hint="return the loss or the results, not detached; weights are parameters of the module, with requires_grad on "
                f"({REENTRANT})",
            )
        after = [] if _loss(results) is not None else [_like(leaf) for leaf in asked]
        self.remark = ""
        if after:
            self.remark = "the model gives no loss: its gradients are those of one that goes on from its results"
        elif len(asked) > 1:
            self.remark = "gradients are those of the loss: other results of the model have none of their own"
        self.following = nn.ParameterList(after)
        kinds = self.optimizer.kept if self.optimizer is not None else ()
        kept = {_key(kind, name): _like(weight) for kind in kinds for name, weight in self._weights().items()}
        self.kept = nn.ParameterDict(kept)
        self.writes: tuple[str, ...] = ()
        """Names of the tensors that the last call has written, or has given new values of."""

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        step, written = self.changes(*args, **kwargs)
        with torch.no_grad():
            places = {name: self._tensor(name) for name in written}
            memory = {place.untyped_storage()._cdata for place in places.values()}
            given: dict[str, Any] = pytree.tree_map(lambda leaf: _kept(leaf, memory), step)
            for name, value in written.items():
                places[name].copy_(value)
        return given

    def changes(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a step gives, and the new values of what it writes, by name; nothing is written."""
        results, buffers, inputs = self._call(self.model, (args, kwargs))
        loss = _loss(results)
        of = [loss] if loss is not None else _asking(results)
        weights = self._weights()
        asked = {**weights, **inputs}
        with _followed(of), annotate({PART: BACKWARD}):
            found = torch.autograd.grad(of, list(asked.values()), list(self.following) or None, allow_unused=True)
        gradients = {name: gradient for name, gradient in zip(asked, found, strict=True) if gradient is not None}
        written = {
            f"model.{name}": buffer for name, buffer in buffers.items() if buffer._version or name in self.statistics
        }
        if self.optimizer is not None:
            with torch.no_grad():
                new, gradients = self._updated(self.optimizer, weights, gradients)
            written.update(new)
        self.writes = tuple(written)
        return {"results": _detached(results), **({"gradients": gradients} if gradients else {})}, written

    def _leaves(self, model: nn.Module, source: ModelSource) -> tuple[Any, set[Tensor], set[Tensor]]:
        """What a call on the example gives, and on what that hangs: parameters of the model and inputs, and other tensors."""
        results, _, inputs = self._call(model, cloned((source.inputs, source.kwargs)))
        held = {*model.parameters(), *inputs.values()}
        found = (getattr(node, "variable", None) for node in _graph_of(_asking(results)))
        leaves = {leaf for leaf in found if isinstance(leaf, Tensor)}
        return results, leaves & held, leaves - held

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def _call(self, model: nn.Module, arguments: Arguments) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """What a call gives; what it may write, as copies: weights without gradients that it moves, in training mode buffers; the inputs that ask
        for gradients, by name."""
        leaves, structure = pytree.tree_flatten(arguments)
        inputs = {f"input {place}": leaves[place].detach().requires_grad_() for place in self.asking}
        for place, leaf in zip(self.asking, inputs.values(), strict=True):
            leaves[place] = leaf
        args, kwargs = pytree.tree_unflatten(leaves, structure)
        training = any(module.training for module in model.modules())
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()} if training else {}
        buffers.update({name: model.get_parameter(name).detach().clone() for name in self.moved})
        with torch.enable_grad():
            return torch.func.functional_call(model, buffers, args, kwargs), buffers, inputs

    def _updated(
        self, optimizer: Optimizer, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """New weights and what is kept of them, by name, and the gradients of inputs."""
        changed, kept, others = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()
        for name, gradient in gradients.items():
            if name not in weights:
                others[name] = gradient
                continue
            keys = [_key(kind, name) for kind in optimizer.kept]
            owner = name.rpartition(".")[0]
            with annotate({PART: f"{OPTIMIZER}.{owner}".rstrip(".")}):
                new, after = _by_rule(optimizer, weights[name], gradient, *(self.kept[key] for key in keys))
            changed[f"model.{name}"] = new
            kept.update(zip((f"kept.{key}" for key in keys), after, strict=True))
        return {**changed, **kept}, others

    def _tensor(self, name: str) -> Tensor:
        path, _, key = name.rpartition(".")
        found = getattr(self.get_submodule(path), key)
        assert isinstance(found, Tensor)
        return found


def written_by(model: nn.Module) -> dict[str, Written] | None:
    """What a step of training that has been recorded writes, in the order of `TrainingStep.changes`; None for other models."""
    if not isinstance(model, TrainingStep):
        return None
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {name: "parameter" if name in parameters else "buffer" for name in model.writes}


def _kept(leaf: Any, memory: set[int]) -> Any:
    """A result that does not lie in memory which is written afterwards."""
    inside = isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.untyped_storage()._cdata in memory
    return leaf.clone() if inside else leaf


def _by_rule(optimizer: Optimizer, *tensors: Tensor) -> Updated:
    """What the rule gives of a weight, its gradient and what is kept; of complex ones both planes are numbers of their own, as torch has them."""
    if not tensors[0].is_complex():
        return optimizer.rule(*tensors)
    weight, kept = optimizer.rule(*(torch.view_as_real(tensor.resolve_conj()) for tensor in tensors))
    return torch.view_as_complex(weight), tuple(torch.view_as_complex(tensor) for tensor in kept)


def _key(kind: str, weight: str) -> str:
    """The name of what is kept of a weight."""
    return f"{kind}__{weight}".replace(".", "__")


def _like(tensor: Tensor) -> nn.Parameter:
    """A tensor of the same kind with positive values that differ, small as those of gradients and their squares are."""
    shape = (*tensor.shape, 2) if tensor.is_complex() else tensor.shape
    values = torch.rand(shape, dtype=torch.float32, device=tensor.device, generator=_generator(tensor)) * 1e-2
    if tensor.is_complex():
        values = torch.view_as_complex(values)
    return nn.Parameter(values.to(tensor.dtype), requires_grad=False)


def _generator(tensor: Tensor) -> torch.Generator | None:
    return None if tensor.is_meta else torch.Generator(tensor.device).manual_seed(tensor.numel())


def _asks(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


def _asking(results: Any) -> list[Tensor]:
    """Results that hang on what gradients are taken of, each once."""
    return list({id(leaf): leaf for leaf in pytree.tree_leaves(results) if _asks(leaf)}.values())


def _detached(results: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, results)


def _loss(results: Any) -> Tensor | None:
    """The one that is named `loss`, or the only scalar among what hangs on weights."""
    named = results.get("loss") if isinstance(results, Mapping) else getattr(results, "loss", None)
    asking = [named] if isinstance(named, Tensor) and named.requires_grad else _asking(results)
    scalars = [result for result in asking if result.numel() == 1]
    return scalars[0] if len(scalars) == 1 else None


def _sized(model: nn.Module, source: ModelSource) -> None:
    """Lazy layers of a model take their sizes from a first call, which writes nothing else."""
    if not any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        return
    modes = {module: module.training for module in model.modules()}
    args, kwargs = cloned((source.inputs, source.kwargs))
    with torch.no_grad():
        model.eval()(*args, **kwargs)
    for module in model.modules():
        module.training = modes.get(module, model.training)


def _graph_of(results: list[Tensor]) -> list[Any]:
    """The operators of autograd that results hang on."""
    found: dict[Any, None] = {}
    ahead = [result.grad_fn for result in results]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in found:
            found[node] = None
            ahead.extend(following for following, _ in node.next_functions)
    return list(found)


def _check_reach(results: list[Tensor], others: Iterable[Tensor], source: ModelSource) -> None:
    """CodesignError where gradients would be left out: of weights that the module does not hold, and of those that results hang on unseen."""
    if any(isinstance(node, CheckpointFunction._backward_cls) for node in _graph_of(results)):
        raise CodesignError(
            "--backward: a checkpoint with use_reentrant=True takes its gradients out of sight",
            place=str(source.path) if source.path else None,
            hint=REENTRANT,
        )
    for weight in others:
        sizes = " x ".join(map(str, weight.shape)) or "one number"
        raise CodesignError(
            f"--backward: what the model gives hangs on a weight ({sizes}) that is no parameter of it",
            place=str(source.path) if source.path else None,
            hint="make it an nn.Parameter of the module (lists of them: nn.ParameterList), or a module with weights its attribute; "
            "detach() it if it isn't trained",
        )


@contextmanager
def _followed(results: list[Tensor]) -> Iterator[None]:
    """While it lasts, what is recorded of a gradient's operators says by number of which operator they are the gradient."""
    hooks = []
    for node in _graph_of(results):
        number = node._sequence_nr()
        hooks.append(node.register_prehook(lambda _, number=number: set_grad_fn_seq_nr(number)))
        hooks.append(node.register_hook(lambda *_: reset_grad_fn_seq_nr()))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def place_parts(graph: Graph) -> None:
    """Give the operators of gradients and optimisers of a recorded step the places of what they are of."""
    places: dict[int, dict[str, Any]] = {}
    for node in graph.nodes:
        part = node.meta.get("custom", {}).get(PART)
        number = node.meta.get("seq_nr")
        if part is None:
            places.setdefault(number, dict(node.meta))
            _tell_apart(node)
            continue
        of = places.get(number, {}) if part == BACKWARD else {}
        if "stack_trace" in of:
            node.meta["stack_trace"] = node.stack_trace = of["stack_trace"]
        stack = list(of.get("nn_module_stack", {}).values())
        path = stack[-1][0] if stack else ""
        node.meta["nn_module_stack"] = {part: (f"{part}.{path}".rstrip("."), nn.Module)}


def _tell_apart(node: Node) -> None:
    """`forward.PATH` for an operator of the model whose module at PATH is named as a part of a step is."""
    stack = node.meta.get("nn_module_stack", {})
    path = list(stack.values())[-1][0] if stack else ""
    if path.partition(".")[0] in PARTS:
        node.meta["nn_module_stack"] = {FORWARD: (f"{FORWARD}.{path}", nn.Module)}


def part_of(place: Location) -> str:
    """Which part of a step, of `PARTS`, an operator at a place is of."""
    first = place.module.partition(".")[0]
    return first if first in (BACKWARD, OPTIMIZER) else FORWARD


def trained(source: ModelSource, optimizer: str = "") -> ModelSource:
    """A step of training of a model, with the same inputs; CodesignError where there is nothing to train."""
    if source.program is not None:
        raise CodesignError(
            "--backward: an exported program has no gradients",
            place=str(source.path),
            hint="give the Python file of the model",
        )
    step = TrainingStep(source, optimizer)
    step.train(source.model.training)
    return replace(source, model=step, trained=source.model)
