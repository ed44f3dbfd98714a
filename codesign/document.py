"""The JSON that `codesign.compile` prints: a contract, so it is written down as data types.

Times are seconds, sizes bytes, energies joules. Every time, energy and traffic here is predicted by a model, never measured;
`verified` is the outcome of running, `compiled` what a compiler reported.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Verified(_Document):
    """How a kernel's or model's values compared with the reference."""

    against: str
    max_error: float | None
    """Largest error in units of the reference's scale; None when a value was not finite where the reference was."""
    tolerance: float
    ok: bool
    note: str = ""
    inputs: list[str] = Field(default_factory=list)
    """For a model: the inputs it was run on (`example`, `get_inputs again`, `drawn`, ...)."""


class Tried(_Document):
    """A schedule that was compiled and not kept: seconds as priced before, by what the compiler reported (None: of no use), and what
    spoke against it."""

    schedule: dict[str, Any]
    priced_seconds: float
    seconds: float | None
    why: str


class Compiled(_Document):
    """What the target's compiler reported; None for what the target doesn't have. `warps`: of a block as it is launched. `spills`: bytes
    a thread stores and loads for want of registers. `tried`: schedules whose code was worse. `compile_seconds`: CPU time of making the
    code when it was made, which is no two runs' the same and not printed."""

    arch: str
    registers: int | None = None
    warps: int | None = None
    shared_bytes: int | None = None
    spills: int | None = None
    instructions: int | None = None
    scratchpad_bytes: int | None = None
    simulated_seconds: float | None = None
    """Time on the event simulator where the whole model was run on it; a finer prediction, not a measurement."""
    error: str | None = None
    tried: list[Tried] = Field(default_factory=list)
    compile_seconds: float = Field(default=0.0, exclude=True)


class Issued(_Document):
    """What a kernel's text does in one launch, idle lanes included: counted on the tile IR, no model's estimate.

    `programs` of the grid; bytes that its loads and stores ask for (caches serve some of them); multiply-adds of matrix products by dtype of
    their operands; issue slots by unit and dtype (`"fma f32"`); `live_bytes`: the most that the tiles of one program hold at once.
    """

    programs: int
    load_bytes: int
    store_bytes: int
    multiply_adds: dict[str, int] = Field(default_factory=dict)
    slots: dict[str, float] = Field(default_factory=dict)
    live_bytes: int


class Assumed(_Document):
    """A figure of the machine that is assumed, not public: its range, and the seconds of a kernel at both ends of it."""

    figure: str
    range: tuple[float, float]
    seconds: tuple[float, float]


class IntervalPart(_Document):
    """One part of an interval: the factors on the time that it alone would leave open, and how much of it (of its square) all kernels
    with a part of its name share."""

    low: float
    high: float
    common: float


class KernelDocument(_Document):
    """One distinct kernel. `seconds`, bytes, flops and joules are of one launch; it is launched `count` times (by half in a branch).

    `seconds_low` and `seconds_high` hold the model's own error and what the machine's assumed figures leave open; `assumptions`: those that
    move the time most. `interval`: what the two are made of, the residual of the model's fit and what widened it.
    """

    name: str
    count: int | float
    ops: list[str]
    source: list[str]
    seconds: float
    seconds_low: float
    seconds_high: float
    bound: str
    roofline_seconds: float
    roofline_share: float
    """Least possible time over predicted time, 0 to 1."""
    flops: float
    dram_bytes: float
    min_dram_bytes: float
    energy_joules: float | None
    terms: dict[str, float]
    interval: dict[str, IntervalPart] = Field(default_factory=dict)
    assumptions: list[Assumed] = Field(default_factory=list)
    issued: Issued
    schedule: dict[str, Any]
    candidates: int
    runner_up: dict[str, Any] | None = None
    files: dict[str, str] = Field(default_factory=dict)
    verified: Verified | None = None
    compiled: Compiled | None = None
    remarks: list[str] = Field(default_factory=list)


class ExternalCall(_Document):
    """Calls of a library routine that we do not compile; `seconds` of one call (predicted, wide interval)."""

    op: str
    count: int | float
    seconds: float
    source: list[str] = Field(default_factory=list)


class FusionEdge(_Document):
    """A producer and a consumer by name, `count` times alike: together or apart, seconds as one kernel (None: they can't be one) and as two, and
    what forbids the one or bounds it. `kernels`: those that the two are in, one where they are together (empty: not known)."""

    first: str
    second: str
    fused: bool
    seconds: float | None
    apart: float
    reason: str
    count: int
    kernels: list[str] = Field(default_factory=list)


class PriceAtSizes(_Document):
    """What the compiled model takes at other sizes, by the kernels and schedules that it has."""

    symbols: dict[str, int]
    seconds: float
    seconds_low: float
    seconds_high: float
    energy_joules: float | None


class ModelDocument(_Document):
    """One model compiled for one machine. The interval of `seconds` is that of a sum: what kernels share of their errors adds up, the rest
    adds in squares."""

    model: str
    target: str
    seconds: float
    seconds_low: float
    seconds_high: float
    energy_joules: float | None
    peak_memory_bytes: int
    """Inputs, weights, results and the most of intermediates at once."""
    input_bytes: int
    output_bytes: int
    constant_bytes: int
    compile_seconds: float
    phases: dict[str, float]
    kernels: list[KernelDocument]
    external_calls: list[ExternalCall]
    symbols: dict[str, int] = Field(default_factory=dict)
    at_sizes: list[PriceAtSizes] = Field(default_factory=list)
    """Where several values of a size were given: the price at each, kernels as they were chosen for the first."""
    parts: dict[str, float] = Field(default_factory=dict)
    """Seconds of a step of training by what they go to: `forward`, `backward`, `optimizer`, or several that kernels do together, joined by ` + `."""
    verified: Verified | None = None
    warnings: list[str] = Field(default_factory=list)
    fusion: list[FusionEdge] = Field(default_factory=list)
    """Where it was asked, why producers and consumers are together or apart."""
    files: dict[str, str] = Field(default_factory=dict)
