"""Any program, made at random: it is refused with a line, or it comes to its end in simulation, and computes the same in any order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from codesign.backends.accelerator import check, simulate
from codesign.backends.accelerator.flat import flatten
from codesign.backends.accelerator.order import Batch, Untimed
from codesign.backends.accelerator.timing import gangs_of
from codesign.backends.accelerator.values import Values
from codesign.costmodel.dataflow import target_of
from codesign.costmodel.machine import load_machine
from codesign.ir.errors import CodesignError
from codesign.ir.program import Program
from codesign.ir.text.program import parse_program

MAIA = load_machine("maia100")
ENGINES = ("load", "stage", "vector", "store")
SEMAPHORES = {**{f"by_{engine}": "core" for engine in ENGINES}, "near": "cluster", "all": "chip"}
KEYS = [["0", "core // 2", "core", "core % 2"], ["t", "core // 2 + t*8"], ["u"]]
NEEDS = [["1", "2", "4", "core", "#near", "#all"], ["i", "i + 1", "t*2"], ["j"]]
TRIPS = [["2", "core", "3 - core"], ["1", "(core + t) % 2", "(core + t + 1) % 2"]]
"""What may be said outside of loops, and what more in each."""


@st.composite
def statements(draw: st.DrawFn, depth: int = 0) -> list[str]:
    """A few instructions, and loops around some."""

    def one(choices: list[list[str]]) -> str:
        return draw(st.sampled_from([choice for some in choices[: depth + 1] for choice in some]))

    found: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["load", "load", "stage", "vector", "store", "loop", "loop"]))
        usual = draw(st.integers(0, 9)) > 0  # after all that the core did before, and counted with it
        waits = [f"by_{engine} >= #by_{engine}" for engine in ENGINES] if usual else []
        waits += [f"{draw(st.sampled_from([*SEMAPHORES]))} >= {one(NEEDS)}"] if draw(st.integers(0, 3)) == 0 else []
        signals = [f"by_{kind}"] if usual else []
        signals += draw(st.lists(st.sampled_from(["near", "all"]), max_size=2, unique=True))
        ends = "".join(f" {word} {', '.join(each)}" for word, each in (("wait", waits), ("signal", signals)) if each)
        shared = f" shared {one(KEYS)} by {draw(st.sampled_from([1, 2, 2, 4]))}" if draw(st.integers(0, 2)) == 0 else ""
        if kind == "load":
            found.append(f"load a[m] [m: 8] = %x[m + {one([['0', 'core*8'], ['t*8']])}]{shared}{ends}")
        elif kind == "stage":
            found.append(f"stage s[m] [m: 8] = %x[m]{shared}{ends}")
        elif kind == "vector":
            found.append(f"vector b[m] [m: 8] = a[m] + 1.0{ends}")
        elif kind == "store":
            found.append(f"store %y[core*8 + m] [m: 8] = {draw(st.sampled_from('ab'))}[m]{ends}")
        elif depth < 2:
            head = f"for {'tu'[depth]} in 0 to {one(TRIPS)} step 1 count {'ij'[depth]} {{"
            found += [head, *draw(statements(depth + 1)), "}"]
    return found


@st.composite
def programs(draw: st.DrawFn) -> Program:
    declared = [f"semaphore {name}{'' if who == 'core' else f' in {who}'}" for name, who in SEMAPHORES.items()]
    begin = ["load a[m] [m: 8] = %x[m] signal by_load", "vector b[m] [m: 8] = a[m] wait by_load >= 1 signal by_vector"]
    lines = [*declared, *begin, *draw(statements())]
    return parse_program(f"""
program @any(%x: f32[64]) -> (%y: f32[32]) on 4 cores {{
scratch a: f32[8] at 0
scratch b: f32[8] at 32
scratch s: f32[8] at 0 in cluster
{chr(10).join(lines)}
}}""")


def outcome(run: Callable[[], object]) -> str:
    """The line with which a program is refused ("": it is not)."""
    try:
        run()
    except CodesignError as error:
        return str(error).splitlines()[0]
    return ""


@given(programs(), st.integers(0, 99))
@settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=(Phase.generate,)
)
def test_it_is_refused_or_comes_to_its_end_with_the_same_values(program: Program, seed: int) -> None:
    x = np.arange(64, dtype=np.float32)
    timed = outcome(lambda: simulate(program, None, MAIA, values=False))
    refused = outcome(lambda: check(program, MAIA))
    if refused:
        assert refused == outcome(lambda: simulate(program, [x], MAIA))
        return  # a clock alone sees no races; deadlocks it does, at another place
    assert not timed
    flat, target = flatten(program), target_of(MAIA)
    y, rng = np.zeros(32, np.float32), np.random.default_rng(seed)
    memories = Values(program, flat, target, [x, y], {})
    run = Untimed(program, flat, gangs_of(flat), target)
    for place in run.order(lambda work: work.pop(int(rng.integers(len(work))))):
        memories.execute(Batch(int(flat.number[place]), np.array([place])))
    np.testing.assert_array_equal(y, simulate(program, [x], MAIA).outputs[0])
