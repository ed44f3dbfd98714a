"""What a policy found for a group as one kernel, and the searches that were made last."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from codesign.costmodel.machine import Machine
from codesign.costmodel.summary import KernelSummary
from codesign.ir.errors import ScheduleError
from codesign.ir.schedule import NOTHING, Schedule
from codesign.passes.normalize import Normalized
from codesign.passes.schedule.context import Context
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
    """What a policy found for a group as one kernel."""

    normalized: Normalized
    context: Context
    schedule: Schedule
    seconds: float
    space_size: int

    def of(self, form: Form) -> Found | None:
        """The same search for a group of equal structure; None where its dims have other names than those that the schedules speak of."""
        if list(self.normalized.fusion.dims()) != list(form.normalized.fusion.dims()):
            return None
        return replace(self, normalized=form.normalized, context=replace(self.context, summary=form.summary))

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
