"""How element types are called in Triton and in torch, and names that are safe in generated Python."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from codesign.ir.dtypes import F4X2, F8E8M0, DType
from codesign.ir.errors import UnsupportedError

TRITON_TYPES: dict[str, str] = {
    "bool": "tl.int1",
    "i8": "tl.int8",
    "i16": "tl.int16",
    "i32": "tl.int32",
    "i64": "tl.int64",
    "u8": "tl.uint8",
    "u16": "tl.uint16",
    "u32": "tl.uint32",
    "u64": "tl.uint64",
    "f8e8m0": "tl.uint8",
    "f4x2": "tl.uint8",
    "f8e4m3": "tl.float8e4nv",
    "f8e5m2": "tl.float8e5",
    "f8e4m3fnuz": "tl.float8e4b8",
    "f8e5m2fnuz": "tl.float8e5b16",
    "f16": "tl.float16",
    "bf16": "tl.bfloat16",
    "f32": "tl.float32",
    "f64": "tl.float64",
}

POINTER_TYPES: dict[str, str] = {
    "bool": "*i1",
    "i8": "*i8",
    "i16": "*i16",
    "i32": "*i32",
    "i64": "*i64",
    "u8": "*u8",
    "u16": "*u16",
    "u32": "*u32",
    "u64": "*u64",
    "f8e8m0": "*u8",
    "f4x2": "*u8",
    "f8e4m3": "*fp8e4nv",
    "f8e5m2": "*fp8e5",
    "f8e4m3fnuz": "*fp8e4b8",
    "f8e5m2fnuz": "*fp8e5b16",
    "f16": "*fp16",
    "bf16": "*bf16",
    "f32": "*fp32",
    "f64": "*fp64",
}

TORCH_TYPES: dict[str, str] = {
    "bool": "torch.bool",
    "i8": "torch.int8",
    "i16": "torch.int16",
    "i32": "torch.int32",
    "i64": "torch.int64",
    "u8": "torch.uint8",
    "u16": "torch.uint16",
    "u32": "torch.uint32",
    "u64": "torch.uint64",
    "f8e8m0": "torch.float8_e8m0fnu",
    "f4x2": "torch.float4_e2m1fn_x2",
    "f8e4m3": "torch.float8_e4m3fn",
    "f8e5m2": "torch.float8_e5m2",
    "f8e4m3fnuz": "torch.float8_e4m3fnuz",
    "f8e5m2fnuz": "torch.float8_e5m2fnuz",
    "f16": "torch.float16",
    "bf16": "torch.bfloat16",
    "f32": "torch.float32",
    "f64": "torch.float64",
}


def is_bytes(dtype: DType) -> bool:
    """Whether kernels take a type as bytes: Triton has no name for it."""
    return dtype in (F8E8M0, F4X2)


def _lookup(table: dict[str, str], dtype: DType, where: str) -> str:
    if dtype.name not in table:
        raise UnsupportedError(f"{where} has no {dtype}", hint=f"known: {', '.join(table)}")
    return table[dtype.name]


def triton_type(dtype: DType) -> str:
    """The element type as written in Triton source, `tl.float16`."""
    return _lookup(TRITON_TYPES, dtype, "Triton")


def pointer_type(dtype: DType) -> str:
    """The type of a pointer argument in a Triton signature, `*fp16`."""
    return _lookup(POINTER_TYPES, dtype, "Triton")


def torch_type(dtype: DType) -> str:
    """The element type as written with torch, `torch.float16`."""
    return _lookup(TORCH_TYPES, dtype, "torch")


_RESERVED = frozenset(keyword.kwlist) | {
    "tl",
    "triton",
    "torch",
    "launch",
    "grid",
    "range",
    *("float", "int", "min", "max", "bool", "tuple", "len", "dict", "print"),
    *("importlib", "sys", "Path", "KeyError", "__builtins__"),
}


LONGEST_NAME = 120


def file_names(names: Iterable[str]) -> dict[str, str]:
    """A file's stem for each name: ASCII letters, digits and underscores, not too long, different also where case does not matter."""
    taken: set[str] = set()
    stems: dict[str, str] = {}
    for name in sorted(set(names), key=lambda name: (not _PLAIN.fullmatch(name), name)):  # plain ones keep their names
        base = re.sub(r"[^A-Za-z0-9_]+", "_", name)[:LONGEST_NAME].strip("_") or "v"
        stem, count = base, 0
        while stem.casefold() in taken:
            count += 1
            stem = f"{base}_{count}"
        taken.add(stem.casefold())
        stems[name] = stem
    return stems


_PLAIN = re.compile(r"[A-Za-z0-9](\w*[A-Za-z0-9])?", re.ASCII)


class Namer:
    """Hands out Python names, each once: `m`, `m_1`, `m_2`, ..."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self._taken = set(taken) | set(_RESERVED)

    def fresh(self, wish: str) -> str:
        """A name like the wish, of ASCII letters, digits and underscores, that was not handed out before."""
        base = re.sub(r"[^A-Za-z0-9_]+", "_", wish)[:LONGEST_NAME].strip("_") or "v"
        if base[0].isdigit():
            base = f"v{base}"
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name
