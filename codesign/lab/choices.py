"""What several commands of the lab let one choose from."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class Engine(str, Enum):
    """Who does the runs of a study."""

    processes = "processes"
    ray = "ray"


Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Processes on this machine.", min=1, max=1024)]
RayAddress = Annotated[
    str | None, typer.Option(help="A Ray cluster, as `auto`. [default: one started here]", show_default=False)
]
