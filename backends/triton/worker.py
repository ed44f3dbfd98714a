"""The process that runs kernels in Triton's interpreter: started with TRITON_INTERPRET=1, answers requests on its standard input.

It imports torch and Triton and nothing of codesign. A request is a pickled dict followed by the bytes of its tensors, all framed by their
lengths; the answer likewise, and it carries the number of its request. Some meanings of Triton's interpreter differ from what the hardware
does; `mend_interpreter` sets them right before anything runs.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import struct
import sys
import traceback
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


def mend_interpreter() -> None:
    """Make the interpreter round, multiply and reduce as the hardware does.

    - float32 to bfloat16 rounds to nearest even (the interpreter cuts off);
    - bfloat16 and float8 tiles are multiplied as numbers (the interpreter multiplies bfloat16's bit patterns);
    - the result of a comparison is a bool (the interpreter labels it with its operands' type, and spreads it as that);
    - an assertion of the kernel is checked (the interpreter leaves them out);
    - a reduction with a function of the kernel's own works on whole slices (the interpreter takes element by element: hours).
    """
    import numpy as np
    import torch
    import triton.language as tl
    from triton.runtime import interpreter

    held = {
        tl.bfloat16: torch.bfloat16,
        tl.float8e4nv: torch.float8_e4m3fn,
        tl.float8e5: torch.float8_e5m2,
        tl.float8e4b8: torch.float8_e4m3fnuz,
        tl.float8e5b16: torch.float8_e5m2fnuz,
    }
    bits = {kind: torch.uint16 if kind is torch.bfloat16 else torch.uint8 for kind in held.values()}

    def widen(data: Any, dtype: Any) -> Any:
        kind = held[dtype]
        return torch.from_numpy(np.ascontiguousarray(data)).view(bits[kind]).view(kind).to(torch.float32).numpy()

    def narrow(data: Any, dtype: Any) -> Any:
        kind = held[dtype]
        with np.errstate(all="ignore"):
            single = np.ascontiguousarray(data.astype(np.float32))
        return torch.from_numpy(single).to(kind).view(bits[kind]).numpy()

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    plain_cast = builder.cast_impl
    plain_fp_to_fp = builder.create_fp_to_fp

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        source, target = src.dtype.scalar, dst_type.scalar
        if source is target or (source not in held and target not in held):
            with np.errstate(all="ignore"):
                return plain_cast(self, src, dst_type)
        data = widen(src.data, source) if source in held else src.data
        if target in held:
            return handle(narrow(data, target), target)
        with np.errstate(all="ignore"):
            return handle(data.astype(interpreter._get_np_dtype(target)), target)

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        if src.dtype.scalar in held or dst_type.scalar in held:
            return cast_impl(self, src, dst_type)
        return plain_fp_to_fp(self, src, dst_type, rounding_mode)

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        def operand(x: Any) -> Any:
            data = widen(x.data, x.dtype.scalar) if x.dtype.scalar in held else x.data
            return data.astype(d.data.dtype, copy=False)

        with np.errstate(all="ignore"):
            return handle(np.matmul(operand(a), operand(b)) + d.data, d.dtype.scalar)

    def generic_reduce(self: Any, inputs: Any) -> Any:
        original = self.axis
        inputs, axis = self.unravel(inputs, self.axis)
        arrays = [np.moveaxis(x.handle.data, axis, 0) for x in inputs]
        kinds = [x.dtype for x in inputs]
        with np.errstate(all="ignore"):
            while len(arrays[0]) > 1:  # pairwise, as a tree: what lies in the middle joins later
                half = len(arrays[0]) // 2
                left = [self.to_tensor(np.ascontiguousarray(x[:half]), t) for x, t in zip(arrays, kinds, strict=True)]
                right = [
                    self.to_tensor(np.ascontiguousarray(x[half : 2 * half]), t)
                    for x, t in zip(arrays, kinds, strict=True)
                ]
                joined = self.combine_fn.fn(*left, *right)
                joined = joined if isinstance(joined, tuple) else (joined,)
                arrays = [np.concatenate([j.handle.data, x[2 * half :]]) for j, x in zip(joined, arrays, strict=True)]
        results = []
        for x, kind in zip(arrays, kinds, strict=True):
            data = x[0]
            if self.keep_dims:
                data = (
                    np.expand_dims(data, axis)
                    if original is not None
                    else data.reshape((1,) * inputs[0].handle.data.ndim)
                )
            elif original is None or data.ndim == 0:
                data = data.item()
            results.append(self.to_tensor(data, kind))
        return results

    def comparison(plain: Any) -> Any:
        def compare(self: Any, lhs: Any, rhs: Any) -> Any:
            return handle(plain(self, lhs, rhs).data, tl.int1)

        return compare

    for name in [name for name in vars(builder) if name.startswith(("create_icmp", "create_fcmp"))]:
        setattr(builder, name, comparison(getattr(builder, name)))

    def create_assert(self: Any, condition: Any, message: Any) -> None:
        if not np.all(getattr(condition, "data", condition)):
            raise IndexError(str(message))

    # Assertions are checked; that integers wrap around is no fault.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(debug=True, sanitize_overflow=False)
    builder.create_assert = create_assert
    builder.cast_impl = cast_impl
    builder.create_fp_to_fp = create_fp_to_fp
    builder.create_dot = create_dot
    interpreter.ReduceOps.generic_reduce = generic_reduce
    np.seterr(all="ignore")


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


def answer(request: dict[str, Any]) -> Any:
    """Serve one request: a kernel's `launch` over tensors (all are sent back), or a runner module's `run`."""
    module = load_file(request["path"])
    tensors = [tensor_of(packed) for packed in request["tensors"]]
    if request["kind"] == "kernel":
        module.launch(*tensors, *request["sizes"])
        return [packed_of(tensor) for tensor in tensors[request["first_output"] :]]
    if request["kind"] == "runner":
        weights = {name: tensor_of(packed) for name, packed in request["weights"].items()}
        runner = module.Runner(weights, device="cpu")
        return [packed_of(tensor) for tensor in runner(*tensors)]
    raise ValueError(f"unknown request {request['kind']!r}")


def main() -> None:
    """Serve until the input closes. Whatever kernels print goes to standard error; Ctrl-C is the asking process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    mend_interpreter()
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        try:
            send(answers, (request["number"], "ok", answer(request)))
        except Exception as error:
            cause = error.__cause__ or error.__context__ or error
            send(answers, (request["number"], "error", f"{type(cause).__name__}: {cause}", traceback.format_exc()))


if __name__ == "__main__":
    main()
