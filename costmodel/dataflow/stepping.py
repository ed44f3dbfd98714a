"""The loop of a timeline: what happens when in the first steps of a program, on two cores.

Written in the part of Python that `native` translates, for one schedule a row.
"""

from __future__ import annotations

from codesign.costmodel.dataflow.course import (
    BEGUN,
    CHAIN,
    CONTROL,
    DEEPEST,
    ENGINES,
    FREE,
    LENGTH,
    LOAD,
    PORT_PLACES,
    PROGRAMS,
    READY,
    SIGNALLED,
    STORE,
    STORED,
    WIDTH,
    Course,
)
from codesign.costmodel.dataflow.placing import IN_LOOP, IN_PROGRAMS
from codesign.costmodel.dataflow.ports import before, give_way, measure, part, serve, until
from codesign.costmodel.dataflow.waits import OVERLAPPING, SINGLE, SLOTTED
from codesign.costmodel.native import Routine, RowFloat, RowInt, at, fill, larger, mask, put, shift, some, where


# -- what waits for what -----------------------------------------------------------------------------------------
def holds(course: Course, number: int) -> RowInt:
    """Whether a cause makes a task wait."""
    mine = course.mine[number]
    other = course.other[number]
    there = (course.room[mine] > 0.0) & (course.room[other] > 0.0)
    if course.when[number] == OVERLAPPING:
        above = course.place[mine] < course.place[other] + course.room[other]
        below = course.place[other] < course.place[mine] + course.room[mine]
        return there & above & below & (course.near[mine] == course.near[other])
    many = there & (course.room[mine] < 0.0)  # none
    if course.of[mine] == IN_LOOP:
        many = there & (course.step_back[0] > 0)
    if course.of[mine] == IN_PROGRAMS:
        many = there & (course.program_back[0] > 0)
    if course.when[number] == SLOTTED:
        return many
    if course.when[number] == SINGLE:
        return there & (many == 0)
    return there


def decide(course: Course) -> None:
    """Find out which waits there are, and who signals for them."""
    fill(course.signal, 0, course.tasks + 1, 0.0)
    number = 0
    task = 0
    wait = 0
    while task < course.tasks:
        while wait < course.wait_end[task]:
            on = course.least[0] * 0.0
            last = course.step_back[0] * 0 + course.tasks
            while number < course.cause_end[wait]:
                if wait < course.own_end[task] or some(course.mixed[0] == 1):
                    yes = holds(course, number)
                    if wait >= course.own_end[task]:
                        yes = yes & (course.mixed[0] == 1)
                    on = where(yes, 1.0, on)
                    last = where(yes, course.cause[number], last)
                number += 1
            course.on[wait] = on
            if course.ring[wait] == 0:
                put(course.signal, last, 1.0)
            wait += 1
        task += 1


def opened(course: Course, task: int, core: int) -> RowFloat:
    """When all that a task waits for has come about."""
    of = core * course.places
    time = course.least[0] * 0.0
    end = course.wait_end[task] if some(course.mixed[0] == 1) else course.own_end[task]
    wait = course.wait_end[task - 1] if task > 0 else 0
    while wait < end:
        place = of + course.awaited[wait]
        if course.ring[wait] == 0:
            time = where(course.on[wait] > 0.0, larger(time, course.times[place]), time)
        if course.ring[wait] == IN_LOOP:
            time = where(course.on[wait] > 0.0, larger(time, at(course.times, place + course.step_back[0])), time)
        if course.ring[wait] == IN_PROGRAMS:
            time = where(course.on[wait] > 0.0, larger(time, at(course.times, place + course.program_back[0])), time)
        wait += 1
    return time


def done(course: Course, task: int, block: int, core: int, time: RowFloat, active: RowInt) -> None:
    """A task signals, when anyone waits for it."""
    place = core * course.places + SIGNALLED + ENGINES * block + course.engine[task]
    course.times[place] = where(active & (at(course.signal, task) > 0.0), time, course.times[place])


def push(course: Course, block: int, active: RowInt) -> None:
    """Let when the engines are done with what they did so far be the latest of a block's steps."""
    engine = 0
    while engine < ENGINES:
        ring = ENGINES * block + engine
        core = 0
        while core < 2 and course.ringed[ring] == 1:
            of = core * course.places
            first = of + course.rings + ring * DEEPEST
            number = course.deepest - 1
            while number > 0:
                course.times[first + number] = where(
                    active, course.times[first + number - 1], course.times[first + number]
                )
                number -= 1
            place = of + FREE + engine
            if engine == LOAD:
                place = of + READY
            if engine == STORE:
                place = of + STORED
            course.times[first] = where(active, course.times[place], course.times[first])
            core += 1
        engine += 1


# -- one step ----------------------------------------------------------------------------------------------------
def issue(course: Course, task: int, active: RowInt) -> None:
    """The control processor's time for one instruction, and until its engine's queue has room."""
    engine = course.engine[task]
    takes = mask(active & (course.clocks[task] > 0.0))
    core = 0
    while core < 2:
        of = core * course.places
        room = at(course.begun, (core * ENGINES + engine) * course.depth + course.next[engine])
        now = larger(course.times[of + CONTROL] + course.issue[0], room)
        course.times[of + CONTROL] = where(takes, now, course.times[of + CONTROL])
        core += 1


def begin(course: Course, task: int, core: int, start: RowFloat, active: RowInt) -> None:
    """An engine begins what is at the head of its queue, on one core and then on the other."""
    engine = course.engine[task]
    takes = mask(active & (course.clocks[task] > 0.0))
    place = (core * ENGINES + engine) * course.depth + course.next[engine]
    put(course.begun, place, where(takes, start, at(course.begun, place)))
    if core == 1:
        course.next[engine] = where(takes, (course.next[engine] + 1) % course.depth, course.next[engine])


def load(course: Course, task: int, block: int, active: RowInt) -> None:
    """A load waits for its slot, or until what has its addresses is done with."""
    core = 0
    while core < 2:
        of = core * course.places
        start = larger(larger(course.times[of + FREE + LOAD], course.times[of + CONTROL]), opened(course, task, core))
        if course.follows[task] == 1:
            start = larger(start, course.times[of + READY])
        course.pair[core] = start
        core += 1
    send(course, task, active)
    core = 0
    while core < 2:
        of = core * course.places
        end = course.pair[core]
        course.times[of + FREE + LOAD] = where(active, end, course.times[of + FREE + LOAD])
        comes = larger(course.times[of + READY], end + course.latency[0])
        course.times[of + READY] = where(active, comes, course.times[of + READY])
        done(course, task, block, core, comes, active)
        core += 1


def send(course: Course, task: int, active: RowInt) -> None:
    """Make a transfer that can start at a `pair` of clocks, which its ends then are."""
    first = course.pair[0]
    last = course.pair[1]
    if course.together[task] == 1:  # begins when the last of them can
        first = first + larger(last - first, 0.0) * course.reach[task]
    begin(course, task, 0, first, active)
    begin(course, task, 1, last, active)
    serve(course, task, first, last, active)


def store(course: Course, task: int, block: int, chain: int, active: RowInt) -> None:
    """A store waits for what is computed before it. `chain`: a step of nothing else is over with it."""
    core = 0
    while core < 2:
        of = core * course.places
        start = larger(course.times[of + FREE + STORE], course.times[of + CONTROL])
        course.pair[core] = larger(start, opened(course, task, core))
        core += 1
    send(course, task, active)
    core = 0
    while core < 2:
        of = core * course.places
        end = course.pair[core]
        course.times[of + FREE + STORE] = where(active, end, course.times[of + FREE + STORE])
        course.times[of + STORED] = where(active, end + course.latency[0], course.times[of + STORED])
        if chain == 1:
            course.times[of + CHAIN] = where(active, end, course.times[of + CHAIN])
        done(course, task, block, core, end + course.latency[0], active)
        core += 1


def work(course: Course, task: int, block: int, active: RowInt) -> None:
    """A computation waits for its operands, what is computed before, and the room for its result."""
    takes = mask(active & (course.clocks[task] > 0.0))
    core = 0
    while core < 2:
        of = core * course.places
        free = of + FREE + course.engine[task]
        start = larger(larger(course.times[free], course.times[of + CONTROL]), opened(course, task, core))
        end = start + course.clocks[task]
        begin(course, task, core, start, active)
        course.times[free] = where(takes, end, course.times[free])
        course.times[of + CHAIN] = where(takes, larger(course.times[of + CHAIN], end), course.times[of + CHAIN])
        done(course, task, block, core, end, takes)
        core += 1


def step(course: Course, stage: int, active: RowInt) -> None:
    """What a step does besides the loops inside."""
    block = course.block[stage]
    task = course.task_end[stage - 1] if stage > 0 else 0
    while task < course.task_end[stage]:
        issue(course, task, active)
        if course.engine[task] == LOAD:
            load(course, task, block, active)
        elif course.engine[task] == STORE:
            store(course, task, block, 1 - course.computes[stage], active)
        else:
            work(course, task, block, active)
        task += 1
    if block > 0:
        push(course, block, active)


# -- loops -------------------------------------------------------------------------------------------------------
def skip(course: Course, first: RowFloat, last: RowFloat) -> None:
    """Go on by so many clocks, of one core and of the other, in which everything repeats itself."""
    shift(course.times, 0, course.places, first)
    shift(course.times, course.places, 2 * course.places, last)
    shift(course.begun, 0, ENGINES * course.depth, first)
    shift(course.begun, ENGINES * course.depth, 2 * ENGINES * course.depth, last)
    shift(course.port, BEGUN, LENGTH, larger(first, last))


def period(course: Course, stage: int, core: int) -> RowFloat:
    """Clocks from the end of one step to that of the next, over as many as are in flight together."""
    base = (2 * stage + core + 2) * WIDTH
    most = course.most[stage]
    latest = at(course.ends, base + most)
    clocks = latest - at(course.ends, base + most - 1)
    number = 2
    while number <= DEEPEST:
        known = (course.depths[0] >= number) & (most >= number + 2)
        place = where(known, most - number, 0)
        clocks = where(known, (latest - at(course.ends, base + place)) / number, clocks)
        number += 1
    return clocks


def over(course: Course, stage: int, much: RowFloat, made: RowFloat) -> None:
    """Go back to where the core would be that makes only part of the last step that was followed: in the mean it makes so much less of it."""
    if not some(much > 0.0):
        return
    course.pair[0] = much * 0.0
    course.pair[1] = much * 0.0
    number = 1
    while number < WIDTH:
        core = 0
        while core < 2:
            base = (2 * stage + core + 2) * WIDTH + number
            took = course.ends[base] - course.ends[base - 1]
            course.pair[core] = where(made == number, took, course.pair[core])
            core += 1
        number += 1
    skip(course, 0.0 - much * course.pair[0], 0.0 - much * course.pair[1])


def take(course: Course, stage: int, active: RowInt) -> None:
    """The steps of a stage: some are followed, and the others take what those do on average."""
    total = course.steps[stage]
    most = course.most[stage]
    again = where((course.known[stage] > 0.0) & (most > course.again[stage]), course.again[stage], most)
    followed = where(total > most, again, most)  # a short one is followed whole
    core = 0
    while core < 2:
        chain = course.times[core * course.places + CHAIN]
        course.ends[(2 * stage + core + 2) * WIDTH] = chain
        core += 1
    number = 0
    made = total * 0.0
    now = mask(active & (total > number) & (followed > number))
    while some(now):
        core = 0
        while core < 2 and course.straight[stage] == 0:
            of = core * course.places
            course.times[of + CONTROL] = where(
                now, course.times[of + CONTROL] + course.issue[0], course.times[of + CONTROL]
            )
            core += 1
        child = course.inner_end[stage - 1] if stage > 0 else 0
        while child < course.inner_end[stage]:
            take(course, course.inner[child], now)
            child += 1
        step(course, stage, now)
        made = where(now, made + 1.0, made)
        number += 1
        core = 0
        while core < 2:
            course.ends[(2 * stage + core + 2) * WIDTH + number] = course.times[core * course.places + CHAIN]
            core += 1
        now = mask(active & (total > number) & (followed > number))
    over(course, stage, where(active, larger(made - total, 0.0), 0.0), made)
    left = where(active, larger(total - followed, 0.0), 0.0)
    if not some(left > 0.0):
        return
    fresh = (left > 0.0) & (course.known[stage] == 0.0)
    if some(fresh):
        core = 0
        while core < 2:
            place = 2 * stage + core
            found = larger(period(course, stage, core), course.shortest[stage])
            course.periods[place] = where(fresh, found, course.periods[place])
            core += 1
        course.known[stage] = where(fresh, 1.0, course.known[stage])
    skip(course, left * course.periods[2 * stage], left * course.periods[2 * stage + 1])


def program(course: Course, number: int, active: RowInt) -> None:
    """One program on each core."""
    if number > 0 and some(active & (course.programs[0] == number + 1)):
        measure(course, where(course.programs[0] == number + 1, course.last_cores[0], course.cores[0]))
    place = 0
    while place < course.outers:
        take(course, course.outer[place], active)
        place += 1
    push(course, 0, active)
    core = 0
    while core < 2:
        course.ends[core * WIDTH + number] = course.times[core * course.places + CHAIN]
        core += 1


def skip_programs(course: Course) -> None:
    """The programs of a core that are not followed take as long as those that are."""
    left = larger(course.programs[0] - course.followed[0], 0.0)
    if not some(left > 0.0):
        return
    core = 0
    while core < 2:
        first = course.ends[core * WIDTH]
        one = course.ends[core * WIDTH + PROGRAMS - 2]
        other = course.ends[core * WIDTH + PROGRAMS - 1]
        clocks = where(course.program_back[0] > 0, (other - first) / (PROGRAMS - 1), other - one)
        number = PROGRAMS
        while number < WIDTH - 1:
            over = (course.ends[core * WIDTH + number] - first) / number
            clocks = where(course.followed[0] == number + 1, over, clocks)
            number += 1
        course.pair[core] = left * larger(clocks, course.least[0])
        core += 1
    skip(course, course.pair[0], course.pair[1])


def follow(course: Course) -> None:
    """Clocks until the last store of the last program has arrived."""
    fill(course.times, 0, 2 * course.places, 0.0)
    fill(course.begun, 0, 2 * ENGINES * course.depth, 0.0)
    fill(course.port, 0, PORT_PLACES, 0.0)
    fill(course.ends, 0, (2 * course.stages + 2) * WIDTH, 0.0)
    fill(course.known, 0, course.stages, 0.0)
    engine = 0
    while engine < ENGINES:
        course.next[engine] = 0
        engine += 1
    measure(course, course.cores[0])
    decide(course)
    number = 0
    active = mask((course.programs[0] > number) & (course.followed[0] > number))
    while some(active):
        program(course, number, active)
        number += 1
        active = mask((course.programs[0] > number) & (course.followed[0] > number))
    skip_programs(course)
    first = larger(course.times[STORED], course.times[CHAIN])
    last = larger(course.times[course.places + STORED], course.times[course.places + CHAIN])
    course.took[0] = larger(first, last)


follow_all = Routine(
    Course,
    *(measure, part, before, until, give_way, serve),
    *(holds, decide, opened, done, push, issue, begin, send, load, store, work, step),
    *(skip, period, over, take, program, skip_programs, follow),
)
