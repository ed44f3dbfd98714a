"""The ports of the memories above the cores on a timeline: when transfers of all cores are served.

Written in the part of Python that `native` translates, for one schedule a row.
"""

from __future__ import annotations

from codesign.costmodel.dataflow.course import (
    BEGUN,
    CAME,
    DEEPEST,
    DONE,
    ENGINES,
    FREE,
    LENGTH,
    LOAD,
    SIGNALLED,
    STORE,
    STORED,
    USED,
    Course,
)
from codesign.costmodel.native import RowFloat, RowInt, larger, smaller, some, where


def measure(course: Course, cores: RowFloat) -> None:
    """Clocks of the ports for each transfer, of one core and of all that are at work."""
    task = 0
    while task < course.tasks:
        if course.engine[task] == LOAD or course.engine[task] == STORE:
            one = course.moved[task] * 0.0
            whole = one
            port = 0
            while port < course.ports:
                rate = course.read_rate[port]
                if course.engine[task] == STORE and some(course.write_rate[port] > 0.0):
                    rate = course.write_rate[port]
                place = task * course.ports + port
                each = course.moved[task] / rate
                one = larger(one, each)
                at_once = smaller(cores, course.users[port])
                whole = larger(whole, each * larger(at_once * course.portions[place], 1.0))
                if some(course.link_rate[port] > 0.0):
                    each = course.moved[task] / course.link_rate[port]
                    one = larger(one, where(course.links[place] > 0.0, each, 0.0))
                    whole = larger(whole, each * at_once * course.links[place])
                port += 1
            course.one[task] = one
            course.whole[task] = whole
        task += 1


def part(_: Course, came: RowFloat, first: RowFloat, last: RowFloat, length: RowFloat, least: RowFloat) -> RowFloat:
    """Clocks of what was at a port before one that came at a time, when transfers came from `first` to `last`."""
    late = (came - first) / larger(last - first, 1e-9)
    return smaller(larger(late * length, least), length)


def before(course: Course, way: int, came: RowFloat) -> RowFloat:
    """Clocks of what was in a queue at the ports before one that came at a time."""
    first = course.times[CAME + way]
    last = course.times[course.places + CAME + way]
    return part(course, came, first, last, course.port[LENGTH + way], 0.0)


def until(course: Course, way: int, came: RowFloat) -> RowFloat:
    """When the ports are done with what was in a queue before one that came at a time."""
    between = course.port[BEGUN + way] + before(course, way, came)
    done = where(came <= course.times[course.places + CAME + way], between, course.port[DONE + way])
    return where((course.port[USED + way] > 0.0) & (came >= course.times[CAME + way]), done, 0.0)


def give_way(course: Course, task: int, first: RowFloat, last: RowFloat, begins: RowFloat, active: RowInt) -> None:
    """Let a store that came to the port later than a load, though it is earlier in the program, be served after it."""
    one = course.one[task]
    whole = course.whole[task]
    soonest = course.times[CAME + 1]
    latest = course.times[course.places + CAME + 1]
    ahead = part(course, soonest, first, last, whole, one)
    delay = where(first <= soonest, larger(begins + ahead - course.port[BEGUN + 1], 0.0), 0.0)
    both = (
        smaller(begins, course.port[BEGUN + 1])
        + course.port[LENGTH + 1]
        + part(course, latest, first, last, whole, one)
    )
    longer = where(first <= latest, larger(both - course.port[DONE + 1], 0.0), 0.0)
    waits = active & (course.port[USED + 1] > 0.0)
    delay = where(waits, delay, 0.0)
    longer = where(waits, longer, 0.0)
    if not some((delay > 0.0) | (longer > 0.0)):
        return
    course.port[BEGUN + 1] = course.port[BEGUN + 1] + delay
    course.port[DONE + 1] = course.port[DONE + 1] + longer
    core = 0
    while core < 2:
        late = delay if core == 0 else longer
        of = core * course.places
        was = course.times[of + STORED]
        course.times[of + FREE + STORE] = course.times[of + FREE + STORE] + late
        course.times[of + STORED] = was + late
        block = 0
        while block <= course.stages:
            number = ENGINES * block + STORE
            place = of + SIGNALLED + number
            course.times[place] = where(active & (course.times[place] == was), was + late, course.times[place])
            place = of + course.rings + number * DEEPEST
            course.times[place] = where(active & (course.times[place] == was), was + late, course.times[place])
            block += 1
        core += 1


def serve(course: Course, task: int, first: RowFloat, last: RowFloat, active: RowInt) -> None:
    """Find in `pair` when a transfer of all cores ends, that could begin at `first` on one and at `last` on the other: when the engine is
    done, and the ports with what came before this."""
    way = 1 if course.engine[task] == STORE else 0
    other = 1 - way
    one = course.one[task]
    whole = course.whole[task]
    begins = larger(first, until(course, way, first))
    if course.share == 1:
        begins = larger(begins, until(course, other, first))
    end = larger(begins + whole, last + one)
    if course.share == 1:  # those of the last cores come in between
        both = smaller(begins, course.port[BEGUN + other]) + whole + before(course, other, last)
        between = (course.port[USED + other] > 0.0) & (last >= course.times[CAME + other])
        end = where(between, larger(end, both), end)
        if way == 0:
            give_way(course, task, first, last, begins, active)
    course.times[CAME + way] = where(active, first, course.times[CAME + way])
    course.times[course.places + CAME + way] = where(active, last, course.times[course.places + CAME + way])
    course.port[BEGUN + way] = where(active, begins, course.port[BEGUN + way])
    course.port[DONE + way] = where(active, end, course.port[DONE + way])
    course.port[LENGTH + way] = where(active, whole, course.port[LENGTH + way])
    course.port[USED + way] = where(active, 1.0, course.port[USED + way])
    course.pair[0] = larger(first + course.clocks[task], begins + one)
    course.pair[1] = larger(last + course.clocks[task], end)
