"""The page of an experiment: summary, every pair, the kernels that changed, and a diff of one."""

from __future__ import annotations

from codesign.lab import figures
from codesign.lab.page import Section, page, picture, table, texts
from codesign.lab.passes.experiment import HEADS, Experiment, cells, failures
from codesign.report import seconds_text


def experiment_page(outcome: Experiment) -> str:
    """The whole page."""
    rows = []
    changes = {}
    for pair in outcome.pairs:
        rows.append([pair.model, pair.machine, "first", *cells(pair.first)])
        rows.append(["", "", "second", *cells(pair.second)])
        if pair.first.seconds and pair.second.seconds:
            changes[f"{pair.model} on {pair.machine}"] = (100 * (pair.second.seconds / pair.first.seconds - 1.0),)
    summary = [
        [s.figure, None if s.ratio is None else f"{s.ratio:.4g}", s.better, s.worse, None if s.probability is None else f"{s.probability:.4f}"]
        for s in outcome.summary
    ]  # fmt: skip
    label = "time of the second, % above the first"
    wrong = [f"{where} pipeline: {why}" for where, why in failures(outcome).items()]
    first = Section(
        "Summary", wrong, [table("Second over first", ["figure", "geometric mean", "less", "more", "p"], summary)]
    )
    if any(change for (change,) in changes.values()):
        first.parts.append(picture(label, figures.bars(changes, ["time"], label)))
    sections = [first, Section("Models and machines", [], [table("Both pipelines", HEADS, rows)])]
    for pair in outcome.pairs:
        if not pair.kernels:
            continue
        kernels = [
            [k.kind, k.first, k.second, ", ".join(k.ops), _time(k.first_seconds), _time(k.second_seconds)]
            for k in pair.kernels
        ]
        heads = ["change", "first", "second", "operators", "time of the first", "time of the second"]
        parts = [table("Kernels that changed", heads, kernels)]
        if pair.diff:
            parts.append(
                texts("Diff of the tile IR of the kernel that takes most time", [("first to second", pair.diff)])
            )
        sections.append(Section(f"{pair.model} on {pair.machine}", [], parts))
    return page("Experiment with passes", [f"First: {outcome.first}", f"Second: {outcome.second}"], sections)


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else seconds_text(seconds)
