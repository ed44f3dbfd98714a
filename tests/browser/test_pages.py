"""Pages of `--report` in a real headless browser: they render, are legible on a laptop and a projector, and work by keyboard.

`make browser` runs these; they need Chromium (or CODESIGN_BROWSER, the path of one) and the package `playwright`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package `playwright`")
BROWSER = os.environ.get("CODESIGN_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="needs Chromium, or CODESIGN_BROWSER, the path of one"),
]

WIDTHS = {"laptop": (1280, 720), "projector": (1920, 1080)}
SMALLEST = 8.0
"""CSS pixels of the smallest letters of a picture."""

MODEL = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(256, 512), torch.nn.Linear(512, 64)

    def forward(self, x):
        return self.second(torch.relu(self.first(x))).softmax(-1)

model = Model()
example_inputs = (torch.randn(96, 256),)
"""
STUDY = """
policies = ["default", "random", "beam"]
kernels = ["softmax.512x1024"]
budget = 30
seeds = 2
"""


def run(application: Any, *arguments: object) -> None:
    result = CliRunner().invoke(application, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of every command that makes one."""
    from codesign import compile as compiling
    from codesign import experiment, study, whatif

    folder = tmp_path_factory.mktemp("pages")
    (folder / "model.py").write_text(MODEL)
    (folder / "study.toml").write_text(STUDY)
    quick = ["--no-verify", "--no-kernels"]
    for machine in ("h100_sxm", "maia100"):
        run(compiling.application, folder / "model.py", "-t", machine, *quick, "--report", folder / f"{machine}.html")
    run(study.application, "run", folder / "study.toml", "--report", folder / "study.html")
    run(whatif.application, folder / "model.py", "-t", "h100_sxm", "--report", folder / "whatif.html")
    both = ["default", "precision{products=tf32x3}", "-m", folder / "model.py", "-t", "h100_sxm"]
    run(experiment.application, *both, "--report", folder / "experiment.html")
    return {path.stem: path for path in sorted(folder.glob("*.html"))}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as found:
        opened = found.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


PAGES = ["experiment", "h100_sxm", "maia100", "study", "whatif"]


@pytest.fixture(params=PAGES)
def path(request: pytest.FixtureRequest, pages: dict[str, Path]) -> Path:
    return pages[request.param]


@pytest.mark.parametrize("screen", WIDTHS)
def test_a_page_renders_without_a_network_and_fits_the_screen(browser: Any, path: Path, screen: str) -> None:
    width, height = WIDTHS[screen]
    page = browser.new_page(viewport={"width": width, "height": height})
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert not wrong
    assert asked == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for picture in page.query_selector_all("figure svg"):
        box = picture.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 80
        assert box["x"] + box["width"] <= width
    page.close()


@pytest.mark.parametrize("screen", WIDTHS)
def test_letters_of_pictures_are_large_enough_and_do_not_run_out_of_them(browser: Any, path: Path, screen: str) -> None:
    width, height = WIDTHS[screen]
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(path.as_uri())
    found = page.evaluate(
        """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
            const outer = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(t => t.textContent.trim()).map(t => {
                const box = t.getBoundingClientRect();
                const scale = outer.width / (svg.viewBox.baseVal.width || outer.width);
                const size = parseFloat(getComputedStyle(t).fontSize) * scale;
                return [t.textContent, size, box.left - outer.left, outer.right - box.right];
            });
        })"""
    )
    small = {text: size for text, size, _, _ in found if size < SMALLEST}
    cut = {text: (left, right) for text, _, left, right in found if left < -2 or right < -2}
    assert not small
    assert not cut
    page.close()


def test_all_that_can_be_used_is_reached_by_keyboard_and_seen_to_be(browser: Any, path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(path.as_uri())
    wanted = page.evaluate("document.querySelectorAll('a[href], summary, [tabindex]').length")
    hidden = page.evaluate("document.querySelectorAll('details:not([open]) [tabindex]').length")
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        place = page.evaluate(
            """() => { const e = document.activeElement;
                if (!e || e === document.body) return null;
                const all = [...document.querySelectorAll('a[href], summary, [tabindex]')];
                const style = getComputedStyle(e);
                return [all.indexOf(e), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]; }"""
        )
        if place is not None and place[0] >= 0:
            assert place[1], "focus is not seen"
            reached.add(place[0])
    assert len(reached) == wanted - hidden
    page.close()


def test_sections_and_folded_texts_open_by_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(pages["h100_sxm"].as_uri())
    links = page.query_selector_all("nav a")
    links[-1].focus()
    page.keyboard.press("Enter")
    top = page.evaluate("document.querySelector(location.hash).getBoundingClientRect().top")
    assert -1 <= top < 720
    folded = page.query_selector("details summary")
    assert folded is not None
    folded.focus()
    page.keyboard.press("Enter")
    assert page.query_selector("details[open] pre").is_visible()
    page.close()


def test_every_picture_is_said_in_words_and_its_numbers_are_text(browser: Any, path: Path) -> None:
    page = browser.new_page()
    page.goto(path.as_uri())
    for picture in page.query_selector_all("[role=img]"):
        assert len(picture.get_attribute("aria-label") or "") > 10
    numbers = page.evaluate("[...document.querySelectorAll('td')].filter(c => /[0-9]/.test(c.innerText)).length")
    assert numbers > 5
    page.close()
