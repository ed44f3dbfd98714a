"""What a model's time hangs on, of kernels whose bound is known: slopes of ±1 and 0, crossovers, sweeps, fronts and Sobol indices."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codesign.costmodel import workloads
from codesign.costmodel.machine import load_machine
from codesign.costmodel.models import cost_model_for
from codesign.ir.errors import CodesignError
from codesign.lab.face import application as studies
from codesign.lab.machines.ask import Questions, answer
from codesign.lab.machines.search import blame, front
from codesign.lab.machines.sensitivity import sensitivities, sensitivity
from codesign.lab.machines.sweep import Range, crossovers, fusion_crossovers, sweep
from codesign.lab.machines.variants import changer
from codesign.lab.machines.workload import Ask, Outcome, Part, Workload, workload
from codesign.passes.schedule.build import space
from codesign.passes.schedule.context import Context
from codesign.passes.schedule.found import search
from codesign.passes.schedule.policy import Descent

H100 = load_machine("h100_sxm")

VALUE_OF_A_VARIANT = (
    "UPDATE problems SET description = json_set(description, '$.knobs[0][1]', json('{}'));"
    "UPDATE runs SET result = NULL, state = 'waiting'"
)


def kernel(name: str, summary: object, sizes: dict[str, int]) -> Part:
    context = Context(summary, H100, cost_model_for(H100), sizes)  # type: ignore[arg-type]
    best = search(Descent(), space(summary, H100, sizes), context)  # type: ignore[arg-type]
    assert best is not None
    return Part(name, 2, summary, best, sizes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def streaming() -> Workload:
    """An addition of large tensors, which DRAM bounds."""
    return Workload("add", H100, [kernel("add", workloads.add(), {"T": 65536, "N": 8192})])


@pytest.fixture(scope="module")
def product() -> Workload:
    """A large matrix product, which the tensor units bound."""
    return Workload("gemm", H100, [kernel("gemm", workloads.gemm(), {"M": 8192, "N": 8192, "K": 8192})])


def slope(workload: Workload, figure: str, step: float = 0.02) -> tuple[float, float]:
    found = sensitivity(workload, figure, step)
    assert found.held is not None
    assert found.chosen is not None
    return found.held, found.chosen


def test_a_kernel_that_memory_bounds_hangs_on_its_bandwidth(streaming: Workload) -> None:
    held, chosen = slope(streaming, "levels.dram.bandwidth")
    assert held == pytest.approx(-1.0, abs=0.1)
    assert chosen <= held + 1e-6
    assert slope(streaming, "units.tensor.rate.bf16") == (0.0, 0.0)


def test_a_product_hangs_first_on_the_tensor_units_and_on_the_power_that_slows_their_clock(product: Workload) -> None:
    rate, power = (slope(product, figure)[0] for figure in ("units.tensor.rate.bf16", "power_watts"))
    assert -1.05 < rate + power < -0.6
    others = ("levels.l2.bandwidth", "levels.dram.bandwidth", "levels.shared.bandwidth", "units.vector.clock_hz")
    assert max(rate, power) < min(slope(product, figure)[0] for figure in others)
    assert slope(product, "units.vector.rate.f64") == (0.0, 0.0)


def test_slopes_are_sorted_and_all_figures_are_asked_about(streaming: Workload) -> None:
    ticks: list[None] = []
    found = sensitivities(streaming, tick=lambda: ticks.append(None))
    assert found[0].figure == "levels.dram.bandwidth"
    assert len(ticks) == 4 * len(found) > 80
    assert "limits.warp_size" not in [entry.figure for entry in found]
    assert [entry.size for entry in found] == sorted((entry.size for entry in found), reverse=True)


def test_choosing_again_is_never_slower_and_the_machine_as_it_is_stays(product: Workload) -> None:
    assert product.price(H100, choose=True).schedules == product.base.schedules
    for factor in (0.25, 4.0):
        machine = H100.with_figures({"levels.dram.bandwidth": factor * 3.35e12})
        assert product.price(machine, choose=True).seconds <= product.price(machine).seconds * (1 + 1e-9)


def test_a_sweep_meets_its_ends_and_falls_with_bandwidth(streaming: Workload) -> None:
    points = sweep(streaming, [Range.parse("levels.dram.bandwidth=x0.5:x2:5", H100)])
    times = [point.chosen for point in points]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[-1] == pytest.approx(4.0, rel=0.15)
    assert points[2].held == pytest.approx(streaming.base.seconds)
    grid = sweep(
        streaming, Questions.ranges(["levels.dram.bandwidth=x0.5:x2:3", "launch.kernel_seconds=1e-6:2e-6:2"], H100)
    )
    assert len(grid) == 6


def test_where_another_bound_wins(streaming: Workload) -> None:
    value, _ = changer(H100, "launch.kernel_seconds")
    found = crossovers(streaming, Range("launch.kernel_seconds", value, 2000 * value, 7))
    bound = next(crossing for crossing in found if crossing.what == "bound")
    assert bound.after == "launch"
    before = (
        streaming.price(H100.with_figures({"launch.kernel_seconds": bound.value * 0.7}), choose=True).parts[0].bound
    )
    after = streaming.price(H100.with_figures({"launch.kernel_seconds": bound.value * 1.3}), choose=True).parts[0].bound
    assert (before, after) == (bound.before, "launch")


def test_no_design_of_a_front_betters_another(streaming: Workload) -> None:
    pytest.importorskip("optuna")
    figure = "levels.dram.bandwidth"
    designs = front(streaming, [Range.parse(f"{figure}=x0.5:x2", H100)], {figure: 1.0}, 12, 0)
    assert all(design.price == design.figures[figure] for design in designs)
    prices = [design.price or 0.0 for design in designs]
    assert len(designs) > 2
    assert prices == sorted(prices, reverse=True)


def test_no_design_is_twice_on_a_front(streaming: Workload) -> None:
    """A generation may breed a machine again that an earlier one had."""
    pytest.importorskip("optuna")
    prices = {"levels.dram.bandwidth": 1e-12, "levels.l2.bandwidth": 5e-13}
    designs = front(streaming, [Range.parse(f"{figure}=x0.5:x2", H100) for figure in prices], prices, 60, 0)
    assert len({tuple(design.figures.items()) for design in designs}) == len(designs) > 5


def test_figures_are_named_by_what_tells_them_apart() -> None:
    pytest.importorskip("jinja2")
    from codesign.lab.machines.page import shortest

    names = ["levels.dram.bandwidth", "levels.l2.bandwidth", "launch.kernel_seconds"]
    assert list(shortest(names).values()) == ["dram.bandwidth", "l2.bandwidth", "kernel_seconds"]
    assert shortest(["a.b", "b"]) == {"a.b": "a.b", "b": "b"}


def test_the_blame_is_of_the_figure_that_matters(streaming: Workload) -> None:
    shares, low, high = blame(streaming, 4, choose=False, seed=0)
    assert {share.figure for share in shares} >= {"launch.kernel_seconds", "levels.dram.latency_seconds"}
    assert all(0 <= abs(share.total) < 3 for share in shares)
    assert low <= streaming.base.seconds * 1.2
    assert low < high < math.inf
    assert next(s for s in shares if "dram.energy" in s.figure).total < 0.01


@pytest.mark.parametrize(
    "text",
    ["levels.dram.bandwidth", "levels.dram.bandwidth=1", "levels.dram.bandwidth=2:1", "levels.dram.bandwidth=a:b"],
)
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CodesignError, match="is not FIGURE=LOW:HIGH"):
        Range.parse(text, H100)
    with pytest.raises(CodesignError, match="has no figure"):
        Range.parse("levels.dram.bandwith=x1:x2", H100)


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ("3:4:2", "3 is 9e-13 of what it is; if that is meant, write x8.94903e-13; as in"),
        ("3TB:4TB", "'3TB' is neither a number, in the unit of the machine file, nor a factor"),
        (
            "x2:x1",
            "LOW must be above 0, and HIGH no less than LOW; as in levels.dram.bandwidth=x0.5:x2:16; h100_sxm has 3.35",
        ),
        ("x0:x1", "LOW must be above 0"),
        ("x1:xnan", "LOW must be above 0"),
        ("x1:x2:0", "POINTS is '0', and may be 1 to 20,000"),
        ("x1:x2:many", "POINTS is 'many'"),
    ],
)
def test_what_is_wrong_with_a_range_is_said(span: str, said: str) -> None:
    with pytest.raises(CodesignError) as error:
        Range.parse(f"levels.dram.bandwidth={span}", H100)
    assert said in error.value.one_line()


def test_a_value_far_off_may_be_given_as_a_factor() -> None:
    assert Range.parse("levels.dram.bandwidth=x1e-6:x1e6:2", H100).high == pytest.approx(3.352e18, rel=0.01)


def test_whole_numbers_are_swept_over_whole_numbers() -> None:
    assert Range.parse("limits.threads_per_sm=x0.3:x1:4", H100).values == [614.0, 918.0, 1371.0, 2048.0]
    assert Range.parse("limits.blocks_per_sm=1:2:9", H100).values == [1.0, 2.0]
    assert Questions.ranges(["limits.threads_per_sm=x0.3:x1:4"], H100)[0].points == 4


def test_questions_that_do_not_go_together_are_refused_before_anything_is_compiled() -> None:
    twice = ["levels.dram.bandwidth=x1:x2", "levels.dram.bandwidth=x2:x3"]
    with pytest.raises(CodesignError, match=r"two ranges of levels\.dram\.bandwidth"):
        Questions.ranges(twice, H100)
    with pytest.raises(CodesignError, match=r"units\.tensor\.clock_hz needs at most"):
        Questions.ranges(["units.tensor.clock_hz=x1:x1e12"], H100)
    spans = Questions.ranges(["levels.dram.bandwidth=x1:x2:200", "levels.l2.bandwidth=x1:x2:200"], H100)
    with pytest.raises(CodesignError, match="a sweep of 40,000 machines"):
        Questions(swept=spans)
    with pytest.raises(CodesignError, match="give --pareto"):
        Questions(prices={"levels.l2.bandwidth": 1.0})
    with pytest.raises(CodesignError, match="give --sobol"):
        Questions(chosen=True)


def test_answers_as_a_document_and_a_page(streaming: Workload) -> None:
    pytest.importorskip("jinja2")
    from codesign.lab.machines.page import whatif_page

    asked = Questions(slopes=False, crossed=Questions.ranges(["launch.kernel_seconds=x1:x2:2"], H100))
    asked = Questions(
        slopes=False, crossed=asked.crossed, swept=Questions.ranges(["levels.dram.bandwidth=x0.5:x2:3"], H100)
    )
    answers = answer(streaming, asked)
    assert json.loads(answers.model_dump_json())["seconds"] == streaming.base.seconds
    text = whatif_page(answers)
    assert "<svg" in text
    assert "Time over levels.dram.bandwidth" in text


def test_a_range_on_which_nothing_else_wins_is_said(streaming: Workload) -> None:
    pytest.importorskip("jinja2")
    from codesign.lab.machines.page import whatif_page

    spans = Questions.ranges(["levels.dram.bandwidth=x0.99:x1.01:2"], H100)
    answers = answer(streaming, Questions(slopes=False, crossed=spans))
    assert answers.crossovers == []
    assert list(answers.uncrossed) == ["levels.dram.bandwidth"]
    assert "the same schedules and bounds win for levels.dram.bandwidth from 3.319e+12 to 3.386e+12" in whatif_page(
        answers
    )


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    from codesign import whatif

    (tmp_path / "m.py").write_text("model = None\n")
    for arguments in (
        ["--sobol", "3"],
        ["--target", "nowhere"],
        ["--sweep", "x=1:2"],
        ["--price", "x"],
        ["--pareto", "levels.l2.bandwidth=x1:x2", "--price", "levels.l2.capacity=2"],
        ["--sweep", "levels.l2.bandwidth=x1:x2", "--database", str(tmp_path / "m.py")],
    ):
        result = CliRunner().invoke(whatif.application, [str(tmp_path / "m.py"), *arguments])
        assert isinstance(result.exception, CodesignError), arguments
        assert "no model" not in str(result.exception), arguments  # said before the model is looked at


def test_answers_are_kept_and_nothing_is_evaluated_twice(
    streaming: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlalchemy")
    from codesign.lab.export import rows
    from codesign.lab.laboratory import Database
    from codesign.lab.machines.recorded import recorded

    asked = Questions(
        slopes=False,
        crossed=Questions.ranges(["launch.kernel_seconds=x1:x1.2:2"], H100),
        swept=Questions.ranges(["levels.dram.bandwidth=x0.5:x2:2"], H100),
    )
    plain = answer(streaming, asked)
    path = tmp_path / "w.db"
    evaluated: list[Ask] = []
    outcome = Workload.outcome

    def counted(self: Workload, ask: Ask) -> Outcome:
        evaluated.append(ask)
        return outcome(self, ask)

    monkeypatch.setattr(Workload, "outcome", counted)
    with recorded(streaming, path, "all") as workload:
        assert answer(workload, asked) == plain
    table = rows(Database(path, read_only=True), next(iter(Database(path, read_only=True).studies())))
    assert len(table) == len(evaluated)
    result = CliRunner().invoke(studies, ["show", str(path)])
    assert "variants of a machine" in str(result.exception)
    assert not table.duplicated(["run"]).any()
    assert any("schedule before" in schedule for schedule in table.schedule) == any(ask.before for ask in evaluated)
    evaluated.clear()
    with recorded(streaming, path, "others") as workload:  # what another question has in common is known
        assert answer(workload, asked) == plain
    assert not evaluated


def test_a_variant_that_is_none_is_said_and_kept(streaming: Workload, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    from codesign.lab.machines.recorded import recorded

    wrong = Ask({"limits.warp_size": 0.5})
    for _ in range(2):
        with recorded(streaming, tmp_path / "w.db", "") as workload:
            (found,) = workload.outcomes([wrong])
        assert found.why == streaming.outcome(wrong).why != ""
        with pytest.raises(CodesignError):
            found.known()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE runs SET result = json_remove(result, '$.outcome')", "no outcome of a variant"),
        ("UPDATE runs SET result = json_set(result, '$.outcome.parts', json('[]'))", "an outcome of other kernels"),
        ("UPDATE runs SET result = json_set(result, '$.outcome.parts[0].schedule', json('{\"pipeline\": 9e999}'))", "a schedule: pipeline"),
        ("UPDATE runs SET result = NULL, state = 'waiting', policy = 'anything'", "'anything' answers nothing"),
        ("UPDATE runs SET result = NULL, state = 'asleep'", "runs.state must be"),
        ("UPDATE runs SET result = NULL, problem = 'gone'", "there is no 'gone'"),
        (VALUE_OF_A_VARIANT.format("[]"), "must be one value"),
        (VALUE_OF_A_VARIANT.format('[\"soon\"]'), "must be one value"),
        (VALUE_OF_A_VARIANT.format(f"[1{'0' * 400}]"), "knobs"),
    ],
)  # fmt: skip
def test_answers_that_are_none_are_refused(change: str, said: str, streaming: Workload, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    from codesign.lab.machines.recorded import recorded

    ask, path = Ask({"levels.dram.bandwidth": 3e12}), tmp_path / "w.db"
    with recorded(streaming, path, "") as workload:
        workload.outcomes([ask])
    with sqlite3.connect(path) as base:
        for statement in change.split(";"):
            assert base.execute(statement).rowcount == 1
        base.execute("UPDATE runs SET checksum = NULL")  # as written by hand: what is damaged is told before
    wrong = rf"{re.escape(str(path))}: not a database of studies of this version: .*{said}"
    with pytest.raises(CodesignError, match=wrong), recorded(streaming, path, "") as workload:
        workload.outcomes([ask])


FUSED_BELOW = 3e-6


class Fused(Workload):
    """Two kernels up to a cost of a launch, and one above it."""

    def outcome(self, ask: Ask) -> Outcome:
        assert ask.fuse
        one = ask.figures["launch.kernel_seconds"] > FUSED_BELOW
        return Outcome(2e-6 if one else 1e-6, 0.0, (), kernels={"ab": "both"} if one else {"a": "first", "b": "second"})


def test_where_another_fusion_wins() -> None:
    (found,) = fusion_crossovers(Fused("m", H100, []), Range("launch.kernel_seconds", 1e-6, 9e-6, 4), 12)
    assert found.value == pytest.approx(FUSED_BELOW, rel=1e-3)
    assert (found.before, found.after, found.seconds) == ("first, second", "both", 2e-6)


def test_what_was_fused_anew_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlalchemy")
    from codesign.lab.machines.recorded import recorded

    (tmp_path / "m.py").write_text(
        "import torch\nclass M(torch.nn.Module):\n    def forward(self, x):\n        return x.exp() + 1\n"
        "model, example_inputs = M(), (torch.zeros(64),)\n"
    )
    fused = workload(tmp_path / "m.py", H100)
    ask = Ask({"launch.kernel_seconds": 1e-5}, fuse=True)
    with recorded(fused, tmp_path / "w.db", "") as kept:
        (first,) = kept.outcomes([ask])
    assert len(first.kernels) == 1
    assert first.seconds > fused.base.seconds
    monkeypatch.setattr(Workload, "outcome", None)
    with recorded(fused, tmp_path / "w.db", "again") as kept:
        assert kept.outcomes([ask]) == [first]
