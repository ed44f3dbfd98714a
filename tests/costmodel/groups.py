"""Fused groups of single operators, written as text, and what the tile model finds best for them."""

from __future__ import annotations

from codesign.costmodel.machine import Machine, load_machine, machine_names
from codesign.ir.core import Block
from codesign.ir.tensor import Compute, Fusion
from codesign.ir.text import parse
from codesign.passes.schedule.tuner import Tuned, Tuner

GPUS = [name for name in machine_names() if load_machine(name).kind == "gpu"]


def group(arguments: str, *computes: str) -> Fusion:
    """The group of some computes (`%name = compute ...`), which yields the last."""
    result = computes[-1].split(" = ")[0]
    lines = "\n  ".join(computes)
    ops = parse(f"module @m\n\nfunc @main({arguments}) {{\n  {lines}\n  return {result}\n}}\n").main.body.ops
    found = [op for op in ops if isinstance(op, Compute)]
    return Fusion(Block((), found, [found[-1].result]), label="group")


def polynomial(dtype: str, size: int, terms: int) -> Fusion:
    """A polynomial of every element by Horner's rule: two operations a term."""
    lines = ["let t0 = %x[i];"]
    lines += [
        f"let t{term + 1} = t{term} * t0 + {term}{'.5' if dtype[0] == 'f' else ''}:{dtype};" for term in range(terms)
    ]
    body = "\n    ".join((*lines, f"t{terms}"))
    return group(f"%x: {dtype}[{size}]", f"%y = compute {dtype}[i: {size}] {{\n    {body}\n  }}")


def best(fusion: Fusion, machine: Machine | str = "h100_sxm") -> Tuned:
    """The best schedule of a group."""
    return Tuner(load_machine(machine) if isinstance(machine, str) else machine).tune(fusion)


def convolution(
    batch: int, inside: int, outside: int, image: tuple[int, ...], taps: int = 3, dtype: str = "bf16"
) -> Fusion:
    """A convolution of one or more dims, stride 1, that keeps the size of its images."""
    letters = "yxz"[: len(image)]
    sizes = ", ".join(map(str, image))
    grid = ", ".join(f"{letter}: {size}" for letter, size in zip(letters, image, strict=True))
    window = ", ".join(f"r{letter}: {taps}" for letter in letters)
    at = ", ".join(f"{letter} + r{letter} - {taps // 2}" for letter in letters)
    kernel = ", ".join(f"r{letter}" for letter in letters)
    shape = ", ".join([str(taps)] * len(image))
    return group(
        f"%x: {dtype}[{batch}, {inside}, {sizes}], %w: {dtype}[{outside}, {inside}, {shape}]",
        f"%s = compute f32[n: {batch}, o: {outside}, {grid}] sum(c: {inside}, {window}) "
        f"{{ f32(%x[n, c, {at}] else 0.0:{dtype}) * f32(%w[o, c, {kernel}]) }}",
        f"%v = compute {dtype}[n: {batch}, o: {outside}, {grid}] {{ {dtype}(%s[n, o, {', '.join(letters)}]) }}",
    )
