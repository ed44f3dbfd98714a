"""Runs kernels: in Triton's interpreter on the CPU (in a process of its own), natively on a CUDA device.

Triton decides at import whether it interprets, and ahead-of-time compilation needs it not to; so interpretation lives in one worker process
per user process, started at first use, that runs as many kernels as asked for.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from codesign.backends.triton import worker as protocol
from codesign.backends.triton.emit import Emitted, emission
from codesign.backends.triton.names import is_bytes, torch_type
from codesign.costmodel.cache import cache_folder, write_atomically
from codesign.ir.dtypes import DType
from codesign.ir.errors import CodesignError, UnsupportedError
from codesign.ir.index import Bounds
from codesign.ir.tile import Kernel

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


class KernelError(CodesignError):
    """A kernel that failed while it ran: names the kernel, its file, and Triton's message."""


class Worker:
    """A process that interprets kernels; safe to use from several threads, restarted when it died.

    Requests are numbered, and whatever ends a request before its own answer is read (Ctrl-C, a signal handler that raises) ends the
    process too: an answer that lies in the pipe is never taken for the next one's. A forked child starts a process of its own.
    """

    def __init__(self, script: str = protocol.__file__) -> None:
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._number = 0

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            environment = {
                **os.environ,
                "TRITON_INTERPRET": "1",
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            }
            command = [sys.executable, "-P", self._script]
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        return self._process

    def ask(self, request: Mapping[str, Any], what: str) -> Any:
        """Send a request and wait for its answer; KernelError with the worker's message when it failed."""
        with self._lock:
            answered = False
            try:
                process = self._start()
                self._number += 1
                protocol.send(cast(IO[bytes], process.stdin), {**request, "number": self._number})
                number, *reply = protocol.receive(cast(IO[bytes], process.stdout))
                answered = number == self._number
            except (EOFError, OSError) as error:
                raise KernelError(f"the interpreter process ended{self._status()} while running {what}") from error
            finally:
                if not answered:
                    self._kill()
        if not answered:
            raise KernelError(f"the interpreter process answered request {number} when asked {self._number}: {what}")
        if reply[0] == "error":
            failure = KernelError(f"{what} failed in Triton's interpreter: {reply[1]}", place=request["path"])
            failure.add_note(reply[2])
            raise failure
        return reply[1]

    def _status(self) -> str:
        try:
            return "" if self._process is None else f" with status {self._process.wait(timeout=5)}"
        except subprocess.TimeoutExpired:
            return ""

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            _close_pipes(process)
            process.wait()

    def leave_to_parent(self) -> None:
        """Forget the process without a word to it: what a forked child does, whose parent goes on talking over these pipes."""
        process, self._process, self._lock = self._process, None, threading.Lock()
        if process is not None:
            _close_pipes(process)
            process.returncode = 0  # not this process's child: nothing to wait for

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._process.poll() is None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


_worker = Worker()
atexit.register(_worker.close)
os.register_at_fork(after_in_child=lambda: _worker.leave_to_parent())


def worker() -> Worker:
    """The process-wide interpreter worker."""
    return _worker


def kernel_file(emitted: Emitted) -> Path:
    """The kernel's source as a file named by its content (Triton reads a kernel's source from its file)."""
    digest = hashlib.sha256(emitted.source.encode()).hexdigest()[:16]
    path = cache_folder("triton", "sources") / f"{emitted.name}_{digest}.py"
    source = emitted.source.encode()
    if not path.is_file() or path.read_bytes() != source:
        write_atomically(path, source)
    return path


def to_torch(array: Array, dtype: DType) -> torch.Tensor:
    """A torch tensor of the dtype from an array as the IR's interpreter holds it (bf16 and float8 in float32)."""
    import torch

    dense = torch.from_numpy(np.array(array, copy=True, order="C"))
    kind = cast("torch.dtype", getattr(torch, torch_type(dtype).removeprefix("torch.")))
    return dense.view(kind) if is_bytes(dtype) else dense.to(kind)


def to_numpy(tensor: torch.Tensor, dtype: DType) -> Array:
    """An array as the IR's interpreter holds the dtype, from a torch tensor."""
    import torch

    host = tensor.detach().cpu()
    if is_bytes(dtype):
        host = host.view(torch.uint8)
    if dtype.is_float and dtype.numpy == np.float32:
        host = host.to(torch.float32)
    return host.numpy()


def device_for(device: str = "auto") -> str:
    """ "cuda" when there is a device (or it is asked for), else "cpu", which means the interpreter."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_triton() -> None:
    """UnsupportedError with what to do when Triton is not installed."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"Triton cannot be imported ({error})",
            hint="install it with `pip install triton` (it exists for Linux only)",
        ) from None


def run_kernel(
    kernel: Kernel,
    inputs: Sequence[Array],
    symbols: Mapping[str, int] | None = None,
    *,
    device: str = "auto",
    emitted: Emitted | None = None,
    bounds: Bounds | None = None,
) -> list[Array]:
    """Run a kernel over input arrays and return its outputs.

    `inputs`: one array per input buffer, held as the IR's interpreter holds the dtype. Output buffers start as NaN or zero, whatever the
    kernel must not depend on, or as the input that they overwrite. `device`: "cpu" interprets, "cuda" compiles and runs natively, "auto"
    takes what there is.
    """
    import torch

    require_triton()
    emitted = emitted or emission(kernel, bounds)
    sizes = dict(symbols or {})
    for value, array in zip(kernel.inputs, inputs, strict=True):
        for extent, size in zip(value.shape, array.shape, strict=True):
            if extent.variable is not None:
                sizes.setdefault(extent.variable, int(size))
    tensors = [to_torch(array, value.type.dtype) for array, value in zip(inputs, kernel.inputs, strict=True)]
    for position, value in enumerate(kernel.results):
        if position in kernel.overwrites:
            tensors.append(tensors[kernel.overwrites[position]].clone())
            continue
        shape = [int(extent.evaluate(sizes)) for extent in value.shape]
        kind = cast("torch.dtype", getattr(torch, torch_type(value.type.dtype).removeprefix("torch.")))
        fresh = torch.zeros(shape, dtype=kind)
        tensors.append(
            fresh.fill_(float("nan")) if value.type.dtype.is_float and value.type.dtype.bits >= 16 else fresh
        )
    path, ordered = kernel_file(emitted), [int(sizes[name]) for name in kernel.symbols]
    if device_for(device) == "cpu":
        request = {
            "kind": "kernel",
            "path": str(path),
            "tensors": [protocol.packed_of(tensor) for tensor in tensors],
            "sizes": ordered,
            "first_output": len(kernel.inputs),
        }
        results = [protocol.tensor_of(packed) for packed in worker().ask(request, f"kernel {kernel.name}")]
    else:
        on_device = [tensor.to(device_for(device)) for tensor in tensors]
        protocol.load_file(str(path)).launch(*on_device, *ordered)
        torch.cuda.synchronize()
        results = on_device[len(kernel.inputs) :]
    return [to_numpy(tensor, value.type.dtype) for tensor, value in zip(results, kernel.results, strict=True)]


def run_interpreted(kernel: Kernel, inputs: Sequence[Array], symbols: Mapping[str, int] | None = None) -> list[Array]:
    """Run a kernel in Triton's interpreter on the CPU and return its outputs."""
    return run_kernel(kernel, inputs, symbols, device="cpu")
