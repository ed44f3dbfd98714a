"""From a module and its inputs to an exported program: torch.export in its two modes, torch.fx and make_fx as the last resorts."""

from __future__ import annotations

import io
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from codesign.frontend.aliases import aliases_bound, also_held, nothing_written
from codesign.frontend.conversions import conversions_in, conversions_traced, digits_rounded
from codesign.frontend.decompose import decomposed
from codesign.frontend.flex_nodes import name_literals_of_functions
from codesign.frontend.load import ModelSource
from codesign.frontend.positions import positions_read
from codesign.frontend.quantization import decompositions_of_quantisation
from codesign.frontend.settings import settings_kept
from codesign.frontend.structures import make_known, outputs_made_known, remark
from codesign.frontend.transforms import HOLDER, asks_for_gradients, by_operators_run
from codesign.ir.errors import CodesignError, unended


class ExportFailure(Exception):
    """torch.export could not capture the model; `reasons` has (mode, exception) of every attempt."""

    def __init__(self, reasons: list[tuple[str, BaseException]]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(f"{mode}: {shortened(error)}" for mode, error in reasons))


Table = Callable[[], Any]
"""Makes a table of decompositions."""

KEPT_WHOLE = (
    "linear",
    "linspace",
    "logspace",
    "matmul",
    "multilabel_margin_loss_forward",
    "one_hot",
    "scaled_dot_product_attention",
    "select_scatter",
    "upsample_linear1d",
    "upsample_trilinear3d",
    "_scaled_dot_product_flash_attention_for_cpu",
)
"""Operators with lowering rules of their own: torch's decompositions flatten and copy around matrix products, that of
linspace and logspace are wrong by one for some integers, that of select_scatter passes over the whole tensor, that of multilabel_margin_loss
adds up what follows the end of a list, that of one_hot takes classes that there are not, those of resizing go by a factor where torch's kernels
go by equal sizes, and that of the last one gives the weights where the operator gives their logsumexp."""


def decompositions() -> Any:
    """torch's table to core ATen, without the operators that our rules take whole, and with quantisation in plain operators."""
    table = torch.export.default_decompositions()
    for name in KEPT_WHOLE:
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            table.pop(getattr(packet, overload), None)  # type: ignore[no-untyped-call]
    for operator, rule in decompositions_of_quantisation().items():
        table[operator] = rule
    return table


@contextmanager
def whole_stacks() -> Iterator[None]:
    """While it lasts, torch.export records every frame of a node's call stack, not only those of functions named `forward`.

    So that an operator is placed at the statement that wrote it, in whichever helper function that is. The switch is torch's own
    but has no public handle; where a version of torch lacks it, places stay at the line in `forward`.
    """
    from torch.fx.experimental import proxy_tensor

    tracer: Any = getattr(proxy_tensor, "_ModuleStackTracer", None)
    switch = "_record_forward_stack_traces_only"
    if tracer is None or switch in vars(tracer):
        yield
        return
    setattr(tracer, switch, property(lambda _: False, lambda _self, _value: None))
    try:
        yield
    finally:
        delattr(tracer, switch)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing the half-traced graph of a failed attempt: what matters of it is in the exception."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(previous)


@dataclass(frozen=True)
class Exported:
    """A program in core ATen; `seconds`: of tracing and of the decomposition; `notes`: what the user should know of it; `holder`: the attribute
    of what was exported that holds the model, if it isn't the model itself."""

    program: ExportedProgram
    method: str
    seconds: tuple[float, float]
    notes: tuple[str, ...] = ()
    holder: str = ""


def export_program(
    source: ModelSource, dynamic_shapes: Any, strict: bool | None, table: Table | None = None
) -> Exported:
    """The program in core ATen by the first mode of torch.export that can be traced and decomposed; ExportFailure when none can.

    `table`: makes the decompositions (ours by default)."""
    table = table or decompositions
    if source.program is not None:
        return _decomposed(source.program, table)
    modes = [False, True] if strict is None else [strict]
    reasons: list[tuple[str, BaseException]] = []
    known = make_known((source.inputs, source.kwargs))
    for mode in modes:
        label = f"torch.export (strict={mode})"
        started, notes = time.perf_counter(), list[str]()
        try:
            with torch.no_grad(), settings_kept(), digits_rounded(), whole_stacks(), _quiet():
                if mode:  # which traces no hooks
                    program = torch.export.export(
                        source.model, source.inputs, source.kwargs or None, dynamic_shapes=dynamic_shapes, strict=True
                    )
                else:
                    program = _traced_in_python(source, dynamic_shapes, known, notes)
                traced = time.perf_counter()
                _no_wrapped_constants(program)
                name_literals_of_functions(program.graph_module)
                program = decomposed(program, table())
        except Exception as error:
            reasons.append((label, error))
            continue
        seconds = (traced - started, time.perf_counter() - traced)
        return Exported(program, label, seconds, (*notes, remark(known)) if known else tuple(notes))
    raise ExportFailure(reasons)


def _traced_in_python(source: ModelSource, dynamic_shapes: Any, known: Any, notes: list[str]) -> ExportedProgram:
    """The model traced by running it; again, with numbers of tensors kept open, where Python's `int` or `float` of one stopped that."""
    converting: set[CodeType] = set()
    while True:
        found: list[str] = []
        try:
            with ExitStack() as hooks:
                hooks.enter_context(outputs_made_known(source.model, known))
                hooks.enter_context(aliases_bound(source.model))
                hooks.enter_context(positions_read(source.model, found))
                hooks.enter_context(conversions_traced(converting))
                program = torch.export.export(
                    source.model, source.inputs, source.kwargs or None, dynamic_shapes=dynamic_shapes, strict=False
                )
            notes.extend(found)
            return program
        except Exception as error:
            more = conversions_in(error) - converting
            if not more:
                raise
            converting |= more


def _no_wrapped_constants(program: ExportedProgram) -> None:
    """RuntimeError where torch.export took what `torch.func` transforms for a constant: an input among them would be one, and to run such a
    graph, as torch does to decompose it, reads memory that is gone."""
    for name, value in program.constants.items():
        if isinstance(value, torch.Tensor) and is_functorch_wrapped_tensor(value):
            raise RuntimeError(f"torch.export takes {name}, which torch.func transforms, for a constant")


def _decomposed(program: ExportedProgram, table: Table) -> Exported:
    """A program that was exported before, in core ATen; CodesignError with torch's reason when it can't be decomposed."""
    started = time.perf_counter()
    try:
        with torch.no_grad(), settings_kept(), _quiet():
            name_literals_of_functions(program.graph_module)
            program = decomposed(program, table())
    except Exception as error:
        raise CodesignError(
            f"torch can't decompose the exported program: {shortened(error)}",
            place=place_of(error),
            hint="export the model again in this version of torch",
        ) from error
    return Exported(program, "an exported program", (0.0, time.perf_counter() - started))


def traced_program(
    source: ModelSource, dynamic_shapes: Any, failure: ExportFailure, table: Table | None = None
) -> Exported:
    """The model through `torch.fx.symbolic_trace` or by the operators that it runs, and a note that says why it came to that.

    The traced module has no Python control flow left, so that what stood in the way of torch.export may be gone.
    CodesignError with the reason of torch.export when these fail too.
    """
    mode, reason = failure.reasons[0]
    by_operators = partial(by_operators_run, gradients=asks_for_gradients(reason))
    for method, trace in (("torch.fx.symbolic_trace", _by_symbols), ("make_fx", by_operators)):
        try:
            exported = _traced(source, dynamic_shapes, method, trace, table)
        except Exception:  # the reason of torch.export tells more
            continue
        return replace(exported, notes=(f"captured by {method}, because {mode} failed: {shortened(reason)}",))
    raise _not_captured(source, reason, dynamic_shapes) from reason


def program_with_gradients(source: ModelSource, dynamic_shapes: Any, table: Table | None = None) -> Exported:
    """A model that takes gradients while it runs, by the operators that it runs; CodesignError with torch's reason when that fails."""
    try:
        return _traced(source, dynamic_shapes, "make_fx", partial(by_operators_run, gradients=True), table)
    except CodesignError:
        raise
    except Exception as error:
        raise _not_captured(source, error, dynamic_shapes) from error


def _traced(source: ModelSource, dynamic_shapes: Any, method: str, trace: Any, table: Table | None) -> Exported:
    """What a method of tracing makes of the model, in core ATen."""
    started = time.perf_counter()
    with warnings.catch_warnings(), torch.no_grad(), settings_kept(), digits_rounded(), whole_stacks(), _quiet():
        warnings.simplefilter("ignore")
        with nothing_written(source.model):
            program, read_only = trace(source, dynamic_shapes)
        exported = time.perf_counter()
        name_literals_of_functions(program.graph_module)
        program = decomposed(program, (table or decompositions)())
        _check_unwritten(program, read_only)
    holder = HOLDER if trace is not _by_symbols else ""
    return Exported(program, method, (exported - started, time.perf_counter() - exported), holder=holder)


def _not_captured(source: ModelSource, reason: BaseException, dynamic_shapes: Any) -> CodesignError:
    hint = advice(reason, dynamic_shapes is not None, shared=_share_memory(source))
    averaging = next((path for path, module in source.model.named_modules() if _averages_all(module)), None)
    return CodesignError(
        f"torch.export can't capture the model: {shortened(reason)}",
        place=place_of(reason),
        hint=hint if averaging is None else _AVERAGE.format(averaging),
    )


_AVERAGE = (
    "{} has momentum=None: its running statistics hang on a count that is read from a tensor; give it a number, such as momentum=0.1, "
    "or call eval()"
)


def _averages_all(module: torch.nn.Module) -> bool:
    """Whether a normalisation in training mode takes the mean of all batches for its running statistics."""
    norm = isinstance(module, torch.nn.modules.batchnorm._NormBase)
    return norm and bool(module.training and module.track_running_stats) and module.momentum is None


class _Tracer(torch.fx.Tracer):
    """Records what a model does to its buffers, where torch's own tracer does it to the model's and forgets it."""

    proxy_buffer_attributes = True


def _by_symbols(source: ModelSource, dynamic_shapes: Any) -> tuple[ExportedProgram, set[str]]:
    """The module that `torch.fx` traces, exported; of tensors that it has as plain attributes it has computed views and the like already, so that
    what it reads of one that it writes is from before the write."""
    tracer = _Tracer()
    graph = tracer.trace(source.model)
    traced = torch.fx.GraphModule(tracer.root, graph)
    program = torch.export.export(
        traced, source.inputs, source.kwargs or None, dynamic_shapes=dynamic_shapes, strict=False
    )
    registered = {name for name, _ in (*source.model.named_parameters(), *source.model.named_buffers())}
    held = {str(node.target) for node in traced.graph.nodes if node.op == "get_attr"} - registered
    return program, held | also_held(source.model)


def _check_unwritten(program: ExportedProgram, names: set[str]) -> None:
    """RuntimeError where a program writes one of these tensors of the model."""
    kinds = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
    if any(spec.kind in kinds and spec.target in names for spec in program.graph_signature.output_specs):
        raise RuntimeError("it writes a tensor that its trace only reads")


def shortened(error: BaseException) -> str:
    """The first telling line of torch's reason, at most 200 characters; of sizes that aren't dynamic, the sentence on the first."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    if lines and lines[0].startswith("Constraints violated"):
        lines = [line[2:].split(". ")[0] for line in lines if line.startswith("- ")] + lines
    for text in lines:
        if text:
            text = unended(text) if len(text) <= 200 else text[:197] + "..."
            return f"{type(error).__name__}: {text}"
    return type(error).__name__


def place_of(error: BaseException) -> str | None:
    """The last line of the user's own code on the way to the error, as torch's text or the traceback gives it."""
    import traceback

    from codesign.frontend.locations import is_internal

    found = re.findall(r'File "([^"]+)", line (\d+), in', str(error))
    frames = [(file, int(line)) for file, line in found]
    frames += [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    here = __file__.rsplit("/", 1)[0]
    own = [(file, line) for file, line in frames if not is_internal(file) and not file.startswith(here)]
    return f"{own[-1][0]}:{own[-1][1]}" if own else None


def _share_memory(source: ModelSource) -> bool:
    """Whether two of the example inputs lie in the same memory."""
    leaves = pytree.tree_leaves((source.inputs, dict(source.kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided]
    return len({tensor.untyped_storage()._cdata for tensor in tensors}) < len(tensors)


_PLAIN = (
    (
        r"specialized integer from data-dependent",
        "Python's int() of a tensor can't be followed: use the tensor itself, or its .item(), as the number",
    ),
    (
        r"guard on data-dependent expression [^<>=]*tofloat[^<>=]* \(unhinted",
        "a function of Python's math takes known numbers only: torch.exp(x) of the tensor for math.exp(x.item()), and so on",
    ),
    (
        r"built-in function xor",
        "Python's ^ of a number in a tensor can't be recorded: torch.bitwise_xor of the tensor, before .item()",
    ),
    (r"bad operand type for unary ~", "write -n - 1 for ~n of a number in a tensor"),
    (r"unsupported operand type\(s\) for divmod", "write n // d and n % d for divmod of a number in a tensor"),
    (
        r"uninitialized parameter",
        "the model's lazy layers take their sizes from a first input: call the model once where the file makes it",
    ),
    (
        r"syntaxerror.*proxy_tensor\.py",
        "an operator has a word of Python's for a name, as random_(low, high) does, which torch can't trace: write random_(high - low).add_(low)",
    ),
    (r"use_reentrant=true", "pass use_reentrant=False to torch.utils.checkpoint.checkpoint"),
    (
        r"tracing the model writes its tensors",
        "forward writes a weight (an Embedding with max_norm does: scale what is read of it), or a tensor that is no buffer (register_buffer)",
    ),
    (
        r"use forward ad with",
        "torch has no forward derivative of this operator: write it in operators that have one (attention: inside sdpa_kernel(SDPBackend.MATH))",
    ),
    (
        r"is mutated in the forward method",
        "the model writes a tensor that it has not registered: make it a buffer with register_buffer",
    ),
)
"""What to try, by a pattern of torch's reason in lower case that says enough by itself."""


def advice(error: BaseException, dynamic: bool = True, shared: bool = False) -> str:
    """What to try, by the kind of reason; `dynamic`: the user gave dynamic_shapes; `shared`: two example inputs lie in the same memory."""
    text = f"{type(error).__name__} {error}".lower()
    plain = next((what for said, what in _PLAIN if re.search(said, text)), None)
    if plain is not None:
        return plain
    if "data-dependent" in text or "datadependent" in text or "guardondatadependent" in text:
        return "a branch or size depends on tensor values: use torch.where, torch.cond or torch._check"
    if asks_for_gradients(error):
        if dynamic:
            return "gradients that forward takes are captured for the sizes of the example only: leave dynamic_shapes and --dynamic out"
        return "a gradient is taken of what doesn't ask for one: call requires_grad_() on it in forward, before its use"
    if shared and ("expected compiled_fn to be graphmodule" in text or "size_bytes_is_heap_allocated_" in text):
        return (
            "two example inputs lie in the same memory and the model writes it: give each input its own with .clone()"
        )
    if "expected compiled_fn to be graphmodule" in text:
        return "the model writes a tensor that it also holds as a view: register it once with register_buffer, and take views in forward"
    if "not a known type" in text or "unsupported input type" in text:
        return "give and return tensors, lists, tuples, dicts or dataclasses (a cache of transformers: use_cache=False)"
    fixed = re.search(r"marked (\w+) as dynamic but your code specialized it to be a constant \((\d+)\)", text)
    if dynamic and fixed:
        if fixed[2] in ("0", "1"):
            return f"torch.export takes sizes of 0 and 1 as fixed: give example inputs whose {fixed[1]} is 2 or more"
        return f"the model works at {fixed[1]} = {fixed[2]} only: leave that size fixed, in dynamic_shapes rather than --dynamic"
    if dynamic and ("constraint" in text or "dynamic" in text or ("dim" in text and "specialized" in text)):
        return "the dynamic_shapes don't fit the model: fix that dimension or give its range with torch.export.Dim"
    if "unsupported" in text or "graph break" in text or "dynamo" in text:
        return "remove the Python that torch can't follow (I/O, printing, custom classes) from forward"
    if ("missing" in text and "argument" in text) or "positional argument" in text or "signature" in text:
        return "make the inputs in the file match the arguments of forward"
    return (
        "run the model once on its inputs in plain PyTorch, then torch.export.export(model, inputs) for the full story"
    )
