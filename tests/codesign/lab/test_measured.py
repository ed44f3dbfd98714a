"""Spaces of others: read, written, read again; and refused with the reason when they are none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from codesign.ir.errors import CodesignError
from codesign.lab.measured import cache_text, problem_of, read_space, results_text
from codesign.lab.prices import price_all
from tests.codesign.lab.studies import measured


@pytest.mark.parametrize(("text", "name"), [(cache_text, "scan.json"), (results_text, "scan.json")])
def test_what_is_written_is_read_again(text: object, name: str, tmp_path: Path) -> None:
    space = measured()
    (tmp_path / name).write_text(text(space))  # type: ignore[operator]
    again = read_space(tmp_path / name)
    assert again.kernel == space.kernel
    assert again.device == space.device
    assert again.rows.keys() == space.rows.keys()
    for key, seconds in space.rows.items():
        assert again.rows[key] == pytest.approx(seconds)
    assert {name: list(values) for name, values in again.knobs.items()} == space.knobs
    assert set(again.failures) == set(space.failures)
    assert problem_of(again).key == problem_of(read_space(tmp_path / name)).key


def test_a_cache_that_was_left_open_is_read(tmp_path: Path) -> None:
    whole = cache_text(measured()).rstrip()
    cut = whole[: whole.rindex("}", 0, len(whole) - 3)].rstrip()
    (tmp_path / "c.json").write_text(cut + "},\n" if not cut.endswith("}") else cut + ",\n")
    assert read_space(tmp_path / "c.json").rows.keys() == measured().rows.keys()


def test_a_table_of_knobs_is_a_space(tmp_path: Path) -> None:
    frame = pd.DataFrame({"tile": [8.0, 16.0, 32.0], "layout": ["a", "b", "a"], "seconds": [3e-3, math.nan, 1e-3]})
    frame.to_parquet(tmp_path / "tuning_space_x_gpu7.parquet")
    space = read_space(tmp_path / "tuning_space_x_gpu7.parquet")
    assert space.device == "gpu7"
    assert space.rows == pytest.approx({(8, "a"): 3e-3, (16, "b"): math.inf, (32, "a"): 1e-3})
    problem = problem_of(space)
    prices = price_all(problem)
    assert len(prices.numbers) == 3
    assert prices.best == pytest.approx(1e-3)
    assert [problem.knobs(int(n)) for n in prices.numbers][-1] == {"tile": 32, "layout": "a"}


def test_what_failed_is_in_the_space_and_what_was_not_tried_is_not() -> None:
    space = measured()
    problem = problem_of(space)
    prices = price_all(problem)
    assert len(prices.numbers) == len(space.rows)
    assert sum(map(math.isinf, prices.seconds)) == len(space.failures) > 0
    for number, seconds in zip(prices.numbers, prices.seconds, strict=True):
        assert space.rows[tuple(problem.knobs(int(number)).values())] == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "neither a cache"),
        ('{"results": []}', "no configurations"),
        ('{"results": [{"configuration": {"a": 1}, "measurements": [{"name": "time", "value": 1, "unit": "weeks"}]}]}', "weeks"),
        ('{"tune_params_keys": ["a"], "cache": {}}', "no configurations"),
        ('{"tune_params_keys": ["a"], "cache": {"1": {"b": 1, "time": 2}}}', "KeyError"),
        ('{"tune_params_keys": ["a"], "cache": {"1": {"a": [1], "time": 2}}}', "number or a string"),
        ('{"tune_params_keys": ["a"], "objective": "energy", "cache": {"1": {"a": 1, "energy": 2}}}', "not time"),
        (json.dumps({"tune_params_keys": list("abcdefgh"), "cache": {str(i): {**dict.fromkeys("abcdefgh", i), "time": 1} for i in range(20)}}), ""),
    ],
)  # fmt: skip
def test_a_file_that_is_no_space_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CodesignError, match=message or "points in the product"):
        problem_of(read_space(tmp_path / "x.json"))


@pytest.mark.others
def test_kernel_tuner_reads_what_is_written_here_and_what_it_writes_is_read(tmp_path: Path) -> None:
    pytest.importorskip("kernel_tuner", reason="the extra kernel-tuner is not installed")
    from kernel_tuner.file_utils import store_output_file
    from kernel_tuner.interface import tune_cache

    space = measured()
    path = tmp_path / "scan.json"
    path.write_text(cache_text(space))
    results, _ = tune_cache(str(path), strategy="brute_force", quiet=True, block_size_names=["block"])
    theirs = {tuple(result[name] for name in space.knobs): result["time"] * 1e-3 for result in results}
    assert theirs == pytest.approx({key: seconds for key, seconds in space.rows.items() if math.isfinite(seconds)})
    store_output_file(str(tmp_path / "scan_t4.json"), results, dict(space.knobs))
    assert read_space(tmp_path / "scan_t4.json").rows == pytest.approx(theirs)
