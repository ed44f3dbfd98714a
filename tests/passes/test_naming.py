"""Kernels are named after the modules and operators that they do, in every run alike."""

from __future__ import annotations

import pytest

from codesign.ir.tensor import Fusion
from codesign.ir.text import parse
from codesign.passes.naming import kernel_name


def place(line: int, module: str, operator: str) -> str:
    inside = f'in "{module}"' if module else ""
    return f'loc("model.py":{line} {inside} of "aten.{operator}.default")'


def group(*lines: str, label: str = "") -> Fusion:
    text = "\n".join(lines)
    module = parse(f"""func @f(%x: f32[8, 16], %g: f32[4, 16], %u: f32[4, 16]) {{
      %y = fusion {label} {{ {text}
        yield %o }}
      return %y
    }}""")
    (fusion,) = module.main.body.ops
    assert isinstance(fusion, Fusion)
    return fusion


def product(name: str, weight: str, where: str = "") -> str:
    return f"%{name} = compute f32[i: 8, j: 4] sum(k: 16) {{ %x[i, k] * %{weight}[j, k] }} {where}"


def products(*modules: str) -> Fusion:
    """Products of these modules, added up."""
    lines = [product(f"p{n}", "u", place(n + 1, module, "linear")) for n, module in enumerate(modules)]
    total = " + ".join(f"%p{n}[i, j]" for n in range(len(modules)))
    return group(*lines, f"%o = compute f32[i: 8, j: 4] {{ {total} }} " + place(1, modules[0], "linear"))


ALONE = "%o = compute f32[i: 8, j: 16] { exp(%x[i, j]) + 1.0 } "


@pytest.mark.parametrize(
    ("fusion", "name"),
    [
        (
            group(
                product("b", "u", place(7, "layers.3.ffn.up", "linear")),
                product("a", "g", place(7, "layers.3.ffn.gate", "linear")),
                "%o = compute f32[i: 8, j: 4] { %a[i, j] * %b[i, j] } " + place(8, "layers.3.ffn", "mul"),
            ),
            "layers_ffn_gate_up__linear_mul",
        ),
        (
            group(
                "%m = compute f32[i: 8] max(k: 16) { %x[i, k] } " + place(3, "blocks.0.attention", "_softmax"),
                "%o = compute f32[i: 8, k: 16] { %x[i, k] - %m[i] } " + place(3, "blocks.0.attention", "_softmax"),
            ),
            "blocks_attention__softmax",
        ),
        (
            group(
                product("b", "u", place(7, "q", "linear")),
                product("a", "g", place(9, "", "matmul")),
                "%o = compute f32[i: 8, j: 4] { %a[i, j] * %b[i, j] } " + place(9, "", "mul"),
            ),
            "q__linear_matmul_mul",
        ),
        (
            group(
                product("b", "u", place(7, "block.1.attention.query", "linear")),
                product("a", "g", place(9, "block.1.attention", "matmul")),
                "%o = compute f32[i: 8, j: 4] { %a[i, j] * %b[i, j] } " + place(9, "block.1.attention", "mul"),
            ),
            "block_attention_query__linear_matmul_mul",
        ),
        (
            products("block.attention.key", "block.attention.query", "block.attention.value", "block.norm"),
            "block_attention_norm__linear",
        ),
        (
            products("attention.key", "attention.query", "attention.value", "attention.out"),
            "attention_key_query_and_2_more__linear",
        ),
        (products("a.left", "b", "c", "d", "e"), "a_b_and_3_more__linear"),
        (group(ALONE + place(5, "", "add")), "add"),
        (group(ALONE + place(5, "encoder.1.act", "gelu")), "encoder_act__gelu"),
        (group(ALONE), "o"),
        (group(ALONE + place(5, "encoder", "gelu"), label='"8 of mine"'), "k_8_of_mine"),
    ],
)
def test_a_name_says_what_is_computed_and_where(fusion: Fusion, name: str) -> None:
    assert kernel_name(fusion) == name


def test_it_is_an_identifier_of_some_length() -> None:
    found = kernel_name(group(ALONE + place(5, ".".join(["a-very-long-module-name"] * 6), "add")))
    assert found.isidentifier()
    assert len(found) <= 64
