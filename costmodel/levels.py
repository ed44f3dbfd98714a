"""Memory levels as a machine file has them: capacity and rates, what of a product may be there, and how instances are connected."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from codesign.costmodel.figure import Count, Data, Figure, Flag


class Energy(Data):
    """Joules per byte read from and written to a level."""

    read_joules_per_byte: Figure
    write_joules_per_byte: Figure


Role = Literal["input", "weight", "output"]
"""An operand of a product: its first factor, its second, its result."""


class AxisInSpace(Data):
    """Instances of a level side by side: only dims that the operand `shares` does not depend on lie along it (any, where it is absent), and one
    transfer serves all along it, of that operand (of any), unless there is no `multicast`. `full`: only mappings that use as many of them as the
    sizes of a product allow are wanted. `topology`: what connects them to the level outside: a `bus`, or links from each to the next, as a `line`
    that its port is at one end of or as a `ring` with the port in it; of one link `link_bandwidth`, bytes a second both ways together, and
    `link_joules_per_byte`."""

    name: str
    size: Count
    shares: Role | None = None
    multicast: Flag = True
    full: Flag = False
    topology: Literal["bus", "line", "ring"] = "bus"
    link_bandwidth: Figure | None = None
    link_joules_per_byte: Figure | None = None


class Holds(Data):
    """Which operands a level always `keeps` and which it `may` hold, in how many `values` where it is made for single ones, and how many times as
    `wide` as elsewhere; whether reads and writes take `one_port` in turn; and along which axes its instances lie."""

    keeps: tuple[Role, ...] = ()
    may: tuple[Role, ...] = ()
    values: Count | None = None
    wide: dict[Role, Annotated[float, Field(ge=0.125, le=64.0)]] = Field(default_factory=dict)
    one_port: Flag = False
    axes: tuple[AxisInSpace, ...] = ()


class LinksBetween(Data):
    """What connects a level's instances to the memory of the level around: links from each to the next, on a `line` whose first instance is at the
    memory's port, on a `ring` with the port at one of them, or on a `mesh` of so many `columns` with the port at a corner. Of one link: bytes a
    second (both ways together; no wait where it is absent), seconds until a byte has passed it, joules a byte."""

    topology: Literal["line", "ring", "mesh"]
    columns: Count = 1
    link_bandwidth: Figure | None = None
    hop_seconds: Figure | None = None
    joules_per_byte: Figure | None = None


class Level(Data):
    """A memory level; levels are listed from the outermost to the innermost.

    `fanout` is how many of this level hang below one instance of its parent (132 SMs below one L2). `place` is the
    name of the spatial unit that owns an instance (`sm`, `cluster`, `core`), which is what a schedule binds
    dimensions to. Capacity, bandwidth (bytes per second, both directions together unless `write_bandwidth` is given)
    and latency are per instance. `efficiency`: the share of the bandwidth that a long transfer reaches (1 where it is absent).
    `multicast`: one transfer out of it reaches any number of the instances inside. `holds`: what of a product may be there (`costmodel.mapping`).
    `network`: how its instances are connected to the level around, where that is not one bus.
    """

    name: str
    place: str
    fanout: Count = 1
    managed: Literal["hardware", "software"] = "software"
    capacity_bytes: Figure
    bandwidth: Figure | None = None
    write_bandwidth: Figure | None = None
    efficiency: Figure | None = None
    latency_seconds: Figure | None = None
    line_bytes: Figure | None = None
    energy: Energy | None = None
    multicast: Flag = False
    holds: Holds | None = None
    network: LinksBetween | None = None

    @model_validator(mode="after")
    def _mesh_makes_fanout(self) -> Level:
        if self.network is not None and (self.fanout % self.network.columns or self.fanout == 1):
            raise ValueError(
                f"network.columns: {self.network.columns} do not make a mesh of the fanout of {self.fanout}"
            )
        if self.network is not None and self.network.topology != "mesh" and self.network.columns != 1:
            raise ValueError(f"network.columns: a {self.network.topology} has none")
        return self

    @model_validator(mode="after")
    def _axes_make_fanout(self) -> Level:
        if self.holds is not None and self.holds.axes and prod(axis.size for axis in self.holds.axes) != self.fanout:
            raise ValueError(f"holds.axes: their sizes must make the fanout of {self.fanout}")
        return self
