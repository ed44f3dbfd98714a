"""Routines do the same in machine code as in Python, and say what they can't translate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.costmodel import cache
from codesign.costmodel.native import Routine, compiled_library


@dataclass
class Heap:
    """Numbers to be sorted, and what is seen on the way."""

    count: int
    swaps: int
    total: float
    keys: npt.NDArray[np.float64]
    order: npt.NDArray[np.int64]


LARGEST = 1e300


def smaller(heap: Heap, left: int, right: int) -> int:
    return right if heap.keys[heap.order[right]] < heap.keys[heap.order[left]] else left


def sort(heap: Heap) -> None:
    """By selection, with all that the small language has."""
    at = 0
    while at < heap.count:
        best = at
        other = at + 1
        while True:
            if other >= heap.count:
                break
            best = smaller(heap, best, other)
            other += 1
        value = -heap.keys[heap.order[best]] * 0.5 + heap.count / 4
        if value < -LARGEST or (at > 0 and best == at and other < 0):
            at += 1
            continue
        if best != at:
            kept = heap.order[at]
            heap.order[at] = heap.order[best]
            heap.order[best] = kept
            heap.swaps += 1 + at % 2 - at // 4
        elif at % 3 == 2:
            heap.swaps += 5
        heap.total += value
        at += 1


SORT = Routine(Heap, smaller, sort)


@given(st.lists(st.floats(-1e6, 1e6), max_size=9))
@settings(max_examples=40, deadline=None)
def test_machine_code_does_what_python_does(keys: list[float]) -> None:
    compiled = Heap(len(keys), 0, 0.0, np.array(keys), np.arange(len(keys)))
    interpreted = replace(compiled, keys=compiled.keys.copy(), order=compiled.order.copy())
    SORT(compiled)
    SORT(interpreted, compiled=False)
    assert compiled.order.tolist() == interpreted.order.tolist()
    assert np.array(keys)[compiled.order].tolist() == sorted(keys)
    assert (compiled.swaps, compiled.total) == (interpreted.swaps, interpreted.total)


def printing(heap: Heap) -> None:
    print(heap.count)


def test_what_is_not_translated_is_named() -> None:
    with pytest.raises(TypeError, match=r"printing: `print\(heap\.count\)` is not of the part"):
        Routine(Heap, printing).text()


def test_arrays_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match="field order: an array of int64 without gaps"):
        SORT(Heap(2, 0, 0.0, np.zeros(2), np.zeros(2, np.int32)))


def test_a_library_that_was_cut_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "cache_root", lambda: tmp_path)
    path = compiled_library(SORT.text())
    if path is None:
        pytest.skip("no C compiler")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    again = compiled_library(SORT.text())
    assert again == path
    assert len(again.read_bytes()) == len(whole)


def test_without_a_compiler_python_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    heap = Heap(3, 0, 0.0, np.array([2.0, 3.0, 1.0]), np.arange(3))
    Routine(Heap, smaller, sort)(heap)
    assert heap.order.tolist() == [2, 0, 1]
