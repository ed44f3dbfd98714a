"""Dataflow accelerators: the machine as its engines see it, their closed forms, and the analytic model."""

from codesign.costmodel.dataflow.model import DataflowModel
from codesign.costmodel.dataflow.target import Array, Port, Target, target_of

__all__ = ["Array", "DataflowModel", "Port", "Target", "target_of"]
