"""What all tests share: one thread, no network, reproducible examples, and the facts beside the checkout."""

import os
from pathlib import Path

import hypothesis
import pytest

# Before anything imports numpy or torch: the pools read these once.
for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")
# A test that wants a model from a hub is wrong; let it fail at once rather than wait for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Figures are drawn to files.
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent

hypothesis.settings.register_profile("default", deadline=None, max_examples=50, print_blob=True)
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("default"), derandomize=True)
# Whether something fails, not by how little (benchmarks/mutants.py).
hypothesis.settings.register_profile(
    "unshrunk",
    parent=hypothesis.settings.get_profile("ci"),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    database=None,
)
hypothesis.settings.register_profile("long", parent=hypothesis.settings.get_profile("default"), max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch  # only here: most tests of ir and costmodel never load it

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device on this machine")


@pytest.fixture(scope="session")
def root_dir() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of facts, measurements and goldens that may lie beside the checkout (`../shared`)."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("../shared (facts, measurements and goldens beside the checkout) is absent")
    return path
