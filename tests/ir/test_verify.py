"""Wrong programs are refused with the right words; right ones pass."""

import tracemalloc
from pathlib import Path

import pytest

from codesign.ir import apply
from codesign.ir.core import Block, Function, Module, Value
from codesign.ir.dtypes import F16, F32
from codesign.ir.errors import CodesignError, VerificationError
from codesign.ir.index import index
from codesign.ir.scalar import Apply, Read
from codesign.ir.tensor import Compute, Dim
from codesign.ir.text import parse
from codesign.ir.types import tensor
from codesign.ir.verify import verify

_CASES = (Path(__file__).parent / "wrong.tile").read_text().split("# -----\n")


def _split(case: str) -> tuple[str, str]:
    program, _, message = case.partition("# error: ")
    lines = [line for line in program.splitlines(keepends=True) if not line.startswith("#")]
    return "".join(lines), message.strip()


@pytest.mark.parametrize(("program", "message"), list(map(_split, _CASES)), ids=lambda text: text[-40:])
def test_wrong_program(program: str, message: str) -> None:
    with pytest.raises(CodesignError) as caught:
        verify(parse(program))
    assert str(caught.value).startswith(message)


RIGHT = """module @right
symbol S: 1 to 64
func @main(%x: f32[S, 8], %ids: i64[S], %z: f32[64]) {
  %a = compute f32[i: S, j: 8] { %x[i, 7 - j] }
  %b = compute f32[i: S*8] { %x[i // 8, i % 8] }
  %c = compute f32[i: S, j: 8] { %x[%ids[i], j] }
  %d = compute f32[i: 64] { %z[(i % 8)*8 + i // 8] }
  %e = compute f32[i: 100] { %z[i - 10] else 0.0 }
  %f = compute f32[i: 4, j: 4] { %z[min(i*16 + j*8, 63)] }
  %g = compute f32[i: 0] { %z[i + 1000] }
  return %a, %b, %c, %d, %e, %f, %g
}
kernel @k(%x: buffer<f32[100, S]>) -> (%o: buffer<f32[100]>) grid(p: 2) symbols(S) schedule {} {
  %z = map f32[m: 64] { 0.0 }
  %r = for k in 0 to S step 16 (%acc = %z) pipeline 2 {
    %t = load %x [m: 64, n: 16] at [p*64 + m, k + n] where p*64 + m < 100, k + n < S
    %s = reduce f32[m: 64] sum(n: 16) { %t[m, n] }
    %u = map f32[m: 64] { %acc[m] + %s[m] }
    yield %u
  }
  store %r -> %o [m: 64] at [p*64 + m] where p*64 + m < 100
}
"""


def test_right_program_passes() -> None:
    verify(parse(RIGHT))


def test_use_before_definition() -> None:
    x = Value(tensor(F32, 4), "x")
    first = Compute([Dim("i", index(4))], Read(x, ["i"]), name="a")
    second = Compute([Dim("i", index(4))], Read(first.result, ["i"]), name="b")
    module = Module(functions={"main": Function("main", Block([x], [second, first], [second.result]))})
    with pytest.raises(VerificationError, match=r"compute %b: uses %a, which is not defined before it"):
        verify(module)


def test_a_scalar_of_the_wrong_dtype() -> None:
    x = Value(tensor(F32, 4), "x")
    op = Compute([Dim("i", index(4))], Apply("add", (Read(x, ["i"]), Read(x, ["i"])), F16), name="a")
    module = Module(functions={"main": Function("main", Block([x], [op], [op.result]))})
    with pytest.raises(VerificationError, match="add gives f32, not f16"):
        verify(module)


def test_a_huge_domain_is_not_walked() -> None:
    x = Value(tensor(F32, 1 << 20, 1 << 20), "x")
    i, j = index("i"), index("j")
    body = apply("neg", Read(x, [(i * 7 + j) % (1 << 20), i * i]))
    op = Compute([Dim("i", index(1 << 20)), Dim("j", index(1 << 20))], body, name="a")
    module = Module(functions={"main": Function("main", Block([x], [op], [op.result]))})
    with pytest.raises(VerificationError, match="outside of size 1048576"):
        verify(module)


def test_the_witness_of_a_huge_range_takes_its_ends() -> None:
    """An array of all points would need gigabytes (and, of the largest, more than there is)."""
    for extent in (200_000_000, 10**30):
        text = f"func @f(%x: f32[{extent}]) {{\n  %y = compute f32[i: {extent}] {{ %x[i + 1] }}\n  return %y\n}}\n"
        module = parse(text)
        tracemalloc.start()
        with pytest.raises(VerificationError, match=f"is {extent} at i={extent - 1}, outside of size {extent}"):
            verify(module)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6
