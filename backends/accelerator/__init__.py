"""Programs for dataflow accelerators: lowering from tile kernels, and a simulator of values and time."""

from codesign.backends.accelerator.lower import lower
from codesign.backends.accelerator.races import Race
from codesign.backends.accelerator.simulate import Deadlock, SimulationResult, simulate

__all__ = ["Deadlock", "Race", "SimulationResult", "lower", "simulate"]
