"""Every interleaving and crash of the ring protocols, on relaxed memory; and of wrong ones.

Each protocol is written out step by step as engine/command_ring.py, event_ring.py, ring_words.py
and book_top.py do it. `wrong` names one planted error: every one must be found, otherwise the
exploration proves nothing.
"""

from collections.abc import Callable

import pytest

from tests.engine.ring_machine import (
    ACQUIRE,
    RELAXED,
    RELEASE,
    SEQ_CST,
    Broken,
    Done,
    Fence,
    Ghost,
    Load,
    Local,
    Note,
    Operation,
    Program,
    Protocol,
    Signal,
    Sleep,
    Store,
    Swap,
    explore,
)

CAPACITY = 2


# ------------------------------------------------------------------------------------ command ring
# Places: per slot the readiness word and two payload words; consumer and producer position.
# Ghost: (published values by position, journal of the consumer).
COMMANDS = 3
HEAD, TAIL = 3 * CAPACITY, 3 * CAPACITY + 1


def word(position: int) -> int:
    return 3 * (position % CAPACITY)


def command_producer(wrong: str) -> Program:
    # Local: (step, position, known consumer position, incarnation).
    def step(local: Local, ghost: Ghost) -> Operation:
        name, position, known, life = local
        published, journal = ghost
        value = 10 * (position + 1) + life
        place = word(position)

        def to(following: str) -> Callable[[object], tuple[Local, Ghost]]:
            return lambda _: ((following, position, known, life), ghost)

        def ready(_: object) -> tuple[Local, Ghost]:
            # The value as it stands when the word is written is what was promised.
            following = "b" if wrong == "readiness word first" else "room"
            ahead = 0 if wrong == "readiness word first" else 1
            return (following, position + ahead, known, life), ((*published, value), journal)

        if name == "scan start":
            start = TAIL if wrong == "successor trusts the producer position" else HEAD
            return Load(start, ACQUIRE, lambda v: (("scan", v, v, life), ghost))
        if name == "scan":

            def scanned(found: int) -> tuple[Local, Ghost]:
                if found == position + 1 and position - known < CAPACITY:
                    return ("scan", position + 1, known, life), ghost
                return ("room", position, known, life), ghost

            return Load(place, ACQUIRE, scanned)
        if name == "room":
            if position == COMMANDS:
                return Done()
            if position - known < CAPACITY or wrong == "no look for room":
                first = "ready" if wrong == "readiness word first" else "a"
                return Note(to(first))
            return Load(HEAD, ACQUIRE, lambda v: (("room", position, v, life), ghost))
        if name == "a":
            return Store(place + 1, value, RELAXED, to("b"))
        if name == "b" and wrong == "readiness word first":
            advanced = ("room", position + 1, known, life)
            return Store(place + 2, value, RELAXED, lambda _: (advanced, ghost))
        if name == "b":
            return Store(place + 2, value, RELAXED, to("tail"))
        if name == "tail":  # once per batch; here the batch is one, and a crash may come before
            return Store(TAIL, position, RELAXED, to("ready"))
        order = RELAXED if wrong == "readiness word stored relaxed" else RELEASE
        return Store(place, position + 1, order, ready)

    def restart(local: Local) -> Local:
        return ("scan start", 0, 0, local[3] + 1)

    return Program("producer", ("room", 0, 0, 0), step, restart)


def command_consumer(wrong: str) -> Program:
    # Local: (step, position, position stored in HEAD, payload read). Stores HEAD once per batch:
    # when it finds nothing more, or holds a whole ring.
    early = wrong == "position stored before the work"

    def step(local: Local, ghost: Ghost) -> Operation:
        name, position, stored, payload = local
        published, journal = ghost
        place = word(position)

        def looked(found: int) -> tuple[Local, Ghost]:
            if found == position + 1:
                return ("a", position, stored, ()), ghost
            return ("release" if position != stored else "look", position, stored, ()), ghost

        def worked(_: object) -> tuple[Local, Ghost]:
            entries = journal
            if wrong == "no deduplication" or position >= len(journal):
                if payload[0] != payload[1] or payload[0] != published[position]:
                    raise Broken(f"command {position} torn: {payload}, sent {published}")
                entries = (*journal, payload[0])
                if entries != published[: len(entries)]:
                    raise Broken(f"journal {entries}, sent {published}")
            full = position + 1 - stored == CAPACITY
            after = "release" if full else "look"
            return (after, position + 1, stored, ()), (published, entries)

        if name == "resume":
            return Load(HEAD, ACQUIRE, lambda v: (("look", v, v, ()), ghost))
        if name == "look":
            if position == COMMANDS and position == stored:
                return Done()
            order = RELAXED if wrong == "readiness word read relaxed" else ACQUIRE
            return Load(place, order, looked)
        if name in ("a", "b"):
            following = "b" if name == "a" else "release" if early else "work"
            offset = 1 if name == "a" else 2
            return Load(
                place + offset,
                RELAXED,
                lambda v: ((following, position, stored, (*payload, v)), ghost),
            )
        if name == "work":
            return Note(worked)
        if early and payload:
            done = ("work", position, position + 1, payload)
            return Store(HEAD, position + 1, RELEASE, lambda _: (done, ghost))
        return Store(HEAD, position, RELEASE, lambda _: (("look", position, position, ()), ghost))

    def restart(local: Local) -> Local:
        return ("resume", 0, 0, ())

    return Program("consumer", ("look", 0, 0, ()), step, restart)


def command_ring(wrong: str = "", crashes: int = 2) -> Protocol:
    def goal(locals_: tuple[Local, ...], ghost: Ghost) -> bool:
        return len(ghost[1]) == COMMANDS == locals_[1][2]

    programs = (command_producer(wrong), command_consumer(wrong))
    return Protocol((0,) * (TAIL + 1), programs, ((), ()), goal, crashes)


WRONG_COMMAND_RINGS = {
    "readiness word first": "command 0 torn",
    "readiness word stored relaxed": "command 0 torn",
    "readiness word read relaxed": "command 0 torn",
    "no look for room": "command 0 torn",
    "position stored before the work": r"journal \(20,\), sent \(10, 20\)",  # 10 is lost
    "no deduplication": r"journal \(10, 10\), sent \(10,\)",  # 10 ran twice
    "successor trusts the producer position": "command 0 torn",
}


@pytest.mark.slow
def test_command_ring_runs_every_command_once_whole_in_order_whoever_dies_twice() -> None:
    assert explore(command_ring()) > 5_000


@pytest.mark.parametrize(("wrong", "how"), WRONG_COMMAND_RINGS.items())
def test_wrong_command_ring_is_found(wrong: str, how: str) -> None:
    with pytest.raises(Broken, match=how):
        explore(command_ring(wrong))


# -------------------------------------------------------------------------------------- event ring
# Places: per slot two payload words; intent, committed. Events are what replay makes them: the
# same values whoever writes. The writer works in batches of the sizes below.
BATCHES = (1, 2, 1)
EVENTS = sum(BATCHES)
INTENT, COMMITTED = 2 * CAPACITY, 2 * CAPACITY + 1


def event_writer(wrong: str) -> Program:
    # Local: (step, next position to write, end of the batch, intent known, batches of one event).
    # A successor writes event by event: its batches need not be those of the dead one.
    ends = [sum(BATCHES[: i + 1]) for i in range(len(BATCHES))]
    intent_late = wrong == "intent stored after the overwrite"

    def step(local: Local, ghost: Ghost) -> Operation:
        name, position, end, known, single = local

        def to(following: str, at: int = position) -> Callable[[object], tuple[Local, Ghost]]:
            return lambda _: ((following, at, end, max(known, end), single), ghost)

        if name == "resume":
            return Load(INTENT, RELAXED, lambda v: (("resume 2", 0, 0, v, True), ghost))
        if name == "resume 2":
            return Load(COMMITTED, RELAXED, lambda v: (("batch", v, v, known, True), ghost))
        if name == "batch":
            if position == EVENTS:
                return Done()
            following = position + 1 if single else next(e for e in ends if e > position)
            first = "a" if intent_late else "intent"
            return Note(lambda _: ((first, position, following, known, single), ghost))
        if name == "intent":
            after = "a" if wrong == "no fence of the writer" else "fence"
            after = "commit" if intent_late else after
            if end <= known and wrong != "successor lowers intent":
                return Note(to(after))
            return Store(INTENT, end, RELAXED, to(after))
        if name == "fence":
            return Fence(SEQ_CST, to("a"))
        place = 2 * (position % CAPACITY)
        if name == "a":
            return Store(place, position + 1, RELAXED, to("b"))
        if name == "b":
            last = "intent" if intent_late else "commit"
            after = last if position + 1 == end else "a"
            return Store(place + 1, position + 1, RELAXED, to(after, position + 1))
        order = RELAXED if wrong == "committed stored relaxed" else RELEASE
        return Store(COMMITTED, end, order, to("batch"))

    def restart(local: Local) -> Local:
        return ("resume", 0, 0, 0, True)

    return Program("writer", ("batch", 0, 0, 0, False), step, restart)


def event_reader(wrong: str) -> Program:
    # Local: (step, cursor, committed seen, words copied).
    def step(local: Local, ghost: Ghost) -> Operation:
        name, cursor, seen, copied = local
        count = len(copied) // 2

        def looked(found: int) -> tuple[Local, Ghost]:
            if found - cursor > CAPACITY:
                return ("lapped", cursor, found, ()), ghost
            return ("copy" if found > cursor else "look", cursor, found, ()), ghost

        def checked(limit: int) -> tuple[Local, Ghost]:
            if limit - CAPACITY > cursor and wrong != "no recheck":
                return ("lapped", cursor, seen, ()), ghost
            expected = tuple(p + 1 for p in range(cursor, seen) for _ in range(2))
            if copied != expected:
                raise Broken(f"accepted {copied} for positions {cursor} to {seen}")
            return ("look", seen, seen, ()), ghost

        if name in ("look", "lapped"):
            if cursor == EVENTS:
                return Done()
            order = RELAXED if wrong == "committed read relaxed" else ACQUIRE
            if name == "lapped":
                return Load(COMMITTED, order, lambda v: (("look", v, v, ()), ghost))
            return Load(COMMITTED, order, looked)
        if name == "copy":
            if count == seen - cursor and len(copied) % 2 == 0:
                following = "check" if wrong == "no fence of the reader" else "fence"
                return Note(lambda _: ((following, cursor, seen, copied), ghost))
            place = 2 * ((cursor + count) % CAPACITY) + len(copied) % 2
            return Load(place, RELAXED, lambda v: (("copy", cursor, seen, (*copied, v)), ghost))
        if name == "fence":
            return Fence(ACQUIRE, lambda _: (("check", cursor, seen, copied), ghost))
        place = COMMITTED if wrong == "recheck against committed" else INTENT
        return Load(place, RELAXED, checked)

    return Program("reader", ("look", 0, 0, ()), step)


def event_ring(wrong: str = "", crashes: int = 2) -> Protocol:
    def goal(locals_: tuple[Local, ...], ghost: Ghost) -> bool:
        return locals_[1][1] == EVENTS

    places = (0,) * (COMMITTED + 1)
    return Protocol(places, (event_writer(wrong), event_reader(wrong)), (), goal, crashes)


WRONG_EVENT_RINGS = [
    "intent stored after the overwrite",
    "no fence of the writer",
    "no fence of the reader",
    "no recheck",
    "recheck against committed",
    "successor lowers intent",
    "committed stored relaxed",
    "committed read relaxed",
]


@pytest.mark.slow
def test_event_ring_reader_never_accepts_a_torn_event_whoever_dies_twice() -> None:
    assert explore(event_ring()) > 5_000


@pytest.mark.parametrize("wrong", WRONG_EVENT_RINGS)
def test_wrong_event_ring_is_found(wrong: str) -> None:
    with pytest.raises(Broken, match="accepted"):
        explore(event_ring(wrong))


# --------------------------------------------------------------------------------- sleep handshake
# No time-out in the model: a lost wake-up is a sleeper for ever.
WORK, FLAG, EVENTFD = range(3)


def publisher(wrong: str, items_max: int) -> Program:
    # Local: (step, items published).
    def step(local: Local, ghost: Ghost) -> Operation:
        name, count = local

        def to(following: str, items: int = count) -> Callable[[object], tuple[Local, Ghost]]:
            return lambda _: ((following, items), ghost)

        if name == "resume":
            return Load(WORK, ACQUIRE, lambda v: (("first signal", v), ghost))
        if name == "first signal":
            if wrong == "successor does not signal":
                return Note(to("publish"))
            return Signal(EVENTFD, to("publish"))
        if name == "publish":
            if count == items_max:
                return Done()
            following = "look" if wrong == "no fence of the publisher" else "fence"
            return Store(WORK, count + 1, RELEASE, to(following, count + 1))
        if name == "fence":
            return Fence(SEQ_CST, to("look"))
        if name == "look":
            return Load(FLAG, RELAXED, lambda v: (("swap" if v == 1 else "publish", count), ghost))
        if name == "swap":
            return Swap(FLAG, 1, 0, lambda ok: (("signal" if ok else "publish", count), ghost))
        return Signal(EVENTFD, to("publish"))

    return Program("publisher", ("publish", 0), step, lambda _: ("resume", 0))


def sleeper(wrong: str, items_max: int) -> Program:
    # Local: (step, items seen).
    def step(local: Local, ghost: Ghost) -> Operation:
        name, seen = local

        def to(following: str) -> Callable[[object], tuple[Local, Ghost]]:
            return lambda _: ((following, seen), ghost)

        if name == "look":
            if seen == items_max:
                return Done()
            late = wrong == "flag set after the last look"
            following = "announce" if not late else "look again"
            return Load(WORK, ACQUIRE, lambda v: (("look" if v > seen else following, v), ghost))
        if name == "announce":
            following = "fence"
            if wrong == "no fence of the sleeper":
                following = "look again"
            if wrong in ("no last look", "flag set after the last look"):
                following = "sleep"
            return Store(FLAG, 1, RELAXED, to(following))
        if name == "fence":
            return Fence(SEQ_CST, to("look again"))
        if name == "look again":
            empty = "announce" if wrong == "flag set after the last look" else "sleep"
            return Load(WORK, ACQUIRE, lambda v: (("awake" if v > seen else empty, seen), ghost))
        if name == "sleep":
            return Sleep(EVENTFD, to("awake"))
        return Store(FLAG, 0, RELAXED, to("look"))

    return Program("sleeper", ("look", 0), step)


def handshake(wrong: str = "", items: int = 3, crashes: int = 2) -> Protocol:
    def goal(locals_: tuple[Local, ...], ghost: Ghost) -> bool:
        return locals_[1][1] == items

    programs = (publisher(wrong, items), sleeper(wrong, items))
    return Protocol((0, 0, 0), programs, (), goal, crashes)


WRONG_HANDSHAKES = [
    "no fence of the publisher",
    "no fence of the sleeper",
    "no last look",
    "flag set after the last look",
    "successor does not signal",
]


@pytest.mark.slow
def test_sleeper_always_wakes_whenever_the_publisher_dies() -> None:
    assert explore(handshake()) > 500


@pytest.mark.parametrize("wrong", WRONG_HANDSHAKES)
def test_wrong_handshake_is_found(wrong: str) -> None:
    with pytest.raises(Broken, match="stuck"):
        explore(handshake(wrong, items=2, crashes=1))


# ---------------------------------------------------------------------------------- top of the book
VERSION, FIRST, SECOND = range(3)
PICTURES = 2


def top_writer(wrong: str) -> Program:
    # Local: (step, pictures written, version known). A successor goes on with the next picture.
    def step(local: Local, ghost: Ghost) -> Operation:
        name, picture, version = local
        value = picture + 1

        def to(following: str, known: int = version) -> Callable[[object], tuple[Local, Ghost]]:
            return lambda _: ((following, picture, known), ghost)

        if name == "begin":
            if picture == PICTURES:
                return Done()
            return Load(VERSION, RELAXED, lambda v: (("odd", picture, v), ghost))
        if name == "odd":
            odd = version + 1 if wrong == "version counted up, not made odd" else version | 1
            following = "a" if wrong == "no fence of the writer" else "fence"
            return Store(VERSION, odd, RELAXED, to(following, odd))
        if name == "fence":
            return Fence(SEQ_CST, to("a"))
        if name == "a":
            return Store(FIRST, value, RELAXED, to("b"))
        if name == "b":
            return Store(SECOND, value, RELAXED, to("even"))
        order = RELAXED if wrong == "version stored relaxed" else RELEASE
        done = ("begin", picture + 1, version + 1)
        return Store(VERSION, version + 1, order, lambda _: (done, ghost))

    # The dead one's last picture may be half there; another value shows whose words are whose.
    def restart(local: Local) -> Local:
        return ("begin", min(local[1] + 1, PICTURES - 1), 0)

    return Program("writer", ("begin", 0, 0), step, restart)


def top_reader(wrong: str) -> Program:
    # Local: (step, version, words, last whole picture). It reads until it has the last one.
    def step(local: Local, ghost: Ghost) -> Operation:
        name, version, words, whole = local

        def looked(found: int) -> tuple[Local, Ghost]:
            return ("begin" if found & 1 else "a", found, (), whole), ghost

        def checked(found: int) -> tuple[Local, Ghost]:
            if found != version and wrong != "no recheck":
                return ("begin", 0, (), whole), ghost
            if words[0] != words[1]:
                raise Broken(f"accepted a torn picture: {words}")
            return ("begin", 0, (), words[0]), ghost

        if name == "begin":
            if whole == PICTURES:
                return Done()
            order = RELAXED if wrong == "version read relaxed" else ACQUIRE
            return Load(VERSION, order, looked)
        if name in ("a", "b"):
            place = FIRST if name == "a" else SECOND
            last = "check" if wrong == "no fence of the reader" else "fence"
            following = "b" if name == "a" else last
            return Load(place, RELAXED, lambda v: ((following, version, (*words, v), whole), ghost))
        if name == "fence":
            return Fence(ACQUIRE, lambda _: (("check", version, words, whole), ghost))
        return Load(VERSION, RELAXED, checked)

    return Program("reader", ("begin", 0, (), 0), step)


def book_top(wrong: str = "", crashes: int = 2) -> Protocol:
    def goal(locals_: tuple[Local, ...], ghost: Ghost) -> bool:
        return locals_[1][3] == PICTURES

    return Protocol((0, 0, 0), (top_writer(wrong), top_reader(wrong)), (), goal, crashes)


WRONG_BOOK_TOPS = [
    "no fence of the writer",
    "no fence of the reader",
    "no recheck",
    "version counted up, not made odd",
    "version stored relaxed",
    "version read relaxed",
]


@pytest.mark.slow
def test_book_top_is_read_whole_or_not_whoever_dies_twice() -> None:
    assert explore(book_top()) > 500


@pytest.mark.parametrize("wrong", WRONG_BOOK_TOPS)
def test_wrong_book_top_is_found(wrong: str) -> None:
    with pytest.raises(Broken, match="accepted a torn picture"):
        explore(book_top(wrong))
