"""What every runner begins with: Python that needs torch and Triton alone."""

from __future__ import annotations

HEAD = '''
import importlib.util
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ARENA_BYTES = {arena}


def _kernel(name):
    """The launcher of a kernel file beside this one."""
    module_name = f"codesign_runner_{{abs(hash(str(HERE)))}}_{{name}}"
    if module_name not in sys.modules:
        specification = importlib.util.spec_from_file_location(module_name, HERE / "kernels" / f"{{name}}.py")
        module = importlib.util.module_from_spec(specification)
        sys.modules[module_name] = module
        specification.loader.exec_module(module)
    return sys.modules[module_name].launch


def _at(arena, offset, dtype, *shape):
    """A tensor in the arena, starting at a byte offset."""
    count = 1
    for size in shape:
        count *= size
    bytes_ = count * torch.empty([], dtype=dtype).element_size()
    return arena[offset : offset + bytes_].view(dtype).view(shape)


def _real(tensor):
    """A complex tensor as the real one that stands for it here, with a last dim of 2."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _back(new, given):
    """What was written, into what the caller gave, where that is not the same memory (it was not dense, say, or is on another device)."""
    if given is not None:
        given = given.detach()
        new = torch.view_as_complex(new) if given.is_complex() else new
        if given.data_ptr() != new.data_ptr() or given.device != new.device:
            given.copy_(new)
'''
