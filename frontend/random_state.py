"""The state of torch's generator as recomputed graphs carry it: the seed of this compiler's generator, in eight bytes.

Activation checkpointing draws in the forward pass and, when the backward pass computes the same once more, draws again from the state that
the forward pass saved. torch writes that as two higher-order operators around the drawing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

from codesign.frontend.lowering.builder import Builder, literal, read
from codesign.ir.core import Value
from codesign.ir.dtypes import I64, U8
from codesign.ir.scalar import IndexValue, apply, cast

SAVE, RESTORE = "run_and_save_rng_state", "run_with_rng_state"
BYTES = 8


def inner_call(node: Node, env: Mapping[Node, Any]) -> tuple[Node, dict[Node, Any]]:
    """The drawing operator's call inside a node of either kind, in a graph of its own, and the values of that graph's placeholders."""
    start = 1 if str(getattr(node.target, "__name__", "")) == RESTORE else 0
    target, *args = node.args[start:]
    assert callable(target)
    scratch, known = Graph(), dict[Node, Any]()

    def stand_in(arg: Node) -> Node:
        made = scratch.placeholder(arg.name)
        made.meta = arg.meta
        known[made] = env[arg]
        return made

    call = scratch.call_function(target, *torch.fx.node.map_arg((tuple(args), node.kwargs), stand_in))
    fake_args, fake_kwargs = torch.fx.node.map_arg((call.args, call.kwargs), lambda arg: arg.meta["val"])
    call.meta = {**node.meta, "val": target(*fake_args, **fake_kwargs)}
    return call, known


def saved(b: Builder, draw: Callable[[], Any]) -> list[Any]:
    """The state before the draw, and what the draw gives."""
    key, draws = b.key, b.draws

    def byte(point: Any) -> Any:
        seed = literal(draws, I64) if key is None else apply("add", read(key, ()), literal(draws, I64))
        by = apply("mul", IndexValue(point[0]), literal(8, I64))
        return cast(apply("and", apply("shr", seed, by), literal(255, I64)), U8)

    state = b.compute((BYTES,), byte, name=f"{b.name}_state")
    return [state, draw()]


def restored(b: Builder, state: Value, draw: Callable[[], Any]) -> Any:
    """What the draw gives from a saved state."""

    def word(_: Any) -> Any:
        bytes_ = [cast(read(state, (place,)), I64) for place in range(BYTES)]
        word = bytes_[0]
        for place, byte in enumerate(bytes_[1:], start=1):
            word = apply("or", word, apply("shl", byte, literal(8 * place, I64)))
        return word

    outer = b.key, b.draws
    b.key, b.draws = b.compute((), word, name=f"{b.name}_seed"), 0
    try:
        return draw()
    finally:
        b.key, b.draws = outer
