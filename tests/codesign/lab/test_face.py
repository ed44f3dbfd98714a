"""The command of studies: bad plans in one line, showing, comparing, exporting, helpers without the extra; and the page of a compile."""

from __future__ import annotations

import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("sqlalchemy")
from codesign.ir.errors import CodesignError
from codesign.lab.board import read_leaderboard
from codesign.lab.face import application
from codesign.lab.kernels import problems
from codesign.lab.measured import cache_text, read_space
from codesign.lab.plan import make_plan, read_plan
from codesign.passes.schedule.policy import POLICIES
from tests.codesign.lab.studies import measured, plan_file

BOARDS = ("leaderboard", "leaderboard_events")

MODEL = """
import torch

class Model(torch.nn.Module):
    def forward(self, x, y):
        return torch.softmax(x @ y, -1)

model = Model()
example_inputs = (torch.randn(32, 64), torch.randn(64, 96))
"""


def run(*arguments: object) -> str:
    result = CliRunner().invoke(application, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that is done."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "space.json").write_text(cache_text(measured()))
    plan = plan_file(folder, ["space.json"], policies=["random", "evolutionary"], seeds=3)
    run("run", plan, "--quiet", "-o", folder)
    return folder


def test_a_study_is_shown_from_its_database_and_from_its_leaderboard(done: Path) -> None:
    board = json.loads(run("show", done / "study.db", "--json"))
    saved = json.loads((done / "leaderboard.json").read_text())
    assert board["rows"] == saved["rows"]
    assert {row["policy"] for row in board["rows"]} == {"random", "evolutionary"}
    assert "evolutionary" in run("show", done / "leaderboard.json")


def test_two_policies_are_compared(done: Path) -> None:
    (found,) = json.loads(run("compare", done / "study.db", "evolutionary", "random", "--json"))
    assert 0 < found["probability"] <= 1
    assert list(found["problems"]) == ["scan on nowhere"]
    with pytest.raises(CodesignError, match="no policy 'exhaustive'"):
        run("compare", done / "study.db", "exhaustive", "random")


@pytest.mark.parametrize("form", ["csv", "parquet", "cache", "t4"])
def test_a_study_is_exported(form: str, done: Path, tmp_path: Path) -> None:
    import pandas as pd

    (line,) = run("export", done / "study.db", "-o", tmp_path, "--format", form).split()
    if form in ("cache", "t4"):
        assert read_space(Path(line)).rows == pytest.approx(dict(measured().rows))
    else:
        table = pd.read_csv(line) if form == "csv" else pd.read_parquet(line)
        assert len(table) == 2 * 3 * 20
        assert set(json.loads(table.schedule[0])) == set(measured().knobs)


def test_a_page_shows_curves_and_numbers_and_needs_no_network(done: Path, tmp_path: Path) -> None:
    run("show", done / "study.db", "--report", tmp_path / "s.html")
    check_page((tmp_path / "s.html").read_text(), pictures=2)


def test_long_words_of_a_table_may_be_parted_and_stay_words_of_the_text() -> None:
    pytest.importorskip("jinja2")
    from codesign.lab.page import table

    name = "attention_norm_attention_key__mean_linear_mul"
    shown = str(table("t", ["kernel", "time", "why"], [[name, "1.234e-05 s", f"<b> {name}"]]))
    assert "attention_<wbr>norm_<wbr>attention_<wbr>key__<wbr>mean_<wbr>linear_<wbr>mul" in shown
    assert re.sub("<wbr>", "", shown).count(name) == 2
    assert "&lt;b&gt; attention_<wbr>" in shown
    assert 'class="number">1.234e-05 s<' in shown


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.unnamed = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append(tag)
        self.ids.append(found.get("id") or "")
        if tag == "a":
            self.links.append(found.get("href") or "")
        if found.get("tabindex") == "0" and not found.get("aria-label"):
            self.unnamed += 1


def check_page(text: str, *, pictures: int) -> None:
    """One file that needs nothing else, whose parts can be reached by the keyboard and have names."""
    page = _Page()
    page.feed(text)
    assert page.tags.count("svg") == pictures
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.unnamed == 0
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids) | {"main"}
    assert 'lang="en"' in text
    assert not re.search(r"(?:src|href)=\"(?!#)(?!data:)", text.replace("xlink:", ""))
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("machine", "said"),
    [("h100_sxm", ["@triton.jit", "blocks on"]), ("maia100", ["load x", "engines of", "core 0, tensor"])],
)
def test_the_page_of_a_compile(machine: str, said: list[str], tmp_path: Path) -> None:
    from codesign.compile import application as compile_application

    (tmp_path / "m.py").write_text(MODEL)
    arguments = [
        str(tmp_path / "m.py"),
        "-t",
        machine,
        "--no-verify",
        "--no-kernels",
        "--json",
        "--report",
        str(tmp_path / "out" / "m.html"),
    ]
    result = CliRunner().invoke(compile_application, arguments)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "m.html").read_text()
    check_page(text, pictures=text.count("<figure>"))
    for kernel in json.loads(result.stdout)["kernels"]:
        assert text.count(kernel["name"]) > 5
        assert f"kernel @{kernel['name']}(" in text
    assert [words for words in [*said, "m.py:", "Intermediates", "Why producers"] if words not in text] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policies": []}, "nobody to search"),
        ({"kernels": []}, "nothing to search"),
        ({"kernels": ["gem.8x8x8"]}, "no kernel is called 'gem'; nearest: gemm"),
        ({"kernels": ["gemm.8x8"]}, "has the sizes M x N x K"),
        ({"kernels": ["gemm"]}, "is not KIND.SIZES"),
        ({"kernels": ["gemm.f12.8x8x8"]}, "no dtype 'f12'"),
        ({"kernels": [{"kind": "gemm", "sizes": {"M": 0, "N": 1, "K": 1}}]}, "greater than or equal to 1"),
        ({"machines": ["h100"]}, "unknown machine 'h100'; nearest: "),
        ({"budget": 0}, "greater than or equal to 1"),
        ({"budget": {"evaluations": 3, "seconds": 1.0}}, "one of evaluations, seconds and cutoff"),
        ({"seeds": -1}, "greater than or equal to 1"),
        ({"speed": 3}, "speed: no such field; did you mean seeds?"),
        ({"colour": 3, "budget": "a"}, "colour: no such field; there are name, policies"),
        ({"colour": 3, "budget": "a"}, "(also wrong: budgets[0])"),
        ({"budget": "30 s"}, "a budget is a number of schedules, { seconds = 2.5 } or { cutoff = 0.95 }, not '30 s'"),
        ({"budget": {"second": 3}}, "budgets[0].second: no such field; did you mean seconds?"),
        ({"seeds": 0}, "seeds: must be greater than or equal to 1, not 0, or must be a valid list"),
        ({"kernels": [3]}, "kernels[0]: must be a table, not 3"),
        ({"kernels": [{"kynd": "gemm", "sizes": [1, 2, 3]}]}, "kernels[0].kynd: no such field; did you mean kind?"),
        ({"kernels": [{"kind": "add", "sizes": {"T": 0, "N": 1}}]}, "kernels[0].sizes.T: must be greater than or equal to 1"),
        ({"policies": ["random", "random"]}, "two policies are called 'random'"),
        ({"fusions": ["none"]}, "give models"),
        ({"spaces": ["nowhere.json"]}, "no such file"),
    ],
)  # fmt: skip
def test_a_plan_that_is_wrong_is_told_in_one_line(change: dict[str, object], message: str) -> None:
    data: dict[str, object] = {"policies": ["random"], "kernels": ["add.64x64"], **change}
    with pytest.raises(CodesignError) as error:
        problems(make_plan(data))
    assert message in error.value.one_line()
    assert "\n" not in error.value.one_line()


def test_kernels_in_short_and_in_full_are_the_same() -> None:
    short = problems(make_plan({"policies": ["random"], "kernels": ["gemm.f16.64x32x16"]}))
    full = {"kind": "gemm", "dtype": "f16", "sizes": {"K": 16, "M": 64, "N": 32}}
    assert problems(make_plan({"policies": ["random"], "kernels": [full]}))[0].key == short[0].key
    both = make_plan(
        {"policies": ["random"], "kernels": [full, "gemm.f16.64x32x16"], "machines": ["h100_sxm", "maia100"]}
    )
    assert len(problems(both)) == 2


def test_files_that_are_no_studies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("policies = [")
    (tmp_path / "bad.json").write_text('{"study": 3}')
    for arguments in (
        ["run", "none.toml"],
        ["run", tmp_path / "bad.toml"],
        ["show", tmp_path / "no.db"],
        ["show", tmp_path / "bad.json"],
    ):
        with pytest.raises(CodesignError):
            run(*arguments)


@pytest.mark.parametrize("wrong", ['kernels = ["gem.8x8x8"]', 'policies = ["randum"]', 'machines = ["h100"]'])
def test_a_study_that_can_not_be_done_leaves_no_database(wrong: str, tmp_path: Path) -> None:
    plan = 'policies = ["random"]\nkernels = ["add.8x8"]\n'
    kept = [line for line in plan.splitlines() if not line.startswith(wrong.split()[0])]
    (tmp_path / "s.toml").write_text("\n".join([*kept, wrong]))
    with pytest.raises(CodesignError, match=r"nearest|sizes"):
        run("run", tmp_path / "s.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]


@pytest.mark.slow
def test_fusion_policies_are_compared_on_whole_models(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import torch\nmodel = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())\nexample_inputs = (torch.randn(4, 8),)\n"
    )
    (tmp_path / "f.toml").write_text(
        'fusions = ["none", "greedy"]\nmodels = ["m.py"]\nmachines = ["h100_sxm", "maia100"]\n'
    )
    rows = json.loads(run("run", tmp_path / "f.toml", "--json"))["rows"]
    assert [row["policy"] for row in rows] == ["fusion greedy", "fusion none"]
    assert rows[0]["regret"] == 0.0 < rows[1]["regret"]


def test_the_leaderboards_that_are_committed_have_every_policy_and_random_search_at_nothing(root_dir: Path) -> None:
    boards = {name: read_leaderboard(root_dir / "benchmarks" / "results" / f"{name}.json") for name in BOARDS}
    scores = {name: {row.policy: row.score or 0.0 for row in board.rows} for name, board in boards.items()}
    assert {policy for board in scores.values() for policy in board} == set(POLICIES)
    for name, board in boards.items():
        plan = read_plan(root_dir / "benchmarks" / f"{name}.toml")
        assert len(board.problems) == len(plan.kernels) * len(plan.machines)
        assert set(scores[name]) == {policy.label for policy in plan.policies}
        assert abs(scores[name]["random"]) < 0.2 < scores[name]["default"]
    assert scores["leaderboard"]["exhaustive"] < scores["leaderboard"]["random"]
    assert scores["leaderboard_events"]["climb"] == max(scores["leaderboard_events"].values())


def test_the_study_of_the_readme_is_a_plan(root_dir: Path) -> None:
    text = (root_dir / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(policies.*?)```", text, re.S)
    plan = make_plan(tomllib.loads(blocks[0]))
    assert plan.policies[0].policy == "lab:Sampler"
    assert len(problems(plan.model_copy(update={"policies": plan.policies[1:]}))) == 6
