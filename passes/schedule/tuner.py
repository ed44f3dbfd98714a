"""Choosing a schedule for a fused group on a machine: normal form, summary, space, policy, cost model, and a cache over all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from codesign.costmodel.launches import launch_seconds
from codesign.costmodel.machine import Machine
from codesign.costmodel.models import cost_model_for, informed
from codesign.costmodel.protocol import FOLLOWED, CostModel, Reported
from codesign.costmodel.roofline import roofline_bounds
from codesign.costmodel.summary import KernelSummary, summarize
from codesign.costmodel.sums import Part, time_of_parts, total
from codesign.ir.analysis import structural_hash
from codesign.ir.errors import ScheduleError, UnsupportedError
from codesign.ir.index import Bounds
from codesign.ir.schedule import NOTHING, Schedule, ScheduleBatch
from codesign.ir.tensor import Fusion
from codesign.ir.tiling.domain import Domain
from codesign.ir.tiling.strands import strands
from codesign.passes.knobs import Site, foreign, predict, settled
from codesign.passes.normalize import Normalized, normalize
from codesign.passes.schedule.buffered import buffered
from codesign.passes.schedule.build import space
from codesign.passes.schedule.choice import from_json, to_json
from codesign.passes.schedule.context import Candidate, Context
from codesign.passes.schedule.empty import of_a_point
from codesign.passes.schedule.found import Form, Formed, Found, Recent, no_fit, search, to_its_end
from codesign.passes.schedule.parts import best_cutting, best_strips, may_come_below
from codesign.passes.schedule.phases import Half, halves, least_seconds
from codesign.passes.schedule.policy import POLICIES, RUNNERS_UP, Policy, make_policy
from codesign.passes.schedule.store import Store
from codesign.passes.schedule.strands import Alone, combined, renamed
from codesign.passes.tiling.cutting import WHOLE, Cutting
from codesign.passes.tiling.split import splittable
from codesign.passes.tiling.strips import strips_of
from codesign.passes.tiling.tail import Tail


@dataclass(frozen=True)
class Tuned:
    """The schedule chosen for a group and why.

    `seconds`, `low`, `high`, `terms`, `joules`, `dram_bytes`, `details`: the cost model's prediction, of all kernels of the group.
    `runners_up`: the next best schedules. `programs`: the best schedules of other code, where the search looked. `reported`: what a
    compiler said of the schedule's code, where that is what was priced. `rejected`: kinds of reasons
    for which schedules did not fit, with counts and an example.
    """

    schedule: Schedule
    normalized: Normalized
    summary: KernelSummary
    seconds: float
    low: float
    high: float
    terms: Mapping[str, float]
    bound: str
    joules: float
    dram_bytes: float
    details: Mapping[str, float]
    in_domain: bool
    remarks: tuple[str, ...]
    evaluated: int
    space_size: int
    runners_up: tuple[Candidate, ...] = ()
    rejected: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    programs: tuple[Candidate, ...] = ()
    reported: Reported | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    """What the interval is made of."""
    phases: tuple[Phase, ...] = ()
    """When the group is cut: the group of partial results and the group that combines them, instead of the one group."""
    cutting: Cutting = WHOLE

    def searched_as(self, other: Tuned) -> Tuned:
        """The same prediction with what a search found that had several schedules, of which this is one."""
        return replace(
            self,
            evaluated=other.evaluated,
            space_size=other.space_size,
            runners_up=other.runners_up,
            programs=other.programs,
            rejected=other.rejected,
        )


@dataclass(frozen=True)
class Phase:
    """One of the kernels that a group became."""

    half: Half
    tuned: Tuned


PROGRAMS = 48
"""Schedules of other code that are kept beside the best one, in case a compiler makes of that what was not expected."""


def whole_key(fusion: Fusion, common: Schedule) -> str:
    """The key of a group that is not to be split, whose schedules have something in common."""
    return f"{structural_hash(fusion)} whole{f' {common.hash}' if common != NOTHING else ''}"


class Tuner:
    """Tunes groups for one machine with one policy; groups of the same structure are tuned once.

    `sizes`: values of size symbols to cost at. `bounds`: ranges of the symbols. `budget`: schedules evaluated per group at most.
    `kept`: a file of choices of earlier runs, taken over where nothing differs that they follow from (`keep` writes new ones into it); not
    used with a policy or a cost model from outside, of which it can't tell whether they changed. `store` is None then.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        policy: str | Policy = "default",
        budget: int | None = None,
        model: CostModel | None = None,
        sizes: Mapping[str, int] | None = None,
        bounds: Bounds | None = None,
        seed: int = 0,
        kept: Path | None = None,
    ) -> None:
        self.machine = machine
        self.policy = policy
        self.budget = budget
        self.model = model or cost_model_for(machine)
        self.sizes = dict(sizes or {})
        self.bounds = bounds or Bounds()
        self.seed = seed
        self._prices: dict[str, float] = {}
        self._at_least: dict[str, float] = {}
        self._recent = Recent()
        self._formed = Formed()
        self._tuned: dict[str, Tuned] = {}
        self._alone: dict[tuple[str, bool], Found | ScheduleError] = {}
        """Searches for strands, by structure and whether the best schedule is asked for."""
        self.store: Store | None = None
        if kept is not None and model is None and isinstance(policy, str) and policy in POLICIES:
            ranges = sorted(self.bounds.symbols.items())
            facts = {
                "machine": machine.model_dump_json(),
                "policy": policy,
                "budget": budget,
                "seed": seed,
                "knobs": foreign(),
            }
            self.store = Store(kept, {**facts, "sizes": self.sizes, "ranges": ranges})

    def keep(self) -> None:
        """Write the choices that were made to the file that was given."""
        if self.store is not None:
            self.store.flush()

    def tune(self, fusion: Fusion, name: str = "", *, split: bool = True, key: str = "") -> Tuned:
        """The best schedule of a group; ScheduleError with the commonest reason when none fits the machine.

        `split` lets a long reduction become two kernels. `key`: the group's structural hash, where it is known.
        """
        if not split:
            return self._tune(fusion, name, whole_key(fusion, NOTHING), NOTHING)
        return self._tune(fusion, name, key or structural_hash(fusion), None)

    def _tune(self, fusion: Fusion, name: str, key: str, common: Schedule | None) -> Tuned:
        """`common`: of a half of a split reduction, which is not split again, what its schedules say."""
        if key not in self._tuned:
            whole, cutting = self._chosen_before(fusion, name, key) or self._choose(fusion, name, key, common)
            self._tuned[key] = whole if cutting == WHOLE else self._in_parts(fusion, whole, name, cutting)
            if common is None:  # what it was priced at may have been near the best only
                self._enter(key, self._tuned[key].seconds)
        return self._tuned[key]

    def cut(self, fusion: Fusion, cutting: Cutting, name: str = "") -> Tuned:
        """The best schedules of a group that is cut as asked for; ScheduleError where the machine does not do that."""
        if self.machine.kind != "gpu" and (cutting.tail is not None or cutting.along is not None):
            raise ScheduleError(
                f"extras.cut: {self.machine.name} cuts all points of a group alike", hint="leave it out"
            )
        return self._in_parts(fusion, self.tune(fusion, name, split=False), name, cutting)

    def _choose(self, fusion: Fusion, name: str, key: str, common: Schedule | None) -> tuple[Tuned, Cutting]:
        """The group as one kernel, and how it is better cut."""
        before, cutting = self._recent.get(key)
        form = self.form(fusion, name, common)
        ended = to_its_end(before) if before is not None and before.of(form) is not None else None
        found = self._search(form) if ended is None else ended.of(form)
        if isinstance(found, ScheduleError):
            raise found
        assert found is not None
        whole = self._result(found)
        if cutting is None or before is None or found.seconds != before.seconds:
            cutting = best_cutting(self, fusion, found)[0] if common is None else WHOLE
        if self.store is not None:
            tail = None if cutting.tail is None else [cutting.tail.position, cutting.tail.start]
            cut = {"parts": cutting.parts, "tail": tail, "along": cutting.along}
            self.store.put("schedule", key, {**to_json(whole), **cut})
        return whole, cutting

    def _chosen_before(self, fusion: Fusion, name: str, key: str) -> tuple[Tuned, Cutting] | None:
        """What an earlier run chose, priced again; None when none did, or what it left can't be."""
        data = self.store.get("schedule", key) if self.store is not None else None
        if data is None:
            return None
        try:
            choice = from_json(data)
            tuned = self.predict(normalize(fusion, self.bounds), choice.schedule, name)
            tail = None if data["tail"] is None else Tail(*map(int, data["tail"]))
            cutting = Cutting(int(data["parts"]), tail, None if data["along"] is None else int(data["along"]))
        except (ScheduleError, KeyError, TypeError, ValueError):
            return None
        if not cutting.applies(fusion):
            return None
        searched = replace(tuned, evaluated=choice.evaluated, space_size=choice.space_size, rejected=choice.rejected)
        return replace(searched, runners_up=choice.runners_up, programs=choice.programs), cutting

    def price(self, fusion: Fusion, below: float = math.inf) -> float:
        """Predicted seconds of a group at its best schedule (two kernels where its reduction is split); infinite when none fits.

        Where that is not `below` a limit, any number that isn't either: a split that can't be is not priced to its end.
        """
        key = structural_hash(fusion)
        if self._known(key) is None and self._at_least.get(key, -math.inf) < below:
            found, _ = self._recent.get(key)
            searched = found or self._search(self._formed.take(key) or self.form(fusion), below, closely=False)
            if isinstance(searched, ScheduleError):
                self._enter(key, math.inf)
            else:
                gave_up = searched.context.gave_up  # as one kernel it is not below the limit
                if gave_up and not may_come_below(self, fusion, searched, below):
                    cutting, seconds, sure = best_strips(self, fusion, searched, searched.seconds, below)
                else:
                    cutting, seconds, sure = best_cutting(self, fusion, searched, below)
                sure = seconds < below if gave_up else sure
                if sure or not gave_up:
                    self._recent.keep(key, searched, cutting if sure else None)
                if sure:
                    self._enter(key, seconds)
                else:
                    self._at_least[key] = below
        known = self._known(key)
        return self._at_least[key] if known is None else known

    def price_whole(self, fusion: Fusion, form: Form, below: float = math.inf) -> float:
        """Predicted seconds of a group, and what is read of it, as one kernel; where that is not `below` a limit, any number that isn't either."""
        key = whole_key(fusion, form.common)
        known = self._known(key)
        if known is None and self._at_least.get(key, -math.inf) < below:
            # numbers of a tail's parts differ by less than what is near enough
            found = self._search(form, below, closely=bool(form.summary.strands))
            if isinstance(found, Found) and found.context.gave_up:
                self._at_least[key] = max(found.seconds, below)
            else:
                if isinstance(found, Found):
                    self._recent.keep(key, found, WHOLE)
                known = self._enter(key, found.seconds if isinstance(found, Found) else math.inf)
        return self._at_least[key] if known is None else known

    def price_of_whole(self, fusion: Fusion, common: Schedule) -> float | None:
        """Predicted seconds of a group, whose schedules have something in common, as one kernel, where they were found out before."""
        return self._known(whole_key(fusion, common))

    def _known(self, key: str) -> float | None:
        """The price of a group where it was found, in this run or one before."""
        if key not in self._prices and self.store is not None:
            before = self.store.get("price", key)
            if isinstance(before, float):
                self._prices[key] = before
        return self._prices.get(key)

    def _enter(self, key: str, seconds: float) -> float:
        self._prices[key] = seconds
        if self.store is not None:
            self.store.put("price", key, seconds)
        return seconds

    def least(self, fusion: Fusion) -> float:
        """Seconds that no schedule of a group beats: its roofline, and the launch and the first data where prices always have them."""
        key = structural_hash(fusion)
        known = self._known(key)
        if known is not None:
            return known
        whole = splittable(fusion) is None and not strips_of(fusion)
        return self._floor(self._formed.keep(key, self.form(fusion)).summary, whole=whole)

    def _floor(self, summary: KernelSummary, *, whole: bool) -> float:
        """Seconds that no schedule of a group beats, as one kernel where it stays `whole`, the launch included where prices always have it."""
        launch = launch_seconds(self.machine) if self.machine.kind == "gpu" else 0.0
        return launch + least_seconds(self, summary, whole=whole)

    def why(self, fusion: Fusion) -> str:
        """What bounds a group at its best schedule, or what no schedule of it fits."""
        try:
            return f"bound by {self.tune(fusion).bound}"
        except (ScheduleError, UnsupportedError) as error:
            return str(error)

    def predict(
        self, normalized: Normalized, schedule: Schedule, name: str = "", reported: Reported | None = None
    ) -> Tuned:
        """The cost of a given schedule of a group in normal form, by what a compiler `reported` of its code where it is given;
        ScheduleError when it does not fit the machine, or says what nothing reads there."""
        summary = self._summary(normalized, name)
        schedule = settled(schedule, Site.of(summary, self.machine, self.sizes))
        Domain(normalized.fusion, schedule, self.bounds)  # whether it applies to the group at all
        model = self.model if reported is None else informed(self.model, {schedule: reported})
        context = self._context(summary, model)
        cost = context.evaluate(ScheduleBatch.of([schedule]))
        tuned = self._result(Found(normalized, context, schedule, float(cost.seconds[0]), 1))
        return replace(tuned, reported=reported)

    def of_equal(self, tuned: Tuned, normalized: Normalized, name: str = "") -> Tuned:
        """The same choice for a group of equal structure, in normal form, whose dims may have other names."""
        names = dict(zip(tuned.normalized.fusion.dims(), normalized.fusion.dims(), strict=True))
        if all(old == new for old, new in names.items()):
            return tuned

        def listed(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
            return tuple(Candidate(renamed(c.schedule, names), c.seconds) for c in candidates)

        same = self.predict(normalized, renamed(tuned.schedule, names), name).searched_as(tuned)
        return replace(same, runners_up=listed(tuned.runners_up), programs=listed(tuned.programs))

    def _summary(self, normalized: Normalized, name: str) -> KernelSummary:
        """The group's summary; of an empty domain, that of a single point, so that it costs its launch."""
        places = [(where.type.shape, where.indices) for where in normalized.outputs]
        summary = summarize(normalized.fusion, name, places=places)
        return summary if all(extent != 0 for extent in summary.extents.values()) else of_a_point(summary)

    def _context(self, summary: KernelSummary, model: CostModel | None = None) -> Context:
        rng = np.random.default_rng(self.seed)
        return Context(summary, self.machine, model or self.model, summary.sizes(self.sizes), self.budget, rng)

    def form(self, fusion: Fusion, name: str = "", common: Schedule | None = None) -> Form:
        """A group as it is searched and priced, with what all its schedules say."""
        normalized = normalize(fusion, self.bounds)
        return Form(normalized, self._summary(normalized, name), common or NOTHING)

    def _search(self, form: Form, below: float = math.inf, *, closely: bool = True) -> Found | ScheduleError:
        """The policy's choice for a group as one kernel, or why it has none. It may give up where that can't come `below` a limit, and unless
        `closely` is done where it comes near what no schedule beats."""
        normalized, summary = form.normalized, form.summary
        if summary.strands:
            return self._search_strands(form, closely)
        try:
            kernel_space = form.within(space(summary, self.machine, self.sizes))
            context, policy = self._context(summary), make_policy(self.policy)
            context.below, context.closely = below, closely
            if not closely:
                context.floor = self._floor(summary, whole=True)
            best = search(policy, kernel_space, context)
            if best is None:
                return no_fit(summary, self.machine, context)
            if self.machine.kind == "gpu":
                resuming = policy if getattr(policy, "resumes", False) and not closely else None
                known = normalized, context, best, context.fastest, kernel_space.points
                return Found(*known, resuming, form.common, None if closely else len(context.batches))
            seconds = context.fastest
            own = isinstance(self.policy, str) and self.policy in POLICIES
            if own and (lean := context.leanest()) is not None:
                best, seconds = buffered(context, *lean)
            return Found(normalized, context, best, seconds, kernel_space.points, common=form.common)
        except ScheduleError as error:
            return error

    def _search_strands(self, form: Form, closely: bool) -> Found | ScheduleError:
        """The best of the schedules that are put together from those of each strand."""
        context, size = self._context(form.summary), 0
        context.closely, context.settled = closely, not closely  # as the searches of its strands may have
        alone: list[Alone] = []
        for part, summary in zip(strands(form.normalized.fusion), form.summary.strands, strict=True):
            outputs = tuple(form.normalized.outputs[k] for k in part.results)
            found = self._strand(Form(Normalized(part.fusion, outputs, {}), summary), closely)
            if isinstance(found, ScheduleError):
                return found
            names = dict(zip(found.normalized.fusion.dims(), part.fusion.dims(), strict=True))
            alone.append(Alone([Candidate(renamed(c.schedule, names), c.seconds) for c in found.top(64)]))
            size += found.space_size
        batch = ScheduleBatch.of(combined(alone)[: max(context.remaining, 1)])
        cost = context.evaluate(batch)
        row = int(np.argmin(cost.seconds))
        if not np.isfinite(cost.seconds[row]):
            return no_fit(form.summary, self.machine, context)
        return Found(form.normalized, context, batch.row(row), float(cost.seconds[row]), size)

    def _strand(self, form: Form, closely: bool) -> Found | ScheduleError:
        """The search for one strand, done once for those of the same structure, and for groups that are one of them."""
        key = structural_hash(form.normalized.fusion)
        if (key, closely) not in self._alone:
            before = self._alone.get((key, False)) or self._recent.alike(form)
            if closely and isinstance(before, Found):
                before = to_its_end(before)
            self._alone[key, closely] = before or self._search(form, closely=closely)
        return self._alone[key, closely]

    def bound(self, summary: KernelSummary) -> float:
        """Seconds that no schedule of a group beats."""
        return max(roofline_bounds(summary, self.machine, summary.sizes(self.sizes)))

    def _in_parts(self, fusion: Fusion, whole: Tuned, name: str, cutting: Cutting) -> Tuned:
        """The group as two kernels."""
        names = (f"{name}_parts", name)
        first, second = (
            Phase(half, self._tune(half.fusion, label, whole_key(half.fusion, half.common), half.common))
            for half, label in zip(halves(self, fusion, cutting), names, strict=True)
        )
        return _together(whole, (first, second), cutting, cutting.dim(fusion))

    def _result(self, found: Found) -> Tuned:
        """The choice at its price; ScheduleError where it does not fit after all."""
        context, schedule = found.context, found.schedule
        summary = context.summary
        if context.evaluated == 1:  # of it alone
            ((_, cost),) = context.batches
        else:
            cost = predict(context.model, summary, self.machine, ScheduleBatch.of([schedule]), context.sizes)
        if cost.reason[0]:
            raise ScheduleError(cost.reason[0], place=f"{summary.name} on {self.machine.name}")
        details: dict[str, Any] = {k: v[0].item() for k, v in cost.details.items() if getattr(v, "ndim", 0) == 1}
        details.pop(FOLLOWED, None)
        others = tuple(c for c in context.top(64) if c.schedule != schedule)
        # schedules that cost the same are the same to the model: the next one that is not says what the choice gained
        apart = tuple(c for c in others if c.seconds > float(cost.seconds[0]) * (1.0 + 1e-6))
        return Tuned(
            schedule=schedule,
            normalized=found.normalized,
            summary=summary,
            seconds=float(cost.seconds[0]),
            low=float(cost.low[0]),
            high=float(cost.high[0]),
            terms={term: float(value) for term, value in zip(cost.term_names, cost.terms[0], strict=True)},
            bound=cost.bound(0),
            joules=float(cost.joules[0]),
            dram_bytes=float(cost.dram_bytes[0]),
            details=details,
            in_domain=bool(cost.in_domain[0]),
            remarks=cost.remarks,
            parts=cost.parts(0),
            evaluated=context.evaluated,
            space_size=found.space_size,
            runners_up=(apart or others)[:RUNNERS_UP],
            programs=tuple(c for c in context.programs(PROGRAMS) if c.schedule != schedule),
            rejected=context.rejected(),
        )


def _together(whole: Tuned, phases: tuple[Phase, ...], cutting: Cutting, dim: str) -> Tuned:
    """The prediction of a group done by two kernels one after the other."""
    first, second = phases[0].tuned, phases[1].tuned
    terms = dict(first.terms)
    for term, seconds in second.terms.items():
        terms[term] = terms.get(term, 0.0) + seconds
    times = (time_of_parts(tuned.seconds, tuned.low, tuned.high, tuned.parts) for tuned in (first, second))
    both = total((time, 1.0) for time in times)
    return replace(
        whole,
        schedule=replace(first.schedule, split={dim: cutting.parts}),
        seconds=both.seconds,
        low=both.low,
        high=both.high,
        terms=terms,
        bound=max(terms, key=lambda term: terms[term]),
        joules=first.joules + second.joules,
        dram_bytes=first.dram_bytes + second.dram_bytes,
        details=first.details,
        in_domain=first.in_domain and second.in_domain,
        remarks=tuple(dict.fromkeys((*first.remarks, *second.remarks))),
        evaluated=whole.evaluated + first.evaluated + second.evaluated,
        phases=phases,
        cutting=cutting,
    )


def tune(
    fusion: Fusion,
    machine: Machine,
    policy: str | Policy = "default",
    budget: int | None = None,
    cost_model: CostModel | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    bounds: Bounds | None = None,
    seed: int = 0,
) -> Tuned:
    """The best schedule of one group; see `Tuner` for tuning many."""
    tuner = Tuner(machine, policy=policy, budget=budget, model=cost_model, sizes=sizes, bounds=bounds, seed=seed)
    return tuner.tune(fusion)
