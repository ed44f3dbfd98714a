"""Compiled kernels and sources of these tests go to a folder of their own, so that nothing is found from an earlier run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from codesign.costmodel.cache import cache_root


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODESIGN_CACHE", str(folder))
        cache_root.cache_clear()
        yield folder
    cache_root.cache_clear()


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Nothing that an earlier test compiled, and random numbers that are the same in every run."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()
