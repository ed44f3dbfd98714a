"""Tables of library kernels with their launches: what a name and a grid say, and what it is worth."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from codesign.costmodel.launched import launches
from codesign.costmodel.machine import load_machine
from codesign.costmodel.tables import kernels_of, kind_of, remark_of
from codesign.costmodel.validation import predictions

ROWS = """\
machine,op,dtype,batch,m,n,k,kernel,grid_x,grid_y,grid_z,block,seconds
h100_sxm,linear,f32,1,65536,2560,7680,gemm_f32f32_f32f32_f32_tn_n_tilesize128x128x8_stage3_warpsiz,512,60,1,128,0.0496
h100_sxm,linear,f32,1,512,1280,1280,gemm_f32f32_f32f32_f32_tn_n_tilesize128x64x8_stage3_warpsize,4,20,1,128,8.9e-5
a100_pcie,linear,f32,1,65536,10240,2560,gemm_128x64_tn,20,1024,1,128,0.191541
a100_pcie,bmm,f32,768,384,384,128,gemm_128x128_nn,1,3,768,256,0.001676
a100_pcie,softmax,f32,1,8192,2560,0,cunn_SoftMaxForward,8192,1,1,512,0.000160
a100_pcie,layer_norm,f32,1,16384,12288,0,layer_norm_kernel,16384,1,1,32,0.001533
a100_pcie,add,f32,1,32768,3072,0,elementwise_kernel,196608,1,1,128,0.000726
a100_pcie,tanh,f32,1,16384,16384,0,elementwise_kernel,524288,1,1,128,0.001283
"""
"""Of NeuSight's test tables (MIT), rounded."""


def table(**changed: Any) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(ROWS)).assign(**changed)


@pytest.mark.parametrize("machine", ["h100_sxm", "a100_pcie"])
def test_known_kernels_are_priced_as_they_were_measured(machine: str) -> None:
    found = predictions(table(), load_machine(machine))
    assert len(found) == (table().machine == machine).sum()
    error = found.predicted / found.measured - 1
    assert np.abs(error).max() < 0.2
    assert np.abs(error).mean() < 0.1
    assert (found.low <= found.predicted).all()
    assert (found.predicted <= found.high).all()


def test_the_grid_tells_which_sizes_the_result_has() -> None:
    first, second = table()[:1], table()[:1].assign(n=7680, k=2560)
    (by_k,), (by_n,) = launches(first), launches(second)
    for found in (by_k, by_n):
        assert [found.sizes[name].tolist() for name in "MNK"] == [[65536.0], [7680.0], [2560.0]]


def test_threads_that_issue_more_beside_take_longer() -> None:
    """The same shape in smaller tiles: more operands for each result."""
    large, small = (
        table()[:1].assign(kernel=f"gemm_f32f32_f32f32_f32_tn_n_tilesize{tile}x8", grid_x=65536 / a, grid_y=7680 / b)
        for tile, a, b in (("128x128", 128, 128), ("64x64", 64, 64))
    )
    machine = load_machine("h100_sxm")
    assert predictions(small, machine).predicted[0] > 1.1 * predictions(large, machine).predicted[0]


def test_what_is_not_known_is_told() -> None:
    unknown = table(
        dtype=["f32", "f16"] * 4, op=["linear", "linear", "linear", "bmm", "argmax", "layer_norm", "add", "tanh"]
    )
    assert kind_of(unknown) == "launched"
    (remark,) = remark_of(unknown, "launched")
    assert remark.startswith("kind launched does not price 5 of 8 rows: ")
    assert "argmax (1)" in remark
    assert sorted(row for rows in kernels_of(unknown) for row in rows.index) == [0, 2, 6]


def test_a_machine_that_was_not_measured_has_wider_intervals() -> None:
    own, other = (
        predictions(table()[2:].assign(machine=name), load_machine(name)) for name in ("a100_pcie", "a100_sxm")
    )
    assert (other.high / other.low > 1.05 * own.high / own.low).all()
