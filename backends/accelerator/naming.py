"""Names in programs."""

from __future__ import annotations

from codesign.ir.tile import For, Kernel

_KEYWORDS = """
scratch semaphore for in to step count set load stage store vector matmul sync where else reduce first precision wait signal
let and min max data index true false inf nan shared by half kept again scaled program on cores dataflow strides at
atomic_add atomic_mul atomic_max atomic_min loc of fused
"""
RESERVED = frozenset(_KEYWORDS.split())


def spelled(name: str) -> str:
    """A name that the text format takes."""
    return (
        "".join(letter if (letter.isalnum() and letter.isascii()) or letter in "_." else "_" for letter in name) or "_"
    )


def names_of(kernel: Kernel) -> set[str]:
    """Names of the kernel's axes, loop variables and grid indices, which nothing else may have."""
    names = {dim.name for dim in kernel.grid}
    for op in kernel.body.walk():
        names |= {axis.name for axis in (*getattr(op, "axes", ()), *getattr(op, "reduced", ()))}
        names |= {op.variable} if isinstance(op, For) else set()
    return names
