"""Tables that `codesign.validate` and `codesign.calibrate` can't read, as they say it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("pandas")
from codesign import validate
from codesign.costmodel.machine import load_machine
from codesign.costmodel.rows import TableError
from codesign.costmodel.tables import kernels_of, machine_rows, read_table


def test_what_is_wrong_in_a_table_is_told_with_its_file(tmp_path: Path) -> None:
    machine = load_machine("h100_sxm")
    (tmp_path / "mine.csv").write_text("m,n,k,dtype,seconds\n64,64,64,bf16,1e-5\n64,64,64,bf17,1e-5\n")
    (tmp_path / "words.csv").write_text("m,n,k,seconds\n64,64,wide,1e-5\n")
    (tmp_path / "theirs.csv").write_text("m,n,k,seconds,machine\n64,64,64,1e-5,a100_sxm\n")
    (tmp_path / "other.csv").write_text("a,seconds\n1,2\n")
    for name, said in (
        ("mine", "row 2, column 'dtype': dtype 'bf17' is not known"),
        ("words", "row 1, column 'k': needs a number"),
        ("theirs", "no rows of h100_sxm in the table"),
        ("other", "a table of an unknown kind"),
    ):
        file = tmp_path / f"{name}.csv"
        result = CliRunner().invoke(validate.application, [str(file), "--machine", "h100_sxm"])
        assert isinstance(result.exception, TableError)
        assert result.exception.one_line().startswith(f"{file}: {said}")
    for name in ("mine", "words", "other"):  # as codesign.calibrate reads them
        with pytest.raises(TableError, match=rf"^{re.escape(str(tmp_path))}/{name}\.csv: "):
            list(kernels_of(machine_rows(read_table(tmp_path / f"{name}.csv"), "h100_sxm"), machine))
