"""Python's functions of numbers that tensors hold, which a trace doesn't have: `int(x)`, `float(x)` and `round(n, -k)`.

What does have the number is `x.item()`. Once torch has said that a call of `int` or `float` stops it, and while it traces again, the calls of the
function that made it are that. Of an integer's `round` torch records the integer as it is, whatever the digits.
"""

from __future__ import annotations

import dis
import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

import torch

from codesign.frontend.locations import is_of_torch_or_ours

_STOPPED = (
    "extract specialized integer from data-dependent",
    "extract specialized float from data-dependent",
    "Could not guard on data-dependent expression",  # of a truth value
)


def _integer(*args: Any, **keywords: Any) -> Any:
    """`int`, but of a tensor or an open size what stands for the number."""
    if len(args) == 1 and not keywords:
        (x,) = args
        if isinstance(x, torch.SymInt):
            return x
        if isinstance(x, torch.Tensor):
            return (x.to(torch.int64) if x.is_floating_point() or x.dtype is torch.bool else x).item()
    return int(*args, **keywords)


def _real(*args: Any) -> Any:
    """`float`, in the same way."""
    if len(args) == 1 and isinstance(args[0], torch.SymFloat):
        return args[0]
    if len(args) == 1 and isinstance(args[0], torch.Tensor):
        return (args[0] if args[0].is_floating_point() else args[0].to(torch.float64)).item()
    return float(*args)


_TRACED: dict[str, Callable[..., Any]] = {"int": _integer, "float": _real}


def conversions_in(error: BaseException) -> set[CodeType]:
    """The function whose call of `int` or `float` stopped torch, as its code, or of those that called it the one that made it; nothing where it
    was something else."""
    if not any(text in str(error) for text in _STOPPED):
        return set()
    codes, step = list[CodeType](), error.__traceback__
    while step is not None:
        if not is_of_torch_or_ours(step.tb_frame.f_code.co_filename):
            codes.append(step.tb_frame.f_code)
        step = step.tb_next
    if not codes or not _called(codes[-1]):
        return set()
    return {next(code for code in codes if codes[-1] in _with_inner(code))}


@contextmanager
def conversions_traced(codes: Iterable[CodeType]) -> Iterator[None]:
    """While it lasts, calls of `int` and `float` in functions of these codes, and in those that they make, keep the numbers of tensors open."""
    changed: list[tuple[FunctionType, CodeType]] = []
    try:
        for code in codes:
            open_code = _opened(code)
            for function in gc.get_referrers(code):
                if isinstance(function, FunctionType) and function.__code__ is code:
                    function.__globals__.update({_name_of_open(name): _TRACED[name] for name in _TRACED})
                    function.__code__ = open_code
                    changed.append((function, code))
        yield
    finally:
        for function, code in changed:
            function.__code__ = code
            for name in _TRACED:
                function.__globals__.pop(_name_of_open(name), None)


@contextmanager
def digits_rounded() -> Iterator[None]:
    """While it lasts, `round(n, -k)` of an open integer is what Python has of it: the nearest multiple of 10**k, of two the even one."""
    before = torch.SymInt.__round__
    torch.SymInt.__round__ = _rounded  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.SymInt.__round__ = before  # type: ignore[method-assign]


def _rounded(number: Any, ndigits: int | None = None) -> Any:
    if ndigits is None or ndigits >= 0:
        return number
    unit = 10**-ndigits
    nearest, beyond = (number + unit // 2) // unit, (number + unit // 2) % unit
    halfway = 1 - torch.sym_min(1, beyond)  # type: ignore[no-untyped-call]  # where the nearest one above and that below are equally near
    return (nearest - halfway * (nearest % 2)) * unit


def _name_of_open(name: str) -> str:
    return f"__{name}_of_data__"


def _opened(code: CodeType) -> CodeType:
    """A function's code, and of the functions that it makes, with calls of `int` and `float` under the names of what keeps numbers open."""
    called = _called(code)
    return code.replace(
        co_names=tuple(_name_of_open(name) if name in called else name for name in code.co_names),
        co_consts=tuple(_opened(each) if isinstance(each, CodeType) else each for each in code.co_consts),
    )


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """A function's code and those of the functions that it makes."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _with_inner(each)


def _called(code: CodeType) -> list[str]:
    """Which of the names a function uses only to call what is builtin under it (not as a type to compare with, nor as a method's name)."""
    uses: dict[str, list[dis.Instruction]] = {name: [] for name in _TRACED}
    for instruction in dis.get_instructions(code):
        if instruction.argval in uses and instruction.opname != "LOAD_CONST":
            uses[instruction.argval].append(instruction)
    return [name for name, found in uses.items() if found and all(map(_is_call, found))]


def _is_call(instruction: dis.Instruction) -> bool:
    """Whether a global is loaded to be called; CPython marks that in the lowest bit of the instruction's argument."""
    return instruction.opname == "LOAD_GLOBAL" and bool((instruction.arg or 0) & 1)
