"""The page of a what-if: tornado, crossovers, sweeps, front and Sobol indices, each with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.lab import figures
from codesign.lab.machines.document import DIGITS, NOTHING_WINS, WhatIf
from codesign.lab.page import Section, page, picture, table
from codesign.report import joules_text, seconds_text

SHOWN = 24
"""Bars of a tornado at most; the table has all figures."""

SEEN = 0.01
"""Bars of a tornado that are shorter than this share of the longest can't be seen."""

MICRO, TIME = 1e6, "time (µs)"


def shortest(names: Sequence[str]) -> dict[str, str]:
    """Each figure by the fewest of its path's last words that no other of them ends with."""

    def short(name: str) -> str:
        words = name.split(".")
        ends = (".".join(words[-count:]) for count in range(1, len(words)))
        others = [other for other in names if other != name]
        return next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), name)

    return {name: short(name) for name in names}


def whatif_page(answers: WhatIf) -> str:
    """The whole page."""
    sections = [part(answers) for part in (_tornado, _crossovers, _sweep, _front, _sobol)]
    lead = [f"Predicted {seconds_text(answers.seconds)} on {answers.target} as it is."]
    return page(f"What if: {answers.model} on {answers.target}", lead, [s for s in sections if s is not None])


def _tornado(answers: WhatIf) -> Section | None:
    if not answers.sensitivities:
        return None
    slopes = {s.figure: (s.held or 0.0, s.chosen or 0.0) for s in answers.sensitivities}
    seen = SEEN * max(abs(slope) for pair in slopes.values() for slope in pair)
    known = {figure: pair for figure, pair in slopes.items() if max(map(abs, pair)) > seen}
    rows = [[s.figure, s.value, s.held, s.chosen, s.joules, s.why] for s in answers.sensitivities]
    label = "d ln(time) / d ln(figure)"
    names = ["schedules held", "schedules chosen again"]
    heads = ["figure", "value", "held", "chosen again", "energy, held", "remark"]
    text = (
        "-1: twice as much of it halves the time; 0: it does not matter; above 0: less of it is better. "
        f"Figures whose slope is below {SEEN:.0%} of the steepest are in the table alone."
    )
    drawn = dict(list(known.items())[:SHOWN])
    pictures = [picture(label, figures.bars(drawn, names, label))] if drawn else []
    return Section("Sensitivities", [text], [*pictures, table(label, heads, rows)])


def _crossovers(answers: WhatIf) -> Section | None:
    if not answers.crossovers and not answers.uncrossed:
        return None
    text = [NOTHING_WINS.format(figure=name, low=low, high=high) for name, (low, high) in answers.uncrossed.items()]
    if not answers.crossovers:
        return Section("Crossovers", text)
    heads = ["figure", "from", "times", "kernel", "what changes", "before", "after", "time there"]
    rows = [
        [c.figure, c.value, f"{c.factor:.3g}", c.kernel, c.what, c.before, c.after, seconds_text(c.seconds)]
        for c in answers.crossovers
    ]
    return Section("Crossovers", text, [table("Where another schedule or another bound wins", heads, rows)])


def _sweep(answers: WhatIf) -> Section | None:
    if not answers.sweep:
        return None
    names = list(answers.sweep[0].figures)
    parts = []
    if len(names) == 1:
        across = [point.figures[names[0]] for point in answers.sweep]
        held = [MICRO * (point.held if point.held is not None else float("nan")) for point in answers.sweep]
        chosen = [MICRO * point.chosen for point in answers.sweep]
        curves = {"schedules held": (across, held), "chosen again": (across, chosen)}
        parts.append(picture(f"Time over {names[0]}", figures.lines(curves, names[0], TIME)))
    else:
        short = shortest(names)
        groups: dict[str, tuple[list[float], list[float]]] = {}
        for point in answers.sweep:
            rest = ", ".join(f"{short[name]} {point.figures[name]:.3g}" for name in names[:-1])
            across, up = groups.setdefault(rest, ([], []))
            across.append(point.figures[names[-1]])
            up.append(MICRO * point.chosen)
        parts.append(picture(f"Time over {names[-1]}", figures.lines(dict(list(groups.items())[:10]), names[-1], TIME)))
    rows = [
        [*(f"{point.figures[name]:.4g}" for name in names), None if point.held is None else seconds_text(point.held, DIGITS),
         seconds_text(point.chosen, DIGITS), None if point.joules is None else joules_text(point.joules, DIGITS),
         ", ".join(point.changed)]
        for point in answers.sweep
    ]  # fmt: skip
    return Section(
        "Sweep", [], [*parts, table("Sweep", [*names, "held", "chosen again", "energy", "other schedules"], rows)]
    )


def _front(answers: WhatIf) -> Section | None:
    if not answers.front:
        return None
    names = list(answers.front[0].figures)
    priced = answers.front[0].price is not None
    up = [point.price if priced else point.joules for point in answers.front]
    heads = ["time", "energy", "price", *names]
    rows = [
        [seconds_text(p.seconds), None if p.joules is None else joules_text(p.joules), p.price, *(p.figures[n] for n in names)]
        for p in answers.front
    ]  # fmt: skip
    parts = [table("Variants that no other betters", heads, rows)]
    if all(value is not None for value in up):
        curve = ([MICRO * point.seconds for point in answers.front], [value or 0.0 for value in up])
        three = priced and answers.front[0].joules is not None  # goals, of which two are drawn
        drawn = figures.lines({"front": curve}, TIME, "price" if priced else "joules", joined=not three)
        parts.insert(0, picture("Pareto front", drawn))
    return Section("Pareto front", [], parts)


def _sobol(answers: WhatIf) -> Section | None:
    if not answers.sobol:
        return None
    drawn = {share.figure: (share.first, share.total) for share in answers.sobol[:SHOWN]}
    label = "share of the variance of the time"
    rows = [[s.figure, s.low, s.high, s.first, s.total] for s in answers.sobol]
    heads = ["assumed figure", "from", "to", "by itself", "with all others"]
    low, high = answers.sobol_seconds or (answers.seconds, answers.seconds)
    text = f"Over the ranges of all assumed figures the time is {seconds_text(low)} to {seconds_text(high)}."
    pictures = [picture(label, figures.bars(drawn, ["by itself", "with all others"], label))]
    return Section("Assumed figures", [text], [*pictures, table("Sobol indices", heads, rows)])
