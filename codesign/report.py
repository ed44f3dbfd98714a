"""The terminal report of a compile: what was fused, from which line, how it is scheduled, what bounds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from codesign.document import Compiled, KernelDocument, ModelDocument, Verified

PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def seconds_text(seconds: float, digits: int = 3) -> str:
    """A time with so many significant digits: `12.3 µs`."""
    return _scaled(seconds, "s", digits)


def joules_text(joules: float, digits: int = 3) -> str:
    """An energy with so many significant digits."""
    return _scaled(joules, "J", digits)


def part_text(seconds: float, whole: float) -> str:
    """A part of a time; one of which the whole's three digits show nothing is 0."""
    return seconds_text(seconds if abs(seconds) >= 5e-4 * abs(whole) else 0.0)


def counted(count: float, one: str, many: str) -> str:
    """So many of something, as a person says it."""
    return f"{count:,} {one if count == 1 else many}"


def bytes_text(count: float) -> str:
    """A size in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} TiB"


def _scaled(value: float, unit: str, digits: int) -> str:
    if value == 0:
        return f"0 {unit}"
    for factor, prefix in PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.{digits}g} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"


def schedule_text(schedule: dict[str, Any]) -> str:
    """A schedule in a few words: `m128 n256 k64, 3 stages, 8 warps`."""
    parts = [" ".join(f"{dim}={size}" for dim, size in schedule.get("tiles", {}).items())]
    parts += [f"{place} {_level_text(level)}" for place, level in schedule.get("levels", {}).items()]
    split = [f"split {dim}×{n}" for dim, n in schedule.get("split", {}).items() if n > 1]
    modes = schedule.get("reduce", {})
    for shown, mode in (("resident", "resident"), ("folded", "fold")):
        dims = [dim for dim, one in modes.items() if one == mode]
        if dims:
            parts.append(f"{','.join(dims)} {shown}")
    parts.extend(split)
    if schedule.get("pipeline", 1) > 1:
        parts.append(f"{schedule['pipeline']} stages")
    for name, value in schedule.get("extras", {}).items():
        if value is True or (isinstance(value, str)):
            parts.append(name if value is True else f"{name} {value}")
        elif not isinstance(value, bool) and (value != 1 or name == "warps"):
            parts.append(counted(value, "warp", "warps") if name == "warps" else f"{name} {value}")
    return ", ".join(part for part in parts if part)


def _level_text(level: dict[str, Any]) -> str:
    """What a schedule says of a level: `m×4 n×2 in tiles of m256 holds in0`."""
    parts = [f"{dim}×{n}" for dim, n in level.get("split", {}).items()]
    tiles = [f"{dim}={size}" for dim, size in level.get("tile", {}).items()]
    parts += ["in tiles of", *tiles] if tiles else []
    parts += ["by", ",".join(level["order"])] if level.get("order") else []
    parts += ["holds", *level["stage"]] if level.get("stage") else []
    return " ".join(parts)


def sizes_table(document: ModelDocument) -> Table:
    """The price at each of several sizes, a row each."""
    table = Table(box=None, pad_edge=False)
    for name in document.symbols:
        table.add_column(name, justify="right")
    for title in ("predicted", "90 % interval", "energy"):
        table.add_column(title, justify="right")
    for row in document.at_sizes:
        interval = f"{seconds_text(row.seconds_low)} to {seconds_text(row.seconds_high)}"
        energy = "–" if row.energy_joules is None else joules_text(row.energy_joules)
        table.add_row(*(f"{size:,}" for size in row.symbols.values()), seconds_text(row.seconds), interval, energy)
    return table


def _verdict(verified: Verified | None) -> Text:
    if verified is None:
        return Text("–", style="dim")
    if verified.ok:
        return Text("✓", style="green")
    return Text("✗", style="bold red")


def _compiled_text(kernel: KernelDocument) -> Text:
    compiled = kernel.compiled
    if compiled is None:
        return Text("–", style="dim")
    if compiled.error:
        return Text("failed", style="bold red")
    if compiled.instructions is not None:
        simulated = (
            "" if compiled.simulated_seconds is None else f", simulated {seconds_text(compiled.simulated_seconds)}"
        )
        return Text(f"{compiled.instructions} instr, {bytes_text(compiled.scratchpad_bytes or 0)}{simulated}")
    spills = f", {compiled.spills} B spilt" if compiled.spills else ""
    return Text(
        f"{compiled.registers} regs, {bytes_text(compiled.shared_bytes or 0)}{spills}", style="yellow" if spills else ""
    )


def _tried_text(compiled: Compiled) -> str:
    """What was compiled before the schedule that is shown, and why that was not kept."""
    texts = []
    for one in compiled.tried:
        then = "" if one.seconds is None else f", {seconds_text(one.seconds)} with that"
        texts.append(f"{schedule_text(one.schedule)} ({seconds_text(one.priced_seconds)} as priced; {one.why}{then})")
    return f"compiled with other schedules too: {'; '.join(texts)}"


def kernel_table(document: ModelDocument, limit: int | None) -> Table:
    """Kernels by their share of the predicted time."""
    table = Table(box=None, padding=(0, 1), header_style="bold", expand=False)
    table.add_column("share", justify="right")
    table.add_column("kernel")
    table.add_column("×", justify="right")
    table.add_column("fuses")
    table.add_column("from")
    table.add_column("schedule")
    table.add_column("predicted", justify="right")
    table.add_column("bound by")
    table.add_column("roofline", justify="right")
    table.add_column("bytes/least", justify="right")
    table.add_column("compiled")
    table.add_column("ok")
    total = document.seconds or 1.0
    ordered = sorted(document.kernels, key=lambda k: -k.seconds * k.count)
    for kernel in ordered[:limit]:
        ratio = kernel.dram_bytes / kernel.min_dram_bytes if kernel.min_dram_bytes else 1.0
        table.add_row(
            f"{kernel.seconds * kernel.count / total:.1%}",
            Text(kernel.name, style="cyan", overflow="fold"),
            str(kernel.count),
            _clipped(kernel.ops, 4),
            _clipped(kernel.source, 1),
            schedule_text(kernel.schedule),
            seconds_text(kernel.seconds),
            kernel.bound,
            f"{kernel.roofline_share:.0%}",
            f"{ratio:.2f}",
            _compiled_text(kernel),
            _verdict(kernel.verified),
        )
    return table


def _clipped(items: Sequence[str], count: int) -> str:
    shown = " ".join(items[:count])
    return f"{shown} +{len(items) - count} more" if len(items) > count else shown


def _memory_text(document: ModelDocument) -> str:
    parts = {"inputs": document.input_bytes, "weights": document.constant_bytes, "results": document.output_bytes}
    parts["intermediates"] = document.peak_memory_bytes - sum(parts.values())
    counted = ", ".join(f"{name} {bytes_text(size)}" for name, size in parts.items())
    return f"peak memory {bytes_text(document.peak_memory_bytes)} ({counted})"


def launch_count(document: ModelDocument) -> float:
    """Launches of a run; a kernel that is joined to the one before it is none of its own."""
    return sum(kernel.count for kernel in document.kernels if not kernel.schedule.get("extras", {}).get("joined"))


def complaints(document: ModelDocument) -> list[str]:
    """Of the model and of its kernels, a line on each that is wrong or did not compile."""
    found = []
    for what, check in [("", document.verified), *((f"kernel {k.name} ", k.verified) for k in document.kernels)]:
        if check is not None and not check.ok:
            error = "not finite" if check.max_error is None else f"{check.max_error:.2g}"
            note = f": {check.note}" if check.note else ""
            found.append(f"{what}disagrees with {check.against} (error {error}, tolerance {check.tolerance:.2g}){note}")
    for kernel in document.kernels:
        if kernel.compiled is not None and kernel.compiled.error:
            found.append(f"kernel {kernel.name} did not compile: {kernel.compiled.error}")
    return found


def headline(document: ModelDocument) -> RenderableType:
    """The model in four lines."""
    launches = launch_count(document)
    external = sum(call.count for call in document.external_calls)
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        "predicted",
        Text.assemble(
            (seconds_text(document.seconds), "bold"),
            f"  (90 % interval {seconds_text(document.seconds_low)} to {seconds_text(document.seconds_high)})",
        ),
    )
    if document.parts:
        grid.add_row("of it", ", ".join(f"{name} {seconds_text(seconds)}" for name, seconds in document.parts.items()))
    energy = (
        "energy not known for this machine" if document.energy_joules is None else joules_text(document.energy_joules)
    )
    grid.add_row(
        "cost",
        f"{energy}, {_memory_text(document)}",
    )
    counts = (counted(launches, "launch", "launches"), counted(external, "external call", "external calls"))
    grid.add_row("kernels", ", ".join((f"{len(document.kernels)} distinct", *counts)))
    checks = [kernel.verified for kernel in document.kernels if kernel.verified is not None]
    if checks:
        good = sum(check.ok for check in checks)
        whole = ""
        if document.verified is not None:
            worst = "not finite" if document.verified.max_error is None else f"{document.verified.max_error:.2g}"
            word = "agrees" if document.verified.ok else "DISAGREES"
            whole = f"; whole model {word} with {document.verified.against} (error {worst}, tolerance {document.verified.tolerance:.2g})"
        grid.add_row("verified", f"{good} of {len(checks)} kernels{whole}")
    if document.symbols:
        grid.add_row("sizes", ", ".join(f"{name} = {value}" for name, value in document.symbols.items()))
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in document.phases.items() if seconds >= 0.05)
    grid.add_row("compile", f"{document.compile_seconds:.1f} s" + (f" ({phases})" if phases else ""))
    return grid


def report(document: ModelDocument, console: Console, *, limit: int | None = 24) -> None:
    """Print one model on one machine."""
    parts: list[RenderableType] = [headline(document), Text(), kernel_table(document, limit)]
    if limit is not None and len(document.kernels) > limit:
        parts.append(Text(f"… and {len(document.kernels) - limit} smaller kernels (--all shows them)", style="dim"))
    for call in document.external_calls:
        parts.append(
            Text(f"external: {call.count} × {call.op}, {seconds_text(call.seconds)} each (estimated)", style="yellow")
        )
    for kernel in document.kernels:
        if kernel.compiled is not None and kernel.compiled.tried:
            parts.append(Text(f"{kernel.name}: {_tried_text(kernel.compiled)}", style="yellow"))
        if kernel.compiled is not None and kernel.compiled.error:
            parts.append(Text(f"{kernel.name} did not compile: {kernel.compiled.error}", style="bold red"))
        if kernel.verified is not None and not kernel.verified.ok:
            parts.append(
                Text(
                    f"{kernel.name} is wrong: error {kernel.verified.max_error} {kernel.verified.note}",
                    style="bold red",
                )
            )
    for warning in document.warnings:
        parts.append(Text(f"warning: {warning}", style="yellow"))
    console.print(
        Panel(Group(*parts), title=f"{document.model} on {document.target}", title_align="left", border_style="dim")
    )
