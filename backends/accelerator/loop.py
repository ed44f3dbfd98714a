"""The clock's loop over a program's issues: what begins when, as numbers in flat arrays.

What a core does follows from its own past by sums and maxima, as long as nothing passes the memories that cores share. So only transfers wait
for their turn among all cores, by the clock at which they could start (then by core, then by engine); the earliest is served, and its core is
worked out as far as it is known from there. Engines take turns in the same way whose next issue waits for a semaphore that several engines signal:
which signal is the n-th is known only when the time has come.

Written in the part of Python that `native` translates.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.backends.accelerator.flat import Ints
from codesign.backends.accelerator.timing import Floats
from codesign.costmodel.native import Routine
from codesign.ir.program import ENGINES

KINDS = len(ENGINES)
NEVER = 1e300
NOTHING, ANY = -1, -2
"""What an engine that isn't blocked waits for, and one that waits for whichever of its semaphores."""


@dataclass
class Run:
    """A program and how far it has come. An engine's number is `KINDS * core + kind`; -1 stands for none.

    By issue: its `number` (of the instruction), `engine`, the `next` of that engine and the one `depth` before it (whose start makes it
    room), `gap` (clocks of the control processor), `clocks` of the engine, `route` (of a transfer), `gang` (loads that cores make together,
    else 0) and its `members`, and for each position of a wait, one after the other, what it `needs`; worked out: `ready`, `start`, `finish`,
    and `began` (when it was at the head of its queue and its engine free).
    By core and instruction: `unsure` (it waits for what several engines signal), `waited` (by position, its semaphores), and up to
    `signal_end` those that it signals. By semaphore: where its `times` begin, how many were `signalled`, and up to `waiters_end` the engines that
    may wait. By route, up to `route_end`: ways, and what each `takes`; by way, until when it is `busy`.
    By engine: the `head` of its queue, how many are `waiting`, until when it is not `free`, what it is `blocked` on, whether it is `listed`
    in `work`, the `turn` that it waits for, whether that is for being `asked` again; `winners`: a tree, in whose root is the engine with the earliest
    turn. By gang: how many `met`, and who came last, after whom.
    """

    cores: int
    depth: int
    issues: int
    numbers: int
    positions: int
    leaves: int
    working: int
    stop: Ints
    at: Ints
    issued: Floats
    full: Ints
    latency: Floats
    number: Ints
    engine: Ints
    next: Ints
    before: Ints
    gap: Floats
    clocks: Floats
    route: Ints
    gang: Ints
    members: Ints
    needs: Ints
    ready: Floats
    start: Floats
    finish: Floats
    began: Floats
    unsure: Ints
    waited: Ints
    signal_end: Ints
    signals: Ints
    times_begin: Ints
    signalled: Ints
    times: Floats
    waiters_end: Ints
    waiters: Ints
    route_end: Ints
    ways: Ints
    takes: Floats
    busy: Floats
    head: Ints
    waiting: Ints
    free: Floats
    blocked: Ints
    listed: Ints
    work: Ints
    turn: Floats
    asked: Ints
    winners: Ints
    met: Ints
    last_met: Ints
    met_before: Ints


def push(run: Run, engine: int) -> None:
    """Have an engine looked at."""
    if run.listed[engine] == 0:
        run.listed[engine] = 1
        run.work[run.working] = engine
        run.working += 1


def take_turn(run: Run, engine: int, time: float, asked: int) -> None:
    """Put an engine into the order of turns, or out of it (NEVER)."""
    run.turn[engine] = time
    run.asked[engine] = asked
    place = (run.leaves + engine) // 2
    while place > 0:
        left = run.winners[2 * place]
        right = run.winners[2 * place + 1]
        first = left
        if run.turn[right] < run.turn[left]:
            first = right
        elif run.turn[right] == run.turn[left] and run.asked[right] > run.asked[left]:
            first = right
        run.winners[place] = first
        place = place // 2


def issue_some(run: Run, core: int) -> None:
    """Let a control processor issue until a queue is full."""
    at = run.at[core]
    time = run.issued[core]
    run.full[core] = NOTHING
    while at < run.stop[core]:
        engine = run.engine[at]
        if run.waiting[engine] >= run.depth:
            run.full[core] = engine
            break
        time += run.gap[at]
        before = run.before[at]
        if before >= 0 and run.start[before] > time:
            time = run.start[before]
        run.ready[at] = time
        if run.waiting[engine] == 0:
            push(run, engine)
        run.waiting[engine] += 1
        at += 1
    run.at[core] = at
    run.issued[core] = time


def begin(run: Run, engine: int, start: float, finish: float) -> None:
    """The head of a queue begins."""
    issue = run.head[engine]
    run.began[issue] = run.free[engine] if run.free[engine] > run.ready[issue] else run.ready[issue]
    run.start[issue] = start
    run.finish[issue] = finish
    run.free[engine] = finish
    run.head[engine] = run.next[issue]
    run.waiting[engine] -= 1


def signal(run: Run, issue: int, time: float) -> None:
    """Give an issue's signals at a clock, which sets those to work who wait."""
    row = run.engine[issue] // KINDS * run.numbers + run.number[issue]
    index = run.signal_end[row - 1] if row > 0 else 0
    while index < run.signal_end[row]:
        semaphore = run.signals[index]
        first = run.times_begin[semaphore]
        place = first + run.signalled[semaphore]
        while place > first and run.times[place - 1] > time:
            run.times[place] = run.times[place - 1]
            place -= 1
        run.times[place] = time
        run.signalled[semaphore] += 1
        waiter = run.waiters_end[semaphore - 1] if semaphore > 0 else 0
        while waiter < run.waiters_end[semaphore]:
            engine = run.waiters[waiter]
            if run.blocked[engine] == semaphore or run.blocked[engine] == ANY:
                run.blocked[engine] = NOTHING
                push(run, engine)
            waiter += 1
        index += 1


def held(run: Run, issue: int) -> float:
    """When an issue's waits hold; NEVER where a signal is missing yet, which its engine is then blocked on."""
    row = (run.engine[issue] // KINDS * run.numbers + run.number[issue]) * run.positions
    time = 0.0
    position = 0
    while position < run.positions:
        needs = run.needs[position * run.issues + issue]
        if needs > 0:
            semaphore = run.waited[row + position]
            if needs > run.signalled[semaphore]:
                run.blocked[run.engine[issue]] = semaphore
                return NEVER
            signalled = run.times[run.times_begin[semaphore] + needs - 1]
            if signalled > time:
                time = signalled
        position += 1
    return time


def settle(run: Run, sure: int, now: float) -> None:
    """Work out what follows for the engines in `work`, and for those that wait for them; of `sure`, all signals up to `now` are known."""
    while run.working > 0:
        run.working -= 1
        engine = run.work[run.working]
        run.listed[engine] = 0
        run.blocked[engine] = NOTHING
        if run.turn[engine] < NEVER and run.asked[engine] == 0:
            continue
        while run.waiting[engine] > 0:
            issue = run.head[engine]
            start = held(run, issue)
            if start == NEVER:
                break
            if run.ready[issue] > start:
                start = run.ready[issue]
            if run.free[engine] > start:
                start = run.free[engine]
            core = engine // KINDS
            if run.unsure[core * run.numbers + run.number[issue]] == 1 and (engine != sure or start > now):
                run.blocked[engine] = ANY
                take_turn(run, engine, start, 1)
                break
            if run.route[issue] >= 0:
                take_turn(run, engine, start, 0)
                break
            sure = NOTHING
            finish = start + run.clocks[issue]
            begin(run, engine, start, finish)
            signal(run, issue, finish)
            if run.full[core] == engine:
                issue_some(run, core)


def serve(run: Run, issue: int, now: float) -> float:
    """Pass what is in a transfer's way; returns when all of it has passed."""
    finish: float = now + run.clocks[issue]
    route = run.route[issue]
    place = run.route_end[route - 1] if route > 0 else 0
    while place < run.route_end[route]:
        way = run.ways[place]
        served = run.busy[way] if run.busy[way] > now else now
        served += run.takes[place]
        run.busy[way] = served
        if served > finish:
            finish = served
        place += 1
    return finish


def transfer(run: Run, engine: int, now: float, finish: float) -> None:
    """A transfer at the head of a queue begins."""
    issue = run.head[engine]
    core = engine // KINDS
    begin(run, engine, now, finish)
    push(run, engine)
    signal(run, issue, finish + run.latency[core])
    if run.full[core] == engine:
        issue_some(run, core)


def meet(run: Run, engine: int, now: float) -> None:
    """An engine is ready for a load that cores make together; the last one to be so begins it."""
    issue = run.head[engine]
    gang = run.gang[issue]
    run.met[gang] += 1
    run.met_before[engine] = run.last_met[gang]
    run.last_met[gang] = engine
    if run.met[gang] < run.members[issue]:
        return
    finish = serve(run, issue, now)
    run.met[gang] = 0
    run.last_met[gang] = NOTHING
    other = engine
    while other >= 0:
        transfer(run, other, now, finish)
        other = run.met_before[other]


def advance(run: Run) -> None:
    """To the last event, or to where nothing can go on."""
    core = 0
    while core < run.cores:
        issue_some(run, core)
        core += 1
    settle(run, NOTHING, 0.0)
    while run.turn[run.winners[1]] < NEVER:
        engine = run.winners[1]
        now = run.turn[engine]
        asked = run.asked[engine]
        take_turn(run, engine, NEVER, 0)
        if asked == 1:
            push(run, engine)
            settle(run, engine, now)
        else:
            issue = run.head[engine]
            if run.gang[issue] > 0:
                meet(run, engine, now)
            else:
                transfer(run, engine, now, serve(run, issue, now))
            settle(run, NOTHING, now)


advance_all = Routine(Run, push, take_turn, issue_some, begin, signal, held, settle, serve, transfer, meet, advance)
