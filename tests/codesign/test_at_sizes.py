"""Prices of one compile at several sizes."""

from __future__ import annotations

import pytest

from codesign.at_sizes import prices_at
from codesign.command import points, sizes
from codesign.compiler import Options, compile
from codesign.costmodel.machine import load_machine
from codesign.documents import document_of
from codesign.ir.errors import CodesignError
from codesign.ir.text import parse

MODEL = """
module @m
symbol batch: 1 to 65536
func @main(%x: f32[batch, 1024]) {
  %m = compute f32[i: batch] max(j: 1024) { %x[i, j] }
  %y = compute f32[i: batch, j: 1024] { exp(%x[i, j] - %m[i]) }
  return %y
}"""


@pytest.mark.parametrize("machine", ["h100_sxm", "maia100"])
def test_the_price_at_each_size_is_that_of_the_kernels_there(machine: str) -> None:
    options = Options(sizes={"batch": 512}, kernels=False, verify=False, reuse=False)
    made = compile(parse(MODEL), load_machine(machine), options)
    small, same, large = prices_at(made, [{"batch": 1}, {"batch": 512}, {"batch": 65536}])
    own = document_of("m", made, {}, None, {})
    assert (same.seconds, same.seconds_low, same.seconds_high) == (own.seconds, own.seconds_low, own.seconds_high)
    assert small.seconds < same.seconds < large.seconds
    memory = made.machine.levels[0]
    bandwidth = made.machine.need(memory.bandwidth, "the bandwidth of the memory")
    assert large.seconds > 2 * 65536 * 1024 * 4 / bandwidth  # what is read and written
    assert [row.symbols for row in (small, large)] == [{"batch": 1}, {"batch": 65536}]
    assert made.planned.sizes == {"batch": 512}


def test_a_size_outside_its_range_has_no_price() -> None:
    made = compile(parse(MODEL), load_machine("h100_sxm"), Options(sizes={"batch": 512}, kernels=False, reuse=False))
    for size in (0, 65537):
        with pytest.raises(CodesignError, match=f"batch = {size} is outside its range 1 to 65536"):
            prices_at(made, [{"batch": 512}, {"batch": size}])


def test_what_data_decides_grows_with_the_sizes_that_are_given() -> None:
    text = """
    module @m
    symbol batch: 1 to 65536
    symbol u0: 0 to 67108864
    func @main(%x: f32[batch, 1024]) {
      %at = call "aten.nonzero.default"(%x) : i64[u0, 2]
      %y = compute f32[i: u0] { %x[%at[i, 0], %at[i, 1]] }
      return %y
    }"""
    options = Options(sizes={"batch": 8}, kernels=False, reuse=False)
    made = compile(parse(text), load_machine("h100_sxm"), options)
    small, large = prices_at(made, [{"batch": 8}, {"batch": 4096}])
    assert (small.symbols["u0"], large.symbols["u0"]) == (8 * 1024, 4096 * 1024)


def test_every_combination_of_sizes() -> None:
    assert points("--bind", [], "n=8") == [{}]
    assert points("--bind", ["n=8"], "n=8") == [{"n": 8}]
    found = points("--bind", ["n=1,8", "m=2,4"], "n=8")
    assert found == [{"n": 1, "m": 2}, {"n": 1, "m": 4}, {"n": 8, "m": 2}, {"n": 8, "m": 4}]
    for wrong in ("n", "n=", "n=1,", "n=0,2", "=3", "n=1,x"):
        with pytest.raises(CodesignError, match="is not NAME=SIZE"):
            points("--bind", [wrong], "n=8")
    assert points("--bind", ["n=8", "n=8"], "n=8") == [{"n": 8}]
    with pytest.raises(CodesignError, match="--bind gives n twice; for several sizes write --bind n=1,2,3"):
        points("--bind", ["n=1,2", "n=3"], "n=8")
    with pytest.raises(CodesignError, match="--size gives n twice: 1 and 2"):
        sizes("--size", ["n=1", "m=2", "n=2"], "n=8")
    with pytest.raises(CodesignError, match="--bind 'n' is not NAME=SIZE"):
        points("--bind", ["n"], "n=8")
