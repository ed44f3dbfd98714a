"""Capture a PyTorch model into the tensor IR: torch.export, decomposition to core ATen, lowering."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from codesign.frontend.arrays import to_numpy, to_torch
from codesign.frontend.complex import complex_outputs, real_form
from codesign.frontend.export import ExportFailure, Table, export_program, program_with_gradients, traced_program
from codesign.frontend.load import ModelSource
from codesign.frontend.lowering.products import allowed_by_torch
from codesign.frontend.symbols import SymbolTable
from codesign.frontend.training import Written, written_by
from codesign.frontend.translate import Lowering, Translation, as_output, translate
from codesign.frontend.trips import SMALL, count_trips
from codesign.ir.core import Module, Value, tensor_type
from codesign.ir.errors import CodesignError
from codesign.passes.collecting import collecting_rarely

Frontend = Literal["torch", "torch-mlir"]


@dataclass(frozen=True)
class Output:
    """One output of the model: result number `position` of `main`, or a constant (None, a number) when that is None.

    `is_complex`: the result is the real form of it, with a last dim of 2.
    """

    position: int | None
    constant: Any = None
    is_complex: bool = False


@dataclass(frozen=True)
class Mutation:
    """A buffer, parameter or input that the model writes: result `position` of `main` is its new value, complex ones in real form."""

    kind: Literal["buffer", "parameter", "input"]
    name: str
    position: int
    is_complex: bool = False


_MUTATIONS: dict[str, Literal["buffer", "parameter", "input"]] = {
    "BUFFER_MUTATION": "buffer",
    "PARAMETER_MUTATION": "parameter",
    "USER_INPUT_MUTATION": "input",
}


@dataclass
class Captured:
    """A captured model: `module` has one function `main` over the model's tensor inputs.

    `input_names`: of `main`'s arguments. `outputs`: the leaves of what the model returns, in the order of `output_spec`.
    `mutations`: extra results. `seconds`: time per stage (`export`, `decompose`, `lower`). `method`: how it was captured.
    """

    module: Module
    input_names: list[str]
    input_spec: Any
    output_spec: Any
    outputs: list[Output]
    mutations: list[Mutation] = field(default_factory=list)
    exported: ExportedProgram | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    method: str = ""
    complex_inputs: list[int] = field(default_factory=list)
    """The positions of arguments that are real forms of complex inputs."""
    _input_leaves: list[int] = field(default_factory=list)

    @property
    def complex_results(self) -> list[int]:
        """The positions of results that are real forms of complex outputs or of new values of complex tensors."""
        found: list[Output | Mutation] = [*self.outputs, *self.mutations]
        return [item.position for item in found if item.is_complex and item.position is not None]

    def flatten_inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> list[Any]:
        """The tensor inputs of a call in the order of `main`'s arguments, as the interpreter's NumPy arrays, complex ones in real form."""
        return [to_numpy(tensor) for tensor in self.flatten_tensors(args, kwargs)]

    def flatten_tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> list[torch.Tensor]:
        """The tensor inputs of a call in the order of `main`'s arguments."""
        leaves = pytree.tree_leaves((tuple(args), _ordered(dict(kwargs or {}), self.input_spec)))
        return [leaves[position] for position in self._input_leaves]

    def unflatten_outputs(self, arrays: Sequence[Any]) -> Any:
        """What the model returns, as torch tensors in its own structure, from the results of `main`."""
        results = self.module.main.results
        leaves = [
            out.constant
            if out.position is None
            else to_torch(arrays[out.position], tensor_type(results[out.position]).dtype, is_complex=out.is_complex)
            for out in self.outputs
        ]
        return pytree.tree_unflatten(leaves, self.output_spec)


def capture(
    model: ModelSource | torch.nn.Module,
    inputs: Sequence[Any] | torch.Tensor | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    strict: bool | None = None,
    name: str | None = None,
    frontend: Frontend = "torch",
) -> Captured:
    """The model as tensor IR.

    `inputs`, `kwargs`: of one call (those of the `ModelSource` by default). `strict`: how torch.export traces; by default
    without Python analysis first (`strict=False`), then with it, then by `torch.fx.symbolic_trace`, then by `make_fx`. `frontend`: what
    lowers the exported program, our rules or torch-mlir. Raises CodesignError with torch's reason when none works.
    """
    source = model if isinstance(model, ModelSource) else ModelSource(model, ())
    if inputs is not None:
        source = replace(source, inputs=_tuple(inputs), kwargs=dict(kwargs or {}), program=None)
    elif kwargs is not None:
        source = replace(source, kwargs=dict(kwargs), program=None)
    dynamic = source.dynamic_shapes if dynamic_shapes is None else dynamic_shapes
    table, lowering = (None, Translation.run) if frontend == "torch" else _torch_mlir()
    try:
        with warnings.catch_warnings(), collecting_rarely():
            warnings.simplefilter("ignore")
            make = program_with_gradients if source.trained is not None else partial(export_program, strict=strict)
            exported = make(source, dynamic, table=table)
    except ExportFailure as failure:
        exported = traced_program(source, dynamic, failure, table)
    started = time.perf_counter()
    written = written_by(source.model)
    captured = from_exported(exported.program, name or source.name, dynamic, lowering, written, exported.holder)
    captured.method = exported.method
    captured.warnings[:0] = exported.notes
    captured.seconds = {
        "export": exported.seconds[0],
        "decompose": exported.seconds[1],
        "lower": time.perf_counter() - started,
    }
    return captured


def _torch_mlir() -> tuple[Table, Lowering]:
    """torch-mlir's decompositions and its lowering; CodesignError where the package is not installed."""
    from codesign.frontend import mlir

    if not mlir.installed():
        raise CodesignError(
            "torch_mlir is not installed, and --frontend torch-mlir needs it", hint='pip install "codesign[torch-mlir]"'
        )
    return mlir.decompositions, mlir.by_torch_mlir


def from_exported(
    program: ExportedProgram,
    name: str = "model",
    dynamic_shapes: Any = None,
    lowering: Lowering = Translation.run,
    written: Mapping[str, Written] | None = None,
    holder: str = "",
) -> Captured:
    """An exported and decomposed program as tensor IR.

    `written`: of a step of training, tensors whose new values are the second of two results of the program, and what they are. `holder`: the
    attribute of what was exported that holds the model.
    """
    signature = program.graph_signature
    specs = {_name(spec.arg): spec for spec in signature.input_specs}
    table = _symbol_table(program, dynamic_shapes)
    user_leaf = {
        _name(spec.arg): position
        for position, spec in enumerate(s for s in signature.input_specs if s.kind is InputKind.USER_INPUT)
    }
    traced = {node.name: node.meta.get("val") for node in program.graph_module.graph.nodes if node.op == "placeholder"}
    names: list[str] = []
    leaves: list[int] = []
    complexes: list[int] = []

    def bind(translation: Translation, node: Node) -> Any:
        spec = specs[node.name]
        meta = node.meta.get("val")
        if spec.kind is InputKind.USER_INPUT:
            if isinstance(meta, torch.Tensor):
                if traced[node.name].is_complex():
                    complexes.append(len(names))
                names.append(node.name)
                leaves.append(user_leaf[node.name])
                return Value(translation.named_type(meta, f"input {node.name}", node), node.name)
            if isinstance(meta, torch.SymInt):
                return translation.symbols.to_index(meta)
            return getattr(spec.arg, "value", meta)
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            translation.named_type(meta, f"{spec.kind.name.lower().split('_')[0]} {spec.target}", node)
            stored = str(spec.target).removeprefix(f"{holder}." if holder else "")
            return translation.constant(stored, _stored(program, spec), meta)
        if spec.kind is InputKind.TOKEN:  # torch's order of checks, which compute nothing
            return None
        raise CodesignError(
            f"{node.name} is {spec.kind.name.lower().replace('_', ' ')}, which has no form in the IR",
            hint="pass tensors only",
        )

    graph = real_form(program.graph_module)
    module, results, notes = translate(
        graph, bind, name=name, symbols=table, products=allowed_by_torch(), lowering=lowering
    )
    outputs, mutations, yields = _outputs(signature, list(results), complex_outputs(program.graph_module))
    made = program.call_spec.out_spec
    if written is not None:
        first = len(outputs) - len(written)
        mutations += [
            Mutation(kind, name, _position(out), out.is_complex)
            for (name, kind), out in zip(written.items(), outputs[first:], strict=True)
        ]
        outputs, made = outputs[:first], made.child(0)
    module.main.body.yields = tuple(yields)
    module.main.updates = {
        mutation.position: names.index(mutation.name) if mutation.kind == "input" else mutation.name
        for mutation in mutations
    }
    notes += count_trips(module, _example_values(program, dict(zip(module.main.args, leaves, strict=True))))
    return Captured(
        module,
        names,
        program.call_spec.in_spec,
        made,
        outputs,
        mutations,
        program,
        _summarised(notes),
        complex_inputs=complexes,
        _input_leaves=leaves,
    )


def _example_values(program: ExportedProgram, arguments: Mapping[Value, int]) -> dict[Value, Any]:
    """Small example inputs that have values, by the argument that they are for."""
    examples = pytree.tree_leaves(program.example_inputs) if program.example_inputs is not None else []
    found = {value: examples[leaf] for value, leaf in arguments.items() if leaf < len(examples)}
    held = {value: x for value, x in found.items() if isinstance(x, torch.Tensor) and x.device.type != "meta"}
    return {value: to_numpy(x) for value, x in held.items() if x.numel() <= SMALL and not x.is_complex()}


def _outputs(
    signature: Any, results: list[Any], complexes: list[bool]
) -> tuple[list[Output], list[Mutation], list[Value]]:
    """User outputs first, then new values of what the model writes into; `complexes`: which of them all are complex."""
    outputs: list[Output] = []
    mutations: list[Mutation] = []
    yields: list[Value] = []
    for spec, value, is_complex in zip(signature.output_specs, results, complexes, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            if isinstance(value, Value):
                outputs.append(Output(len(yields), is_complex=is_complex))
                yields.append(value)
            elif value is None or isinstance(value, (bool, int, float, str)):
                outputs.append(Output(None, value))
            else:
                as_output(value, "an output of the model")
    for spec, value, is_complex in zip(signature.output_specs, results, complexes, strict=True):
        if spec.kind in (OutputKind.USER_OUTPUT, OutputKind.TOKEN):
            continue
        kind = _MUTATIONS.get(spec.kind.name)
        if kind is None:
            raise CodesignError(
                f"an output of kind {spec.kind.name} has no form in the IR", hint="capture for inference"
            )
        mutations.append(Mutation(kind, str(spec.target), len(yields), is_complex))
        yields.append(as_output(value, f"the new value of {spec.target}"))
    return outputs, mutations, yields


def _position(output: Output) -> int:
    """Of a result that is a tensor."""
    assert output.position is not None
    return output.position


def _stored(program: ExportedProgram, spec: Any) -> torch.Tensor:
    for table in (program.state_dict, program.constants):
        if spec.target in table:
            found = table[spec.target]
            assert isinstance(found, torch.Tensor)
            return found
    raise RuntimeError(f"torch.export lost the value of {spec.target}")


def _symbol_table(program: ExportedProgram, dynamic_shapes: Any) -> SymbolTable:
    """Symbols with ranges, named as the user's `Dim`s where those are plain, and with the sizes of the example inputs."""
    names: dict[str, str] = {}
    hints: dict[str, int] = {}
    examples = pytree.tree_leaves(program.example_inputs) if program.example_inputs is not None else []
    wanted = _dim_names(program, dynamic_shapes)
    position = 0
    for node in program.graph_module.graph.nodes:
        if node.op != "placeholder":
            break
        if node.name not in program.graph_signature.user_inputs:
            continue
        meta = node.meta.get("val")
        example = examples[position] if position < len(examples) else None
        sizes: Sequence[Any] = meta.shape if isinstance(meta, torch.Tensor) else ()
        for d, size in enumerate(sizes):
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                symbol = str(size.node.expr)
                if isinstance(example, torch.Tensor) and d < example.dim():
                    hints.setdefault(symbol, int(example.shape[d]))
                given = wanted.get((position, d))
                if given and given.isidentifier() and given not in names.values():
                    names.setdefault(symbol, given)
        position += 1
    table = SymbolTable(names)
    ranges = program.range_constraints
    used = _sizes_used(program) if ranges else set()
    table.declare_ranges({symbol: found for symbol, found in ranges.items() if str(symbol) in used}, hints)
    return table


def _sizes_used(program: ExportedProgram) -> set[str]:
    """The symbols of sizes that some value of the program has; torch leaves others behind, such as for conjugated inputs."""
    graphs = [module for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    metas = (node.meta.get("val") for graph in graphs for node in graph.graph.nodes)
    found: set[str] = set()
    for leaf in pytree.tree_leaves(list(metas)):
        sizes = (*leaf.shape, *leaf.stride(), leaf.storage_offset()) if _is_strided(leaf) else (leaf,)
        for size in sizes:
            if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)):
                found.update(str(symbol) for symbol in size.node.expr.free_symbols)
    return found


def _is_strided(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided


def _dim_names(program: ExportedProgram, dynamic_shapes: Any) -> dict[tuple[int, int], str]:
    """The user's name of each dynamic dim, by (input leaf, dim)."""
    found: dict[tuple[int, int], str] = {}
    if dynamic_shapes is None or program.example_inputs is None:
        return found
    args, kwargs = program.example_inputs
    if isinstance(dynamic_shapes, Mapping):
        by_name = dict(dynamic_shapes)
        named = [by_name.pop(key, None) for key in kwargs]
        positional = list(by_name.values())
    else:
        positional, named = list(dynamic_shapes[: len(args)]), list(dynamic_shapes[len(args) :])
    if len(positional) == 1 and isinstance(positional[0], (tuple, list)) and len(args) == len(positional[0]):
        if not isinstance(args[0], torch.Tensor) or not _is_plain(positional[0]):
            positional = list(positional[0])  # of `*args`: one entry for all of them
    leaves = 0

    def walk(value: Any, spec: Any) -> None:
        nonlocal leaves
        if isinstance(value, torch.Tensor) or not isinstance(value, (tuple, list, Mapping)):
            pairs = spec.items() if isinstance(spec, Mapping) else enumerate(spec or ())
            for d, dim in pairs:
                name = getattr(dim, "__name__", None)
                if name and not name.startswith("_"):
                    found[(leaves, int(d))] = name
            leaves += 1
            return
        children = value.values() if isinstance(value, Mapping) else value
        specs = spec.values() if isinstance(spec, Mapping) else spec or ()
        for child, inner in itertools.zip_longest(children, itertools.islice(specs, len(value))):
            walk(child, inner)

    for value, spec in itertools.zip_longest(args, positional[: len(args)]):
        walk(value, spec)
    for value, spec in itertools.zip_longest(kwargs.values(), named[: len(kwargs)]):
        walk(value, spec)
    return found


def _is_plain(spec: Any) -> bool:
    """True for the dims of one tensor, as opposed to one entry per tensor."""
    return not any(isinstance(entry, (Mapping, tuple, list)) for entry in spec)


def _name(argument: Any) -> str:
    return str(argument.name)


def _tuple(inputs: Any) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


def _ordered(kwargs: dict[str, Any], spec: Any) -> dict[str, Any]:
    """Keyword arguments in the order in which the model was captured."""
    context = spec.child(1).context if hasattr(spec, "child") else spec.children_specs[1].context
    if context is None or set(context) != set(kwargs):
        return kwargs
    return {key: kwargs[key] for key in context}


def _summarised(notes: list[str]) -> list[str]:
    """Each distinct warning once, with how often it came."""
    counts: dict[str, int] = {}
    for note in notes:
        counts[note] = counts.get(note, 0) + 1
    return [note if count == 1 else f"{note} ({count} times)" for note, count in counts.items()]
