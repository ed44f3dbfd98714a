"""Torch's settings through a capture: torch.export turns libraries off and on again, and leaves all else as the user said it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.distributions import Distribution


@contextmanager
def settings_kept() -> Iterator[None]:
    """No setting of cuDNN and oneDNN is read or written inside but whether they are on.

    torch.export turns them off by `set_flags`, which reads and writes their other settings too. Reading raises where the precision of
    float32 was set by torch's newer interface, for all operators or for one kind; writing makes what was inherited a setting of its own.

    Distributions don't check their parameters inside, as in what `torch.compile` traces: a check is a branch that data decides.

    An export that fails inside a transform of functions (`torch.func.vmap`, `torch.func.jvp`) leaves that transform on for all that comes after:
    it is ended.
    """
    core: Any = torch._C
    checked = Distribution._validate_args
    depth, forward = core._functorch.get_dynamic_layer_stack_depth(), _in_forward_mode()
    switches: dict[Any, tuple[Callable[[], bool], Callable[[bool], None]]] = {
        torch.backends.cudnn: (core._get_cudnn_enabled, core._set_cudnn_enabled),
        torch.backends.mkldnn: (core._get_mkldnn_enabled, core._set_mkldnn_enabled),
    }
    with_own = [library for library in switches if "set_flags" in vars(library)]  # a capture inside of a capture
    for library, (get, put) in switches.items():
        if library not in with_own:
            library.set_flags = _switch(get, put)
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checked)
        if core._functorch.get_dynamic_layer_stack_depth() > depth:
            core._functorch.pop_dynamic_layer_stack_and_undo_to_depth(depth)
        if _in_forward_mode() and not forward:
            core._exit_dual_level(level=0)
            forward_ad._current_level = -1
        for library in switches:
            if library not in with_own:
                del library.set_flags


def _in_forward_mode() -> bool:
    """Whether torch is inside of `jvp` or `dual_level`: it has one level of that and refuses to enter another."""
    core: Any = torch._C
    try:
        level = core._enter_dual_level()
    except RuntimeError:
        return True
    core._exit_dual_level(level=level)
    return False


def _switch(get: Callable[[], bool], put: Callable[[bool], None]) -> Callable[[bool], tuple[bool]]:
    """What turns a library on or off, and returns what it was: `set_flags` of torch, of that one setting."""

    def set_flags(enabled: bool) -> tuple[bool]:
        before = get()
        put(enabled)
        return (before,)

    return set_flags
