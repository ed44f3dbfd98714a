"""Programs for dataflow accelerators: lowering from tile kernels, and a simulator of values and time."""

from codesign.backends.accelerator.check import check
from codesign.backends.accelerator.lower import lower
from codesign.backends.accelerator.model import ModelRun, run_module
from codesign.backends.accelerator.order import Deadlock
from codesign.backends.accelerator.races import Race
from codesign.backends.accelerator.simulate import SimulationResult, simulate

__all__ = ["Deadlock", "ModelRun", "Race", "SimulationResult", "check", "lower", "run_module", "simulate"]
