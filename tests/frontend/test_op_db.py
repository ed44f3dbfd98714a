"""PyTorch's own operator samples through the tensor IR, against eager torch.

By default a slice that touches every family of lowering rules; `make conformance` runs all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from codesign.frontend import claimed_operators
from codesign.frontend.conformance import STATUSES, check_operator, compare, is_core, main, operators, table

SLICE = {
    "elementwise": "add sub div floor_divide remainder pow where clamp sign bitwise_left_shift logaddexp isnan round",
    "activations": "nn.functional.gelu nn.functional.silu nn.functional.softplus nn.functional.hardswish sigmoid",
    "reductions": "sum mean var std_mean amax argmax prod all count_nonzero linalg.vector_norm max",
    "views": "permute expand cat roll unfold as_strided nn.functional.pad slice_scatter diagonal tril repeat split",
    "indexing": "gather index_select index_put scatter_reduce scatter_add index_add take_along_dim masked_scatter",
    "matmul": "mm bmm addmm matmul nn.functional.linear nn.functional.scaled_dot_product_attention",
    "convolution": "nn.functional.conv2d nn.functional.conv_transpose2d nn.functional.unfold",
    "pooling": "nn.functional.max_pool2d nn.functional.avg_pool2d nn.functional.adaptive_avg_pool2d",
    "normalization": "softmax nn.functional.layer_norm nn.functional.group_norm nn.functional.batch_norm",
    "scans": "cumsum cumprod cummax logcumsumexp sort topk searchsorted",
    "resampling": "nn.functional.interpolate nn.functional.grid_sample",
    "distances": "cdist median nn.functional.pairwise_distance nn.functional.embedding_bag",
    "creation": "arange linspace eye full",
}
CORE_SHARE = 0.99
"""Of the samples of core ATen that torch can trace, at least so many are right."""

NAMES = sorted({name for names in SLICE.values() for name in names.split()})


LONG = [pytest.param(name, marks=pytest.mark.slow) if position % 3 else name for position, name in enumerate(NAMES)]
"""Two of three operators are left to `make test-long`."""


@pytest.mark.parametrize("name", LONG)
def test_slice(name: str) -> None:
    found = operators([name])
    assert found, f"op_db has no {name}"
    tallies = [check_operator(info, (torch.float32,), limit=2) for info in found]
    tallies += [check_operator(info, (torch.int64, torch.bfloat16, torch.uint8), limit=1) for info in found[:2]]
    assert sum(t.counts["passed"] for t in tallies) > 0, table(tallies)
    for status in ("failed", "crashed"):
        assert not any(t.counts[status] for t in tallies), table(tallies)


COMMITTED = Path(__file__).with_name("op_db.txt")
"""What `--limit 3 --dtype float32 --dtype int64` printed; it only gets better."""


def committed() -> dict[str, dict[str, int]]:
    """The counts of each row of the committed table, by the columns of its heading."""
    head, *rows = [line for line in COMMITTED.read_text().splitlines() if line and not line.startswith("#")]
    columns = [(status, head.index(status) + len(status)) for status in STATUSES]
    found = {}
    for row in rows:
        cells = {status: row[end - 11 : end].strip() for status, end in columns}
        found[row.split()[0]] = {status: int(cell) for status, cell in cells.items() if cell.isdecimal()}
    return found


def test_the_committed_table_has_nothing_wrong_and_core_aten_nearly_whole() -> None:
    rows = committed()
    total = rows.pop("total")
    assert not any(row.get("failed") or row.get("crashed") for row in rows.values())
    assert total["passed"] == sum(row.get("passed", 0) for row in rows.values()) > 2400
    known = [info for info in operators() if info.variant_test_name == "" and info.name in rows]
    core = [rows[info.name] for info in known if is_core(info)]
    tried = sum(sum(row.values()) - row.get("untraceable", 0) for row in core)
    right = sum(row.get("passed", 0) + row.get("random", 0) + row.get("external", 0) for row in core)
    assert right >= CORE_SHARE * tried, f"{right} of {tried}"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if position % 9 else name for position, name in enumerate(NAMES)],
)
def test_no_row_of_the_committed_table_gets_worse(name: str) -> None:
    rows = committed()
    for info in operators([name]):
        tally = check_operator(info, (torch.float32, torch.int64), limit=3)
        assert tally.counts["passed"] >= rows[tally.name].get("passed", 0), table([tally])


@pytest.mark.conformance
@pytest.mark.parametrize("name", sorted({info.name for info in operators()}))
def test_every_operator(name: str) -> None:
    tallies = [check_operator(info) for info in operators([name])]
    for status in ("failed", "crashed"):
        assert not any(t.counts[status] for t in tallies), table(tallies)


def test_comparison_sees_differences() -> None:
    """The yardstick itself: values, shapes, dtypes and counts that differ are all reported."""
    one = torch.tensor([1.0, float("nan")])
    assert compare([one], [one.clone()]) == ""
    assert "50.0% differ" in compare([one], [torch.tensor([1.1, float("nan")])])
    assert "eager gives" in compare([one], [one.double()])
    assert "eager gives" in compare([one], [one.reshape(1, 2)])
    assert "2 results" in compare([one, one], [one])


CORE_WITHOUT_RULE = {
    "aten._fft_c2r.default": "becomes real products before lowering",
    "aten._fft_r2c.default": "becomes real products before lowering",
    "aten._local_scalar_dense.default": "becomes a scalar read, not an operator",
    "aten.atan2.out": "export never leaves out= forms",
    "aten.embedding_dense_backward.default": "taken apart before lowering",
    "aten.native_group_norm_backward.default": "taken apart before lowering",
    "aten.native_layer_norm_backward.default": "taken apart before lowering",
    "aten.nonzero.default": "external call",
    "aten.resize_.default": "writes into its argument; export leaves none",
    "aten.sym_numel.default": "a size, not a tensor",
    "aten.sym_is_contiguous.default": "a layout, not a tensor",
    "aten.sym_size.int": "a size, not a tensor",
    "aten.sym_storage_offset.default": "a size, not a tensor",
    "aten.sym_stride.int": "a size, not a tensor",
}


def test_core_aten_is_claimed_but_for_what_is_listed_with_a_reason() -> None:
    core = set()
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        overloads: Any = packet.overloads if isinstance(packet, torch._ops.OpOverloadPacket) else tuple
        for overload in overloads():
            target = getattr(packet, overload)
            if torch.Tag.core in target.tags:
                core.add(str(target))
    assert len(core) > 150
    missing = core - set(claimed_operators()) - set(CORE_WITHOUT_RULE)
    assert not set(CORE_WITHOUT_RULE) & set(claimed_operators()), "a rule was added: take it off the list"
    assert not missing, f"core ATen operators without a rule or a reason: {sorted(missing)}"


def test_command_refuses_unknown_operators(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["no_such_operator"])
    assert "no operator of op_db is called no_such_operator" in capsys.readouterr().err


def test_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sigmoid", "--dtype", "float32", "--limit", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("operator")
    assert lines[1].split()[:2] == ["sigmoid", "2"]
    assert lines[-3].split()[:2] == ["total", "2"]
    assert lines[-2] == "core ATen: 2 samples, 100.0 % right, 100.0 % without an external call"
