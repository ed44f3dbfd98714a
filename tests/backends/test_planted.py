"""Verification sees mistakes: each is planted in the Triton source or in the accelerator's program of a right kernel."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from codesign.backends import accelerator
from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import KernelError, run_kernel
from codesign.backends.verification import Verification, compare
from codesign.costmodel.machine import load_machine
from codesign.ir.core import Block, Value
from codesign.ir.dtypes import F16, F32
from codesign.ir.errors import EvaluationError
from codesign.ir.index import index
from codesign.ir.program import Program
from codesign.ir.scalar import Read, Scalar, apply, cast, literal
from codesign.ir.schedule import Schedule
from codesign.ir.tensor import Compute, Dim, Fusion
from codesign.ir.text.program import parse_program, print_program
from codesign.ir.types import tensor
from codesign.passes.normalize import Normalized, normalize
from codesign.passes.tile import lower


def matmul() -> tuple[Normalized, Schedule]:
    x, w = Value(tensor(F16, 40, 50), "x"), Value(tensor(F16, 50, 36), "w")
    i, j, k = Dim("i", index(40)), Dim("j", index(36)), Dim("k", index(50))
    body = apply("mul", cast(Read(x, ["i", "k"]), F32), cast(Read(w, ["k", "j"]), F32))
    total = Compute([i, j], body, reductions=[k], monoid="sum", name="total")
    y = Compute([i, j], cast(apply("max", Read(total.result, ["i", "j"]), literal(0.0)), F16), name="y")
    return normalize(Fusion(Block([], [total, y], [y.result]))), Schedule(tiles={"i": 16, "j": 16, "k": 16})


def elementwise(body: Callable[[Scalar, Scalar], Scalar]) -> tuple[Normalized, Schedule]:
    x, z = Value(tensor(F32, 300), "x"), Value(tensor(F32, 300), "z")
    y = Compute([Dim("i", index(300))], body(Read(x, ["i"]), Read(z, ["i"])), name="y")
    return normalize(Fusion(Block([], [y], [y.result]))), Schedule(tiles={"i": 64})


def difference_of_maximum() -> tuple[Normalized, Schedule]:
    return elementwise(lambda x, z: apply("sub", apply("max", x, z), apply("mul", x, literal(0.5))))


def product() -> tuple[Normalized, Schedule]:
    return elementwise(lambda x, z: apply("mul", x, apply("abs", z)))


PROBLEMS: dict[str, Callable[[], tuple[Normalized, Schedule]]] = {
    "matmul": matmul,
    "maximum": difference_of_maximum,
    "product": product,
}

TRITON = [
    ("a step too few", "matmul", "tl.range(0, 50, 16)", "tl.range(0, 34, 16)"),
    ("a step that starts late", "matmul", "tl.range(0, 50, 16)", "tl.range(16, 50, 16)"),
    ("a mask one too narrow", "matmul", "offs_k < 50", "offs_k < 49"),
    ("the last element left out", "maximum", "offs_i < 300", "offs_i < 299"),
    ("the stride of a neighbour", "matmul", "offs_k[:, None] * 36", "offs_k[:, None] * 35"),
    ("masked elements that are one", "matmul", "other=0.0", "other=1.0"),
    ("a maximum that drops NaN", "maximum", "tl.PropagateNan.ALL", "tl.PropagateNan.NONE"),
    ("a result rounded to half", "maximum", "- x * 0.5", "- (x * 0.5).to(tl.float16).to(tl.float32)"),
    ("a constant off in its fifth digit", "maximum", "- x * 0.5", "- x * 0.50001"),
    ("a result never stored in one tile", "maximum", "mask=mask_i)\n\n\ndef", "mask=mask_i & (pi > 0))\n\n\ndef"),
    ("an accumulator of the last step only", "matmul", "tl.dot(x, w, total_acc)", "tl.dot(x, w)"),
    ("the sign of zero lost", "product", "tl.store(y_ptr + offs_i, y", "tl.store(y_ptr + offs_i, y + 0.0"),
    ("a program too few", "maximum", "grid = (5,)", "grid = (4,)"),
]

ACCELERATOR = [
    ("a step too few", "matmul", "for kk in 0 to 50", "for kk in 0 to 34"),
    ("a mask one too narrow", "matmul", "k + kk < 50 else", "k + kk < 49 else"),
    ("masked elements that are one", "matmul", "else 0.0_f16", "else 1.0_f16"),
    (
        "a shifted read",
        "matmul",
        "j + pj*16] where j + pj*16 < 36 and k",
        "j + pj*16 + 1] where j + pj*16 + 1 < 36 and k",
    ),
    ("a maximum that drops NaN", "maximum", "max(x[i], z[i])", "fmax(x[i], z[i])"),
    ("a result rounded to half", "maximum", "(x[i] * 0.5)", "f32(f16(x[i] * 0.5))"),
    ("an accumulator that is not cleared", "matmul", "first kk wait", "wait"),
    ("stale inputs: one buffer for two", "maximum", "scratch z: f32[64] at 256", "scratch z: f32[64] at 0"),
    ("data used before it arrives", "maximum", "wait load_pi >= #load_pi, store_pi", "wait store_pi"),
    (
        "the result stored before it is made",
        "maximum",
        "wait vector_pi >= #vector_pi signal store_pi",
        "signal store_pi",
    ),
    ("the sign of zero lost", "product", "abs(z[i])", "abs(z[i]) + 0.0"),
]


def checked(name: str, run: Callable[[Normalized, Any], Callable[..., Any]]) -> Verification:
    group, schedule = PROBLEMS[name]()
    kernel = lower(group.fusion, schedule, outputs=group.outputs)
    return compare(group, run(group, kernel), sizes={}, seed=11)


def in_triton(old: str, new: str) -> Callable[[Normalized, Any], Callable[..., Any]]:
    def run(_: Normalized, kernel: Any) -> Callable[..., Any]:
        right = emission(kernel)
        assert old in right.source, right.source
        wrong = dataclasses.replace(right, source=right.source.replace(old, new))
        return lambda arrays, sizes: run_kernel(kernel, arrays, sizes, device="cpu", emitted=wrong)

    return run


def on_accelerator(old: str, new: str) -> Callable[[Normalized, Any], Callable[..., Any]]:
    machine = load_machine("maia100")

    def run(_: Normalized, kernel: Any) -> Callable[..., Any]:
        text = print_program(accelerator.lower(kernel, machine, {}))
        assert old in text, text
        program: Program = parse_program(text.replace(old, new))

        def simulated(arrays: list[Any], sizes: Mapping[str, int]) -> list[Any]:
            return accelerator.simulate(program, arrays, machine).outputs

        return simulated

    return run


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_right_ones_pass(problem: str) -> None:
    assert checked(problem, in_triton("import triton", "import triton")).ok
    assert checked(problem, on_accelerator("program", "program")).ok


@pytest.mark.parametrize(("mistake", "problem", "old", "new"), TRITON, ids=[f"{row[1]}: {row[0]}" for row in TRITON])
def test_a_mistake_in_triton_is_seen(mistake: str, problem: str, old: str, new: str) -> None:
    try:
        result = checked(problem, in_triton(old, new))
    except KernelError as error:
        pytest.fail(f"{mistake}: the kernel does not run: {error}")
    assert not result.ok, mistake
    assert "got" in result.message


@pytest.mark.parametrize(
    ("mistake", "problem", "old", "new"), ACCELERATOR, ids=[f"{row[1]}: {row[0]}" for row in ACCELERATOR]
)
def test_a_mistake_on_the_accelerator_is_seen(mistake: str, problem: str, old: str, new: str) -> None:
    try:
        result = checked(problem, on_accelerator(old, new))
        seen = result.message if not result.ok else ""
    except EvaluationError as error:  # the simulator itself sees what was never written, and races
        seen = str(error)
    assert any(word in seen for word in ("got", "has not written", "race")), mistake
