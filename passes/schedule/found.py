"""What a policy found for a group as one kernel, and the searches that were made last."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.analysis import structural_hash
from codesign.ir.errors import ScheduleError
from codesign.ir.index import Index
from codesign.ir.schedule import NOTHING, Schedule
from codesign.passes.normalize import Normalized
from codesign.passes.schedule.context import Candidate, Context
from codesign.passes.schedule.large import programs_of_large_tiles
from codesign.passes.schedule.policy import Policy, asked, proposal
from codesign.passes.schedule.space import Space
from codesign.passes.tiling.cutting import Cutting


@dataclass(frozen=True)
class Form:
    """A group in normal form, and what the cost models read of it. `common`: what all its schedules say besides."""

    normalized: Normalized
    summary: KernelSummary
    common: Schedule = NOTHING

    def within(self, space: Space) -> Space:
        """A space of its schedules, with what all of them say."""
        common = replace(self.common, order=space.common.order)
        return replace(space, common=common)


@dataclass(frozen=True)
class Found:
    """What a policy found for a group as one kernel, with what all schedules had in `common`.

    Of a search for a price, in how many `batches` it was found, and the `policy` where it can go on from there."""

    normalized: Normalized
    context: Context
    schedule: Schedule
    seconds: float
    space_size: int
    policy: Policy | None = None
    common: Schedule = NOTHING
    batches: int | None = None

    def of(self, form: Form) -> Found | None:
        """The same search for a group of equal structure; None where its dims have other names than those that the schedules speak of."""
        if list(self.normalized.fusion.dims()) != list(form.normalized.fusion.dims()):
            return None
        return replace(self, normalized=form.normalized, context=replace(self.context, summary=form.summary))

    def alike(self, form: Form) -> bool:
        """Whether it searched a group of the same normal form, whose results go to the same places, up to the names of dims."""
        mine, other = self.normalized, form.normalized
        ours, theirs = mine.fusion.dims(), other.fusion.dims()
        if self.common != form.common or len(mine.fusion.computes) != len(other.fusion.computes):
            return False
        if list(ours.values()) != list(theirs.values()) or len(mine.outputs) != len(other.outputs):
            return False
        names: dict[str, Index | int | str] = dict(zip(ours, theirs, strict=True))
        for a, b in zip(mine.outputs, other.outputs, strict=True):
            if a.type != b.type or tuple(i.substitute(names) for i in a.indices) != b.indices:
                return False
        return self.key == structural_hash(other.fusion)

    @cached_property
    def key(self) -> str:
        """Structural hash of the normal form."""
        return structural_hash(self.normalized.fusion)

    def top(self, count: int) -> list[Candidate]:
        """The best distinct schedules that it evaluated, fastest first; not those of a search that went on from it."""
        return replace(self.context, batches=self.context.batches[: self.batches]).top(count)

    def programs(self) -> int:
        """Programs of the grid."""
        total, context = 1, self.context
        for dim in context.summary.outer:
            total *= -(-int(context.summary.extents[dim].evaluate(context.sizes)) // self.schedule.tiles.get(dim, 1))
        return total

    def slots(self, machine: Machine) -> int:
        """Programs of the chosen schedule that the machine holds at once."""
        return int(machine.instances(machine.core_level().name) * self._resident())

    def room(self, machine: Machine) -> float:
        """How many times as many programs the machine could hold at once: as the chosen ones, or as one a core with large tiles."""
        cores = machine.instances(machine.core_level().name)
        large = programs_of_large_tiles(self.context.summary, self.context.sizes)
        return cores * max(self._resident() / self.programs(), 1.0 / large)

    def _resident(self) -> float:
        """Programs of the chosen schedule that one core holds at once."""
        for _, cost in self.context.batches:
            row = int(np.argmin(cost.seconds))
            if cost.seconds[row] == self.seconds and "blocks_per_sm" in cost.details:
                return max(float(cost.details["blocks_per_sm"][row]), 1.0)
        return 1.0

    @property
    def launch(self) -> float:
        """Seconds of the model's launch term, which another kernel adds at least once more; 0 when it has none."""
        _, cost = self.context.batches[0]
        return float(cost.terms[0, cost.term_names.index("launch")]) if "launch" in cost.term_names else 0.0


def search(policy: Policy, kernel_space: Space, context: Context) -> Schedule | None:
    """Run a policy on a space until it is done or the budget is spent; its best schedule."""
    with asked(policy):
        policy.start(kernel_space, context)
    return go_on(policy, context)


def go_on(policy: Policy, context: Context) -> Schedule | None:
    """The same for a policy that has begun."""
    while context.remaining > 0:
        batch = proposal(policy, min(context.remaining, 1 << 16))
        if batch is None:
            break
        cost = context.evaluate(batch, getattr(policy, "wants", 0))
        with asked(policy):
            policy.observe(batch, cost)
    with asked(policy):
        return policy.best()


def to_its_end(found: Found) -> Found | None:
    """A search for a price gone on with to its end; None where the best schedule has to be searched for anew."""
    context = found.context
    if context.closely and found.batches is None:
        return found
    if not context.closely:
        if not (context.settled or context.arrived or context.gave_up):
            return found
        if found.policy is None or context.arrived:  # which looked at schedules in another order
            return None
        context.closely, context.settled, context.gave_up, context.below = True, False, False, math.inf
    assert found.policy is not None
    best = go_on(found.policy, context)
    assert best is not None
    return replace(found, schedule=best, seconds=context.fastest, batches=None)


def no_fit(summary: KernelSummary, machine: Machine, context: Context) -> ScheduleError:
    """The error for a kernel of which no evaluated schedule fits, with the commonest reason."""
    rejected = context.rejected()
    if not rejected:
        return ScheduleError(f"no legal schedule on {machine.name}", place=summary.name)
    kind = max(rejected, key=lambda name: rejected[name][0])
    return ScheduleError(
        f"none of {context.evaluated:,} schedules fits {machine.name}; {rejected[kind][1]}",
        place=summary.name,
        hint="split the group, or give the policy a larger budget",
    )


class Recent:
    """The searches that were made last, as far as they hold no more than `most` schedules together, by a key.

    Each with how the group is better cut, where that was found out.
    """

    def __init__(self, most: int = 1 << 17) -> None:
        self.most = most
        self._held = 0
        self._searches: OrderedDict[str, tuple[Found, Cutting | None]] = OrderedDict()

    def get(self, key: str) -> tuple[Found | None, Cutting | None]:
        """A search that is held."""
        return self._searches.get(key, (None, None))

    def alike(self, form: Form) -> Found | None:
        """A search that is held of a group of the same normal form, of programs that all do the same."""
        for found, _ in reversed(self._searches.values()):
            if not found.context.gave_up and not found.context.summary.strands and found.alike(form):
                return found
        return None

    def keep(self, key: str, found: Found, cutting: Cutting | None) -> None:
        """Hold a search, and let go of the oldest."""
        before, _ = self._searches.pop(key, (None, None))
        self._held += found.context.evaluated - (before.context.evaluated if before else 0)
        self._searches[key] = found, cutting
        while self._held > self.most:
            _, (oldest, _) = self._searches.popitem(last=False)
            self._held -= oldest.context.evaluated


class Formed:
    """Groups in normal form that were looked at and not searched yet, the last `most` of them, by a key."""

    def __init__(self, most: int = 256) -> None:
        self.most = most
        self._forms: OrderedDict[str, Form] = OrderedDict()

    def keep(self, key: str, form: Form) -> Form:
        """Hold a form, and let go of the oldest."""
        self._forms[key] = form
        if len(self._forms) > self.most:
            self._forms.popitem(last=False)
        return form

    def take(self, key: str) -> Form | None:
        """A form that is held, which then is not any more."""
        return self._forms.pop(key, None)
