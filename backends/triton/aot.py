"""Ahead-of-time compilation of kernels for a named GPU, with none present, and what the compiled code needs of the chip."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from codesign.backends.triton import compiler as child
from codesign.backends.triton.emit import Emitted, emission
from codesign.backends.triton.interpret import KernelError, kernel_file, require_triton
from codesign.backends.triton.targets import Target, target
from codesign.costmodel.cache import cache_folder, write_atomically
from codesign.ir.errors import UnsupportedError
from codesign.ir.index import Bounds
from codesign.ir.tile import Kernel

_FORMAT = 7
"""Part of every cache key; raise it when what is stored changes."""


_ONE_AT_A_TIME = threading.Lock()
"""Compiling in this process redirects its standard error for a moment."""


@dataclass(frozen=True)
class Compiled:
    """A kernel compiled for one target.

    `arch`: as in `sm_90`. `registers`: per thread. `shared_bytes`: static plus dynamic shared memory (LDS on AMD) of a program. `spills`: bytes per
    thread that didn't fit into registers (stores plus loads). `warps`: per program. `files`: paths of the kept files by kind ("cubin" or "hsaco",
    "ptx" or "amdgcn", "ttgir", "source"). `seconds`: CPU time of compiling when it was done, which was before where it is `cached`.
    """

    name: str
    arch: str
    registers: int
    shared_bytes: int
    spills: int
    warps: int
    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cached: bool = False

    def text(self, kind: str) -> str:
        """The text of one of the kept files, such as "ptx", "amdgcn" or "ttgir"."""
        if kind not in self.files:
            raise UnsupportedError(f"{self.name} for {self.arch} has no {kind}", hint=f"kept: {', '.join(self.files)}")
        return Path(self.files[kind]).read_text(encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """The `compiled` part of the report."""
        return {
            "arch": self.arch,
            "registers": self.registers,
            "shared_bytes": self.shared_bytes,
            "spills": self.spills,
        }


@cache
def triton_version() -> str:
    require_triton()
    import triton

    return str(triton.__version__)


def cache_key(emitted: Emitted, goal: Target) -> str:
    """What decides the compiled code: source without its header comment, options, target, and Triton's version."""
    parts = [
        emitted.core,
        json.dumps(emitted.signature),
        emitted.warps,
        emitted.stages,
        goal.name,
        triton_version(),
        _FORMAT,
        *([json.dumps(emitted.options)] if emitted.options else []),
    ]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]


def compile_aot(kernel: Kernel | Emitted, target_name: str = "sm_90", bounds: Bounds | None = None) -> Compiled:
    """Compile one kernel for a target (`sm_80`, `sm_90`, `sm_100`, `gfx942`, ...); kept on disk, never compiled twice.

    UnsupportedError for an unknown target or without Triton; KernelError with Triton's message when it rejects the kernel.
    """
    return compile_all([kernel], target_name, bounds)[0]


def compile_all(
    kernels: Iterable[Kernel | Emitted],
    target_name: str = "sm_90",
    bounds: Bounds | None = None,
    jobs: int | None = None,
) -> list[Compiled]:
    """Compile kernels for a target, `jobs` processes at a time (as many as cores by default), in order of the kernels."""
    goal = target(target_name)
    emitted = [k if isinstance(k, Emitted) else emission(k, bounds) for k in kernels]
    keys = [cache_key(one, goal) for one in emitted]
    wanted = {key: one for key, one in zip(keys, emitted, strict=True) if _stored(key) is None}
    if wanted:
        _compile_missing(list(wanted.items()), goal, jobs or os.cpu_count() or 1)
    results = []
    for key, one in zip(keys, emitted, strict=True):
        stored = _stored(key)
        if stored is None:
            folder = cache_folder("triton", "compiled")
            raise KernelError(f"kernel {one.name} was compiled for {goal.name} but not stored in {folder}")
        fresh = key in wanted
        results.append(Compiled(**{**stored, "cached": not fresh}))
    return results


def _stored(key: str) -> dict[str, Any] | None:
    path = cache_folder("triton", "compiled") / key / "compiled.json"
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    try:
        whole = all(_digest(Path(file)) == data["digests"][kind] for kind, file in data["files"].items())
        known = whole and {**data, "digests": None}.keys() == {f.name for f in fields(Compiled)} | {"digests"}
    except (OSError, AttributeError, KeyError, TypeError):
        return None  # damaged, or of another version
    return {key: value for key, value in data.items() if key != "digests"} if known else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compile_missing(work: Sequence[tuple[str, Emitted]], goal: Target, jobs: int) -> None:
    """Compile in child processes when several are wanted (Triton's compiler holds the interpreter lock), else right here.

    A process that was started with TRITON_INTERPRET can't compile, so its children do.
    """
    if (len(work) < 4 or jobs < 2) and not os.environ.get("TRITON_INTERPRET"):
        for key, emitted in work:
            with _ONE_AT_A_TIME:
                outcome = child.compile_one(_request(emitted, goal))
            _finish(key, emitted, goal, outcome)
        return
    shares = [work[start::jobs] for start in range(min(jobs, len(work)))]

    def run(share: Sequence[tuple[str, Emitted]]) -> list[dict[str, Any]]:
        requests = json.dumps([_request(emitted, goal) for _, emitted in share])
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        done = subprocess.run(
            [sys.executable, "-P", child.__file__],
            input=requests,
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise KernelError(f"the compiling process ended with status {done.returncode}: {last}")
        answer: list[dict[str, Any]] = json.loads(done.stdout)
        return answer

    with ThreadPoolExecutor(len(shares)) as pool:
        for share, outcomes in zip(shares, pool.map(run, shares), strict=True):
            for (key, emitted), outcome in zip(share, outcomes, strict=True):
                _finish(key, emitted, goal, outcome)


def _request(emitted: Emitted, goal: Target) -> dict[str, Any]:
    """What the compiling process needs; the kernel's file carries the source with its comments."""
    return {
        "path": str(kernel_file(emitted)),
        "name": emitted.name,
        "signature": emitted.signature,
        "aligned": list(emitted.aligned),
        "warps": emitted.warps,
        "stages": emitted.stages,
        "options": emitted.options,
        "backend": goal.backend,
        "arch": goal.arch,
        "warp": goal.warp,
        "folder": tempfile.mkdtemp(prefix="codesign-compile-"),
    }


def _finish(key: str, emitted: Emitted, goal: Target, outcome: dict[str, Any]) -> None:
    """Read the resources back from the binary and move everything to the cache; the JSON comes last and makes it valid."""
    if "error" in outcome:
        failure = KernelError(
            f"Triton rejects kernel {emitted.name} for {goal.name}: {outcome['error']}", place=outcome["path"]
        )
        failure.add_note(outcome.get("traceback", ""))
        raise failure
    scratch = Path(outcome["folder"])
    folder = cache_folder("triton", "compiled") / key
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind in outcome["kinds"]:
        destination = folder / f"{emitted.name}.{kind}"
        write_atomically(destination, (scratch / kind).read_bytes())
        files[kind] = str(destination)
        (scratch / kind).unlink()
    scratch.rmdir()
    source = folder / f"{emitted.name}.py"
    write_atomically(source, emitted.source.encode())
    files["source"] = str(source)
    registers, spills = _nvidia_resources(files, goal) if goal.backend == "cuda" else _amd_resources(files)
    warps = _launched_warps(files, goal) or emitted.warps
    compiled = Compiled(emitted.name, goal.name, registers, outcome["shared"], spills, warps, files, outcome["seconds"])
    stored = {**asdict(compiled), "digests": {kind: _digest(Path(file)) for kind, file in files.items()}}
    write_atomically(folder / "compiled.json", json.dumps(stored, indent=1).encode())


def _launched_warps(files: dict[str, str], goal: Target) -> int:
    """Warps of a block as it is launched, those that the compiler adds included; 0 where the code does not say."""
    if "ptx" not in files:
        return 0
    found = re.search(r"\.reqntid\s+(\d+)", Path(files["ptx"]).read_text(encoding="utf-8"))
    return int(found[1]) // goal.warp if found else 0


def tool(name: str) -> str:
    """The path of a tool of NVIDIA's that Triton's package brings; UnsupportedError without it."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not path.is_file():
        raise UnsupportedError(
            f"{name} is not in the Triton package", hint="install Triton from PyPI, whose wheel brings it"
        )
    return str(path)


def _nvidia_resources(files: dict[str, str], goal: Target) -> tuple[int, int]:
    """Registers from `cuobjdump -res-usage`; where there is a stack, the spilled bytes from `ptxas -v` (a stack may hold arrays as well, as that of a
    sine of large arguments does)."""
    done = subprocess.run(
        [tool("cuobjdump"), "-res-usage", files["cubin"]], capture_output=True, text=True, check=False
    )
    found = re.search(r"REG:(\d+)\s+STACK:(\d+)", done.stdout)
    if found is None:
        raise KernelError(
            f"cuobjdump said nothing of registers: {(done.stdout + done.stderr).strip()[:300]}", place=files["cubin"]
        )
    registers, stack = int(found[1]), int(found[2])
    if stack == 0:
        return registers, 0
    arch = f"sm_{goal.arch}a" if int(goal.arch) >= 90 else f"sm_{goal.arch}"
    command = [_assembler(int(goal.arch)), "-v", f"--gpu-name={arch}", files["ptx"], "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    if not spilled:
        said = (done.stdout + done.stderr).strip()[:300]
        raise KernelError(f"ptxas said nothing of what is spilled: {said}", place=files["ptx"])
    return registers, sum(int(stored) + int(loaded) for stored, loaded in spilled)


def _assembler(arch: int) -> str:
    """The assembler that Triton itself gives its code to, which may be the only one that knows the version of its PTX."""
    from triton.backends.nvidia.compiler import get_ptxas

    return str(get_ptxas(arch).path)


def _amd_resources(files: dict[str, str]) -> tuple[int, int]:
    """Vector registers (accumulation ones included) and spilled bytes, each stored and loaded, from the metadata in the assembly text."""
    text = Path(files["amdgcn"]).read_text(encoding="utf-8")

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        return int(found[1]) if found else 0

    return number("vgpr_count"), 8 * (number("vgpr_spill_count") + number("sgpr_spill_count"))
