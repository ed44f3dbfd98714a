"""The predicted run of a model as a trace: whole to its readers, as long as the prediction, kernels apart from their blocks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codesign import compile as command
from codesign.ir.errors import CodesignError
from tests import readers

MODEL = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(256, 512), torch.nn.Linear(512, 512)

    def forward(self, x):
        return torch.sort(self.second(torch.relu(self.first(x)))).values.softmax(-1)

model = Model()
example_inputs = (torch.randn(96, 256),)
"""


@pytest.fixture(scope="module", params=["h100_sxm", "tpu_v4"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A compile's report and trace, on a machine whose kernels' blocks can be simulated and on one that has none."""
    folder = tmp_path_factory.mktemp("trace")
    (folder / "model.py").write_text(MODEL)
    arguments = [folder / "model.py", "--target", request.param, "--trace", folder / "t.json", "-o", folder / "out"]
    result = CliRunner().invoke(command.application, [*map(str, arguments), "--no-verify", "--no-kernels"])
    assert result.exit_code == 0, result.output
    return json.loads((folder / "out" / "report.json").read_text()), json.loads((folder / "t.json").read_text())


def test_launches_fill_the_predicted_time_and_readers_keep_them(run: tuple[Any, Any]) -> None:
    report, trace = run
    events = trace["traceEvents"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    names = [kernel["name"] for kernel in report["kernels"] for _ in range(kernel["count"])]
    assert sorted(event["name"] for event in kernels if "(external)" not in event["name"]) == sorted(names)
    assert any("(external)" in event["name"] for event in kernels)
    assert sum(event["dur"] for event in kernels) == pytest.approx(report["seconds"] * 1e6, rel=1e-3)
    assert readers.slices_of_perfetto(events) == sum(event["ph"] == "X" for event in events)
    assert readers.slices_of_trace_analysis(events) == len(kernels)


def test_blocks_lie_within_their_launch(run: tuple[Any, Any]) -> None:
    report, trace = run
    launches: dict[str, Any] = {}
    for event in trace["traceEvents"]:
        if event.get("cat") == "kernel":
            launches.setdefault(event["name"], event)
    blocks = [event for event in trace["traceEvents"] if event.get("cat") == "block"]
    assert bool(blocks) == (report["target"] == "h100_sxm")
    for block in blocks:
        launch = launches[block["args"]["kernel"]]
        assert launch["ts"] - 2e-3 <= block["ts"]
        assert block["ts"] + block["dur"] <= launch["ts"] + launch["dur"] + 2e-3


ANALYSIS = """
import json, sys
from hta.trace_analysis import TraceAnalysis
found = TraceAnalysis(trace_files={0: sys.argv[1]})
times = found.get_temporal_breakdown(visualize=False)
_, kernels = found.get_gpu_kernel_breakdown(visualize=False, num_kernels=1000)
print(json.dumps([times.iloc[0].to_dict(), dict(zip(kernels["name"], kernels["sum (us)"]))], default=float))
"""


@pytest.mark.others
def test_holistic_trace_analysis_breaks_it_down_by_kernel(run: tuple[Any, Any], tmp_path: Path) -> None:
    """The real package, in an environment of its own, whose Python `make others` names."""
    python = os.environ.get("CODESIGN_TRACE_ANALYSIS")
    if not python:
        pytest.skip("needs CODESIGN_TRACE_ANALYSIS, the Python of an environment with HolisticTraceAnalysis")
    report, trace = run
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(trace))
    environment = {**os.environ, "HTA_DISABLE_NS_ROUNDING": "1", "PYTHONPATH": ""}
    done = subprocess.run([python, "-c", ANALYSIS, str(path)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    times, kernels = json.loads(done.stdout.splitlines()[-1])
    total = report["seconds"] * 1e6
    assert times["kernel_time(us)"] == times["compute_time(us)"] == pytest.approx(total, rel=2e-3)
    assert times["idle_time(us)"] == pytest.approx(0.0, abs=0.01)
    predicted = {kernel["name"]: kernel["seconds"] * kernel["count"] * 1e6 for kernel in report["kernels"]}
    assert {name: kernels[name] for name in predicted} == pytest.approx(predicted, abs=0.002)


STRANDS = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key = torch.nn.Linear(64, 64), torch.nn.Linear(64, 32)

    def forward(self, x):
        return self.query(x), self.key(x.flip(0))

model = Model()
example_inputs = (torch.randn(32, 64),)
"""


def test_a_launch_of_several_strands_shows_the_blocks_of_each_one_strand_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(STRANDS)
    trace, page = tmp_path / "t.json", tmp_path / "page.html"
    arguments = [tmp_path / "model.py", "--no-verify", "--no-kernels", "--trace", trace, "--report", page]
    result = CliRunner().invoke(command.application, [*map(str, arguments), "--emit", "tile"])
    assert result.exit_code == 0, result.output
    kernels = result.output.split("\nkernel ")[1:]
    strands = {kernel.split("(")[0].lstrip("@") for kernel in kernels if "\n  band " in kernel}
    assert strands, result.output
    events = json.loads(trace.read_text())["traceEvents"]
    assert {event["name"] for event in events if event.get("cat") == "kernel"} >= strands
    (launch,) = [event for event in events if event.get("cat") == "kernel" and event["name"] in strands]
    ends = launch["ts"] - 2e-3
    for strand in (0, 1):
        own = [event for event in events if event.get("cat") == "block" and event["args"].get("strand") == strand]
        assert own
        assert min(event["ts"] for event in own) >= ends
        ends = max(event["ts"] + event["dur"] for event in own) - 2e-3
    assert ends <= launch["ts"] + launch["dur"]
    text = page.read_text()
    assert all(f"strand {number} of 2 alone" in text for number in (1, 2))


@pytest.mark.parametrize("option", ["--trace", "--report"])
def test_a_folder_in_place_of_the_file_is_said_before_the_work(option: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("raise SystemExit('was run')")
    result = CliRunner().invoke(command.application, [str(tmp_path / "model.py"), option, str(tmp_path)])
    assert isinstance(result.exception, CodesignError)
    assert "a folder" in str(result.exception)
