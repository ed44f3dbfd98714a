"""Triton's interpreter, set right and made quick: the worker calls `mend` before anything runs, and a kernel's tensors are `Buffer`s.

Nothing here needs torch, whose import costs more than most kernels; only numbers of 8 bits are converted by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import triton.language as tl
from triton.runtime import interpreter

from codesign.ir.precision import PRECISIONS, Precision, multiply

Array = npt.NDArray[Any]

TYPES = {
    "bool": np.bool_,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "float16": np.float16,
    "bfloat16": np.uint16,
    "float32": np.float32,
    "float64": np.float64,
}
"""Types of elements by torch's names, as NumPy keeps them; bfloat16 as its bits."""

_BYTES = {
    tl.float8e4nv: "float8_e4m3fn",
    tl.float8e5: "float8_e5m2",
    tl.float8e4b8: "float8_e4m3fnuz",
    tl.float8e5b16: "float8_e5m2fnuz",
}
"""Floats of 8 bits, and their names in torch."""

_HELD = frozenset({tl.bfloat16, *_BYTES})
"""Types that NumPy lacks; tiles of them hold bits."""


class Buffer:
    """What launchers and Triton's interpreter ask of a tensor, over bytes in memory of its own."""

    is_cuda = False

    def __init__(self, data: Any, dtype: str, shape: Sequence[int]) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.array: Array = np.zeros(self.shape, TYPES[dtype])
        if len(data):
            self.array = np.frombuffer(data, TYPES[dtype]).reshape(self.shape)

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def fill_(self, value: float) -> None:
        self.array.fill(bfloat16_bits(np.asarray(value, np.float32)) if self.dtype == "bfloat16" else value)


def bfloat16_bits(single: Array) -> Array:
    """float32 to the bits of bfloat16, rounded to nearest even; one NaN for all."""
    bits = np.ascontiguousarray(single).view(np.uint32)
    rounded = (bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
    return np.where(np.isnan(single), np.uint32(0x7FC0), rounded).astype(np.uint16).reshape(single.shape)


def _widen(data: Array, dtype: Any) -> Array:
    """Bits to float32."""
    if dtype is tl.bfloat16:
        return (np.ascontiguousarray(data).astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(data.shape)
    import torch

    kind = getattr(torch, _BYTES[dtype])
    wide: Array = torch.from_numpy(np.ascontiguousarray(data)).view(torch.uint8).view(kind).to(torch.float32).numpy()
    return wide


def _narrow(data: Array, dtype: Any) -> Array:
    """Numbers to bits, by way of float32."""
    with np.errstate(all="ignore"):
        single = np.ascontiguousarray(data.astype(np.float32))
    if dtype is tl.bfloat16:
        return bfloat16_bits(single)
    import torch

    bits: Array = torch.from_numpy(single).to(getattr(torch, _BYTES[dtype])).view(torch.uint8).numpy()
    return bits


def mend() -> None:
    """Make the interpreter round, multiply and reduce as the hardware does, and leave out work that it repeats.

    - float32 to bfloat16 rounds to nearest even (the interpreter cuts off);
    - bfloat16 and float8 tiles are multiplied as numbers (the interpreter multiplies bfloat16's bit patterns), and float32 ones with what
      their precision rounds (the interpreter keeps all bits);
    - the result of a comparison is a bool (the interpreter labels it with its operands' type, and spreads it as that);
    - float16 and bfloat16 are added to memory atomically (the interpreter refuses them);
    - an assertion of the kernel is checked (the interpreter leaves them out);
    - a reduction with a function of the kernel's own works on whole slices (the interpreter takes element by element: hours);
    - the language is prepared for interpretation once (the interpreter does it at every launch and every call of a function);
    - kernels work on the memory that they are given (the interpreter copies it there and back).
    """
    builder = interpreter.InterpreterBuilder
    _mend_types(builder)
    _mend_comparisons(builder)
    # Assertions are checked; that integers wrap around is no fault.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(
        debug=True, sanitize_overflow=False, allowed_dot_input_precisions=PRECISIONS
    )
    builder.create_assert = _create_assert
    _mend_atomics(builder)
    interpreter.ReduceOps.generic_reduce = _generic_reduce
    interpreter.GridExecutor._init_args_hst = lambda self, args, kwargs: (args, kwargs)
    interpreter.GridExecutor._restore_args_dev = lambda self, args, args_host, kwargs, kwargs_host: None
    _prepare_once()
    _remember_types()
    np.seterr(all="ignore")


def _mend_types(builder: Any) -> None:
    handle = interpreter.TensorHandle
    plain_cast, plain_fp_to_fp = builder.cast_impl, builder.create_fp_to_fp

    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        source, target = src.dtype.scalar, dst_type.scalar
        if source is target or (source not in _HELD and target not in _HELD):
            with np.errstate(all="ignore"):
                return plain_cast(self, src, dst_type)
        data = _widen(src.data, source) if source in _HELD else src.data
        if target in _HELD:
            return handle(_narrow(data, target), target)
        with np.errstate(all="ignore"):
            return handle(data.astype(interpreter._get_np_dtype(target)), target)

    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        if src.dtype.scalar in _HELD or dst_type.scalar in _HELD:
            return cast_impl(self, src, dst_type)
        return plain_fp_to_fp(self, src, dst_type, rounding_mode)

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        def operand(x: Any) -> Any:
            data = _widen(x.data, x.dtype.scalar) if x.dtype.scalar in _HELD else x.data
            return data.astype(d.data.dtype, copy=False)

        named = str(input_precision).rsplit(".", 1)[-1].lower()
        rounds: Precision = next(
            (name for name in PRECISIONS if name == named and a.dtype.scalar is tl.float32), "ieee"
        )
        with np.errstate(all="ignore"):
            return handle(multiply(operand(a), operand(b), rounds) + d.data, d.dtype.scalar)

    builder.cast_impl = cast_impl
    builder.create_fp_to_fp = create_fp_to_fp
    builder.create_dot = create_dot


def _mend_comparisons(builder: Any) -> None:
    def comparison(plain: Any) -> Any:
        def compare(self: Any, lhs: Any, rhs: Any) -> Any:
            return interpreter.TensorHandle(plain(self, lhs, rhs).data, tl.int1)

        return compare

    for name in [name for name in vars(builder) if name.startswith(("create_icmp", "create_fcmp"))]:
        setattr(builder, name, comparison(getattr(builder, name)))


def _mend_atomics(builder: Any) -> None:
    handle, native, plain = interpreter.TensorHandle, interpreter._interpreter, builder.create_atomic_rmw

    def create_atomic_rmw(self: Any, operation: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any) -> Any:
        kind = val.dtype.scalar
        if kind not in (tl.float16, tl.bfloat16):
            return plain(self, operation, ptr, val, mask, sem, scope)
        places, values, before = ptr.data.reshape(-1), val.data.reshape(-1), np.zeros_like(val.data.reshape(-1))
        pending = np.flatnonzero(np.broadcast_to(mask.data, ptr.data.shape).reshape(-1))
        while pending.size:  # of lanes that share an element, one after the other
            first = np.unique(places[pending], return_index=True)[1]
            now = pending[first]
            every = np.ones(len(now), np.bool_)
            old = native.load(places[now], every, np.zeros(len(now), values.dtype), values.dtype)
            new = _number(old, kind) + _number(values[now], kind)
            native.store(places[now], _narrow(new, kind) if kind in _HELD else new.astype(values.dtype), every)
            before[now], pending = old, np.delete(pending, first)
        return handle(before.reshape(val.data.shape), kind)

    builder.create_atomic_rmw = create_atomic_rmw


def _number(data: Array, kind: Any) -> Array:
    """Values in float32."""
    return _widen(data, kind) if kind in _HELD else data.astype(np.float32)


def _create_assert(self: Any, condition: Any, message: Any) -> None:
    if not np.all(getattr(condition, "data", condition)):
        raise IndexError(str(message))


def _generic_reduce(self: Any, inputs: Any) -> Any:
    original = self.axis
    inputs, axis = self.unravel(inputs, self.axis)
    arrays = [np.moveaxis(x.handle.data, axis, 0) for x in inputs]
    kinds = [x.dtype for x in inputs]
    with np.errstate(all="ignore"):
        while len(arrays[0]) > 1:  # pairwise, as a tree: what lies in the middle joins later
            half = len(arrays[0]) // 2
            left = [self.to_tensor(np.ascontiguousarray(x[:half]), t) for x, t in zip(arrays, kinds, strict=True)]
            right = [
                self.to_tensor(np.ascontiguousarray(x[half : 2 * half]), t) for x, t in zip(arrays, kinds, strict=True)
            ]
            joined = self.combine_fn.fn(*left, *right)
            joined = joined if isinstance(joined, tuple) else (joined,)
            arrays = [np.concatenate([j.handle.data, x[2 * half :]]) for j, x in zip(joined, arrays, strict=True)]
    results = []
    for x, kind in zip(arrays, kinds, strict=True):
        data = x[0]
        if self.keep_dims:
            data = (
                np.expand_dims(data, axis) if original is not None else data.reshape((1,) * inputs[0].handle.data.ndim)
            )
        elif original is None or data.ndim == 0:
            data = data.item()
        results.append(self.to_tensor(data, kind))
    return results


class _Stays:
    """The scope of changes that are not undone."""

    def restore(self) -> None:
        pass


def _prepare_once() -> None:
    """Changes of `triton.language` for interpretation stay: this process does nothing else."""
    plain, prepared = interpreter._patch_lang, set[tuple[bool, bool]]()

    def prepare(function: Any) -> _Stays:
        seen = list(function.__globals__.values())
        languages = (any(value is tl for value in seen), any(value is tl.core for value in seen))
        if languages not in prepared:
            plain(function)
            prepared.add(languages)
        return _Stays()

    interpreter._patch_lang = prepare


def _remember_types() -> None:
    """What a type says of itself is worked out once, not for every value: each operation on tiles makes several."""
    block, tensor = tl.core.block_type, tl.core.tensor
    plain_block, plain_tensor, plain_dtype = block.__init__, tensor.__init__, interpreter._get_np_dtype
    blocks: dict[Any, dict[str, Any]] = {}
    dtypes: dict[str, Any] = {}

    def block_init(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = tuple(size.value if isinstance(size, tl.constexpr) else size for size in shape)
        key = (element_ty.name, getattr(element_ty, "address_space", None), getattr(element_ty, "const", None), sizes)
        if key not in blocks:
            plain_block(self, element_ty, shape)
            blocks[key] = self.__dict__
        self.__dict__ = blocks[key]

    def tensor_init(self: Any, handle: Any, type: Any) -> None:
        parts = type.__dict__.get("codesign_parts")
        if parts is None:
            plain_tensor(self, handle, type)
            type.codesign_parts = (self.shape, self.numel, self.dtype)
            return
        self.handle, self.type = handle, type
        self.shape, self.numel, self.dtype = parts

    def numpy_dtype(kind: Any) -> Any:
        if kind.name not in dtypes:
            dtypes[kind.name] = plain_dtype(kind)
        return dtypes[kind.name]

    block.__init__, tensor.__init__ = block_init, tensor_init
    interpreter._get_np_dtype = numpy_dtype
