"""The kinds of files that strangers send: how each is read, and what a reader may answer."""

from __future__ import annotations

import io
import json
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from codesign.costmodel.gpu.parameters import calibration_from
from codesign.costmodel.machine import MACHINE_FOLDER, load_machine
from codesign.costmodel.tables import kernels_of, read_table
from codesign.ir.errors import CodesignError
from codesign.ir.text import parse, print_module
from codesign.ir.text import parser as tile_text
from codesign.ir.text import program as program_text
from codesign.ir.verify import verify, verify_program
from codesign.passes.schedule.replay import read_schedules
from tests.fuzz.grammar import mutated, sentence

CORPUS = Path(__file__).with_name("corpus")

SCRATCH = Path(tempfile.gettempdir())


@dataclass(frozen=True)
class Kind:
    """A kind of file: `make` gives one at random, `read` reads it as the product does. `share` of all inputs."""

    name: str
    share: int
    make: Callable[[random.Random], bytes]
    read: Callable[[bytes], None]


def seeds(*endings: str) -> list[str]:
    """The texts of the corpus with these endings, in the order of their names."""
    return [p.read_text(encoding="utf-8") for p in sorted(CORPUS.iterdir()) if p.suffix in endings]


# -- modules and programs ------------------------------------------------------------------------------------------------


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise CodesignError("not a text file") from None


def read_module(data: bytes) -> None:
    """Parse, verify, print and parse again: a module that verifies prints to a text of itself."""
    module = parse(_text(data))
    verify(module)
    text = print_module(module)
    assert print_module(parse(text)) == text, "the printed module is read as another one"
    text.encode("utf-8")


def read_programs(data: bytes) -> None:
    """The same for accelerator programs."""
    for program in program_text.parse_programs(_text(data)):
        verify_program(program)
        text = program_text.print_program(program)
        assert program_text.print_program(program_text.parse_program(text)) == text


def _module(rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return sentence(tile_text._grammar(), rng).encode("utf-8", "surrogatepass")
    texts = seeds(".tile")
    return mutated(rng.choice(texts), rng, texts).encode("utf-8", "surrogatepass")


def _program(rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return sentence(program_text._grammar(), rng).encode("utf-8", "surrogatepass")
    texts = seeds(".casm")
    return mutated(rng.choice(texts), rng, texts).encode("utf-8", "surrogatepass")


# -- data files ----------------------------------------------------------------------------------------------------------


def _file(data: bytes, ending: str) -> Path:
    path = SCRATCH / f"codesign-fuzz-{os.getpid()}{ending}"
    path.write_bytes(data)
    return path


def _machine(rng: random.Random) -> bytes:
    texts = [p.read_text(encoding="utf-8") for p in sorted(MACHINE_FOLDER.glob("*.toml"))]
    return mutated(rng.choice(texts), rng, texts).encode("utf-8", "surrogatepass")


def read_machine(data: bytes) -> None:
    """A machine file; every figure that it gives is finite."""
    load_machine(str(_file(data, ".toml")))


def _schedules(rng: random.Random) -> bytes:
    texts = seeds(".schedules")
    return mutated(rng.choice(texts), rng, texts).encode("utf-8", "surrogatepass")


def _read_schedules(data: bytes) -> None:
    read_schedules(_file(data, ".json"))


def _calibration(rng: random.Random) -> bytes:
    texts = seeds(".calibration")
    return mutated(rng.choice(texts), rng, texts).encode("utf-8", "surrogatepass")


def _read_calibration(data: bytes) -> None:
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        return
    calibration_from(plain, "fuzz.json")


def _table(rng: random.Random) -> bytes:
    texts = seeds(".csv")
    return mutated(rng.choice(texts), rng, texts).encode("utf-8", "surrogatepass")


def _read_table(path: Path) -> None:
    for rows in kernels_of(read_table(path)):
        assert (rows.seconds > 0).all()


def _read_csv(data: bytes) -> None:
    _read_table(_file(data, ".csv"))


def _parquet(rng: random.Random) -> bytes:
    """A sound Parquet file of a mutated table, or a sound table's file with bytes changed."""
    text = rng.choice(seeds(".csv"))
    changed = mutated(text, rng) if rng.random() < 0.5 else text
    try:
        frame = pd.read_csv(io.StringIO(changed))
        data = bytearray(frame.to_parquet())
    except Exception:  # what pandas can't read is tried as bytes
        return changed.encode("utf-8", "surrogatepass")
    if changed is text:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
    return bytes(data)


def _read_parquet(data: bytes) -> None:
    _read_table(_file(data, ".parquet"))


KINDS: Sequence[Kind] = (
    Kind("tile", 40, _module, read_module),
    Kind("casm", 20, _program, read_programs),
    Kind("machine", 14, _machine, read_machine),
    Kind("schedules", 14, _schedules, _read_schedules),
    Kind("calibration", 6, _calibration, _read_calibration),
    Kind("csv", 4, _table, _read_csv),
    Kind("parquet", 2, _parquet, _read_parquet),
)
