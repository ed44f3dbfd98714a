"""Operators of torch that something else makes while a model runs: where torch leaves open what they give, as the compiled model makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

Made = Mapping[Any, Callable[..., Any]]
"""What is called in place of an operator, with its arguments."""


class Replacing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it operators are made by what is said of them; torch makes all others."""

    supports_higher_order_operators = True

    def __init__(self, made: Made) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = made

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.made.get(func, func)(*args, **(kwargs or {}))
