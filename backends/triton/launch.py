"""What surrounds the body of a kernel: the header of its file, the grid's indices, and the function that launches it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codesign.backends.triton.names import Namer, is_bytes, torch_type
from codesign.backends.triton.quoting import docstring
from codesign.backends.triton.source import by_line, source_line, wrapped
from codesign.backends.triton.writer import Writer
from codesign.ir.core import Value
from codesign.ir.index import Index, product
from codesign.ir.tile import GridDim, Kernel, Store


@dataclass(frozen=True)
class Launch:
    """What a launcher says. `name`: of the device function. `symbols`: names of sizes. `text`: of an index expression. `described`:
    descriptors are made on the device. `options`: of the compiler, with `stages`."""

    kernel: Kernel
    name: str
    symbols: Mapping[str, str]
    text: Callable[[Index], str]
    persistent: bool
    described: bool
    options: Mapping[str, int]
    stages: int


def header_of(kernel: Kernel, sources: Path | None) -> str:
    """The docstring of a kernel's file: what it does, from which lines, on which buffers, by which schedule."""
    lines = [f"Kernel {kernel.name}."]
    lines += [f"{key}: {text}" for key, text in kernel.notes.items()]
    leaves = kernel.location.leaves()
    if leaves:
        lines += ["", "From the model:"]
        for (file, line), group in by_line(leaves).items():
            origins = ", ".join(dict.fromkeys(leaf.origin for leaf in group if leaf.origin))
            modules = ", ".join(dict.fromkeys(leaf.module for leaf in group if leaf.module))
            text = source_line(sources, file, line)
            place = f"{Path(file).name}:{line}" if file else ""
            parts = [place, text, f"in {modules}" if modules else "", f"({origins})" if origins else ""]
            lines.append("    " + "  ".join(part for part in parts if part))
    lines += ["", "Buffers:"]
    for value in kernel.params:
        role = "out" if value in kernel.results else "in"
        lines.append(f"    {role:3} {value.name}: {str(value.type).removeprefix('buffer<').removesuffix('>')}")
    lines += ["", "Schedule (replays this kernel):", f"    {json.dumps(kernel.schedule.to_json())}", ""]
    return docstring("\n".join(lines))


def launcher_of(launch: Launch) -> str:
    """The function that launches a kernel on tensors."""
    kernel = launch.kernel
    names = Namer(frozenset({launch.name, "device", "tiles", *launch.symbols.values()}))
    arguments = [names.fresh(value.name) for value in kernel.params]
    sizes = list(launch.symbols.values())
    total = launch.text(product(dim.extent for dim in kernel.grid))
    lines = [wrapped("def launch(", [*arguments, *sizes], "):")]
    shapes = [
        f"{name} [{', '.join(map(str, value.shape))}] {torch_type(value.type.dtype).removeprefix('torch.')}"
        for name, value in zip(arguments, kernel.params, strict=True)
    ]
    doc = docstring(f"Run the kernel over dense row-major tensors: {'; '.join(shapes)}.")
    rows = textwrap.wrap(doc, 110, break_long_words=False)
    lines.append(f'    """{rows[0]}' + ('"""' if len(rows) == 1 else ""))
    if len(rows) > 1:
        lines += [f"    {text}" for text in rows[1:]] + ['    """']
    for value, fill in _atomic_outputs(kernel).items():
        lines.append(f"    {arguments[kernel.params.index(value)]}.fill_({fill})  # combined into atomically")
    if launch.persistent:
        target = arguments[-1]
        lines.append(f"    tiles = {total}")
        lines.append(f"    device = torch.cuda.get_device_properties({target}.device) if {target}.is_cuda else None")
        lines.append("    grid = (min(tiles, device.multi_processor_count) if device else min(tiles, 2),)")
    else:
        lines.append(f"    grid = ({total},)")
    if launch.described:
        place = f"{arguments[-1]}.device"
        lines.append("    # Descriptors live in memory that Triton asks for at launch.")
        lines.append(f"    triton.set_allocator(lambda size, *_: torch.empty(size, dtype=torch.int8, device={place}))")
    given = {"num_warps": launch.options["num_warps"], "num_stages": launch.stages, "enable_fp_fusion": True}
    options = [f"{name}={value}" for name, value in {**given, **launch.options}.items()]
    lines.append("    if grid[0] > 0:")
    passed = [
        f"{name}.view(torch.uint8)" if is_bytes(value.type.dtype) else name
        for name, value in zip(arguments, kernel.params, strict=True)
    ]
    lines.append(textwrap.indent(wrapped(f"    {launch.name}[grid](", [*passed, *sizes, *options], ")"), "    "))
    return "\n".join(lines) + "\n"


def _atomic_outputs(kernel: Kernel) -> dict[Value, str]:
    """What outputs that are combined into start with."""
    start = {"add": "0", "mul": "1", "max": "-inf", "min": "inf"}
    old = {kernel.results[position] for position in kernel.overwrites}
    found: dict[Value, str] = {}
    for op in kernel.body.walk():
        if isinstance(op, Store) and op.atomic and op.buffer not in old:
            dtype = op.buffer.type.dtype
            if dtype.is_float or op.atomic in ("add", "mul"):
                text = f'float("{start[op.atomic]}")' if "inf" in start[op.atomic] else start[op.atomic]
            else:
                text = f"torch.iinfo({torch_type(dtype)}).{'min' if op.atomic == 'max' else 'max'}"
            found[op.buffer] = text
    return found


def write_grid(
    writer: Writer, namer: Namer, grid: Sequence[GridDim], group: int, program: str, text: Callable[[Index], str]
) -> None:
    """Program number to grid indices; with a `group`, so many tiles of the second-last dim walk together so that they share L2."""
    scope = writer.depth
    dims = [dim for dim in grid if dim.extent != 1]
    names = {dim.name: namer.fresh(dim.name) for dim in dims}
    bound = {dim.name: ("0", scope) for dim in grid if dim.extent == 1}
    if len(dims) == 1:
        writer.line(f"{names[dims[0].name]} = {program}")
    elif dims:
        pid = namer.fresh("pid")
        writer.line(f"{pid} = {program}")
        inner = dims[-2:] if group > 1 else dims[-1:]
        if group > 1:
            plane = extent_text(product(dim.extent for dim in inner), text)
            rest = f"({pid} % {plane})" if len(dims) > 2 else pid
            _grouped(
                writer,
                namer,
                rest,
                group,
                [names[dim.name] for dim in inner],
                [extent_text(dim.extent, text) for dim in inner],
            )
        else:
            writer.line(f"{names[inner[0].name]} = {pid} % {extent_text(inner[0].extent, text)}")
        below = product(dim.extent for dim in inner)
        outer = dims[: -len(inner)]
        for position, dim in reversed(list(enumerate(outer))):
            place = f"{pid} // {extent_text(below, text)}"
            place += f" % {extent_text(dim.extent, text)}" if position else ""
            writer.line(f"{names[dim.name]} = {place}")
            below = below * dim.extent
    bound |= {dim.name: (names[dim.name], scope) for dim in dims}
    writer.bind(bound)


def extent_text(value: Index, text: Callable[[Index], str]) -> str:
    """A number of programs as part of a larger expression."""
    return text(value) if value.is_constant else f"({text(value)})"


def _grouped(writer: Writer, namer: Namer, pid: str, group: int, names: list[str], extents: list[str]) -> None:
    rows, columns = extents
    size, first, height = (namer.fresh(name) for name in ("group_size", "first", "height"))
    line = writer.line
    line(f"{size} = {group} * {columns}  # {group} tiles of {names[0]} walk together along {names[1]}")
    line(f"{first} = {pid} // {size} * {group}")
    line(f"{height} = tl.minimum({rows} - {first}, {group})")
    line(f"{names[0]} = {first} + {pid} % {size} % {height}")
    line(f"{names[1]} = {pid} % {size} // {height}")
