"""Fidelity 2 on GPUs: an event simulation of a kernel's grid on the SMs, with shared L2 and DRAM."""

from codesign.costmodel.events.model import EventModel
from codesign.costmodel.events.plan import plan_columns
from codesign.costmodel.events.simulation import simulate, simulate_plan
from codesign.costmodel.events.timeline import TERMS, Timeline

__all__ = ["TERMS", "EventModel", "Timeline", "plan_columns", "simulate", "simulate_plan"]
