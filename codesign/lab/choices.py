"""What several commands of the lab let one choose from."""

from __future__ import annotations

from enum import Enum


class Engine(str, Enum):
    """Who does the runs of a study."""

    processes = "processes"
    ray = "ray"
