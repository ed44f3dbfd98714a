"""Names that become files, functions and calls are checked; texts that are shown may be anything printable."""

import pytest

from codesign.ir.errors import VerificationError
from codesign.ir.text import parse, print_module
from codesign.ir.verify import verify

KERNEL = """module @m
kernel @`{name}`(%x: buffer<f32[4]>) -> (%y: buffer<f32[4]>)
    grid(g: 1)
    schedule {{}} {{
  %a = load %x [i: 4] at [i]
  store %a -> %y [i: 4] at [i]
}}
"""

CALL = """module @m
func @main(%x: f32[4]) {{
  %y = call "{target}"(%x) {{{attributes}}} : f32[4]
  return %y
}}
"""


@pytest.mark.parametrize("name", ["a", "linear_1", "x.y", "0", "a-b", "$t"])
def test_plain_names_of_kernels_are_taken(name: str) -> None:
    verify(parse(KERNEL.format(name=name)))


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", ".hidden", "-o", "a b", "a\tb", "x" * 201, "é", "a'b", 'a"b', "a;b", "ﬁ"]
)
def test_names_that_are_paths_or_code_are_refused(name: str) -> None:
    with pytest.raises(VerificationError, match="name"):
        verify(parse(KERNEL.format(name=name)))


@pytest.mark.parametrize("target", ["aten.sort.default", "lab::softsign".replace("::", "."), "aten.__and__.Tensor"])
def test_operators_are_targets(target: str) -> None:
    verify(parse(CALL.format(target=target, attributes='arg0="%0", dim=1')))


@pytest.mark.parametrize(
    "target", ["", "a b", "aten.x()", "aten..x", "aten.__class__.x", "aten.__init__", "1.x", "a.b;c", "a.\\nb"]
)
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(VerificationError, match="no operator"):
        verify(parse(CALL.format(target=target, attributes="")))


@pytest.mark.parametrize(
    "attribute",
    ['arg0="%1"', 'arg0="%x"', 'arg0="torch.x()"', 'arg0="dtype:f99"', "`a b`=1", "lambda=1", 'arg0=("%7",)'],
)
def test_arguments_that_name_nothing_are_refused(attribute: str) -> None:
    with pytest.raises(VerificationError, match="argument"):
        verify(parse(CALL.format(target="aten.sort.default", attributes=attribute)))


def test_a_place_of_unknown_parts_is_unknown() -> None:
    text = CALL.format(target="aten.sort.default", attributes="").replace("\n}\n", "\n} loc(fused[fused[]; ])\n")
    printed = print_module(parse(text))
    assert print_module(parse(printed)) == printed
    assert "loc" not in printed


def test_indices_beyond_64_bits_are_refused() -> None:
    text = KERNEL.format(name="k").replace("%a -> %y [i: 4] at [i]", f"%a -> %y [i: 4] at [i + {10**30}]")
    with pytest.raises(VerificationError, match="outside of size 4"):
        verify(parse(text))
