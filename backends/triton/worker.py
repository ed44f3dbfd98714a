"""The process that runs kernels in Triton's interpreter: started with TRITON_INTERPRET=1, answers requests on its standard input.

It imports Triton, nothing of codesign, and torch only for kernels that ask for it. A request is a pickled dict followed by the bytes of its
tensors, all framed by their lengths; the answer likewise, and it carries the number of its request. Some meanings of Triton's interpreter
differ from what the hardware does; `mended.py` sets them right before anything runs.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import struct
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import IO, Any

COUNT = struct.Struct("<Q")


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message: how many parts, their lengths, then the parts: the pickle and the buffers that it refers to, uncopied."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(data), *(buffer.raw() for buffer in buffers)]
    lengths = b"".join(COUNT.pack(part.nbytes) for part in parts)
    for part in (memoryview(COUNT.pack(len(parts)) + lengths), *parts):
        while part.nbytes:
            part = part[stream.write(part) :]
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; EOFError when the other side is gone."""
    (count,) = COUNT.unpack(_exactly(stream, COUNT.size))
    lengths = [size for (size,) in COUNT.iter_unpack(_exactly(stream, COUNT.size * count))]
    data, *buffers = [_exactly(stream, size) for size in lengths]
    return pickle.loads(data, buffers=buffers)


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest.nbytes:
        count = stream.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]
    return data


_modules: dict[str, ModuleType] = {}


def load_file(path: str) -> ModuleType:
    """Import a Python file by its path, once per content (the caller names files by content)."""
    if path not in _modules:
        name = f"codesign_kernel_{len(_modules)}"
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)
        _modules[path] = module
    return _modules[path]


def tensor_of(packed: Any) -> Any:
    """A torch tensor from (its bytes in memory of its own, dtype name, shape)."""
    import torch

    data, dtype, shape = packed
    kind = getattr(torch, dtype)
    if not len(data):
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(data, dtype=torch.uint8).view(kind).reshape(shape)


def packed_of(tensor: Any) -> Any:
    """(bytes, dtype name, shape) of a torch tensor; the bytes are the tensor's own until they are sent."""
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    dense = tensor.detach().cpu().contiguous()
    data = pickle.PickleBuffer(dense.reshape(-1).view(torch.uint8).numpy()) if dense.numel() else b""
    return data, name, tuple(dense.shape)


def answer(request: dict[str, Any], mended: ModuleType) -> Any:
    """Serve one request: a runner module's `Runner` on its inputs, or a kernel's `launch`, whose outputs are sent back.

    A kernel's tensors are NumPy's memory, or torch's where its file says `import torch`.
    """
    module, given = load_file(request["path"]), request["tensors"]
    if request["kind"] == "runner":
        weights = {name: tensor_of(packed) for name, packed in request["weights"].items()}
        return [packed_of(tensor) for tensor in module.Runner(weights, device="cpu")(*map(tensor_of, given))]
    first = request["first_output"]
    if hasattr(module, "torch") or any(dtype not in mended.TYPES for _, dtype, _ in given):
        tensors = [tensor_of(packed) for packed in given]
        module.launch(*tensors, *request["sizes"])
        return [packed_of(tensor) for tensor in tensors[first:]]
    buffers = [mended.Buffer(*packed) for packed in given]
    module.launch(*buffers, *request["sizes"])
    return [(pickle.PickleBuffer(b.array) if b.array.size else b"", b.dtype, b.shape) for b in buffers[first:]]


def main() -> None:
    """Serve until the input closes. Whatever kernels print goes to standard error; Ctrl-C is the asking process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    mended = load_file(str(Path(__file__).with_name("mended.py")))
    mended.mend()
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        try:
            send(answers, (request["number"], "ok", answer(request, mended)))
        except Exception as error:
            cause = error.__cause__ or error.__context__ or error
            send(answers, (request["number"], "error", f"{type(cause).__name__}: {cause}", traceback.format_exc()))


if __name__ == "__main__":
    main()
