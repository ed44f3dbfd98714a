"""Inputs to check a model on: copies that share what was shared, and draws that keep what a model may rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codesign.frontend.inputs import cloned, drawn, fresh_inputs, redrawn
from codesign.frontend.load import ModelSource, load_model
from codesign.ir.errors import CodesignError


def redraw(values: Any, seed: int = 0) -> Any:
    return redrawn(np.asarray(values), np.random.default_rng(seed), gentle=False)


def test_a_copy_is_laid_out_and_shared_as_its_tensors_were() -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    (a, b, c), kwargs = cloned(((whole.t(), whole[1:, 2:], torch.randn(1, 3).expand(5, 3)), {"k": whole}))
    assert a.stride() == (1, 6)
    assert b.storage_offset() == 8
    assert c.stride() == (0, 1)
    kwargs["k"].fill_(7.0)
    assert bool((a == 7).all()), "the copies share memory with each other"
    assert bool((b == 7).all())
    assert whole[1, 1] == 7.0, "element 7 of a range"
    assert whole[0, 0] == 0.0, "the original is another memory"


@pytest.mark.parametrize("values", [[0, 2, 5], [0, 3, 3, 7, 20, 20, 41], [0.0, 4.0, 9.0, 12.0], [9, 7, 7, 2, 1]])
def test_integers_in_order_stay_in_order_between_their_ends(values: list[Any]) -> None:
    for seed in range(8):
        made = redraw(values, seed)
        steps = np.diff(made) * (1 if values[-1] > values[0] else -1)
        assert (made[0], made[-1]) == (values[0], values[-1])
        assert (steps >= 0).all()
        assert (made == np.rint(made)).all()
        if len(set(values)) == len(values):
            assert (steps > 0).all(), "none comes twice"


def test_range_sign_and_zeros_are_those_of_the_example() -> None:
    rng = np.random.default_rng(3)
    positive = rng.random(50) + 0.25
    divisors = np.array([-4, 3, 7, -1, 2, 5, 9, 8, -7, 6, 1, 3])
    for seed in range(8):
        made = redraw(positive, seed)
        assert made.min() >= positive.min()
        assert made.max() <= positive.max()
        assert (made != positive).any()
        whole = redraw(divisors, seed)
        assert (whole != 0).all()
        assert whole.min() >= -7
        assert whole.max() <= 9
    floats = redraw(np.array([3.0, 17.0, 4.0, 8.0, 11.0, 2.0, 5.0, 6.0, 1.0, 4.0], dtype=np.float32))
    assert (floats == np.rint(floats)).all(), "floats that index stay whole numbers"


def test_masks_and_permutations_change_places_only() -> None:
    for values in (np.array([0.0, -np.inf, 0.0, -1e9, 0.0]), np.array([True, False, False]), np.array([3, 0, 2, 1, 4])):
        assert sorted(redraw(values).tolist()) == sorted(values.tolist())


def test_states_of_zeros_are_drawn_too() -> None:
    made = redraw(np.zeros((3, 4), dtype=np.float32))
    assert 0 < made.min() < made.max() < 1
    assert redraw(np.zeros(3, dtype=np.int64)).tolist() == [0, 0, 0]


def test_a_draw_keeps_strides_and_sharing() -> None:
    whole = torch.randn(4, 6)
    (a, b, c, d), _ = drawn(((whole, whole.t(), torch.randn(1, 3).expand(5, 3), whole.to("meta")), {}), 0, gentle=False)
    assert torch.equal(a.t(), b)
    assert not torch.equal(a, whole)
    assert c.stride() == (0, 1)
    assert not d.is_meta


def source_of(folder: Path, text: str) -> ModelSource:
    path = folder / "model.py"
    path.write_text("import torch\n" + text)
    return load_model(path)


def test_the_file_makes_its_inputs_again(tmp_path: Path) -> None:
    source = source_of(
        tmp_path, "get_model = lambda: torch.nn.ReLU()\ndef get_inputs(): return [torch.randn(3).abs()]\n"
    )
    first = next(fresh_inputs(source, 0))
    assert first.origin == "get_inputs again"
    assert not torch.equal(first.arguments[0][0], source.inputs[0])
    fixed = source_of(tmp_path, "get_model = lambda: torch.nn.ReLU()\ndef get_inputs(): return [torch.ones(3)]\n")
    assert next(fresh_inputs(fixed, 0)).origin == "drawn", "inputs that are the same each time are no others"


def test_the_file_says_how_to_make_others(tmp_path: Path) -> None:
    text = "model = torch.nn.ReLU(); example_inputs = (torch.ones(3),)\ndef get_fresh_inputs(seed): return {}\n"
    source = source_of(tmp_path, text.format("[torch.full((3,), float(seed))]"))
    (only,) = fresh_inputs(source, 5)
    assert only.arguments[0][0].tolist() == [5.0, 5.0, 5.0]
    with pytest.raises(CodesignError, match=r"does not fit the example.*\[4\], not"):
        next(fresh_inputs(source_of(tmp_path, text.format("[torch.ones(4)]")), 5))
    with pytest.raises(CodesignError, match="ZeroDivisionError"):
        next(fresh_inputs(source_of(tmp_path, text.format("1 / 0")), 5))
