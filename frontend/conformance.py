"""PyTorch's own operator samples through the tensor IR: traced, lowered, interpreted, compared with eager torch.

Every sample of `op_db` is traced as torch.export does it (functional, decomposed to core ATen), without the export itself, which
would take most of the time; operators that the rules take whole go through `torch.export`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from codesign.frontend.arrays import to_numpy, to_torch
from codesign.frontend.capture import capture
from codesign.frontend.complex import complex_outputs, real_form
from codesign.frontend.externals import externals
from codesign.frontend.load import FunctionModule
from codesign.frontend.translate import Translation, translate
from codesign.ir.core import Module, Value, tensor_type
from codesign.ir.errors import CodesignError, UnsupportedError
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Call, Random
from codesign.ir.verify import verify

DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.complex64,
)

STATUSES = ("passed", "random", "external", "unsupported", "untraceable", "failed", "crashed")
"""`external`: right, but through a call to torch. `random`: only shape and dtype agree, by nature. `untraceable`: torch itself
cannot trace it. `failed`: a wrong value."""

_TOLERANCE = {
    torch.float32: (3e-5, 2e-5),
    torch.float64: (1e-7, 1e-7),
    torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (3e-2, 3e-2),
    torch.complex64: (3e-5, 2e-5),
    torch.complex128: (1e-7, 1e-7),
}
"""Relative and absolute, about those of torch's own operator tests between two implementations."""


@dataclass
class Tally:
    """Results of one operator: how many samples ended how, and the first few reasons."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def claimed(self) -> bool:
        """True when some sample goes through the IR without an external call."""
        return self.counts["passed"] > 0 or self.counts["failed"] > 0

    def add(self, status: str, reason: str, label: str) -> None:
        self.counts[status] += 1
        if status != "passed":
            self.reasons.setdefault(status, f"{label}: {reason}" if reason else label)


@dataclass(frozen=True)
class Sample:
    """One call of an operator: a function of its tensors, and what eager torch gives for them."""

    function: Any
    tensors: tuple[torch.Tensor, ...]
    expected: Any
    whole: bool
    shape_only: bool
    ties: bool


def samples_of(info: Any, dtype: torch.dtype, limit: int | None) -> Iterator[Sample]:
    """The operator's samples with their eager results; those that eager itself rejects are left out."""
    whole, shape_only = info.name in _THROUGH_EXPORT, info.name in _UNINITIALISED
    for position, sample in enumerate(info.sample_inputs("cpu", dtype, requires_grad=False)):
        if limit is not None and position >= limit:
            return
        args = (sample.input, *sample.args)
        leaves, spec = pytree.tree_flatten((args, sample.kwargs))
        places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        tensors = tuple(leaves[k].detach() for k in places)

        def call(*given: torch.Tensor, leaves: Any = leaves, places: Any = places, spec: Any = spec) -> Any:
            filled = list(leaves)
            for k, tensor in zip(places, given, strict=True):
                filled[k] = tensor
            positional, named = pytree.tree_unflatten(filled, spec)
            return info.op(*positional, **named)

        try:
            with torch.no_grad():
                expected = call(*(_clone(t) for t in tensors))
        except Exception:
            continue
        yield Sample(call, tensors, expected, whole, shape_only, info.name in _ANY_OF_EQUALS)


_THROUGH_EXPORT = {
    "matmul",
    "__rmatmul__",
    "nn.functional.linear",
    "nn.functional.scaled_dot_product_attention",
    "nn.functional.batch_norm",
    "nn.functional.instance_norm",
}
_UNINITIALISED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
"""Operators whose values are whatever memory held: only their shape and dtype are compared."""

_ANY_OF_EQUALS = {"topk", "kthvalue", "sort", "argsort", "msort", "median", "nanmedian", "mode"}
"""Operators that may give any position among equal values: the values at the positions are compared instead."""


def _clone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.layout is torch.strided else tensor


Runner = Callable[[Module, Sequence[Any]], Sequence[Any]]
"""Makes a module's results of its inputs."""


def interpreted(module: Module, arrays: Sequence[Any]) -> Sequence[Any]:
    """By the interpreter of the tensor IR; external calls by torch."""
    return evaluate(module, arrays, externals=externals(module))


def run_sample(sample: Sample, run: Runner = interpreted) -> tuple[str, str]:
    """How one sample ends (one of `STATUSES`), and why."""
    if any(t.layout is not torch.strided or t.is_quantized for t in sample.tensors):
        return "unsupported", "sparse or quantised tensors"
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            module, arrays, unpack = _lowered(sample)
    except CodesignError as error:
        return "unsupported", error.message
    except Exception as error:
        if _ours(error):
            return "crashed", _first_line(error)
        return "untraceable", _first_line(error)
    external = any(isinstance(op, Call) for op in module.main.body.walk())
    try:
        verify(module)
        results = unpack(list(run(module, arrays)))
    except UnsupportedError as error:
        return "unsupported", error.message
    except Exception as error:
        return "crashed", _first_line(error)
    random = any(isinstance(op, Random) for op in module.main.body.walk())
    difference = compare(results, sample.expected, sample.shape_only or random)
    if difference and sample.ties and same_elements(sample.tensors[0], results, sample.expected):
        difference = ""
    if difference and not as_exact(sample, results):
        return "failed", difference
    if random:
        return "random", "its numbers are the compiler's own"
    return ("external", ", ".join(_targets(module))) if external else ("passed", "")


def _targets(module: Module) -> list[str]:
    return sorted({op.target for op in module.main.body.walk() if isinstance(op, Call)})


def _ours(error: BaseException) -> bool:
    """True when the error was raised below our own lowering rather than inside torch's tracing."""
    trace = error.__traceback__
    while trace is not None:
        if "lowering" in trace.tb_frame.f_code.co_filename or trace.tb_frame.f_code.co_name == "translate":
            return True
        trace = trace.tb_next
    return False


def _lowered(sample: Sample) -> tuple[Module, list[Any], Any]:
    if sample.whole:
        captured = capture(FunctionModule(sample.function), sample.tensors, strict=False)
        return captured.module, captured.flatten_inputs(sample.tensors), captured.unflatten_outputs
    graph, spec = trace(sample.function, sample.tensors)
    names = iter(range(len(sample.tensors)))

    def bind(translation: Translation, node: Any) -> Value:
        return Value(translation.type_of(node.meta["val"]), f"in{next(names)}")

    module, outputs, _ = translate(real_form(graph), bind)
    yields = [value for value in outputs if isinstance(value, Value)]
    for value in outputs:
        if not isinstance(value, Value) and not (value is None or isinstance(value, (bool, int, float))):
            raise UnsupportedError(f"an output is {type(value).__name__}, not a tensor")
    module.main.body.yields = tuple(yields)

    def unpack(arrays: list[Any]) -> Any:
        found = iter(zip(arrays, yields, strict=True))
        leaves = []
        for value, is_complex in zip(outputs, complex_outputs(graph), strict=True):
            if isinstance(value, Value):
                array, own = next(found)
                leaves.append(to_torch(array, tensor_type(own).dtype, is_complex=is_complex))
            else:
                leaves.append(value)
        return pytree.tree_unflatten(leaves, spec[0])

    return module, [to_numpy(t) for t in sample.tensors], unpack


def trace(function: Any, tensors: Sequence[torch.Tensor]) -> tuple[Any, list[Any]]:
    """A functional graph of core ATen calls, and (in a list) the structure of what the function returns.

    Decompositions may write in place, so that the decomposed graph is made functional in a second trace.
    """
    from torch._decomp import core_aten_decompositions

    table: Any = core_aten_decompositions()
    spec: list[Any] = []

    def flat(*given: torch.Tensor) -> Any:
        leaves, structure = pytree.tree_flatten(function(*given))
        spec[:] = [structure]
        return leaves

    first = make_fx(flat, table, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    functional = torch.func.functionalize(first, remove="mutations")
    second = make_fx(functional, table, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    for node in reversed(second.graph.nodes):
        if node.target is torch.ops.aten.copy_.default and node.args[0].op == "placeholder":
            node.replace_all_uses_with(
                node.args[1]
            )  # the new value of an argument: results are compared, not arguments
            second.graph.erase_node(node)
    second.graph.eliminate_dead_code()
    return second, spec


def compare(found: Any, expected: Any, shape_only: bool = False) -> str:
    """What differs between two results, or nothing."""
    ours, theirs = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    if len(ours) != len(theirs):
        return f"{len(ours)} results, eager gives {len(theirs)}"
    for position, (a, e) in enumerate(zip(ours, theirs, strict=True)):
        if not isinstance(e, torch.Tensor):
            value = a.item() if isinstance(a, torch.Tensor) and a.numel() == 1 else a
            if value != e and not (isinstance(e, float) and np.isclose(value, e, rtol=1e-5, equal_nan=True)):
                return f"result {position} is {a}, eager gives {e}"
            continue
        if not isinstance(a, torch.Tensor) or a.shape != e.shape or a.dtype != e.dtype:
            kind = f"{a.dtype}{list(a.shape)}" if isinstance(a, torch.Tensor) else type(a).__name__
            return f"result {position} is {kind}, eager gives {e.dtype}{list(e.shape)}"
        if shape_only:
            continue
        relative, absolute = _TOLERANCE.get(e.dtype, (0.0, 0.0))
        close = torch.isclose(a, e.cpu(), rtol=relative, atol=absolute, equal_nan=True)
        if not bool(close.all()):
            where = tuple(int(k) for k in (~close).nonzero()[0]) if close.dim() else ()
            share = 1 - close.double().mean().item()
            return (
                f"result {position} at {list(where)}: {a[where].item()} against {e[where].item()} ({share:.1%} differ)"
            )
    return ""


def as_exact(sample: Sample, found: Any) -> bool:
    """True when every float result is as close to a float64 run as eager is, or within its dtype's tolerance of that run.

    Eager rounds some compositions of float16 and bfloat16 after every step where the IR keeps float32.
    """
    wide = [t.double() if t.is_floating_point() else t for t in sample.tensors]
    try:
        with torch.no_grad():
            exact = sample.function(*wide)
    except Exception:
        return False
    leaves = (pytree.tree_leaves(value) for value in (found, sample.expected, exact))
    for ours, eager, reference in zip(*leaves, strict=True):
        if not isinstance(eager, torch.Tensor) or not eager.is_floating_point() or eager.dtype is torch.float64:
            if compare(ours, eager):
                return False
            continue
        if ours.shape != eager.shape or ours.dtype != eager.dtype or reference.dtype is not torch.float64:
            return False
        relative, absolute = _TOLERANCE[eager.dtype]
        close = torch.isclose(ours.double(), reference, rtol=relative, atol=absolute, equal_nan=True)
        error, eager_error = (ours.double() - reference).abs(), (eager.double() - reference).abs()
        if not bool((close | (error <= eager_error)).all()):
            return False
    return True


def same_elements(source: torch.Tensor, found: Any, expected: Any) -> bool:
    """True when all values agree, and positions differ only among equal elements of the source (along some dim)."""
    for a, e in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        if not compare(a, e):
            continue
        if e.dtype is not torch.int64 or a.shape != e.shape or not source.dim():
            return False
        for dim in range(source.dim()):
            try:
                places = (a, e) if a.dim() == source.dim() else (a.unsqueeze(dim), e.unsqueeze(dim))
                ours, theirs = (torch.gather(source, dim, place) for place in places)
            except (RuntimeError, IndexError):
                continue
            if not compare(ours, theirs):
                break
        else:
            return False
    return True


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__


def check_operator(
    info: Any, dtypes: Sequence[torch.dtype] = DTYPES, limit: int | None = None, run: Runner = interpreted
) -> Tally:
    """All samples of one `OpInfo` in every dtype that it has."""
    tally = Tally(info.name if not info.variant_test_name else f"{info.name}.{info.variant_test_name}")
    for dtype in dtypes:
        if dtype not in info.dtypes:
            continue
        torch.manual_seed(0)
        try:
            for sample in samples_of(info, dtype, limit):
                status, reason = run_sample(sample, run)
                tally.add(status, reason, str(dtype).removeprefix("torch."))
        except Exception as error:  # the sample generator itself fails for some operators without a GPU
            tally.reasons.setdefault("untraceable", f"{dtype}: no samples: {_first_line(error)}")
    return tally


def operators(names: Sequence[str] | None = None) -> list[Any]:
    """`op_db`'s operators, or those of the given names."""
    from torch.testing._internal.common_methods_invocations import op_db

    skipped = ("jiterator",)
    chosen = [info for info in op_db if not info.name.startswith(skipped)]
    return chosen if names is None else [info for info in chosen if info.name in names]


def heading(width: int) -> str:
    return f"{'operator':{width}}  " + "  ".join(f"{s:>11}" for s in STATUSES) + "  first reason"


def row(tally: Tally, width: int) -> str:
    """One operator's line of the table."""
    worst = ("crashed", "failed", "unsupported", "untraceable", "external", "random")
    reason = next((tally.reasons[s] for s in worst if s in tally.reasons), "")
    numbers = "  ".join(f"{tally.counts[s] or '':>11}" for s in STATUSES)
    return f"{tally.name:{width}}  {numbers}  {reason[:120]}".rstrip()


def totals(tallies: Sequence[Tally], width: int) -> str:
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally.counts)
    return f"{'total':{width}}  " + "  ".join(f"{total[s]:>11}" for s in STATUSES)


def table(tallies: Sequence[Tally]) -> str:
    """A table of results, one operator a line, totals last."""
    width = max((len(t.name) for t in tallies), default=8)
    return "\n".join([heading(width), *(row(t, width) for t in tallies), totals(tallies, width)])


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of samples and the log lines that torch writes for every operator that it cannot trace."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def is_core(info: Any) -> bool:
    """Whether an operator of `op_db` is one of core ATen."""
    packet: Any = getattr(torch.ops.aten, info.aten_name or info.name.rpartition(".")[2], None)
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return False
    overloads: Callable[[], Sequence[str]] = packet.overloads
    return any(torch.Tag.core in getattr(packet, name).tags for name in overloads())


def share_of_core(tallies: Sequence[Tally], chosen: Sequence[Any]) -> str:
    """How many samples of core ATen that torch can trace are right, and how many of those without a call."""
    total: Counter[str] = Counter()
    for tally, info in zip(tallies, chosen, strict=True):
        if is_core(info):
            total.update(tally.counts)
    tried = sum(total.values()) - total["untraceable"]
    whole, right = total["passed"] + total["random"], total["passed"] + total["random"] + total["external"]
    shares = [f"{100 * part / max(tried, 1):.1f} %" for part in (right, whole)]
    return f"core ATen: {tried} samples, {shares[0]} right, {shares[1]} without an external call"


def main(argv: Sequence[str] | None = None, run: Runner = interpreted) -> int:
    """`python -m codesign.frontend.conformance [operator ...]`: run the samples and print the table."""
    parser = argparse.ArgumentParser(prog="python -m codesign.frontend.conformance", description=main.__doc__)
    parser.add_argument("operators", nargs="*", help="names as in op_db (all of them by default)")
    parser.add_argument("--limit", type=int, help="samples per operator and dtype")
    parser.add_argument("--dtype", action="append", help="float32, uint8, complex64, ... (repeatable)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    dtypes = [getattr(torch, name) for name in options.dtype] if options.dtype else DTYPES
    started = time.perf_counter()
    chosen = operators(options.operators or None)
    absent = set(options.operators) - {info.name for info in chosen}
    if absent:
        parser.error(f"no operator of op_db is called {', '.join(sorted(absent))}")
    width = max((len(info.name) + len(info.variant_test_name) + 1 for info in chosen), default=8)
    tallies = []
    if not options.json:
        print(heading(width))
    for info in chosen:
        with quiet():
            tallies.append(check_operator(info, dtypes, options.limit, run))
        if not options.json:
            print(row(tallies[-1], width), flush=True)
    if options.json:
        print(json.dumps([{"name": t.name, "counts": dict(t.counts), "reasons": t.reasons} for t in tallies], indent=1))
    else:
        print(totals(tallies, width))
        print(share_of_core(tallies, chosen))
        print(f"{time.perf_counter() - started:.0f} s")
    return 1 if any(t.counts["failed"] or t.counts["crashed"] for t in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
