"""Products with matrices that data chose: right for any choice, grouped where the matrices are read often, and as they are where they are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codesign.frontend import capture
from codesign.ir.interpreter import evaluate
from codesign.ir.tensor import Compute, Sort

Product = Callable[[Tensor, Tensor, Tensor], Tensor]

PRODUCTS: dict[str, Product] = {
    "matrix_first": lambda x, w, e: (w[e] @ x.unsqueeze(-1)).squeeze(-1),
    "row_first": lambda x, w, e: (x.unsqueeze(1) @ w[e].transpose(1, 2)).squeeze(1),
    "einsum": lambda x, w, e: torch.einsum("sk,snk->sn", x, w.index_select(0, e)),
    "two_rows_each": lambda x, w, e: (x.view(-1, 2, x.shape[1]) @ w[e[::2]].transpose(1, 2)).flatten(0, 1),
}


class Rows(nn.Module):
    """Rows of x, each by the matrix of its choice."""

    def __init__(self, product: Product, width: int) -> None:
        super().__init__()
        self.product = product
        self.w = nn.Parameter(torch.randn(3, width, width))

    def forward(self, x: Tensor, choice: Tensor) -> Tensor:
        return self.product(x, self.w, choice)


@pytest.mark.parametrize("choice", ["any", "one"])
@pytest.mark.parametrize("product", PRODUCTS)
def test_rows_in_order_of_what_they_chose(product: str, choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codesign.frontend.lowering.chosen.LEAST_SAVED", 1)
    model, x = Rows(PRODUCTS[product], 12), torch.randn(40, 12)
    chosen = torch.randint(0, 3, (40,)) if choice == "any" else torch.full((40,), 2)
    captured = capture(model, (x, chosen))
    (found,) = evaluate(captured.module, captured.flatten_inputs((x, chosen)))
    np.testing.assert_allclose(found, model(x, chosen).detach().numpy(), atol=1e-4)
    assert any(isinstance(op, Sort) for op in captured.module.main.body.walk())


@pytest.mark.parametrize(("rows", "matrices"), [(2, 1), (2048, 24)], ids=["a_token", "a_prompt"])
def test_matrices_read_again_only_where_it_costs_little(rows: int, matrices: int) -> None:
    """A row or two read their own; many share: 2048 rows of 3 experts make no more than 18 blocks."""
    with torch.device("meta"):
        inputs = (torch.empty(rows, 1024), torch.zeros(rows, dtype=torch.long))
        captured = capture(Rows(PRODUCTS["matrix_first"], 1024), inputs)
    products = [op for op in captured.module.main.body.walk() if isinstance(op, Compute) and op.monoid == "sum"]
    (product,) = [op for op in products if any(dim.extent == 1024 for dim in op.reductions)]
    assert (product.dims[0].extent.constant <= matrices) or rows == 2
    assert any(isinstance(op, Sort) for op in captured.module.main.body.walk()) == (rows > 2)
