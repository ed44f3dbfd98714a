"""A runner: one Python file with the model's signature that allocates by the memory plan and launches the kernels in order.

What it writes needs torch and Triton and nothing of codesign: `runner.py`, `kernels/*.py`, and `weights.pt` with the constants that are small
enough to keep (the large ones come from the model's own state_dict).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.backends.triton import worker as protocol
from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import Array, to_numpy, to_torch, worker
from codesign.backends.triton.names import Namer, file_names, torch_type
from codesign.backends.triton.quoting import comment, docstring, dotted, packed
from codesign.backends.triton.runner_text import HEAD
from codesign.backends.triton.source import short
from codesign.backends.triton.torch_text import TorchText
from codesign.costmodel.cache import write_atomically
from codesign.ir.core import Block, Function, Module, Op, Value, tensor_type
from codesign.ir.data_sizes import made_sizes
from codesign.ir.errors import UnsupportedError
from codesign.ir.tensor import Call, Collective, Constant, Empty, If, Launch, Scan, Scatter, Sort, While
from codesign.ir.types import TensorType
from codesign.passes.memory import MemoryPlan, find_aliases, plan

KEPT_BYTES = 256 << 20
"""All constants are written beside the runner when they take no more than this together."""

SMALL_BYTES = 1 << 20
"""Otherwise those that take no more than this each."""


@dataclass(frozen=True)
class Runner:
    """A written runner: its file, and the constants that it expects from the caller because they are too large to keep."""

    path: Path
    missing: tuple[str, ...]
    peak_bytes: int

    def run_interpreted(self, module: Module, inputs: Sequence[Array]) -> list[Array]:
        """Run the file in Triton's interpreter, as it stands, on arrays as the IR's interpreter holds them."""
        function = module.main
        given = {op.constant: op.result for op in function.body.ops if isinstance(op, Constant)}
        weights = {
            name: protocol.packed_of(to_torch(np.asarray(module.constants[name]), tensor_type(given[name]).dtype))
            for name in self.missing
        }
        tensors = [to_torch(a, tensor_type(v).dtype) for a, v in zip(inputs, function.args, strict=True)]
        request = {
            "kind": "runner",
            "path": str(self.path),
            "weights": weights,
            "tensors": [protocol.packed_of(tensor) for tensor in tensors],
        }
        results = worker().ask(request, f"runner of {module.name}")
        return [
            to_numpy(_in_real_form(protocol.tensor_of(packed)), tensor_type(value).dtype)
            for packed, value in zip(results, function.results, strict=True)
        ]


def write_runner(
    module: Module,
    memory: MemoryPlan | None,
    directory: Path | str,
    *,
    target: str = "",
    input_names: Sequence[str] | None = None,
    sources: Path | None = None,
    complex_inputs: Collection[int] = (),
    complex_results: Collection[int] = (),
) -> Runner:
    """Write a runner for the main function of a tiled module into a directory.

    `memory`: the plan of the main function (made here when None; only modules without dynamic sizes have one arena). `target`: named in the
    comments. `input_names`: of the arguments. `sources`: the folder
    of the user's model, whose lines kernels show. `complex_inputs`, `complex_results`: positions of arguments and results that are real
    forms of complex ones, which the runner takes and gives. UnsupportedError names an operation that a runner can't do.
    """
    folder = Path(directory)
    (folder / "kernels").mkdir(parents=True, exist_ok=True)
    if module.symbols:
        memory = None
    elif memory is None:
        memory = plan(module.main, kernels=module.kernels)
    files = file_names(module.kernels)
    for name, kernel in module.kernels.items():
        source = emission(kernel, module.bounds(), sources).source
        write_atomically(folder / "kernels" / f"{files[name]}.py", source.encode())
    missing = _write_weights(module, folder)
    writer = _Writer(module, memory, target, input_names)
    writer.complex_inputs, writer.complex_results = frozenset(complex_inputs), frozenset(complex_results)
    source = writer.text()
    write_atomically(folder / "runner.py", source.encode())
    return Runner(folder / "runner.py", missing, memory.peak_bytes if memory else 0)


def _in_real_form(tensor: Any) -> Any:
    import torch

    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _write_weights(module: Module, folder: Path) -> tuple[str, ...]:
    import torch

    constants = {op.constant: op.result for op in module.main.body.walk() if isinstance(op, Constant)}
    sizes = {name: _bytes(value) for name, value in constants.items()}
    limit = KEPT_BYTES if sum(sizes.values()) <= KEPT_BYTES else SMALL_BYTES
    kept = {name for name, size in sizes.items() if size <= limit and module.constants.get(name) is not None}
    tensors = {
        name: to_torch(np.asarray(module.constants[name]), tensor_type(constants[name]).dtype) for name in sorted(kept)
    }
    if tensors:
        torch.save(tensors, folder / "weights.pt")
    return tuple(name for name in constants if name not in kept)


def _bytes(value: Value) -> float:
    kind = tensor_type(value)
    return kind.elements.constant * kind.dtype.bytes if kind.elements.is_constant else float("inf")


class _Writer:
    def __init__(
        self, module: Module, memory: MemoryPlan | None, target: str, input_names: Sequence[str] | None
    ) -> None:
        self.module = module
        self.memory = memory
        self.target = target
        self.names: dict[Value, str] = {}
        self.namer = Namer(frozenset({"self", "arena", "weights", "device", "sizes", "HERE", "ARENA_BYTES", "Runner"}))
        self.sizes = {name: self.namer.fresh(name) for name in module.symbols}
        self.made = made_sizes(module.main)
        self.kernels: dict[str, str] = {}
        self.files = file_names(module.kernels)
        self.attributes = Namer(frozenset({"device", "weights", "given", "arena", "WEIGHTS"}))
        self.weights: dict[str, str] = {}
        self.given = list(input_names or [value.name for value in module.main.args])
        self.torch_text = TorchText(self.names, self.sizes, "device")
        self.returned = set(module.main.results)
        self.passed: dict[Value, str] = {}
        """What the caller passed for the arguments that are written."""
        self.complex_inputs: frozenset[int] = frozenset()
        self.complex_results: frozenset[int] = frozenset()

    def text(self) -> str:
        main = self.module.main
        inputs = [self.namer.fresh(name) for name in self.given]
        self.names.update(zip(main.args, inputs, strict=True))
        body = self._inputs(main.args)
        body += self._block(main.body, in_arena=True)
        body += self._updates(main)
        passed = main.args if not main.updates else []
        named = [f"{self.names[v]}.clone()" if v in passed else self.names[v] for v in main.results]
        given = [f"torch.view_as_complex({n})" if k in self.complex_results else n for k, n in enumerate(named)]
        results = ", ".join(given)
        body.append(
            f"return ({results},)" if len(main.results) == 1 else f"return {results}" if results else "return ()"
        )
        arena = self.memory.peak_bytes if self.memory else 0
        lines = [self._doc(arena), HEAD.format(arena=arena)]
        if any(isinstance(op, Call) and op.target.startswith("prims.") for op in main.body.walk()):
            lines.append("import torch._prims  # registers torch.ops.prims")
        lines += ["", "class Runner:", f'    """{self._signature(inputs)}"""', ""]
        lines += ['    def __init__(self, weights=None, device="cuda"):']
        lines += [
            '        """`weights`: constants by name, as in `model.state_dict()`; those kept in weights.pt need not be given."""',
            '        stored = torch.load(HERE / "weights.pt") if (HERE / "weights.pt").is_file() else {}',
            "        given = {**stored, **dict(weights or {})}",
            "        missing = [name for name in self.WEIGHTS if name not in given]",
            "        if missing:",
            '            raise KeyError(f"pass model.state_dict() as weights: {missing[0]!r} and {len(missing) - 1} more are missing")',
            "        self.device = torch.device(device)",
            "        self.weights = {name: _real(given[name].detach()).to(self.device).contiguous() for name in self.WEIGHTS}",
        ]
        written = [target for target in main.updates.values() if isinstance(target, str)]
        if written:
            lines.append(
                f"        self.given = {{name: given[name] for name in {written!r} if name in given}}  # which calls write"
            )
        lines.append("        self.arena = torch.empty(ARENA_BYTES, dtype=torch.uint8, device=self.device)")
        for name, attribute in self.kernels.items():
            lines.append(f'        self.{attribute} = _kernel("{self.files[name]}")')
        weights = packed([repr(name) for name in self.weights], 104)
        listed = ["    WEIGHTS = ("] + [f"        {row}" for row in weights] + ["    )", ""]
        position = next(i for i, line in enumerate(lines) if line.startswith("    def __init__"))
        lines[position:position] = listed
        lines += ["", f"    def __call__(self, {', '.join(inputs)}):" if inputs else "    def __call__(self):"]
        lines += [f"        {line}" if line else "" for line in body]
        return "\n".join(lines) + "\n"

    def _doc(self, arena: int) -> str:
        launches = sum(isinstance(op, Launch) for op in self.module.main.body.walk())
        target = f" for {self.target}" if self.target else ""
        memory = f"over one arena of {arena:,} bytes" if self.memory else "with memory of their own (sizes are dynamic)"
        head = docstring(f"{self.module.name}, compiled by codesign{target}: {launches} kernel launches {memory}.")
        return (
            f'"""{head}\n\n'
            "    from runner import Runner\n"
            "    run = Runner(model.state_dict())      # a tuple of results: run(*inputs)\n\n"
            'Without a GPU: TRITON_INTERPRET=1 and Runner(..., device="cpu") run the kernels in Triton\'s interpreter (which '
            "cuts bfloat16\nwhere hardware rounds).\n"
            '"""'
        )

    def _signature(self, inputs: Sequence[str]) -> str:
        main = self.module.main
        types = [f"complex as {v.type}" if k in self.complex_inputs else str(v.type) for k, v in enumerate(main.args)]
        parts = [f"{name}: {kind}" for name, kind in zip(inputs, types, strict=True)]
        results = ", ".join(
            f"complex as {v.type}" if k in self.complex_results else str(v.type) for k, v in enumerate(main.results)
        )
        return docstring(f"({', '.join(parts)}) -> ({results})")

    def _inputs(self, args: Sequence[Value]) -> list[str]:
        """Inputs made dense, size symbols bound from their shapes, and both checked."""
        lines, bound = [], set[str]()
        written = self.module.main.updates.values()
        for place, value in enumerate(args):
            name, kind = self.names[value], tensor_type(value)
            if place in written:
                self.passed[value] = self.namer.fresh(f"given_{name}")
                lines.append(f"{self.passed[value]} = {name}")
            tensor = f"_real({name}.detach())" if place in self.complex_inputs else f"{name}.detach()"
            lines.append(f"{name} = {tensor}.to(self.device, {torch_type(kind.dtype)}).contiguous()")
            for position, size in enumerate(kind.shape):
                if size.variable is not None and size.variable not in bound:
                    bound.add(size.variable)
                    lines.append(f"{self.sizes[size.variable]} = {name}.shape[{position}]")
        for value in args:
            name, shape = self.names[value], self._shape(tensor_type(value))
            lines.append(f'assert {name}.shape == ({shape}), f"{name} has shape {{tuple({name}.shape)}}"')
        unbound = [name for name in self.module.symbols if name not in bound and name not in self.made]
        if unbound:
            raise UnsupportedError(f"the size {unbound[0]} is no input's size, so a runner can't know it")
        return [*lines, "device = self.device", "arena = self.arena"]

    def _shape(self, kind: TensorType) -> str:
        sizes = [self.torch_text.size(size) for size in kind.shape]
        return ", ".join(sizes) + ("," if len(sizes) == 1 else "")

    # -- operations -------------------------------------------------------------------------------------------------
    def _block(self, block: Block, in_arena: bool) -> list[str]:
        lines: list[str] = []
        for op in block.ops:
            lines += self._op(op, in_arena)
        return lines

    def _op(self, op: Op, in_arena: bool) -> list[str]:
        if isinstance(op, Constant):
            self.weights[op.constant] = self.weights.get(op.constant, "")
            self.names[op.result] = f"self.weights[{op.constant!r}]"
            return []
        place = str(op.location.leaves()[0]) if op.location.leaves() else ""
        note = f"  # {comment(_last_part(place))}" if place else ""
        if isinstance(op, Launch):
            return self._launch(op, in_arena, note)
        if isinstance(op, Call):
            return [self._call(op) + note, *self._sizes_made(op)]
        if isinstance(op, Sort):
            return self._sort(op, note)
        if isinstance(op, Scan):
            return self._scan(op, note)
        if isinstance(op, Scatter):
            return self._scatter(op, note)
        if isinstance(op, Empty):
            return [line + note for line in self._allocate(op.result, in_arena)]
        if isinstance(op, Collective) and op.devices == 1:
            self.names[op.result] = self.names[op.inputs[0]]
            return []
        if isinstance(op, If):
            return self._if(op)
        if isinstance(op, While):
            return self._while(op)
        raise UnsupportedError(f"{op.opcode} can't be run by a runner", place=op.location)

    def _define(self, value: Value) -> str:
        name = self.namer.fresh(value.name or "value")
        self.names[value] = name
        return name

    def _updates(self, main: Function) -> list[str]:
        """New values that were not made in the memory of what they update are copied there, after copies of results that lie there; and on to
        what the caller gave, where that is other memory."""
        lines: list[str] = []
        for value in dict.fromkeys(main.results) if main.updates else ():
            if value in main.args or isinstance(value.owner, Constant):
                old = self.names[value]
                lines.append(f"{self._define(value)} = {old}.clone()")
        for place, target in main.updates.items():
            new = self.names[main.results[place]]
            if isinstance(target, str):
                old, given = f"self.weights[{target!r}]", f"self.given.get({target!r})"
            else:
                old, given = self.names[main.args[target]], self.passed[main.args[target]]
            if isinstance(target, str) and target not in self.weights:  # which nothing reads
                lines.append(f"{old} = {new}")
            elif old != new:
                lines.append(f"{old}.copy_({new})")
            lines.append(f"_back({old}, {given})")
        return lines

    def _allocate(self, value: Value, in_arena: bool) -> list[str]:
        """What gives a value memory; nothing for a result that is made in the memory of what it updates."""
        kind = tensor_type(value)
        dtype, shape = torch_type(kind.dtype), self._shape(kind)
        buffer = self.memory.buffers.get(value) if self.memory and in_arena else None
        old = self.memory.in_place.get(value) if self.memory and in_arena else None
        if old is not None and value in self.returned:
            self.names[value] = self.names[old]
            return []
        name = self._define(value)
        if buffer is not None and value not in self.returned:
            return [f"{name} = _at({', '.join(['arena', str(buffer.offset), dtype, *([shape] if shape else [])])})"]
        return [f"{name} = torch.empty(({shape}), dtype={dtype}, device=device)"]

    def _launch(self, op: Launch, in_arena: bool, note: str) -> list[str]:
        kernel = self.module.kernels[op.kernel]
        attribute = self.kernels.get(op.kernel) or self.attributes.fresh(f"launch_{op.kernel}")
        self.kernels[op.kernel] = attribute
        lines = []
        for position, value in enumerate(op.results):
            if position in kernel.overwrites:
                self.names[value] = self.names[op.inputs[kernel.overwrites[position]]]
            else:
                lines += self._allocate(value, in_arena)
        arguments = [self.names[value] for value in (*op.inputs, *op.results)]
        arguments += [self.sizes[name] for name in kernel.symbols]
        return [*lines, f"self.{attribute}({', '.join(arguments)}){note}"]

    def _call(self, op: Call) -> str:
        positional = [key for key in op.attributes if key.startswith("arg") and key[3:].isdigit()]
        arguments = [self._argument(op, op.attributes[key]) for key in sorted(positional, key=lambda key: int(key[3:]))]
        arguments += [
            f"{dotted(key, 1, 1)}={self._argument(op, v)}" for key, v in op.attributes.items() if key not in positional
        ]
        names = [self._define(value) for value in op.results]
        left = ", ".join(names) + ("," if len(names) > 1 else "")
        text = f"torch.ops.{dotted(op.target, 2, 3)}({', '.join(arguments)})"
        dense = f"{text}.contiguous()" if len(names) == 1 else f"(x.contiguous() for x in {text})"
        return f"{left} = {dense}"

    def _sizes_made(self, op: Call) -> list[str]:
        """Sizes that data decides, as the results of a call show them."""
        lines = []
        for name in sorted(name for name, maker in self.made.items() if maker is op):
            shown = [(v, k) for v in op.results for k, size in enumerate(v.shape) if size.variable == name]
            if not shown:
                raise UnsupportedError(
                    f"no size of a result is {name} itself, so a runner can't know it", place=op.location
                )
            value, dim = shown[0]
            lines.append(f"{self.sizes[name]} = {self.names[value]}.shape[{dim}]")
        return lines

    def _argument(self, op: Call, value: Any) -> str:
        if isinstance(value, tuple):
            return f"[{', '.join(self._argument(op, item) for item in value)}]"
        if isinstance(value, str):
            if value.startswith("%"):
                position, _, order = value[1:].partition(":")
                name = self.names[op.inputs[int(position)]]
                return f"{name}.permute({', '.join(str(int(dim)) for dim in order.split(','))})" if order else name
            if value.startswith("dtype:"):
                from codesign.ir.dtypes import DTYPES

                return torch_type(DTYPES[value.removeprefix("dtype:")])
            if value.startswith("device:"):
                return "device"
            if value.startswith("torch."):
                return dotted(value, 2, 2)
        if isinstance(value, float) and not np.isfinite(value):
            return f'float("{value}")'
        return repr(value)

    def _sort(self, op: Sort, note: str) -> list[str]:
        source, direction = self.names[op.source], f"dim={op.dim}, descending={op.descending}, stable=True"
        values, positions = (self._define(value) for value in op.results)
        lines = [f"{values}, {positions} = torch.sort({source}, {direction}){note}"]
        if op.keep is not None:
            keep = self.torch_text.size(op.keep)
            lines += [f"{name} = {name}.narrow({op.dim}, 0, {keep}).contiguous()" for name in (values, positions)]
        return lines

    def _scan(self, op: Scan, note: str) -> list[str]:
        routines = {
            "sum": "torch.cumsum({0}, {1})",
            "prod": "torch.cumprod({0}, {1})",
            "max": "torch.cummax({0}, {1}).values",
            "min": "torch.cummin({0}, {1}).values",
            "argmax": "torch.cummax({0}, {1}).indices",
            "argmin": "torch.cummin({0}, {1}).indices",
            "logsumexp": "torch.logcumsumexp({0}, {1})",
        }
        position = next(i for i, dim in enumerate(op.dims) if dim.name == op.over)
        body = f"{self.torch_text.tensor(op.body, op.dims)}.to({torch_type(op.accumulate)})"
        text = routines[op.monoid].format(body, position)
        name = self._define(op.result)
        return [f"{name} = {text}.to({torch_type(op.result.type.dtype)}).contiguous(){note}"]

    def _scatter(self, op: Scatter, note: str) -> list[str]:
        """The domain is flattened in row-major order; targets outside the tensor are dropped, or are an error."""
        text, init = self.torch_text, self.names[op.init]
        dtype = torch_type(op.result.type.dtype)
        sizes = [text.size(size) for size in op.init.shape]
        name, where, inside = self._define(op.result), self.namer.fresh("where"), self.namer.fresh("inside")
        shape = ", ".join(text.size(dim.extent) for dim in op.dims)
        lines = [f"{where} = {inside} = torch.zeros(({shape},), dtype=torch.int64, device=device){note}"]
        lines.append(f"{inside} = {inside} == 0")
        for expression, size in zip(op.target, sizes, strict=True):
            place = text.index(expression, op.dims)
            lines.append(f"{inside} = {inside} & ({place} >= 0) & ({place} < {size})")
            lines.append(f"{where} = {where} * {size} + {place}")
        if op.within:
            place = short(op.location) or op.result.name
            message = json.dumps(comment(f"{place}: an index lies outside of {op.init.name}"))
            lines.append(f"torch._assert_async({inside}.all(), {message})")
        body = text.tensor(op.body, op.dims)
        lines.append(f"{name} = {init}.clone().reshape(-1)")
        chosen = f"{where}[{inside}], {body}.to({dtype})[{inside}]"
        if op.combine == "set":
            lines.append(f"{name}[{where}[{inside}]] = {body}.to({dtype})[{inside}]")
        else:
            reduce = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[op.combine]
            lines.append(f'{name}.scatter_reduce_(0, {chosen}, "{reduce}", include_self=True)')
        lines.append(f"{name} = {name}.view({init}.shape)")
        return lines

    def _if(self, op: If) -> list[str]:
        names = [self._define(value) for value in op.results]
        lines = [f"if bool({self.names[op.inputs[0]]}):"]
        for block, word in ((op.then, ""), (op.otherwise, "else:")):
            lines += [word] if word else []
            inner = self._block(block, in_arena=False)
            inner += [f"{name} = {self.names[value]}" for name, value in zip(names, block.yields, strict=True)]
            lines += [f"    {line}" for line in inner or ["pass"]]
        return lines

    def _while(self, op: While) -> list[str]:
        names = [self._define(value) for value in op.results]
        aliases = find_aliases(op.body, self.module.kernels)
        written = set(aliases.values())  # a reshape counts as a write, which costs a copy before the loop
        lines = [
            f"{name} = {self.names[value]}{'.clone()' if arg in written else ''}"
            for name, value, arg in zip(names, op.inputs, op.body.args, strict=True)
        ]
        lines.append("while True:")
        self.names.update(zip(op.condition.args, names, strict=True))
        self.names.update(zip(op.body.args, names, strict=True))
        inner = self._block(op.condition, in_arena=False)
        inner.append(f"if not bool({self.names[op.condition.yields[0]]}):")
        inner.append("    break")
        inner += self._block(op.body, in_arena=False)
        targets = ", ".join(names) + ("," if len(names) == 1 else "")
        sources = ", ".join(self.names[value] for value in op.body.yields) + ("," if len(names) == 1 else "")
        inner.append(f"{targets} = {sources}")
        return [*lines, *(f"    {line}" for line in inner)]


def _last_part(place: str) -> str:
    file, _, rest = place.partition(":")
    return f"{Path(file).name}:{rest}" if rest else place
