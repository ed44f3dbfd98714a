"""Machine files: what they hold, and what a bad one is told."""

from __future__ import annotations

import copy
import json
import math
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codesign.costmodel.gpu.parameters import calibration_to, load_calibration
from codesign.costmodel.machine import MACHINE_FOLDER, Machine, _validated, figures_of, load_machine, machine_names
from codesign.ir.errors import MachineError

REQUIRED = {
    "a100_sxm",
    "h100_sxm",
    "h200_sxm",
    "b200_sxm",
    "mi300x",
    "maia100",
    "tpu_v4",
    "systolic_16x16",
    "h20",
    "h800",
    "l40s",
    "a40",
}
REQUIRED |= {
    "b300_sxm",
    "gb200",
    "gb300",
    "rtx_pro_6000",
    "rtx_3090",
    "l4",
    "l40",
    "l20",
    "a30",
    "rtx_6000_ada",
    "mi355x",
}


def test_every_machine_loads_and_every_figure_names_a_listed_source() -> None:
    assert set(machine_names()) >= REQUIRED
    for name in machine_names():
        machine = load_machine(name)
        assert machine.name == name
        figures = figures_of(machine)
        assert len(figures) > 20
        assert all(figure.source in machine.sources for _, figure in figures)
        assert all(figure.range is not None for _, figure in figures if figure.unknown)


@pytest.mark.parametrize(
    ("name", "dtype", "quoted"),
    [
        ("a100_sxm", "bf16", 312e12),
        ("h100_sxm", "bf16", 989.4e12),
        ("h100_sxm", "f8", 1978.9e12),
        ("mi300x", "bf16", 1307.4e12),
    ],
)
def test_units_times_clock_times_width_is_the_published_dense_peak(name: str, dtype: str, quoted: float) -> None:
    rate = load_machine(name).rate("tensor", dtype)
    assert rate == pytest.approx(quoted, rel=0.01)


def test_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(MachineError, match=r"unknown machine 'h100sxm'.*h100_sxm"):
        load_machine("h100sxm")


def _broken(tmp_path: Path, old: str, new: str) -> str:
    text = (MACHINE_FOLDER / "h100_sxm.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    return str(path)


def test_a_peak_that_does_not_follow_is_refused_with_its_path(tmp_path: Path) -> None:
    path = _broken(tmp_path, "bf16 = { value = 9.894e+14", "bf16 = { value = 1.979e+15")
    with pytest.raises(MachineError, match=r"units\[0\]\.peak\.bf16: 132 x 4 units x 1,830 MHz x 512 x 2"):
        load_machine(path)


def test_a_misspelt_field_is_named_by_its_path(tmp_path: Path) -> None:
    path = _broken(tmp_path, "fanout = 132", 'fanout = "many"')
    with pytest.raises(MachineError, match=r"levels\[2\]\.fanout"):
        load_machine(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bandwidth =", "bandwith =", r"levels\[0\]\.bandwith: no such field; did you mean bandwidth\?$"),
        ("[limits]", "[limitz]", r"limitz: no such field; did you mean limits\?$"),
        ("clock_hz =", "clok_hz =", r"units\[0\]\.clok_hz: no such field; did you mean clock_hz\?$"),
        ('kind = "gpu"', 'kind = "cpu"', r"kind: must be 'gpu' or 'dataflow', not 'cpu'$"),
        ("fanout = 132", "fanout = 132\ncolour = 3", r"levels\[2\]\.colour: no such field; there are name, "),
    ],
)
def test_a_field_that_there_is_none_of_is_named_before_what_is_missing_for_it(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match=said):
        load_machine(_broken(tmp_path, old, new))


def test_a_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _broken(tmp_path, "fanout = 132", "fanout = 132 # a text that was not read before")
    texts: list[str] = []

    def loads(text: str, parse: Callable[[str], dict[str, Any]] = tomllib.loads) -> dict[str, Any]:
        texts.append(text)
        return parse(text)

    monkeypatch.setattr(tomllib, "loads", loads)
    machine = load_machine(path)
    assert len([text for text in texts if "not read before" in text]) == 1
    assert load_machine(path) is machine
    assert not machine.calibration


def test_not_toml_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = [")
    with pytest.raises(MachineError, match="not valid TOML"):
        load_machine(str(path))
    with pytest.raises(MachineError, match="no such machine file"):
        load_machine(str(tmp_path / "none.toml"))


def test_what_if_changes_one_figure_and_a_wrong_path_lists_near_ones() -> None:
    machine = load_machine("h100_sxm")
    faster = machine.with_figures({"levels.l2.bandwidth": 2e13})
    assert faster.need(faster.level("l2").bandwidth, "levels.l2.bandwidth") == 2e13
    assert faster.level("dram") == machine.level("dram")
    with pytest.raises(MachineError, match="did you mean"):
        machine.with_figures({"levels.l2.bandwith": 1.0})


def test_an_unknown_figure_without_a_value_says_what_to_sweep(tmp_path: Path) -> None:
    old = 'bandwidth = { value = 9.75e+12, source = "GB", note = "measured on the H200, which has the same die and clock" }'
    path = _broken(tmp_path, old, 'bandwidth = { source = "PW", unknown = true, range = [5e12, 1e13] }')
    machine = load_machine(path)
    with pytest.raises(
        MachineError, match=r"levels\.l2\.bandwidth is not public; give it a value between 5e\+12 and 1e\+13"
    ):
        machine.need(machine.level("l2").bandwidth, "levels.l2.bandwidth")


NONSENSE: tuple[Any, ...] = (None, -1, math.nan, math.inf, 1e300, 10**400, "3 GB", True, [], {}, "removed")
TEXTS = {"description", "vendor", "architecture", "target", "name", "place", "assumption", "note", "topology"}
TEXTS |= {"tolerance_reason", "level", "source", "sources"}


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in entries:
        yield from _paths(value, (*path, key))


def _refused(data: dict[str, Any]) -> str:
    try:
        _validated(data, "mine.toml")
    except MachineError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["h100_sxm", "maia100"])
def test_no_number_of_a_machine_can_be_nonsense(name: str) -> None:
    """Each field in turn is removed or becomes nonsense: an error that names it, and no number is ever taken."""
    data = tomllib.loads((MACHINE_FOLDER / f"{name}.toml").read_text())
    seen = 0
    for path in _paths(data):
        if not path or TEXTS & {*path}:
            continue
        for wrong in NONSENSE:
            node = mutant = copy.deepcopy(data)
            for key in path[:-1]:
                node = node[key]
            was = node.pop(path[-1]) if wrong == "removed" else node[path[-1]]
            if wrong != "removed":
                node[path[-1]] = wrong
            number = isinstance(was, int | float) and not isinstance(was, bool)
            error = _refused(mutant)
            assert error or not number or wrong in (None, "removed"), (path, wrong)
            assert not error or (error.startswith("mine.toml: ") and "\n" not in error)
            seen += bool(error)
    assert seen > 1000


def _with(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x01\xff\xfe",
        b"name = 'caf\xe9'",
        b"x = " + b"[" * 100_000,
        b"name = 'a'\nname = 'b'",
        b"schema_version = " + b"9" * 10_000,
        b"a." * 20_000 + b"b = 1",
    ],
)
def test_a_file_that_is_no_machine_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(MachineError) as caught:
        load_machine(_with(tmp_path, content))
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_mark_of_byte_order_is_no_fault(tmp_path: Path) -> None:
    path = _with(tmp_path, b"\xef\xbb\xbf" + (MACHINE_FOLDER / "h100_sxm.toml").read_bytes())
    assert load_machine(path).name == "h100_sxm"


def test_a_figure_that_no_model_reads_names_the_nearest(tmp_path: Path) -> None:
    path = _broken(tmp_path, "warp_size =", "warp_sizes =")
    with pytest.raises(MachineError, match=r"limits\.warp_sizes: .*nearest: warp_size"):
        load_machine(path)


@pytest.mark.parametrize(("figure", "value"), [("levels.dram.bandwidth", 0.0), ("launch.kernel_seconds", -1.0)])
def test_a_what_if_value_is_held_to_the_same_ranges(figure: str, value: float) -> None:
    with pytest.raises(MachineError, match=figure.replace(".", r"\.")):
        load_machine("maia100").with_figures({figure: value})


def test_a_machine_file_takes_the_calibration_that_it_names(tmp_path: Path) -> None:
    """What codesign.calibrate wrote for a machine that nobody else has; without it the nearest calibration is transferred."""
    text = (MACHINE_FOLDER / "h100_sxm.toml").read_text().replace('name = "h100_sxm"', 'name = "mine"', 1)
    (tmp_path / "mine.toml").write_text(text)
    before = load_calibration(load_machine(str(tmp_path / "mine.toml")))
    assert before.transferred == "h100_sxm"
    own = replace(before, parameters=replace(before.parameters, dram_efficiency=0.71), transferred="", far={})
    (tmp_path / "mine.json").write_text(json.dumps(calibration_to(own)))
    first, rest = text.split("\n", 1)
    named = f'{first}\ncalibration = "mine.json"\n{rest}'

    def machine(number: int) -> Machine:
        """From a file of its own, as files are read once."""
        (tmp_path / f"own{number}.toml").write_text(named)
        return load_machine(str(tmp_path / f"own{number}.toml"))

    after = load_calibration(machine(0).with_figures({"levels.dram.bandwidth": 3e12}))
    assert (after.parameters.dram_efficiency, after.transferred) == (0.71, "")
    assert "contraction" not in after.far
    wrong = [("[1]", "not a calibration file"), ("{", "not a JSON document"), ('{"machine": 1}', "must be a text")]
    for number, (content, told) in enumerate(wrong, 1):
        (tmp_path / "mine.json").write_text(content)
        with pytest.raises(MachineError, match=told):
            load_calibration(machine(number))
    (tmp_path / "mine.json").unlink()
    with pytest.raises(MachineError, match="no such file"):
        machine(4)


def test_a_file_that_was_edited_is_read_again(tmp_path: Path) -> None:
    """And the calibration beside it; while both say the same it is the same machine."""
    path = tmp_path / "mine.toml"
    text = (MACHINE_FOLDER / "h100_sxm.toml").read_text()
    path.write_text(text)
    first = load_machine(str(path))
    assert load_machine(str(path)) is first
    path.write_text(text.replace("power_watts = { value = 700", "power_watts = { value = 350"))
    powers = [dict(figures_of(machine))["power_watts"].value for machine in (first, load_machine(str(path)))]
    assert powers == [700, 350]
    path.write_text('calibration = "mine.json"\n' + text)
    for value in (1.0, 2.0):
        (tmp_path / "mine.json").write_text(json.dumps({"marked": value}))
        assert load_machine(str(path)).calibration == {"marked": value}
