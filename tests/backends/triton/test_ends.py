"""Functions at the ends of their domains, through torch.compile in Triton's interpreter, held to eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

INF, NAN = float("inf"), float("nan")
ENDS = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 1e6, -1e6, 3e38, -3e38, 1e-30, INF, -INF, NAN])


def _held_to_eager(function: Callable[..., Tensor], *arguments: Tensor) -> None:
    with torch.no_grad():
        expected = function(*arguments)
        got = torch.compile(function, backend="codesign")(*arguments)
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, equal_nan=True, rtol=2e-5, atol=1e-37)
    zero = expected == 0
    assert torch.equal(torch.signbit(got)[zero], torch.signbit(expected)[zero]), "the sign of zero"


@pytest.mark.parametrize("base", [0.5, 1.0, 2.0, 10.0, 1000.0])
def test_powers_of_a_constant(base: float) -> None:
    _held_to_eager(lambda x: torch.pow(base, x), ENDS)


@pytest.mark.parametrize("name", ["acosh", "asinh", "atanh", "round", "expm1", "log1p", "sinh", "tanh"])
def test_functions_of_one_argument(name: str) -> None:
    _held_to_eager(getattr(torch, name), ENDS)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8])
def test_integer_powers_read_the_whole_exponent(dtype: torch.dtype) -> None:
    bases = torch.tensor([2, 3, 2, 5, 7, 1, 0, 3], dtype=dtype)
    _held_to_eager(lambda a, b: a**b, bases, torch.tensor([64, 65, 100, 3, 127, 99, 80, 0], dtype=dtype))


def test_float64_constants_that_a_kernel_uses_twice_keep_their_digits() -> None:
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    compiled = torch.compile(lambda x: torch.linspace(100, 1, 9, dtype=torch.float64) * x, backend="codesign")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), torch.linspace(100, 1, 9, dtype=torch.float64) * x, rtol=1e-15, atol=0)


def test_a_masked_scatter_of_too_few_values_is_an_error() -> None:
    compiled = torch.compile(lambda x, source: x.masked_scatter(x > 0, source), backend="codesign")
    x = torch.tensor([-1.0, 2.0, 3.0, -4.0, 5.0])
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, torch.ones(3)), torch.tensor([-1.0, 1.0, 1.0, -4.0, 1.0]))
        with pytest.raises(Exception, match="outside"):
            compiled(x, torch.ones(2))


_WRITES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scatter": lambda x, ids: x.scatter(0, ids[:, None], 5.0),
    "scatter_add": lambda x, ids: x.scatter_add(0, ids[:, None].expand(-1, 3), torch.ones(2, 3)),
    "scatter_reduce": lambda x, ids: x.scatter_reduce(0, ids[:, None], torch.ones(2, 1), "amax"),
    "index_add": lambda x, ids: x.index_add(0, ids, torch.ones(2, 3)),
    "index_put": lambda x, ids: x.index_put((ids,), torch.zeros(3)),
    "index_fill": lambda x, ids: x.index_fill(0, ids, 2.0),
    "put": lambda x, ids: x.put(ids * 3, torch.ones(2)),
}


@pytest.mark.parametrize("write", _WRITES)
def test_a_write_outside_of_the_tensor_is_an_error(write: str) -> None:
    function, x, ids = _WRITES[write], torch.randn(4, 3), torch.tensor([0, 3])
    compiled = torch.compile(function, backend="codesign")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, ids), function(x, ids))
        with pytest.raises(Exception, match=r"test_ends\.py:\d+.*outside"):
            compiled(x, torch.tensor([0, 4]))


def test_a_write_of_one_row_outside_of_the_tensor_is_an_error() -> None:
    compiled = torch.compile(lambda x, ids, row: x.index_copy(0, ids, row) * 2, backend="codesign")
    x, row = torch.randn(4, 3), torch.ones(1, 3)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, torch.tensor([3]), row), x.index_copy(0, torch.tensor([3]), row) * 2)
        with pytest.raises(Exception, match=r"test_ends\.py:\d+.*outside"):
            compiled(x, torch.tensor([4]), row)


def test_a_write_outside_of_a_row_of_a_reshaped_tensor_is_an_error() -> None:
    def function(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return x.reshape(2, 2, 3).index_put((row, column), torch.ones(3)).reshape(4, 3)

    compiled, x, row = torch.compile(function, backend="codesign"), torch.randn(4, 3), torch.tensor([0])
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, row, torch.tensor([1])), function(x, row, torch.tensor([1])))
        with pytest.raises(Exception, match=r"test_ends\.py:\d+.*outside"):
            compiled(x, row, torch.tensor([2]))


@pytest.mark.parametrize("outside", [6, -7, 2**40])
def test_an_index_past_the_table_is_an_error(outside: int) -> None:
    compiled = torch.compile(lambda ids, table: torch.nn.functional.embedding(ids, table) * 2, backend="codesign")
    table = torch.randn(6, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(torch.tensor([0, 5, 2]), table), table[[0, 5, 2]] * 2)
        with pytest.raises(Exception, match=r"test_ends\.py:\d+.*outside"):
            compiled(torch.tensor([0, outside, 2]), table)
