"""`bitcast_T(x)` in the text form, and what the verifier says of widths that differ."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.ir.errors import CodesignError
from codesign.ir.interpreter import evaluate
from codesign.ir.text import parse, print_module
from codesign.ir.verify import verify

TEXT = "func @f(%x: f32[4]) {{\n  %y = compute {0}[i: 4] {{ bitcast_{0}(%x[i]) }}\n  return %y\n}}\n"


def test_printed_parsed_and_evaluated() -> None:
    module = parse(TEXT.format("i32"))
    verify(module)
    assert print_module(parse(print_module(module))) == print_module(module)
    x = np.array([1.0, -0.0, np.inf, 3.5], np.float32)
    np.testing.assert_array_equal(evaluate(module, [x])[0], x.view(np.int32))


def test_widths_that_differ() -> None:
    with pytest.raises(CodesignError, match="takes one argument of 16 bits"):
        verify(parse(TEXT.format("i16")))
