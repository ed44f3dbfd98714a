"""What tests of the cost models share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def measured(root_dir: Path) -> Path:
    """The folder of measured tables; tests that need it are skipped where it is not beside the checkout."""
    folder = root_dir.parent / "shared" / "measured"
    if not folder.is_dir():
        pytest.skip("the measured tables are not beside the checkout (../shared/measured)")
    return folder
