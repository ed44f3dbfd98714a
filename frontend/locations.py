"""Where a graph node came from: the user's statement and the nn.Module path, read from what torch recorded on the node."""

from __future__ import annotations

import os
import re
import sysconfig
from functools import lru_cache
from typing import Any

import torch

from codesign.ir.location import Location

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in')
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_FRONTEND = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PYTHON = sysconfig.get_path("stdlib") + os.sep
_LOCAL_ROOT = "L['self']"


def is_of_torch_or_ours(file: str) -> bool:
    """True for frames of torch and of this package's front end."""
    return file.startswith((_TORCH, _FRONTEND, "<")) or (f"{os.sep}torch{os.sep}" in file and "site-packages" in file)


def is_internal(file: str) -> bool:
    """True for frames that say nothing about the model: torch's own, those of this package, Python's library, and a library's plumbing around its
    modelling files."""
    if is_of_torch_or_ours(file) or (file.startswith(_PYTHON) and "-packages" not in file):
        return True
    plumbing = f"{os.sep}site-packages{os.sep}transformers{os.sep}"
    return plumbing in file and f"{plumbing}models{os.sep}" not in file


@lru_cache(maxsize=65536)
def _statement(stack_trace: str) -> tuple[str, int]:
    frames = [(file, int(line)) for file, line in _FRAME.findall(stack_trace)]
    for file, line in reversed(frames):
        if not is_internal(file):
            return file, line
    return "", 0  # a module of torch itself: its path says more than a line of torch's


def _module_path(meta: dict[str, Any]) -> str:
    stack = meta.get("nn_module_stack")
    if not stack:
        return ""
    path = list(stack.values())[-1][0]
    return re.sub(r"^L\['self'\]\.?|^_export_root\.?", "", str(path)).replace("slice(None, None, None)", ":")


@lru_cache(maxsize=1)
def _here() -> str:
    return os.getcwd() + os.sep


def location_of(meta: dict[str, Any], origin: str) -> Location:
    """The place of a node with this `node.meta`: innermost frame of the model's code, module path, ATen operator."""
    file, line = _statement(meta.get("stack_trace") or "")
    return Location(file.removeprefix(_here()), line, _module_path(meta), origin)
