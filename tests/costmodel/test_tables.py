"""Tables of measurements that are malformed: one line with file or row, column and what the kind of table needs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from codesign.costmodel.rows import TableError
from codesign.costmodel.tables import KINDS, kernels_of, kind_of, read_table, remark_of, unknown_sources
from codesign.costmodel.validation import unit_remark


def _table(name: str) -> pd.DataFrame:
    kind = KINDS[name]
    return pd.DataFrame(
        {**{key: [64, 64] for key in kind.numbers}, **{key: ["a", "b"] for key in kind.words}, "seconds": [1e-5, 2e-5]}
    )


@pytest.mark.parametrize("name", KINDS)
def test_each_column_that_a_kind_needs_is_missed_by_name(name: str) -> None:
    assert kind_of(_table(name)) == name
    kind = KINDS[name]
    for column in {*kind.numbers, *kind.words} - {*kind.told_by}:
        with pytest.raises(TableError, match=rf"kind {name}, which needs the columns {column} too"):
            kind_of(_table(name).drop(columns=column))


@pytest.mark.parametrize("wrong", ["128 KB", -1, float("nan"), float("inf"), 1e300, "", None, "nan"])
@pytest.mark.parametrize("name", KINDS)
def test_a_cell_that_is_no_size_is_named_by_row_and_column(name: str, wrong: object) -> None:
    for column in KINDS[name].numbers:
        table = _table(name).astype({column: object})
        table[column] = pd.Series([table[column].iloc[0], wrong], dtype=object)
        with pytest.raises(TableError, match=rf"row 2, column '{column}': needs a number"):
            list(kernels_of(table))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"\x00\xff\xfe\x01", "t.csv"),
        (b"m,n,k\n1,2,3\n", "no column 'seconds'"),
        (b"a,b\n1,2\n", "found a, b; besides, mixture has BLOCK_SIZE_M, topk;"),
        (b"m,n,k,seconds\n", "no rows"),
        (b"m,n,k,seconds\n1,2,3,5 us\n", "row 1, column 'seconds': needs a number, got '5 us'"),
        (b"m,n,k,seconds\n1,2,3,inf\n", "row 1, column 'seconds': needs a finite number"),
        (b"m,n,k,seconds\n1,2,3,1\n1,2,3,-1\n", "row 2, column 'seconds': needs a time of 0"),
        (b"m,n,k,seconds\n1,2,3,nan\n", "no row has a time"),
        (b"prob.K,rtl_cycle\n1,2\n", "an accelerator's table of cycles"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(TableError) as caught:
        read_table(tmp_path / "t.csv")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_suffix_is_read_as_csv(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import torch\n\nx = 1\ny = f(1, 2, 3, 4)\n")
    with pytest.raises(TableError, match=r"model\.py: cannot be read as CSV"):
        read_table(tmp_path / "model.py")


@pytest.mark.parametrize("name", ["gemm", "attention"])
def test_a_dtype_that_is_not_known_is_named_by_its_row(name: str) -> None:
    table = _table(name).assign(dtype=["bf16", "float7"])
    with pytest.raises(TableError, match="row 2, column 'dtype': dtype 'float7' is not known"):
        list(kernels_of(table))


def test_implementations_that_are_not_known_are_told() -> None:
    table = _table("attention").assign(kernel_source=["fa3", "made_up"])
    assert unknown_sources(table) == ["made_up"]


def test_rows_that_a_kind_does_not_price_are_counted_and_named() -> None:
    """Other operators and products in batches; what they have for sizes is nobody's, but it must be a number."""
    table = pd.DataFrame(
        {
            "op": ["linear", "bmm", "bmm", "add", "softmax", "add"],
            "dtype": "f32",
            "batch": [1, 1, 4, 1, 1, 1],
            "m": 64,
            "n": 64,
            "k": [64, 64, 64, 0, None, 0],
            "seconds": 1e-5,
        }
    )
    assert kind_of(table) == "gemm"
    assert remark_of(table, "gemm") == ["kind gemm does not price 4 of 6 rows: add (2), bmm (1), softmax (1)"]
    assert [row for rows in kernels_of(table) for row in rows.index] == [0, 1]
    with pytest.raises(TableError, match=r"row 1, column 'm': needs a number from 1 to .*, got '0'"):
        kind_of(table.assign(m=[0, 64, 64, 64, 64, 64]))
    with pytest.raises(TableError, match=r"row 4, column 'k': needs a number from 1 to .*, got '1 KB'"):
        kind_of(table.astype({"k": object}).assign(k=[64, 64, 64, "1 KB", 0, 0]))
    with pytest.raises(TableError, match=r"no row is of kind gemm: 2 of 2 rows: add \(2\)"):
        list(kernels_of(table[table["op"] == "add"]))


def test_cycles_are_seconds_of_a_clock(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("M,N,K,cycles\n16,32,64,500\n")
    table = read_table(tmp_path / "t.csv", clock_hz=1e9)
    assert table[["m", "n", "k", "seconds"]].to_numpy().tolist() == [[16, 32, 64, 5e-7]]
    layer = dict.fromkeys(("N", "P", "Q", "R", "S"), 1) | {"P": 7, "Q": 5, "R": 3, "S": 2, "C": 4, "K": 6}
    header, values = ",".join(f"prob.{name}" for name in layer), ",".join(map(str, layer.values()))
    (tmp_path / "t.csv").write_text(f"{header},rtl_cycle\n{values},2000\n")
    table = read_table(tmp_path / "t.csv", clock_hz=1e9)
    assert table[["m", "n", "k", "seconds"]].to_numpy().tolist() == [[35, 6, 24, 2e-6]]
    (tmp_path / "t.csv").write_text("m,n,k,cycles\n16,32,64,many\n")
    with pytest.raises(TableError, match="row 1, column 'cycles': needs a number"):
        read_table(tmp_path / "t.csv", clock_hz=1e9)


def test_times_in_another_unit_are_remarked_on() -> None:
    def frame(factor: float) -> pd.DataFrame:
        return pd.DataFrame({"measured": [factor, 2 * factor, 3 * factor], "predicted": [1.0, 2.0, 9.0]})

    assert unit_remark(frame(1.0)) == unit_remark(frame(20.0)) == unit_remark(frame(0.05)) == []
    assert "1,000,000 times as long as predicted" in unit_remark(frame(1e6))[0]
    assert "1,000 times as short as predicted" in unit_remark(frame(1e-3))[0]
