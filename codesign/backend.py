"""One face for all backends: build kernels, check each, run them, print them; and the registry by which machines find theirs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from codesign.backends import accelerator
from codesign.backends.accelerator.simulate import SimulationResult
from codesign.backends.triton.aot import Compiled as TritonCompiled
from codesign.backends.triton.aot import compile_all
from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import run_kernel
from codesign.backends.triton.names import file_names
from codesign.backends.triton.targets import target_of
from codesign.backends.triton.verify import verify_kernel
from codesign.backends.verification import Verification, verify_on
from codesign.costmodel.machine import Machine
from codesign.document import Compiled, Verified
from codesign.ir.core import Module
from codesign.ir.errors import CodesignError
from codesign.ir.index import Bounds
from codesign.ir.interpreter import Launcher, with_outputs
from codesign.ir.program import Program
from codesign.ir.text.program import print_program
from codesign.ir.tile import Kernel
from codesign.passes.lowering import KernelInfo

Array = npt.NDArray[Any]
Tick = Callable[[], None]


class Backend(Protocol):
    """What the pipeline asks of a kind of machine."""

    form: str
    """The form of `--emit` that this backend makes."""

    def build(self, infos: Iterable[KernelInfo], tick: Tick) -> dict[str, Compiled]:
        """Make code of every kernel, anew where a kernel of the name was built before; what the compiler or assembler reported, by
        kernel name."""

    def verify(self, info: KernelInfo, seed: int) -> Verified:
        """One kernel on fresh random inputs against the meaning of its group."""

    def launcher(self) -> Launcher:
        """What runs a kernel on arrays the way the machine would."""

    def texts(self) -> dict[str, str]:
        """File name -> text of every kernel built or asked for."""

    def binaries(self) -> dict[str, dict[str, Path]]:
        """Kernel name -> kind -> file that the compiler left."""

    def simulated_seconds(self, kernel: str) -> float | None:
        """Time of a kernel that was run at its full size on a simulator of the machine."""


Maker = Callable[[Machine, Module, Mapping[str, int], Path | None], Backend]
"""Makes the backend of a machine for a tiled module, values of its size symbols, and the folder of the user's model (whose lines may
be shown)."""

BACKENDS: dict[str, Maker] = {
    "triton": lambda machine, module, sizes, sources: TritonBackend(machine, module, sources=sources),
    "accelerator": lambda machine, module, sizes, sources: AcceleratorBackend(machine, module, dict(sizes)),
}
"""The backends here, by the name of the form that each makes."""

BY_KIND = {"gpu": "triton", "dataflow": "accelerator"}
"""The backend of a machine whose file names none."""

ENTRY_POINTS = "codesign.backends"
"""The group of entry points by which an installed package adds a backend: the name that machine files say, and a `Maker`."""


def backend_name(machine: Machine) -> str:
    """The name of the backend that makes code for a machine."""
    return machine.backend or BY_KIND[machine.kind]


def backend_for(machine: Machine, module: Module, sizes: Mapping[str, int], sources: Path | None = None) -> Backend:
    """The backend of a machine for a tiled module; CodesignError with the nearest names when there is none of the name in its file."""
    name = backend_name(machine)
    if name in BACKENDS:
        return BACKENDS[name](machine, module, sizes, sources)
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in points:
        known = sorted({*BACKENDS, *points})
        near = difflib.get_close_matches(name, known, n=1) or known
        raise CodesignError(f"{machine.name}: no backend {name!r}", hint=f"nearest: {', '.join(near)}")
    try:
        maker: Maker = points[name].load()
    except Exception as error:  # another's package may fail in any way
        raise CodesignError(f"backend {name!r}: {error}", hint=f"mend or remove {points[name].value}") from error
    return maker(machine, module, sizes, sources)


def _document(check: Verification) -> Verified:
    shorter = ", ".join(f"{name} {small} of {full}" for name, (full, small) in check.extents.items())
    note = "; ".join(text for text in (check.message, f"run at {shorter}" if shorter else "") if text)
    error = check.max_error if np.isfinite(check.max_error) else None
    return Verified(against=check.against, max_error=error, tolerance=check.tolerance, ok=check.ok, note=note)


@dataclass
class TritonBackend:
    """Kernels as Triton source, compiled ahead of time, run in Triton's interpreter."""

    machine: Machine
    module: Module
    form: str = "triton"
    sources: Path | None = None
    compiled: dict[str, TritonCompiled] = field(default_factory=dict)

    @property
    def bounds(self) -> Bounds:
        return self.module.bounds()

    def build(self, infos: Iterable[KernelInfo], tick: Tick) -> dict[str, Compiled]:
        target = target_of(self.machine)
        kernels = [info.kernel for info in infos]
        if target is None:
            return {}
        for kernel in kernels:
            self.compiled.pop(kernel.name, None)
        done: dict[str, Compiled] = {}
        try:
            results = compile_all(kernels, target.name, self.bounds)
        except CodesignError:
            results = []  # one of them fails: take them one by one, to say which
        for compiled in results:
            self.compiled[compiled.name] = compiled
        for kernel in kernels:
            done[kernel.name] = self._one(kernel, target.name)
            tick()
        return done

    def _one(self, kernel: Kernel, target: str) -> Compiled:
        if kernel.name not in self.compiled:
            try:
                self.compiled[kernel.name] = compile_all([kernel], target, self.bounds)[0]
            except CodesignError as error:
                return Compiled(arch=target, error=error.one_line())
        found = self.compiled[kernel.name]
        limit = int(self.machine.limit("shared_per_block_bytes"))
        if found.shared_bytes > limit:  # the compiler says nothing, and the launch would fail
            text = f"{kernel.name} takes {found.shared_bytes:,} B of shared memory, a block of {self.machine.name} has {limit:,} B"
            return Compiled(arch=found.arch, error=text)
        return Compiled(
            arch=found.arch,
            registers=found.registers,
            warps=found.warps,
            shared_bytes=found.shared_bytes,
            spills=found.spills,
            compile_seconds=found.seconds,
        )

    def verify(self, info: KernelInfo, seed: int) -> Verified:
        return _document(verify_kernel(info.normalized, info.kernel, bounds=self.bounds, seed=seed, device="cpu"))

    def launcher(self) -> Launcher:
        bounds = self.bounds
        return lambda kernel, inputs, sizes: run_kernel(kernel, inputs, sizes, device="cpu", bounds=bounds)

    def texts(self) -> dict[str, str]:
        kernels, files = self.module.kernels, file_names(self.module.kernels)
        return {
            f"kernels/{files[name]}.py": emission(kernel, self.bounds, self.sources).source
            for name, kernel in kernels.items()
        }

    def binaries(self) -> dict[str, dict[str, Path]]:
        kinds = ("cubin", "hsaco", "ptx", "amdgcn")
        return {
            name: {kind: Path(path) for kind, path in found.files.items() if kind in kinds}
            for name, found in self.compiled.items()
        }

    def simulated_seconds(self, kernel: str) -> float | None:
        return None


@dataclass
class AcceleratorBackend:
    """Kernels as programs for a simulated dataflow machine."""

    machine: Machine
    module: Module
    sizes: dict[str, int]
    form: str = "accelerator"
    programs: dict[str, Program] = field(default_factory=dict)
    simulated: dict[str, SimulationResult] = field(default_factory=dict)

    def program(self, kernel: Kernel) -> Program:
        """The program of a kernel, lowered once."""
        if kernel.name not in self.programs:
            self.programs[kernel.name] = accelerator.lower(kernel, self.machine, self.sizes)
        return self.programs[kernel.name]

    def build(self, infos: Iterable[KernelInfo], tick: Tick) -> dict[str, Compiled]:
        done: dict[str, Compiled] = {}
        for info in infos:
            kernel = info.kernel
            self.programs.pop(kernel.name, None)
            try:
                program = self.program(kernel)
                used = max((program.scratch_bytes(s.level) for s in program.scratches), default=0)
                count = len(program.instructions())
                done[kernel.name] = Compiled(arch=self.machine.name, instructions=count, scratchpad_bytes=used)
            except CodesignError as error:
                done[kernel.name] = Compiled(arch=self.machine.name, error=error.one_line())
            tick()
        return done

    def verify(self, info: KernelInfo, seed: int) -> Verified:
        def run(kernel: Kernel, inputs: list[Array], sizes: Mapping[str, int]) -> list[Array]:
            own = kernel is info.kernel
            program = self.program(kernel) if own else accelerator.lower(kernel, self.machine, dict(sizes))
            return accelerator.simulate(program, with_outputs(kernel, inputs, sizes), self.machine).outputs

        bounds = self.module.bounds()
        return _document(verify_on(run, info.normalized, info.kernel, bounds=bounds, sizes=self.sizes, seed=seed))

    def launcher(self) -> Launcher:
        def run(kernel: Kernel, inputs: Any, sizes: Mapping[str, int]) -> list[Array]:
            program, costed = self.program(kernel), all(sizes[name] == self.sizes[name] for name in kernel.symbols)
            if not costed:  # data decided a size
                program = accelerator.lower(kernel, self.machine, sizes)
            result = accelerator.simulate(program, with_outputs(kernel, inputs, sizes), self.machine)
            if costed:
                self.simulated[kernel.name] = result
            return result.outputs

        return run

    def texts(self) -> dict[str, str]:
        for kernel in self.module.kernels.values():
            self.program(kernel)
        files = file_names(self.programs)
        return {f"programs/{files[name]}.casm": print_program(program) for name, program in self.programs.items()}

    def binaries(self) -> dict[str, dict[str, Path]]:
        return {}

    def simulated_seconds(self, kernel: str) -> float | None:
        found = self.simulated.get(kernel)
        return None if found is None else found.seconds
