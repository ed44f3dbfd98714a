"""The text format: everything prints and parses back to the same, and errors say where."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign.ir import equal
from codesign.ir.core import Module
from codesign.ir.text import parse, print_module
from tests.ir.strategies import modules


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(modules())
def test_parse_undoes_print(module: Module) -> None:
    text = print_module(module)
    again = parse(text)
    assert equal(again, module)
    assert print_module(again) == text
