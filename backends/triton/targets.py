"""Compilation targets: names like sm_90 and gfx942, and which one a machine file means."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from codesign.costmodel.machine import Machine
from codesign.ir.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Target:
    """What Triton compiles for: `backend` "cuda" or "hip", `arch` 90 or "gfx942", threads per warp."""

    name: str
    backend: str
    arch: int | str
    warp: int


KNOWN = (
    "sm_80",
    "sm_86",
    "sm_89",
    "sm_90",
    "sm_100",
    "sm_103",
    "sm_120",
    "gfx90a",
    "gfx942",
    "gfx950",
    "gfx1100",
    "gfx1201",
)


def target(name: str) -> Target:
    """The target of a name (`sm_90`, `sm_90a`, `cuda:90`, `gfx942`, `hip:gfx942`); UnsupportedError with the nearest names otherwise."""
    given, name = name, name.removeprefix("hip:")
    nvidia = re.fullmatch(r"(?:sm_|cuda:)(\d+)a?", name)
    if nvidia and f"sm_{nvidia[1]}" in KNOWN:
        return Target(f"sm_{nvidia[1]}", "cuda", int(nvidia[1]), 32)
    if name in KNOWN:
        return Target(name, "hip", name, 32 if name.startswith("gfx1") else 64)
    near = difflib.get_close_matches(name, KNOWN, n=3, cutoff=0.3) or list(KNOWN)
    raise UnsupportedError(f"unknown compilation target {given!r}", hint=f"nearest: {', '.join(near)}")


def target_of(machine: Machine) -> Target | None:
    """What a machine's file says its kernels compile for; None for machines that Triton has no code generator for."""
    return target(machine.target) if machine.target else None
