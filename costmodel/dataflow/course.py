"""The tables of a timeline: the steps of a program on a machine, under many schedules, and what is known of one of them so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.costmodel.native import FloatsByRow, IntsByRow, TableByRow

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEEPEST = 4
"""Iterations in flight that are told apart."""
PROGRAMS = 3
"""Programs of a core that are followed."""
AGAIN = 1
"""Steps of a loop that are followed beyond those in flight, which find their slots free, when its period is known from the program before."""

LOAD, TENSOR, VECTOR, STORE = range(4)
ENGINES = 4
NOBODY = -1
"""Is around a loop that no other one is around."""

# places of a core's times; then come by block and engine what was signalled, and the rings of when they were done with steps
CONTROL, CHAIN, READY, STORED, FREE, CAME, SIGNALLED = 0, 1, 2, 3, 4, 8, 10
# of the queues of all cores at the memories above, of loads and of stores
BEGUN, DONE, LENGTH, USED, PORT_PLACES = 0, 2, 4, 6, 8
WIDTH = 14
"""Ends of steps of a stage, or of programs, that are remembered: of so many programs as find three slots as before, and four."""


@dataclass
class Course:
    """The steps of a program under so many schedules (`rows`), and the state of one of them.

    The machine: `issue` clocks of an instruction on the control processor, `latency` of memory, `depth` of the engines' queues; whether
    loads and stores `share` the ports, of which there are so many (`ports`), each with a `read_rate`, a `write_rate` and a `link_rate` (of
    the network behind it, 0: none). The structure: in order of work, the `outer` stages and up to `inner_end` the `inner` ones of each
    stage, by number; what is `around` a stage, whether it is `straight`, its `block` (straight code of programs: 0), and whether it
    `computes`; by block and engine, whether anyone waits for earlier steps of it (`ringed`); up to `task_end` the tasks of a stage, each with its
    `engine`, whether it waits for positions that a load brings (`follows`), and is begun by all cores `together`. Up to `own_end` what a task waits
    for because of buffers that both touch, and up to `wait_end` because of bytes that they share: which place of a core's times (`awaited`),
    whether that is a ring (`ring`), and up to `cause_end` why: `when`, the buffers (`mine`, `other`) and the `cause` (a task). By buffer what it has
    slots `of`. `deepest`: steps in flight in any row. `places`: of a core's times, those of its `rings` from there.

    By row: `cores` at work, and with the `last` programs; `programs` of a core, those that are `followed`, and clocks that one takes at the
    `least`; how many steps back the buffers of a program (`program_back`) and of a step (`step_back`) are used again, less one; `depths`;
    of buffers the `place`, whether that is `near` the array, and the bytes that they have (`room`), and whether some share addresses (`mixed`).
    By stage, its `steps` (of a stage inside: in one step of that around it), how many of them are followed
    at the `most`, and when its period is known (`again`), and clocks of one at the `shortest`. By task, its `clocks`, bytes `moved`, `reach` among
    the cores of those that begin
    together; by task and port, the `portions` of the bytes and of the `links`; by port, `users`. Found: `took`, clocks.

    State of a row: `times` that both cores have come to, of the queues at the `port`, the `ends` of steps, the `periods` of stages and
    whether they are `known`; by task, clocks of the ports for `one` core and for the `whole` of them; when the last instructions of each
    engine on each core were `begun`, as many as its queue holds, and the `next` place there; the `pair` of ends of a transfer; which of the
    waits there are (`on`), and which tasks signal for them (and one place for none).
    """

    rows: int
    depth: int
    share: int
    ports: int
    stages: int
    outers: int
    outer: Ints
    inner_end: Ints
    inner: Ints
    around: Ints
    straight: Ints
    block: Ints
    computes: Ints
    ringed: Ints
    task_end: Ints
    tasks: int
    engine: Ints
    follows: Ints
    together: Ints
    own_end: Ints
    wait_end: Ints
    waits: int
    awaited: Ints
    ring: Ints
    cause_end: Ints
    when: Ints
    mine: Ints
    other: Ints
    cause: Ints
    of: Ints
    deepest: int
    places: int
    rings: int
    issue: FloatsByRow
    latency: FloatsByRow
    read_rate: FloatsByRow
    write_rate: FloatsByRow
    link_rate: FloatsByRow
    cores: FloatsByRow
    last_cores: FloatsByRow
    programs: FloatsByRow
    followed: FloatsByRow
    least: FloatsByRow
    program_back: IntsByRow
    step_back: IntsByRow
    depths: FloatsByRow
    place: FloatsByRow
    near: FloatsByRow
    room: FloatsByRow
    mixed: IntsByRow
    steps: FloatsByRow
    most: IntsByRow
    again: IntsByRow
    shortest: FloatsByRow
    clocks: FloatsByRow
    moved: FloatsByRow
    reach: FloatsByRow
    portions: FloatsByRow
    links: FloatsByRow
    users: FloatsByRow
    took: FloatsByRow
    times: FloatsByRow
    port: FloatsByRow
    ends: FloatsByRow
    periods: FloatsByRow
    known: FloatsByRow
    one: FloatsByRow
    whole: FloatsByRow
    begun: TableByRow
    next: IntsByRow
    pair: FloatsByRow
    on: FloatsByRow
    signal: TableByRow
