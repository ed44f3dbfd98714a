"""The text format: everything prints and parses back to the same, and errors say where."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign.ir import equal, structural_hash
from codesign.ir.core import Block, Function, Module, Value
from codesign.ir.dtypes import F32, I64
from codesign.ir.errors import ParseError
from codesign.ir.index import index
from codesign.ir.scalar import Read, Scalar, apply
from codesign.ir.tensor import Compute, Dim, Scatter
from codesign.ir.text import parse, print_module
from codesign.ir.types import tensor
from codesign.ir.verify import verify
from tests.ir.strategies import modules


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(modules())
def test_parse_undoes_print(module: Module) -> None:
    text = print_module(module)
    again = parse(text)
    assert equal(again, module)
    assert print_module(again) == text


@given(st.lists(st.sampled_from("abv"), min_size=2, max_size=4), st.booleans())
def test_sums_of_data_keep_their_order_under_the_names_that_are_printed(names: list[str], shared: bool) -> None:
    """As `x[i*9 + r]` of two tables that are both `%v`, of which one is printed as `%v_1`."""
    tables = [Value(tensor(I64, 4), name) for name in names]
    x = Value(tensor(F32, 64), "x")
    reads: list[Scalar] = [Read(table, ["i"]) for table in tables]
    found = [apply("add", read, read) if shared else read for read in reads]
    place = sum((one.as_index() * 3**n for n, one in enumerate(found)), index("i")) % 64
    op = Compute([Dim("i", index(4))], Read(x, [place]), name="v")
    write = Scatter("add", x, [Dim("i", index(4))], [place], Read(x, ["i"]), name="v")
    body = Block((x, *tables), [op, write], [op.result, write.result])
    text = print_module(Module(functions={"main": Function("main", body)}))
    assert print_module(parse(text)) == text


def _error(text: str, file: str = "<string>") -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(text, file)
    return caught.value


def test_an_error_points_at_its_place() -> None:
    text = "func @main(%x: f32[4]) {\n  %y = compute f32[i: 4] { %x[i] + %z[i] }\n  return %y\n}\n"
    error = _error(text, "model.tile")
    assert (error.line, error.column) == (2, 36)
    assert str(error) == "model.tile:2:36: %z is not defined"
    assert error.picture() == "  %y = compute f32[i: 4] { %x[i] + %z[i] }\n" + " " * 35 + "^"


@pytest.mark.parametrize(
    "text",
    [
        "func @main() { %y = compute i64[] { " + "(" * 5000 + "1" + ")" * 5000 + " } return %y }",
        "func @main() { %y = compute i64[] { " + "-" * 5000 + "1 } return %y }",
        "func @main() { %y = compute i64[] { " + "1 + " * 5000 + "1 } return %y }",
        "func @main() { %y = compute i64[] { " + "abs(" * 5000 + "1" + ")" * 5000 + " } return %y }",
        "func @main(%x: f32[" + "(" * 5000 + "i // 2" + ")" * 5000 + "]) { return %x }",
        "func @main(%x: f32[" + "max(" * 5000 + "i" + ")" * 5000 + "]) { return %x }",
        "func @main(%c: bool[]) { " + "if %c { " * 5000 + " yield } else { yield }" * 5000 + " return %c }",
        'func @main() { %y = call "x"() {a = ' + "(" * 5000 + ")" * 5000 + "} : f32[] return %y }",
        "kernel @k() -> () grid() schedule " + '{"a": ' * 5000 + "1" + "}" * 5000 + " { }",
    ],
    ids=lambda text: text[30:60],
)
def test_deep_nesting_is_an_error_and_no_crash(text: str) -> None:
    if "((((" in text and "call" not in text:  # redundant parentheses leave no nesting behind
        assert parse(text).main
        return
    with pytest.raises(ParseError, match="nested too deeply"):
        parse(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("__import__('os')", "unexpected character"),
        ("1:f32:f32", "unexpected ':'"),
        ("1.5:i32", "1.5 is not a value of i32"),
        ("true:f32", "true is a bool"),
        ("9" * 5000, "integer string conversion|too large"),
        ("%x[i] else 1", "else gives i64 where %x holds f32"),
        ("%x[foo(i)]", "unknown function 'foo' of an index"),
        ("select(1, 2, 3)", "select needs a bool condition"),
        ("max(1)", "max takes 2 arguments, got 1"),
        ("let t = 1; let t = 2; t", "t is defined twice"),
    ],
)
def test_bad_bodies(body: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse(f"func @main(%x: f32[4]) {{ %y = compute i64[i: 4] {{ {body} }} return %y }}")


@given(st.text(alphabet=st.sampled_from(list('func kernel@%x:f32[]{}()i+*/"0123 =,.<>-\n`|&')), max_size=80))
def test_any_text_parses_or_says_where_not(text: str) -> None:
    with contextlib.suppress(ParseError):  # any other error fails the test
        parse(text)


def test_shared_parts_print_once() -> None:
    x = Value(tensor(F32, 4), "x")
    body: Scalar = Read(x, ["i"])
    for _ in range(60):  # as a tree this would be 2**60 nodes
        body = apply("add", apply("mul", body, body), body)
    op = Compute([Dim("i", index(4))], body, name="y")
    module = Module(functions={"main": Function("main", Block([x], [op], [op.result]))})
    text = print_module(module)
    assert len(text) < 10_000
    again = parse(text)
    assert equal(again, module)
    (other,) = again.main.body.ops
    assert isinstance(other, Compute)
    assert len(str(body)) < 10_000
    moved = other.body.replace_sources({again.main.args[0]: x})
    assert moved == body
    assert moved.digest() == body.digest()
    assert structural_hash(other) == structural_hash(op)


def test_deep_expressions_are_cut_by_lets() -> None:
    x = Value(tensor(F32, 4), "x")
    body: Scalar = Read(x, ["i"])
    for _ in range(3000):
        body = apply("tanh", body)
    op = Compute([Dim("i", index(4))], body, name="y")
    module = Module(functions={"main": Function("main", Block([x], [op], [op.result]))})
    assert equal(parse(print_module(module)), module)


def test_by_hand() -> None:
    """What the documentation shows parses, with precedence, comments and sugar."""
    module = parse("""
        module @by.hand
        symbol M: 1 to inf
        symbol N: 1 to 4096 example 128
        # a comment
        func @main(%x: f16[M, 64], %w: f16[N, 64], %table: f16[100, 8], %ids: i64[M]) {
          %h = compute f16[i: M, j: N] sum(k: 64) in f32 { f32(%x[i, k]) * f32(%w[j, k]) }  # matmul
          %p = compute f16[i: M, j: 70] { select(j < 64, %x[i, j] else 0.0:f16, 0.0:f16) }
          %e = compute f16[i: M, j: 8] { %table[%ids[i], j] }
          %q = compute i64[i: M] { -i ** 2 + 3 * i // 2 << 1 | 7 & 6 ^ 5 }
          return %h, %p, %e, %q
        }""")
    q = module.main.body.ops[-1]
    assert isinstance(q, Compute)
    square = "neg((index(i) ** 2))"  # the order of operations is Python's
    assert str(q.body) == f"((({square} + ((3 * index(i)) // 2)) << 1) | ((7 & 6) ^ 5))"
    verify(module)
    assert equal(parse(print_module(module)), module)


PROGRAM = """program @double(%x: f32[8]) -> (%y: f32[8]) on 2 cores {
  scratch a: f32[2, 4] at 0
  semaphore full

  for i in core to 2 step cores {
    for j in 0 to (4 // 2) // 2 step 1 {
      load a[0, m] [m: 4] = %x[i*4 + m] signal full ; } a brace in a comment
    }
    vector a[1, m] [m: 4] = a[0, m] * 2.0 wait full >= #full
    sync store wait full >= 1
  }
}
"""


def test_programs_lie_between_functions_and_keep_their_lines() -> None:
    text = "module @m\n\n" + PROGRAM + "\nfunc @main(%x: f32[4]) { return %x }\n"
    module = parse(text)
    assert list(module.programs) == ["double"]
    verify(module)
    again = parse(print_module(module))
    assert equal(again, module)
    assert not equal(parse(text.replace("* 2.0", "* 3.0")), module)
    assert _error(text.replace("return %x", "return %z")).line == 16
    assert _error(text.replace("* 2.0", "* ~")).line == 11
    assert "twice" in str(_error(text + PROGRAM))
    assert "do not close" in str(
        _error(text.replace("\\n}\\n", "\\n").replace("store wait full >= 1\n  }\n}", "store"))
    )
