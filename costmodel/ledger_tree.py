"""The ledger as a tree for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.tree import Tree

if TYPE_CHECKING:
    from codesign.costmodel.ledger import Ledger, RunnerUp, Term

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
FELT = 5e-4
"""Changes of the time by less than this fraction are listed in one line."""
WORTH_A_LINE = 0.001
"""Terms below this share of the time are summed up in one line."""


def tree_of(ledger: Ledger) -> Tree:
    """Terms with their values, the roofline, the grid, what-if questions and the runner-up, one branch each."""
    head = f"[bold]{escape(ledger.kernel)}[/] on {escape(ledger.machine)}: [bold]{seconds(ledger.seconds)}[/]"
    head += f" ({seconds(ledger.low)} to {seconds(ledger.high)}), bound by {escape(ledger.bound)}"
    tree = Tree(head)
    where = tree.add("where the time goes")
    small = [term for term in ledger.terms if term.share < WORTH_A_LINE]
    for term in ledger.terms:
        if term.share >= WORTH_A_LINE:
            _term(where, term)
    if any(term.seconds > 0.0 for term in small):
        rest = sum(term.seconds for term in small)
        where.add(f"[dim]{', '.join(term.name for term in small)}: {seconds(rest)}[/]")
    bounds = ", ".join(f"{name} {seconds(value)}" for name, value in ledger.roofline.items() if value > 0.0)
    least = max(ledger.roofline.values(), default=0.0)
    tree.add(f"roofline: {seconds(least)} ({least / ledger.seconds:.0%} of the time is needed): {bounds}")
    if ledger.facts:
        facts = tree.add("the grid and its traffic")
        for name, value in ledger.facts.items():
            facts.add(quantity(name, value))
    _what_if(tree, ledger)
    _interval(tree, ledger)
    _assumed(tree, ledger)
    if ledger.runner_up is not None:
        _runner_up(tree, ledger.runner_up, ledger)
    if not ledger.in_domain or ledger.remarks:
        remarks = tree.add("in the model's domain" if ledger.in_domain else "[yellow]outside of the model's domain[/]")
        for remark in ledger.remarks:
            remarks.add(escape(remark))
    return tree


def _term(branch: Tree, term: Term) -> None:
    line = f"[bold]{term.name}[/] {seconds(term.seconds)} ({term.share:.1%})"
    if term.alone is not None and term.alone > 0.0:
        line += f", alone it would take {seconds(term.alone)}"
    node = branch.add(line)
    for name, value in term.values.items():
        if value:
            node.add(quantity(name, value))


def _what_if(tree: Tree, ledger: Ledger) -> None:
    if not ledger.counterfactuals:
        return
    branch = tree.add("what would change it")
    unfelt = []
    for entry in ledger.counterfactuals:
        if entry.change is None or entry.best_change is None:
            branch.add(f"[dim]with {escape(entry.label)}: the machine file does not allow it[/]")
            continue
        if max(abs(entry.change), abs(entry.best_change)) < FELT:
            unfelt.append(entry.label)
            continue
        line = f"with {escape(entry.label)}: [bold]{entry.change:+.1%}[/]"
        if entry.best_change < entry.change - WORTH_A_LINE:
            line += f" ({entry.best_change:+.1%} with the schedule that is best then)"
        branch.add(line)
    if unfelt:
        branch.add(f"[dim]no difference: {escape(', '.join(unfelt))}[/]")


def _interval(tree: Tree, ledger: Ledger) -> None:
    if not ledger.interval:
        return
    branch = tree.add("what its interval is made of (parts that are independent add in squares of the logarithm)")
    for name, part in ledger.interval.items():
        shared = f", {part.common:.0%} of it shared by all such kernels" if 0.0 < part.common < 1.0 else ""
        branch.add(f"{escape(name)}: [bold]{part.low - 1.0:+.1%}[/] to [bold]{part.high - 1.0:+.1%}[/]{shared}")


def _assumed(tree: Tree, ledger: Ledger) -> None:
    felt = [one for one in ledger.assumptions if one.moves >= FELT]
    if not felt:
        return
    branch = tree.add("which assumed figures of the machine it hangs on")
    for one in felt:
        ends = " and ".join(
            f"[bold]{share - 1.0:+.1%}[/] at {end:g}" for end, share in zip(one.range, one.at, strict=True)
        )
        branch.add(f"{escape(one.figure)}: {ends}")


def _runner_up(tree: Tree, other: RunnerUp, ledger: Ledger) -> None:
    verb = "loses" if other.loses >= 0.0 else "would gain"
    title = f"the best other of {ledger.schedules:,} schedules {verb} {abs(other.loses):.1%}: {seconds(other.seconds)}"
    if ledger.refused:
        title += f" ({ledger.refused:,} more do not fit)"
    branch = tree.add(title)
    for knob, (own, rival) in sorted(other.knobs.items()):
        branch.add(f"{escape(knob)}: {own} here, {rival} there")
    for name, value in sorted(other.terms.items(), key=lambda item: -abs(item[1]))[:3]:
        branch.add(f"{escape(name)}: {'+' if value >= 0.0 else '-'}{seconds(abs(value))}")


def seconds(value: float) -> str:
    """A time with a unit that suits it."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def quantity(name: str, value: float) -> str:
    """A named number with the unit that its name ends in."""
    words = name.replace("_", " ")
    if name.endswith("bytes_per_second"):
        return f"{words.removesuffix(' bytes per second')}: {scaled(value)}B/s"
    if name.endswith("operations_per_second"):
        return f"{words.removesuffix(' per second')}: {scaled(value)}/s"
    if name.endswith("_seconds"):
        return f"{words.removesuffix(' seconds')}: {seconds(value)}"
    if "bytes" in name:
        return f"{words}: {scaled(value)}B"
    return f"{words}: {scaled(value)}".rstrip()


def scaled(value: float) -> str:
    """A number with a decimal prefix."""
    for scale, prefix in PREFIXES:
        if abs(value) >= scale:
            return f"{value / scale:.4g} {prefix}"
    return f"{value:.4g} "
