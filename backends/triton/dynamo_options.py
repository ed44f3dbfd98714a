"""Options of `torch.compile(..., backend="codesign", options={...})`, checked before anything is compiled."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codesign.costmodel.machine import Machine, load_machine
from codesign.ir.errors import CodesignError, UnsupportedError
from codesign.ir.schedule import Schedule
from codesign.passes.fusion.policy import policy_named
from codesign.passes.manager import Pass, PipelineError
from codesign.passes.pipeline import own_passes
from codesign.passes.schedule.policy import Policy, make_policy
from codesign.passes.schedule.replay import read_schedules

DEFAULT_MACHINE = "h100_sxm"

_BY_DEVICE_NAME = (
    ("H200", "h200_sxm"),
    ("H100 PCIe", "h100_pcie"),
    ("H100", "h100_sxm"),
    ("H800", "h800"),
    ("H20", "h20"),
    ("A100-PCIE", "a100_pcie"),
    ("A100", "a100_sxm"),
    ("B200", "b200_sxm"),
    ("B300", "b300_sxm"),
    ("MI300X", "mi300x"),
    ("MI355X", "mi355x"),
    ("L40S", "l40s"),
    ("L40", "l40"),
    ("L4", "l4"),
    ("3090", "rtx_3090"),
)
"""What a CUDA device's name contains -> its machine file; the first match counts."""

NAMES = ("target", "machine", "kernels", "policy", "budget", "fusion", "passes", "schedules")


@dataclass(frozen=True)
class Options:
    """How graphs are compiled.

    `machine`: scheduled for. `kernels`: "triton", or "reference" for the IR's own interpreter. `policy`, `budget`: of the schedule search.
    `fusion`: the fusion policy's name. `passes`: run after clean-up and before fusion. `schedules`: by kernel name, replayed instead of searched for.
    """

    machine: Machine
    kernels: str = "triton"
    policy: str | Policy = "default"
    budget: int | None = None
    fusion: str = "greedy"
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    passes: Sequence[Pass] = ()


def options_of(given: Mapping[str, Any]) -> Options:
    """The options that a user gave; CodesignError names the one that is wrong, and for a name that is unknown the nearest."""
    for name in given:
        if name not in (*NAMES, "mode"):
            near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.3)
            hint = f"nearest: {near[0]}" if near else f"options: {', '.join(NAMES)}"
            raise UnsupportedError(f"the codesign backend has no option {name!r}", hint=hint)
    if "target" in given and "machine" in given:
        raise CodesignError("options target and machine are the same thing", hint="give target alone")
    machine = given.get("target", given.get("machine"))
    kernels = given.get("kernels", "triton")
    if kernels not in ("triton", "reference"):
        raise UnsupportedError(f"kernels={kernels!r}", hint='kernels is "triton" or "reference"')
    policy, fusion = given.get("policy", "default"), given.get("fusion", "greedy")
    make_policy(policy)
    if not isinstance(fusion, str):
        raise CodesignError(f"fusion={fusion!r}", hint="fusion is a policy's name or package.module:Class")
    policy_named(fusion)
    return Options(
        machine=_machine(machine),
        kernels=kernels,
        policy=policy,
        budget=_budget(given.get("budget")),
        fusion=fusion,
        schedules=_schedules(given.get("schedules")),
        passes=_passes(given.get("passes")),
    )


def _machine(given: Any) -> Machine:
    machine = machine_at_hand() if given is None else given if isinstance(given, Machine) else load_machine(str(given))
    if machine.kind != "gpu":
        hint = "compile for it with python -m codesign.compile --target"
        raise UnsupportedError(f"{machine.name} is no GPU, and torch.compile runs Triton kernels", hint=hint)
    return machine


def _budget(given: Any) -> int | None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
        raise CodesignError(f"budget={given!r}", hint="budget is a count of schedules to price, 1 or more")
    return given


def _passes(given: Any) -> list[Pass]:
    """Passes from a pipeline's text, from passes, or from a list of either."""
    items = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    found: list[Pass] = []
    for item in items:
        if isinstance(item, Pass):
            found.append(item)
        elif isinstance(item, str):
            try:
                found.extend(own_passes(item))
            except PipelineError as error:
                raise CodesignError(f"passes={item!r}: {error.message}", hint=error.hint) from error
        else:
            hint = "passes is a text such as name{option=value},module:Class, a Pass, or a list of them"
            raise CodesignError(f"passes={given!r}", hint=hint)
    return found


def _schedules(given: Any) -> Mapping[str, Schedule]:
    if given is None:
        return {}
    if isinstance(given, (str, Path)):
        return read_schedules(Path(given))
    if isinstance(given, Mapping):
        return {str(n): s if isinstance(s, Schedule) else Schedule.from_json(s) for n, s in given.items()}
    raise CodesignError(
        f"schedules={given!r}", hint="schedules is a file such as schedules.json, or a dict of its form"
    )


def machine_at_hand() -> Machine:
    """The machine file of the current CUDA device, or the default one."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        for part, machine in _BY_DEVICE_NAME:
            if part.lower() in name.lower():
                return load_machine(machine)
        warnings.warn(f"no machine file for {name}: scheduling for {DEFAULT_MACHINE}", stacklevel=2)
    return load_machine(DEFAULT_MACHINE)
