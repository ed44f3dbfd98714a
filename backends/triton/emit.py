"""A tile-level kernel as readable Triton source: one file with the kernel, the device functions it needs, and its launcher."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from codesign.backends.triton.carried import assignable, seeds
from codesign.backends.triton.descriptors import block_of
from codesign.backends.triton.expressions import LARGEST, Expressions, Term
from codesign.backends.triton.functions import PRECEDENCE
from codesign.backends.triton.launch import Launch, extent_text, header_of, launcher_of, write_grid
from codesign.backends.triton.names import Namer, pointer_type, triton_type
from codesign.backends.triton.quoting import comment
from codesign.backends.triton.reductions import reduced_text
from codesign.backends.triton.source import device_functions, short, wrapped
from codesign.backends.triton.steps import before_steps
from codesign.backends.triton.writer import Writer
from codesign.ir.core import Block, Op, Value
from codesign.ir.dtypes import BOOL, F32, DType
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds, FloorDiv, Index, Mod, index, product
from codesign.ir.scalar import Literal
from codesign.ir.tile import Axis, Band, Dot, For, Guard, Kernel, Load, Map, Reduce, Store, When
from codesign.ir.types import BufferType
from codesign.passes.knobs import launch_options


@dataclass(frozen=True)
class Emitted:
    """A kernel's Triton source with what a compiler or launcher must know of it.

    `signature`: argument name -> Triton type, in order. `aligned`: pointer arguments, all of them multiples of 16 bytes. `warps`,
    `stages` and further `options`: of the launch. `core`: the source without the header comment, which is what decides the compiled code.
    """

    name: str
    source: str
    core: str
    signature: dict[str, str]
    aligned: tuple[str, ...]
    warps: int
    stages: int
    wide: bool
    options: dict[str, int] = field(default_factory=dict)


def emit(kernel: Kernel, bounds: Bounds | None = None) -> str:
    """Triton source of one kernel with its launcher; `bounds`: ranges of the size symbols (unknown: 64-bit offsets)."""
    return emission(kernel, bounds).source


def emission(kernel: Kernel, bounds: Bounds | None = None, sources: Path | None = None) -> Emitted:
    """Like `emit`, with the signature and the launch options.

    `sources`: the folder of the user's model; lines of files below it, and of no others, are shown in the header.
    """
    emitter = _Emitter(kernel, bounds or Bounds(), sources)
    emitted = emitter.run()
    if emitter.terms.far and not emitted.wide:
        return _Emitter(kernel, bounds or Bounds(), sources, wide=True).run()
    return emitted


class _Emitter:
    def __init__(self, kernel: Kernel, bounds: Bounds, sources: Path | None, *, wide: bool = False) -> None:
        self.kernel = kernel
        self.sources = sources
        self.namer = Namer()
        self.name = self.namer.fresh(kernel.name)
        self.symbols = {name: self.namer.fresh(name) for name in kernel.symbols}
        ranges = {name: bounds.symbols.get(name, (1, None)) for name in kernel.symbols}
        self.bounds = Bounds({dim.name: dim.extent for dim in kernel.grid}, ranges)
        self.wide = wide or any(not _fits(value, self.bounds) for value in kernel.params)
        self.pointers = {value: self.namer.fresh(f"{value.name}_ptr") for value in kernel.params}
        self.persistent = kernel.schedule.extra("persistent", 0) > 0
        self.tma = kernel.schedule.extra("tma", 0) > 0
        self.options = {"num_warps": 4, **launch_options(kernel.schedule)}
        self.described = False
        self.steps = {
            op.variable: op.step.constant
            for op in kernel.body.walk()
            if isinstance(op, For) and op.step.is_constant and op.lower % op.step == 0
        }
        self.writer = Writer(self.namer)
        self.writer.bind({name: (text, 0) for name, text in self.symbols.items()})
        self.values: dict[Value, str] = {}
        even = {name for name, step in self.steps.items() if step % 2 == 0}
        self.terms = Expressions(self.writer, self.values, self.bounds, self.wide, before_steps(kernel), even)
        self.last_place = ""
        self.seeds = seeds(kernel)

    # -- the file ---------------------------------------------------------------------------------------------------
    def run(self) -> Emitted:
        if self.persistent:
            total = self._index_text(product(dim.extent for dim in self.kernel.grid))
            header = f"for tile_id in tl.range(tl.program_id(0), {total}, tl.num_programs(0)):"
            with self.writer.nested(header):
                self._grid("tile_id")
                self._block(self.kernel.body)
        else:
            self._grid("tl.program_id(0)")
            self._block(self.kernel.body)
        body = self.writer.text()
        signature = {name: pointer_type(value.type.dtype) for value, name in self.pointers.items()}
        signature |= dict.fromkeys(self.symbols.values(), "i64" if self.wide else "i32")
        head = wrapped(f"def {self.name}(", list(signature), "):")
        kernel_text = f"@triton.jit\n{head}\n{body or '    pass'}\n"
        helpers = device_functions(kernel_text)
        launcher = self._launcher()
        core = "\n\n".join([*(f"{text}\n" for text in helpers), kernel_text, launcher])
        imports = "import triton\nimport triton.language as tl\n"
        if "torch." in launcher.split('"""', 2)[2]:
            imports = f"import torch\n{imports}"
        return Emitted(
            name=self.name,
            source=f'"""{header_of(self.kernel, self.sources)}"""\n\n{imports}\n\n{core}',
            core=f"{imports}\n\n{core}",
            signature=signature,
            aligned=tuple(self.pointers.values()),
            warps=self.options["num_warps"],
            stages=self._stages(),
            wide=self.wide,
            options={name: value for name, value in self.options.items() if name != "num_warps"},
        )

    def _stages(self) -> int:
        loops = [op.pipeline for op in self.kernel.body.walk() if isinstance(op, For)]
        return max([self.kernel.schedule.pipeline, 1, *loops]) if loops and not self._leaves_out else 1

    @cached_property
    def _leaves_out(self) -> bool:
        """Whether blocks are left out where data say so: no load runs ahead then, as is priced. Triton would not see a loop within such a block, and
        make buffers for the loop around it too."""
        return any(isinstance(op, When) for op in self.kernel.body.walk())

    def _launcher(self) -> str:
        return launcher_of(
            Launch(
                self.kernel,
                self.name,
                self.symbols,
                self._index_text,
                self.persistent,
                self.described,
                self.options,
                self._stages(),
            )
        )

    def _grid(self, program: str) -> None:
        given = f"tl.cast({program}, tl.int64)" if self.wide else program
        group = self.kernel.schedule.extra("group", 1)
        write_grid(self.writer, self.namer, self.kernel.grid, group, given, self._index_text)

    def _index_text(self, value: Index) -> str:
        return str(value.substitute({name: index(safe) for name, safe in self.symbols.items() if safe != name}))

    # -- operations -------------------------------------------------------------------------------------------------
    def _block(self, block: Block, targets: dict[Value, str] | None = None) -> None:
        for op in block.ops:
            place = str(op.location) if op.location.known else ""
            if place and place != self.last_place:
                self.last_place = place
                self.writer.line(f"# {comment(short(op.location))}")
            self._op(op, targets or {})

    def _op(self, op: Op, targets: dict[Value, str]) -> None:
        if isinstance(op, Load):
            self._define(op.result, self._load(op), targets)
        elif isinstance(op, Store):
            self._store(op)
        elif isinstance(op, Map):
            term = self.terms.scalar(op.body, op.axes, op.result.name or "v")
            self._define(op.result, self.terms.full(term, op.axes, op.result.type.dtype), targets)
        elif isinstance(op, Reduce):
            self._define(op.result, reduced_text(op, self.terms), targets)
        elif isinstance(op, Dot):
            self._define(op.result, self._dot(op), targets)
        elif isinstance(op, For):
            self._for(op)
        elif isinstance(op, When):
            self._when(op, targets)
        elif isinstance(op, Band):
            self._band(op)
        else:
            raise UnsupportedError(f"tile operation {op.opcode!r} has no Triton form", place=op.location)

    def _define(self, value: Value, text: str, targets: dict[Value, str]) -> None:
        wish = value.name or "v"
        if value in self.seeds:
            wish = f"{wish.removesuffix('_start')}_acc"
        name = targets.get(value) or self.namer.fresh(wish)
        self.writer.line(f"{name} = {text}")
        self.values[value] = name

    def _pointer(self, op: Load | Store) -> Term:
        """`ptr + offset` over the op's axes, the offset summed per dimension, or per run of dimensions where divisions cancel."""
        buffer = op.buffer.type
        assert isinstance(buffer, BufferType)
        bounds = self.bounds.with_extents({axis.name: index(axis.size) for axis in op.axes})
        dims = [
            (i.simplify(bounds), stride)
            for i, stride, size in zip(op.indices, buffer.strides, buffer.shape, strict=True)
            if size != 1
        ]
        parts: list[tuple[Index, Index]] = []
        for position, stride in dims:
            if parts:
                merged = (parts[-1][0] * parts[-1][1] + position * stride).simplify(bounds)
                if _divisions(merged) < _divisions(parts[-1][0]) + _divisions(position):
                    parts[-1] = (merged, index(1))
                    continue
            parts.append((position, stride))
        text, axes = self.pointers[op.buffer], set[str]()
        for position, stride in parts:
            if not position.terms:
                continue
            term = self.terms.index(position, op.axes)
            axes.update(term.axes)
            if stride == 1:
                text += (
                    f" + {term.within(PRECEDENCE['+'])}" if term.precedence <= PRECEDENCE["+"] else f" + {term.text}"
                )
            else:
                factor = self.terms.index(stride, ()).within(PRECEDENCE["*"])
                text += f" + {term.within(PRECEDENCE['*'])} * {factor}"
        return Term(text, tuple(a.name for a in op.axes if a.name in axes), PRECEDENCE["+"], None)

    def _mask(self, guards: Sequence[Guard], axes: Sequence[Axis]) -> Term | None:
        found = [t for g in guards for t in self.terms.condition(g.value, g.low, g.high, axes)]
        found = list(dict.fromkeys(found))
        if not found:
            return None
        names = tuple(a.name for a in axes if any(a.name in t.axes for t in found))
        if len(found) == 1:
            return Term(found[0].text, names, found[0].precedence, BOOL)
        return Term(" & ".join(t.within(PRECEDENCE["&"]) for t in found), names, PRECEDENCE["&"], BOOL)

    def _guarded(self, op: Load | Store) -> Term | None:
        """Which lanes touch memory: those that the op's guards leave, and of them those whose places read from data lie in the buffer.

        A place outside is an assertion, which Triton checks in its interpreter, in debug mode and in every kernel that stores to such places (as
        torch's own kernels do); elsewhere such a load gives the idle value. No store is made outside. Places are compared in 64 bits, before they
        are cut to the width of an offset.
        """
        self.terms.wide = self.wide or any(guard.value.data() for guard in op.guards)
        active = self._mask(op.guards, op.axes)
        self.terms.wide = self.wide
        known = {(guard.value, guard.low, guard.high) for guard in op.guards}
        bounds = self.bounds.with_extents({axis.name: index(axis.size) for axis in op.axes})
        extra: list[Guard] = []
        for place, size in zip(op.indices, op.buffer.shape, strict=True):
            if not place.data() or (place, index(0), size) in known:
                continue
            low = None if place.proves_at_least(0, bounds) else index(0)
            high = None if place.proves_less(size, bounds) else size
            if low is not None or high is not None:
                extra.append(Guard(place, low, high))
        if not extra:
            return active
        self.terms.wide = True
        inside = self._mask(extra, op.axes)
        self.terms.wide = self.wide
        assert inside is not None
        text = f"({inside.text})" if active is None else f"({inside.text}) | (({active.text}) == 0)"
        where = short(op.location) or short(self.kernel.location) or self.kernel.name
        message = json.dumps(comment(f"{where}: an index lies outside of {op.buffer.name}"))
        self.writer.line(f"tl.device_assert({text}, {message})")
        if isinstance(op, Store):
            self.options |= {"debug": True, "sanitize_overflow": False}
        if active is None:
            return inside
        names = tuple(a.name for a in op.axes if a.name in active.axes or a.name in inside.axes)
        level = PRECEDENCE["&"]
        return Term(f"{active.within(level)} & {inside.within(level)}", names, level, BOOL)

    def _block_load(self, op: Load) -> str | None:
        """The load by a tensor descriptor, when the schedule wants those and the load is a block of its buffer."""
        block = block_of(op, self.steps) if self.tma and not self.wide else None
        if block is None:
            return None
        buffer = op.buffer.type
        assert isinstance(buffer, BufferType)
        shape, strides = (", ".join(map(str, sizes)) for sizes in (buffer.shape, buffer.strides))
        text = f"tl.make_tensor_descriptor({self.pointers[op.buffer]}, [{shape}], [{strides}], {list(block.shape)})"
        name = self.writer.once(("descriptor", op.buffer, block.shape), f"{op.buffer.name}_blocks", text, 0)
        self.described = True
        places = ", ".join(self.terms.index(start, ()).text for start in block.start)
        loaded = f"{name}.load([{places}])"
        present = [axis for axis in block.axes if axis is not None]
        if len(present) < len(block.axes):
            loaded = f"{loaded}.reshape({', '.join(str(axis.size) for axis in present)})"
        if present == list(op.axes):
            return loaded
        if len(present) == 2:
            return f"tl.trans({loaded})"
        return f"tl.permute({loaded}, {[present.index(axis) for axis in op.axes]})"

    def _load(self, op: Load) -> str:
        by_block = self._block_load(op)
        if by_block is not None:
            return by_block
        mask, pointer = self._guarded(op), self._pointer(op)
        shape = f"[{', '.join(str(axis.size) for axis in op.axes)}]"
        if mask is None:
            text = f"tl.load({pointer.text})"
            varies = pointer.axes
        else:
            where = pointer.text
            if not set(mask.axes) <= set(pointer.axes) and op.axes:
                where = f"tl.broadcast_to({where}, {shape})"
                varies = tuple(axis.name for axis in op.axes)
            else:
                varies = pointer.axes
            other = self._idle(op.otherwise, op.buffer.type.dtype)
            text = f"tl.load({where}, mask={mask.text}, other={other})"
        if len(varies) < len(op.axes):
            text = f"tl.broadcast_to({text}, {shape})"
        return text

    @staticmethod
    def _idle(literal: Literal, dtype: DType) -> str:
        value = literal.value
        if dtype is BOOL:
            return "1" if value else "0"
        if dtype.is_float and not math.isfinite(value):
            return f'float("{value}")'
        return repr(float(value)) if dtype.is_float else str(int(value))

    def _store(self, op: Store) -> None:
        mask, pointer = self._guarded(op), self._pointer(op)
        where = pointer.text
        if len(pointer.axes) < len(op.axes):
            shape = f"[{', '.join(str(axis.size) for axis in op.axes)}]"
            where = f"tl.broadcast_to({where}, {shape})"
        value, source, target = self.values[op.value], op.value.type.dtype, op.buffer.type.dtype
        if source is not target:
            axes = tuple(axis.name for axis in op.axes)
            value = self.terms.convert(Term(value, axes, PRECEDENCE["atom"], source), target).text
        masked = f", mask={mask.text}" if mask else ""
        if op.atomic is None:
            self.writer.line(f"tl.store({where}, {value}{masked})")
        elif op.atomic == "add" or (op.atomic != "mul" and target.is_integer):
            self.writer.line(f'tl.atomic_{op.atomic}({where}, {value}{masked}, sem="relaxed")')
        else:
            shape = f"[{', '.join(str(axis.size) for axis in op.axes) or '1'}]"
            lanes = [f"tl.broadcast_to({text}, {shape})" for text in (where, value, *([mask.text] if mask else []))]
            lanes += [] if mask else [f"tl.full({shape}, 1, tl.int1)"]
            how = {"mul": "_product", "max": "_max_nan", "min": "_min_nan"}[op.atomic]
            self.writer.line(f"_swapped({self.pointers[op.buffer]}, {', '.join(lanes)}, {how})")

    def _dot(self, op: Dot) -> str:
        a, b, accumulator = (value.type.dtype for value in (op.a, op.b, op.accumulator))
        if a is not b:
            raise UnsupportedError(
                f"dot of {a} and {b}: Triton wants one dtype", place=op.location, hint="cast an operand"
            )
        names = (self.values[value] for value in (op.a, op.b, op.accumulator))
        options = f", input_precision={json.dumps(op.precision)}" if a is F32 else ""
        if accumulator is not F32:
            options += f", out_dtype={triton_type(accumulator)}"
        return f"tl.dot({', '.join(names)}{options})"

    def _for(self, op: For) -> None:
        """A loop; carried values keep one name, and the op that makes the next value assigns to it where nothing reads the old one."""
        names = {}
        for initial, argument in zip(op.initial, op.body.args, strict=True):
            if initial in self.seeds:
                names[argument] = self.values[initial]
                continue
            names[argument] = self.namer.fresh(argument.name or initial.name or "carried")
            self.writer.line(f"{names[argument]} = {self.values[initial]}")
        variable = self.namer.fresh(op.variable)
        lower, upper, step = (self.terms.index(value, ()).text for value in (op.lower, op.upper, op.step))
        options = f", num_stages={op.pipeline}" if op.pipeline > 1 and not self._leaves_out else ""
        if self.tma and self.kernel.schedule.extra("warp_specialize", 0):  # Triton takes pointers for it on no Hopper
            options += ", warp_specialize=True"
        low, _ = op.lower.limits(self.bounds)
        _, high = op.upper.limits(self.bounds)
        outer = self.bounds
        if low is not None and low >= 0:
            self.bounds = Bounds({**outer.extents, op.variable: op.upper}, outer.symbols)
        else:
            self.bounds = Bounds(
                outer.extents, {**outer.symbols, op.variable: (low if low is not None else -LARGEST, high)}
            )
        self.terms.bounds = self.bounds
        with self.writer.nested(f"for {variable} in tl.range({lower}, {upper}, {step}{options}):"):
            text = variable
            if self.wide:
                text = self.namer.fresh(f"{op.variable}_wide")
                self.writer.line(f"{text} = tl.cast({variable}, tl.int64)")
            self.writer.bind({op.variable: (text, self.writer.depth)})
            self.values.update(names)
            self._block(op.body, assignable(op.body, names))
            self._carry(op.body, names)
        self.bounds = self.terms.bounds = outer
        self.values.update(zip(op.results, names.values(), strict=True))

    def _when(self, op: When, targets: dict[Value, str]) -> None:
        """A block that all threads of a program do or leave out; what it yields takes the names of what stands otherwise where it may."""
        names = []
        for result, other in zip(op.results, op.otherwise, strict=True):
            names.append(targets.get(result) or self.namer.fresh(result.name or "v"))
            if names[-1] != self.values[other]:
                self.writer.line(f"{names[-1]} = {self.values[other]}")
        with self.writer.nested(f"if {self.values[op.condition]}:"):
            self._block(op.body)
            self._move(zip(names, (self.values[value] for value in op.body.yields), strict=True))
        self.values.update(zip(op.results, names, strict=True))

    def _band(self, op: Band) -> None:
        """What the programs of a band do: all threads of a program go one way."""
        outer, number = self.bounds, self.terms.index(index(op.variable), ()).text
        self.bounds = self.terms.bounds = outer.with_extents({dim.name: dim.extent for dim in op.grid})
        first, end = (extent_text(edge, self._index_text) for edge in (op.first, op.end))
        limits = [f"{number} >= {first}"] if op.first != 0 else []
        limits += [f"{number} < {end}"] if op.end != self.kernel.grid[0].extent else []
        with self.writer.nested(f"if {' and '.join(limits) or 'True'}:"):
            program = number if op.first == 0 else f"{number} - {first}"
            group = self.kernel.schedule.extra("group", 1)
            write_grid(self.writer, self.namer, op.grid, group, program, self._index_text)
            self._block(op.body)
        self.bounds = self.terms.bounds = outer

    def _carry(self, body: Block, names: dict[Value, str]) -> None:
        self._move((names[a], self.values[y]) for a, y in zip(body.args, body.yields, strict=True))

    def _move(self, pairs: Iterable[tuple[str, str]]) -> None:
        moves = [(target, source) for target, source in pairs if target != source]
        targets = {target for target, _ in moves}
        if any(source in targets for _, source in moves):  # values change places: move by way of copies
            copies = [(self.namer.fresh(f"next_{target}"), source) for target, source in moves]
            for copy, source in copies:
                self.writer.line(f"{copy} = {source}")
            moves = [(target, copy) for (target, _), (copy, _) in zip(moves, copies, strict=True)]
        for target, source in moves:
            self.writer.line(f"{target} = {source}")


def _divisions(value: Index) -> int:
    return sum(isinstance(atom, (FloorDiv, Mod)) for atom in value.atoms())


def _fits(value: Value, bounds: Bounds) -> bool:
    assert isinstance(value.type, BufferType)
    reach = index(0)
    for size, stride in zip(value.type.shape, value.type.strides, strict=True):
        reach = reach + size * stride
    _, high = reach.limits(bounds)
    return high is not None and high <= LARGEST


__all__ = ["Emitted", "device_functions", "emission", "emit"]
