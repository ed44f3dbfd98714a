"""Programs as text: they print and parse to the same program, and what is wrong with one is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.ir.errors import ParseError, VerificationError
from codesign.ir.location import Location
from codesign.ir.program import Load, Loop, Matmul, Sync
from codesign.ir.text import parse, print_module
from codesign.ir.text.program import parse_program, parse_programs, print_program
from codesign.ir.verify import verify_program

MATMUL = (Path(__file__).parent / "matmul.casm").read_text()


def test_a_matmul_on_four_cores_fits_on_a_page_and_round_trips() -> None:
    program = parse_program(MATMUL)
    text = print_program(program)
    assert len(text.splitlines()) < 40
    assert print_program(parse_program(text)) == text
    assert program.cores == 4
    assert [s.name for s in program.semaphores] == ["loaded", "multiplied", "ready", "written"]
    (outer,) = program.body
    assert isinstance(outer, Loop)
    assert sum(isinstance(op, Load) for op in program.instructions()) == 2
    (product,) = [op for op in program.instructions() if isinstance(op, Matmul)]
    assert str(product.first) == "k0"
    assert product.signals == ("multiplied",)


def test_everything_that_an_instruction_can_say_round_trips() -> None:
    text = """
program @all.of_it(%x: f16[8, 8] strides [16, 1], %ids: i64[8]) -> (%y: f32[8]) on 2 cores dataflow weight_stationary {
  scratch i: i64[8] at 0
  scratch a: f16[8, 8] at 64
  scratch s: f32[] at 192
  scratch r: f32[8] at 256
  scratch shared: f32[8] at 0 in cluster
  semaphore go
  semaphore all in chip
  load i[m] [m: 8] = %ids[m] where m >= core*4 and 0 <= m < 8 else -1 signal go
  load a[m, n] [m: 8, n: 8] = %x[data(i[m]), min(n, 7)] where data(i[m]) < 8 else -inf_f16 wait go >= #go
  load shared[m] [m: 8] = r[m]
  vector s[] [] = 2.5 * f32(3_i32)
  vector r[m] [m: 8] reduce sum [n: 8] = let t = f32(a[m, n]), u = exp(t) in select(isnan(u) | (index(m) < index(n)), u * u, -t)
  vector r[m] [m: 8] = f32(index<i32>(((m + 3) // 2) % 4)) ** 2.0 + nan
  matmul a[m, n] = a[m, k] @ a[n, k] [m: 8, n: 8, k: 8] precision tf32
  store atomic_max %y[m] [m: 8] = r[m] where m < 5 wait all >= 2 signal all, go
  sync tensor wait go >= 1
}
"""
    text = text.replace("-t)", "neg(t))")
    program = parse_program(text)
    again = print_program(parse_program(print_program(program)))
    assert again == print_program(program)
    for part in (
        "strides [16, 1]",
        "data(i[m])",
        "-inf_f16",
        "else -1",
        "3_i32",
        "in cluster",
        "semaphore all in chip",
    ):
        assert part in again
    assert isinstance(program.instructions()[-1], Sync)


def test_places_in_the_source_survive() -> None:
    plain = "load a[i % 2, m, k] [m: 64, k: 64] = %x[row*64 + m, k0 + k] wait multiplied >= i - 1"
    assert plain in MATMUL
    one, fused = (
        'loc("mlp.py":7 in "up" of "aten.linear.default")',
        'loc(fused["mlp.py":7, in "down; 2" of "aten.add"])',
    )
    program = parse_program(
        MATMUL.replace(plain, f"{plain} {one}").replace("signal written", f"signal written {fused}")
    )
    load, *_, store = program.instructions()
    assert load.location == Location("mlp.py", 7, "up", "aten.linear.default")
    assert store.location.parts == (Location("mlp.py", 7), Location(module="down; 2", origin="aten.add"))
    text = print_program(program)
    assert one in text
    assert fused in text
    assert [op.location for op in parse_program(text).instructions()] == [op.location for op in program.instructions()]


def test_programs_are_part_of_a_tile_file() -> None:
    module = parse(MATMUL[MATMUL.index("program") :])
    assert list(module.programs) == ["matmul"]
    assert print_module(parse(print_module(module))) == print_module(module)


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("signal ready", "signal reday", "unknown semaphore 'reday'; declare it with `semaphore reday`"),
        ("@ b[i % 2, k, n]", "@ b[k, n]", "scratch b has 3 dimensions but 2 indices"),
        ("%x[row*64 + m, k0 + k]", "%z[row*64 + m, k0 + k]", "unknown buffer '%z'"),
        ("c: f32[64, 64]", "c: f31[64, 64]", "unknown element type 'f31'"),
        ("step 64 count i {", "step 64 conut i {", "unexpected 'conut'"),
        ("vector out", "vektor out", "unexpected 'vektor'; expected 'for', 'load', 'matmul'"),
        ("= c[m, n] wait", "= tan(c[m, n], c[m, n]) wait", "tan takes 1 arguments, got 2"),
    ],
)  # fmt: skip
def test_an_error_names_line_and_cause(wrong: str, right: str, message: str) -> None:
    line = MATMUL[: MATMUL.index(wrong)].count("\n") + 1
    with pytest.raises(ParseError) as caught:
        parse_programs(MATMUL.replace(wrong, right, 1), "matmul.casm")
    assert message in str(caught.value)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"matmul.casm:{line}:")
    assert caught.value.picture().endswith("^")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("load a[i % 2, m, k]", "load a[i % 2, 0, k]", "load a: its 64 lanes along 'm' write one place of a"),
        ("matmul c[m, n]", "matmul c[m, 0]", "tensor c: its 64 lanes along 'n' write one place of c"),
        ("matmul c[m, n]", "matmul c[m, k]", "index k uses 'k', which is no dimension"),
        ("vector out[m, n]", "vector out[0, n]", "vector out: its 64 lanes along 'm' write one place of out"),
    ],
)
def test_lanes_that_write_one_place_are_refused(old: str, new: str, message: str) -> None:
    """Which of them comes last is nobody's to say."""
    assert old in MATMUL
    verify_program(parse_program(MATMUL))
    with pytest.raises(VerificationError) as caught:
        verify_program(parse_program(MATMUL.replace(old, new)))
    assert message in str(caught.value)
