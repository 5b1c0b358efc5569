"""A small machine that runs every interleaving of a few threads on relaxed memory, with crashes.

Cold, test only. Memory is that of C11 without load buffering, told by views (Kang et al., "A
promising semantics", without promises). Every place keeps the messages written to it; a thread may
read any that is not older than its view of the place, so loads are as stale and stores as reordered
as a compiler or an ARM core may make them:

    store release    the message carries the writer's view      load acquire   takes that view over
    store relaxed    carries the view of the last fence         load relaxed   keeps it for a fence
    fence acquire    takes over what relaxed loads kept
    fence seq_cst    the same, and joins and exports one view common to all such fences

A crash replaces a thread at any step by its successor, which starts with everything visible (a new
process does). What is `ghost` survives crashes and costs no step: a journal, or what the test wants
to remember. Kernel objects (an eventfd) are places that are only added to and taken from.

A protocol is wrong if some step raises Broken, or if some state is left from which the goal cannot
be reached any more (lost, stuck). Not modelled: a store overtaking an earlier load (load
buffering), for which test_ring_memory_order.py reads the compiled code.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

RELAXED, ACQUIRE, RELEASE, SEQ_CST = "relaxed", "acquire", "release", "seq_cst"
STATES_MAX = 400_000

View = tuple[int, ...]
Local = tuple[Any, ...]
Ghost = tuple[Any, ...]
Then = Callable[[Any], tuple[Local, Ghost]]


class Broken(Exception):
    """The protocol did what it must not; `trace` tells how."""

    def __init__(self, what: str, trace: list[str] | None = None) -> None:
        self.trace = trace or []
        super().__init__("\n  ".join([what, *self.trace]))


class Load(NamedTuple):
    place: int
    order: str
    then: Then


class Store(NamedTuple):
    place: int
    value: int
    order: str
    then: Then


class Fence(NamedTuple):
    order: str
    then: Then


class Swap(NamedTuple):
    """Compare and swap; `then` gets whether it succeeded."""

    place: int
    expected: int
    value: int
    then: Then


class Signal(NamedTuple):
    """Add to a kernel object."""

    place: int
    then: Then


class Sleep(NamedTuple):
    """Wait until a kernel object is signalled, and take the signals."""

    place: int
    then: Then


class Note(NamedTuple):
    """A step without memory: private work, the journal."""

    then: Then


class Done(NamedTuple):
    """The thread has ended."""


Operation = Load | Store | Fence | Swap | Signal | Sleep | Note | Done


class Program(NamedTuple):
    """A thread: its first local state, its next operation, and its successor after a crash."""

    name: str
    start: Local
    step: Callable[[Local, Ghost], Operation]
    restart: Callable[[Local], Local] | None = None


class Protocol(NamedTuple):
    """What is explored: initial values of the places, threads, goal."""

    places: tuple[int, ...]
    programs: tuple[Program, ...]
    ghost: Ghost
    goal: Callable[[tuple[Local, ...], Ghost], bool]
    crashes: int = 0


class _Thread(NamedTuple):
    local: Local
    view: View  # per place: the oldest message it may still read
    kept: View  # what relaxed loads saw, for a later acquire fence
    fenced: View  # view at the last release or seq_cst fence


class _State(NamedTuple):
    memory: tuple[tuple[tuple[int, View], ...], ...]  # per place: messages (value, view)
    threads: tuple[_Thread, ...]
    common: View  # of all seq_cst fences
    ghost: Ghost
    crashes: int


def _join(one: View, other: View) -> View:
    return one if one == other else tuple(map(max, one, other))


def _at(view: View, place: int, stamp: int) -> View:
    return (*view[:place], max(view[place], stamp), *view[place + 1 :])


def _normal(state: _State) -> _State:
    # Forget messages nobody can read any more and count stamps from the oldest that is left:
    # states that differ in the past alone become one.
    base = tuple(min(column) for column in zip(*(t.view for t in state.threads), strict=True))
    if not any(base):
        return state

    def shift(view: View) -> View:
        return tuple([max(v - b, 0) for v, b in zip(view, base, strict=True)])

    memory = tuple(
        tuple([(value, shift(view)) for value, view in messages[b:]])
        for messages, b in zip(state.memory, base, strict=True)
    )
    threads = tuple([_Thread(t.local, *map(shift, t[1:])) for t in state.threads])
    return state._replace(memory=memory, threads=threads, common=shift(state.common))


def _append(state: _State, place: int, value: int, view: View) -> tuple[Any, View]:
    # The memory with one message more, and its view including itself.
    messages = state.memory[place]
    own = _at(view, place, len(messages))
    memory = (
        *state.memory[:place],
        (*messages, (value, own)),
        *state.memory[place + 1 :],
    )
    return memory, own


def _loads(thread: _Thread, state: _State, op: Load) -> Iterator[tuple[_Thread, int]]:
    messages = state.memory[op.place]
    for stamp in range(thread.view[op.place], len(messages)):
        value, carried = messages[stamp]
        view = _at(thread.view, op.place, stamp)
        kept = _join(_join(thread.kept, carried), view)
        if op.order == ACQUIRE:
            view = kept = _join(view, carried)
            kept = _join(kept, thread.kept)
        yield thread._replace(view=view, kept=kept), value


def _successors(state: _State, index: int, op: Operation) -> Iterator[tuple[str, _State]]:
    thread = state.threads[index]

    def after(
        then: Then, result: Any, changed: _Thread, memory: Any = None, common: View | None = None
    ) -> _State:
        local, ghost = then(result)
        threads = list(state.threads)
        threads[index] = changed._replace(local=local)
        return _State(
            state.memory if memory is None else memory,
            tuple(threads),
            state.common if common is None else common,
            ghost,
            state.crashes,
        )

    if isinstance(op, Load):
        for changed, value in _loads(thread, state, op):
            yield f"reads {value} at place {op.place}", after(op.then, value, changed)
    elif isinstance(op, Store):
        carried = thread.view if op.order == RELEASE else thread.fenced
        memory, _ = _append(state, op.place, op.value, carried)
        stamp = len(state.memory[op.place])
        changed = thread._replace(
            view=_at(thread.view, op.place, stamp), kept=_at(thread.kept, op.place, stamp)
        )
        yield f"writes {op.value} at place {op.place}", after(op.then, None, changed, memory)
    elif isinstance(op, Fence):
        view = _join(thread.view, thread.kept)
        common = state.common
        if op.order == SEQ_CST:
            view = common = _join(view, common)
        fenced = thread.fenced if op.order == ACQUIRE else view
        changed = thread._replace(view=view, kept=view, fenced=fenced)
        yield f"{op.order} fence", after(op.then, None, changed, None, common)
    elif isinstance(op, Swap | Signal | Sleep):
        yield from _read_modify_write(state, thread, op, after)
    elif isinstance(op, Note):
        yield "works", after(op.then, None, thread)


def _read_modify_write(
    state: _State, thread: _Thread, op: Swap | Signal | Sleep, after: Callable[..., _State]
) -> Iterator[tuple[str, _State]]:
    messages = state.memory[op.place]
    latest, carried = messages[-1]
    if isinstance(op, Swap):
        for changed, value in _loads(thread, state, Load(op.place, ACQUIRE, op.then)):
            if value != op.expected:
                yield f"swap fails at place {op.place}", after(op.then, False, changed)
        if latest != op.expected:
            return
        value = op.value
    elif isinstance(op, Signal):
        value = latest + 1
    elif latest == 0:
        return  # asleep
    else:
        value = 0
    memory, view = _append(state, op.place, value, _join(thread.view, carried))
    changed = thread._replace(view=view, kept=_join(thread.kept, view))
    what = type(op).__name__.lower()
    yield f"{what} at place {op.place}: {value}", after(op.then, True, changed, memory)


def _crashes(protocol: Protocol, state: _State) -> Iterator[tuple[str, _State]]:
    if state.crashes == 0:
        return
    newest = tuple(len(messages) - 1 for messages in state.memory)
    for index, program in enumerate(protocol.programs):
        if program.restart is not None:
            local = program.restart(state.threads[index].local)
            threads = list(state.threads)
            threads[index] = _Thread(local, newest, newest, newest)
            yield (
                f"{program.name} crashes, its successor starts",
                state._replace(threads=tuple(threads), crashes=state.crashes - 1),
            )


def _moves(protocol: Protocol, state: _State) -> Iterator[tuple[str, _State]]:
    for index, program in enumerate(protocol.programs):
        op = program.step(state.threads[index].local, state.ghost)
        for what, following in _successors(state, index, op):
            yield f"{program.name} {what}", following
    yield from _crashes(protocol, state)


class _Graph:
    # States by number, in order of discovery, and the steps between them.
    def __init__(self, first: _State) -> None:
        self.states = [first]
        self._numbers = {first: 0}
        self._reached_by: list[tuple[int, str]] = [(0, "")]
        self.comes_from: list[list[int]] = [[]]

    def add(self, before: int, what: str, state: _State) -> None:
        number = self._numbers.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self._reached_by.append((before, what))
            self.comes_from.append([])
        self.comes_from[number].append(before)

    def trace(self, number: int) -> list[str]:
        steps = []
        while number:
            number, what = self._reached_by[number]
            steps.append(what)
        return steps[::-1]


def explore(protocol: Protocol) -> int:
    """Run everything that can happen; returns the number of states or raises Broken."""
    zero = (0,) * len(protocol.places)
    threads = tuple(_Thread(p.start, zero, zero, zero) for p in protocol.programs)
    memory = tuple(((value, zero),) for value in protocol.places)
    graph = _Graph(_State(memory, threads, zero, protocol.ghost, protocol.crashes))
    number = 0
    while number < len(graph.states):  # breadth first: the list is the queue
        try:
            for what, following in _moves(protocol, graph.states[number]):
                graph.add(number, what, _normal(following))
        except Broken as broken:
            raise Broken(str(broken), graph.trace(number)) from None
        number += 1
        assert number < STATES_MAX, "the protocol is too large to explore"
    _check_goal_stays_reachable(protocol, graph)
    return number


def _check_goal_stays_reachable(protocol: Protocol, graph: _Graph) -> None:
    def reached(state: _State) -> bool:
        return protocol.goal(tuple(t.local for t in state.threads), state.ghost)

    good = [reached(state) for state in graph.states]
    todo = [number for number, is_good in enumerate(good) if is_good]
    if not todo:
        raise Broken("the goal is never reached")
    while todo:
        for before in graph.comes_from[todo.pop()]:
            if not good[before]:
                good[before] = True
                todo.append(before)
    if not all(good):
        number = good.index(False)  # discovered first: the shortest trace
        state = graph.states[number]
        where = [t.local for t in state.threads]
        raise Broken(f"stuck: {where} {state.ghost}", graph.trace(number))
