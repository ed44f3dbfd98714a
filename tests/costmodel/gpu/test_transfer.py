"""Leave one machine out: GEMM on a machine by parameters that were fitted on the other."""

from pathlib import Path

import numpy as np
import pytest

from codesign.costmodel.fitting import prepare
from codesign.costmodel.gpu.parameters import load_calibration, transferred
from codesign.costmodel.machine import load_machine
from codesign.costmodel.tables import kernels_of, machine_rows, read_table

TABLE = Path(__file__).resolve().parents[4] / "shared" / "measured" / "gpu_gemm.parquet"


@pytest.mark.skipif(not TABLE.is_file(), reason="needs ../shared/measured/gpu_gemm.parquet")
@pytest.mark.parametrize(("name", "donor", "most"), [("a100_sxm", "h100_sxm", 0.12), ("h100_sxm", "a100_sxm", 0.21)])
def test_halfway_to_physical_values_beats_the_donors_fit(name: str, donor: str, most: float) -> None:
    machine = load_machine(name)
    table = machine_rows(read_table(TABLE), name)
    site = table.groupby(["n", "k"], sort=True).ngroup().to_numpy()
    picked = np.random.default_rng(0).permutation(site.max() + 1)[: max(1, int(400 / len(table) * (site.max() + 1)))]
    (rows,) = kernels_of(table[np.isin(site, picked)])
    fitted = load_calibration(load_machine(donor)).parameters
    errors = []
    for parameters in (fitted, transferred(fitted)):
        predicted = prepare(rows, machine, parameters).predict(machine, parameters)
        errors.append(float(np.abs(predicted / rows.seconds - 1.0).mean()))
    print(f"{name} from {donor}: {len(rows.seconds)} rows, donor's fit {errors[0]:.3f}, transferred {errors[1]:.3f}")
    assert errors[1] < min(errors[0], most)
