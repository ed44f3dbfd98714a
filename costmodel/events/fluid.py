"""Who gets how much of what: the rates of all running blocks between two events.

SMs with the same history are one cohort, and blocks of an SM that started together one bundle. On an SM the oldest
bundle goes first, as greedy-then-oldest warp schedulers do (Rogers et al., Cache-Conscious Wavefront Scheduling, MICRO
2012); what it leaves idle goes to the next. Bundles of equal age on different SMs share L2 and DRAM max-min fairly: all
slow down alike until a resource is full, those that need it stop there, the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from codesign.costmodel.events.blocks import PIPES, Phase
from codesign.costmodel.gpu.overlap import INNER

L2, DRAM = len(PIPES), len(PIPES) + 1
PATHS = (0, 0, 0, 0, 1, 2, 1, 1)
"""The path of each of NAMES: of computing, of memory, of load and store instructions."""
COMPUTE = PATHS.count(0)
LATENCY = "latency"
NAMES = (*PIPES, "l2", "dram")
FULL = 1e-9
INFINITE = float("inf")


@dataclass
class Bundle:
    """`blocks` blocks on every SM of a cohort that started together; `rate`: share of the phase per second."""

    blocks: int
    first: int
    phases: list[Phase]
    read_seconds: float
    """Seconds of the whole DRAM that one block's reads take."""
    started: float
    slot: int = 0
    position: int = 0
    left: float = 1.0
    rate: float = 0.0
    limit: str = ""
    demand: tuple[float, ...] = ()
    floor: float = 0.0
    own: float = 0.0
    cap: float = float("inf")

    def enter(self, direct_writes: float) -> None:
        """Take up the phase at `position`; `direct_writes` are seconds of DRAM per byte for writes that do not fit in
        L2.
        """
        phase = self.phases[self.position]
        k = self.blocks
        dram = k * (phase.reads * self.read_seconds + phase.writes * direct_writes)
        self.demand = (*(k * seconds for seconds in phase.pipes), k * phase.l2, dram)
        self.floor, self.own = phase.floor, phase.own
        self.left = 1.0

    @property
    def phase(self) -> Phase:
        return self.phases[self.position]

    def copy(self, blocks: int | None = None, first: int | None = None) -> Bundle:
        """The same state for another cohort."""
        twin = Bundle(**self.__dict__)
        twin.blocks = self.blocks if blocks is None else blocks
        twin.first = self.first if first is None else first
        return twin


@dataclass
class Cohort:
    """SMs `first` to `first + sms - 1`, all in the same state; bundles are listed oldest first."""

    first: int
    sms: int
    bundles: list[Bundle] = field(default_factory=list)

    @property
    def resident(self) -> int:
        return sum(bundle.blocks for bundle in self.bundles)


def allocate(cohorts: list[Cohort], sharpness: float) -> list[float]:
    """Set rate and limit of every bundle; returns how busy each resource is (SM pipes as the mean over the cohorts'
    SMs).

    Resources that are busy at the same time get in each other's way: a block that is bound by one slows down by the
    norm of the utilisations that it meets, of order `sharpness` (infinite: perfect overlap). What it then leaves idle
    is for others.
    """
    left, chip = _fill(cohorts)
    busy = {r: 1.0 - share for r, share in chip.items()}
    for i, cohort in enumerate(cohorts):
        for bundle in cohort.bundles:
            if bundle.rate > 0.0:
                bundle.cap = bundle.rate / _interference(bundle, left[i], busy, sharpness)
    left, chip = _fill(cohorts)
    sms = sum(cohort.sms for cohort in cohorts)
    used = [0.0] * len(PIPES)
    for cohort, pipes in zip(cohorts, left, strict=True):
        for r, share in enumerate(pipes):
            used[r] += (1.0 - share) * cohort.sms / sms
        for bundle in cohort.bundles:
            bundle.cap = INFINITE
    return [*used, 1.0 - chip[L2], 1.0 - chip[DRAM]]


def _fill(cohorts: list[Cohort]) -> tuple[list[list[float]], dict[int, float]]:
    """Give out all resources, oldest bundles first; returns what is left of each cohort's pipes and of the chip's."""
    left = [[1.0] * len(PIPES) for _ in cohorts]
    chip = {L2: 1.0, DRAM: 1.0}
    for age in range(max((len(cohort.bundles) for cohort in cohorts), default=0)):
        level = [(i, cohort, cohort.bundles[age]) for i, cohort in enumerate(cohorts) if len(cohort.bundles) > age]
        for i, _, bundle in level:
            _alone(bundle, left[i])
        _share([(cohort, bundle) for _, cohort, bundle in level], chip)
        for i, _, bundle in level:
            pipes = left[i]
            for r in range(len(PIPES)):
                pipes[r] -= bundle.rate * bundle.demand[r]
    return left, chip


def _alone(bundle: Bundle, pipes: list[float]) -> None:
    """The rate that latency and what is left of its own SM allow; a cap keeps the limit that it came from."""
    rate, limit = (1.0 / bundle.floor, LATENCY) if bundle.floor > 0.0 else (INFINITE, LATENCY)
    if bundle.own > 0.0 and bundle.own * rate > 1.0:
        rate, limit = 1.0 / bundle.own, PIPES[max(range(COMPUTE), key=lambda r: bundle.demand[r])]
    for r, name in enumerate(PIPES):
        need = bundle.demand[r]
        if need > 0.0 and (free := pipes[r] if pipes[r] > FULL else 0.0) < rate * need:
            rate, limit = free / need, name
    if rate > bundle.cap:
        rate, limit = bundle.cap, bundle.limit
    if rate == INFINITE:  # only shared resources: as if alone on the chip
        rate = 1.0 / max(bundle.demand[L2], bundle.demand[DRAM], 1e-15)
    bundle.rate, bundle.limit = rate, limit


def _share(level: list[tuple[Cohort, Bundle]], chip: dict[int, float]) -> None:
    """Max-min fair shares of L2 and DRAM: slow all down alike until they fit; those that a full resource does not
    concern do not.
    """
    active = level
    while active:
        need = {r: sum(bundle.rate * bundle.demand[r] * cohort.sms for cohort, bundle in active) for r in chip}
        ratios = {r: (chip[r] if chip[r] > FULL else 0.0) / amount for r, amount in need.items() if amount > 0.0}
        tightest = min(ratios, key=lambda r: ratios[r], default=None)
        if tightest is None or ratios[tightest] >= 1.0:
            for r, amount in need.items():
                chip[r] -= amount
            return
        for cohort, bundle in active:
            if bundle.demand[tightest] > 0.0:
                bundle.rate *= ratios[tightest]
                bundle.limit = NAMES[tightest]
                for r in chip:
                    chip[r] -= bundle.rate * bundle.demand[r] * cohort.sms
        active = [entry for entry in active if entry[1].demand[tightest] <= 0.0]


def _interference(bundle: Bundle, pipes: list[float], busy: dict[int, float], sharpness: float) -> float:
    """How much slower a bundle gets by what else is busy on its way; its own bottleneck counts as one, so never faster.

    Within the path of computing and within that of memory resources overlap nearly perfectly (order INNER).
    """
    paths = [0.0, 0.0, 0.0]
    for r, need in enumerate(bundle.demand):
        if need > 0.0:
            level = 1.0 - pipes[r] if r < len(PIPES) else busy[r]
            paths[PATHS[r]] += max(level, 0.0) ** INNER
    paths[0] = max(paths[0], (bundle.rate * bundle.own) ** INNER)
    total = sum(path ** (sharpness / INNER) for path in paths)
    if not bundle.phase.serial:
        total += (bundle.rate * bundle.floor) ** sharpness
    return float(max(total, 1.0) ** (1.0 / sharpness))
