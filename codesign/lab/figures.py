"""Pictures as SVG with real text, drawn by matplotlib: the same data give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from codesign.lab.board import Leaderboard

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#5b5b5b",
    "#8c564b",
    "#1f1f8f",
    "#66a61e",
    "#f0a3c0",
    "#3f7f7f",
)
"""Okabe and Ito's palette (told apart by colour-blind readers), less yellow, and some more."""
DASHES = ("-", "--", ":", "-.")
WIDTH = 9.0


def svg(draw: Callable[[Any], None], height: float = 4.2, columns: int = 1) -> str:
    """A figure as an SVG element; `draw` gets its axes (one, or an array of several)."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": "codesign", "font.size": 10, "font.family": "sans-serif"}
    with mpl.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots(1, columns))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def style(position: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line."""
    return {"color": COLOURS[position % len(COLOURS)], "linestyle": DASHES[position // len(COLOURS) % len(DASHES)]}


def performance(board: Leaderboard, budget: str) -> str:
    """Performance over the budget of every policy, with bands."""
    shares = np.arange(1, board.points + 1) / board.points

    def draw(axes: Any) -> None:
        for position, row in enumerate(row for row in board.rows if row.budget == budget):
            line = style(position)
            axes.plot(shares, _numbers(row.performance), label=row.policy, **line)
            low, high = (_numbers([pair[side] for pair in row.band]) for side in (0, 1))
            axes.fill_between(shares, low, high, color=line["color"], alpha=0.15, linewidth=0)
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.set(ylim=(-1.05, 1.05), xlim=(0, 1), xlabel=f"share of the budget ({budget})")
        axes.set_ylabel("performance (0: random search, 1: optimum)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    return svg(draw)


def regret(board: Leaderboard, budget: str) -> str:
    """Distance of the best found from the optimum over the budget."""
    shares = np.arange(1, board.points + 1) / board.points

    def draw(axes: Any) -> None:
        for position, row in enumerate(row for row in board.rows if row.budget == budget):
            axes.plot(shares, 100 * np.maximum(_numbers(row.regrets), 1e-5), label=row.policy, **style(position))
        axes.set(yscale="log", xlim=(0, 1), xlabel=f"share of the budget ({budget})")
        axes.set_ylabel("regret (% above the optimum)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    return svg(draw)


def bars(values: Mapping[str, Sequence[float]], names: Sequence[str], label: str) -> str:
    """Horizontal bars, a group for each entry with a bar for each of the names: a tornado when they are signed."""
    rows = list(values.items())[::-1]
    thick = 0.8 / max(len(names), 1)

    def draw(axes: Any) -> None:
        places = np.arange(len(rows))
        for position, name in enumerate(names):
            at = places + 0.4 - thick * (position + 0.5)
            lengths = [entry[position] for _, entry in rows]
            axes.barh(at, lengths, height=thick * 0.9, color=COLOURS[position % len(COLOURS)], label=name)
        axes.set_yticks(places, [name for name, _ in rows])
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
        if len(names) > 1:
            axes.legend(frameon=False)

    return svg(draw, height=1.2 + 0.34 * max(len(rows), 1))


def stacked(values: Mapping[str, Mapping[str, float]], label: str) -> str:
    """A horizontal bar for each entry, made up of named parts."""
    rows = list(values.items())[::-1]
    parts = list(dict.fromkeys(part for _, entry in rows for part in entry))

    def draw(axes: Any) -> None:
        left = np.zeros(len(rows))
        for position, part in enumerate(parts):
            lengths = np.array([entry.get(part, 0.0) for _, entry in rows])
            axes.barh(np.arange(len(rows)), lengths, left=left, color=COLOURS[position % len(COLOURS)], label=part)
            left += lengths
        axes.set_yticks(np.arange(len(rows)), [name for name, _ in rows])
        axes.set_xlabel(label)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    return svg(draw, height=1.4 + 0.3 * max(len(rows), 2))


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    *,
    joined: bool = True,
) -> str:
    """Curves over one quantity, or their points alone; an axis whose values are a decade apart and more is logarithmic."""

    def draw(axes: Any) -> None:
        for position, (name, (across, up)) in enumerate(curves.items()):
            line = style(position) if joined else {**style(position), "linestyle": ""}
            line["linewidth"] = (
                4.0 if position == 0 and len(curves) > 1 else 1.5
            )  # seen under another that goes the same way
            axes.plot(across, up, label=name, marker="o", markersize=3 if joined else 5, **line)
        axes.set(
            xscale=_scale([across for across, _ in curves.values()]), yscale=_scale([up for _, up in curves.values()])
        )
        axes.set(xlabel=x, ylabel=y)
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "linear":
                axis.get_major_formatter().set_useOffset(False)  # whole values, not what they are above one of them
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)

    return svg(draw)


def _scale(values: Sequence[Sequence[float]]) -> str:
    known = np.concatenate([np.asarray(each, dtype=np.float64) for each in values])
    known = known[np.isfinite(known)]
    return "log" if len(known) and known.min() > 0 and known.max() >= 10 * known.min() else "linear"


def _numbers(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
