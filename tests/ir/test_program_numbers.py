"""Numbers in a program's text: all that 64 bits hold, and no more."""

from __future__ import annotations

import pytest

from codesign.ir.errors import ParseError
from codesign.ir.text.program import parse_program
from codesign.ir.text.program_printer import print_program

TEXT = """program @k(%x: i64[4]) -> (%y: i64[4]) on 1 cores {{
  scratch a: i64[4] at 0
  semaphore loaded, made
  load a[i] [i: 4] = %x[i] signal loaded
  vector a[i] [i: 4] = a[i] + {number}_i64 wait loaded >= 1 signal made
  store %y[i] [i: 4] = a[i] wait made >= 1
}}
"""


@pytest.mark.parametrize("number", [-(2**63), -(2**63) + 1, 2**63 - 1])
def test_ends_of_int64_are_read(number: int) -> None:
    program = parse_program(TEXT.format(number=number))
    assert print_program(parse_program(print_program(program))) == print_program(program)
    assert str(number) in print_program(program)


@pytest.mark.parametrize("number", [-(2**63) - 1, 2**63, 10**30])
def test_numbers_beyond_are_refused_where_they_stand(number: int) -> None:
    with pytest.raises(ParseError, match="does not fit into 64 bits") as failure:
        parse_program(TEXT.format(number=number))
    assert failure.value.line == 5


@pytest.mark.parametrize("infix", ["+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"])
def test_an_infix_is_read_as_it_is_printed(infix: str) -> None:
    program = parse_program(TEXT.format(number=3).replace("+", infix))
    text = print_program(program)
    assert f"= a[i] {infix} 3 wait" in text
    assert print_program(parse_program(text)) == text
