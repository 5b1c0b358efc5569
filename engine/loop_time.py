"""What the loop of a shard does by itself: ACTIVATE of legs that go live, TIME, and the turns of
calendars.

Hot in its tests, which cost a word or two where nothing is due; part of engine/shard_loop.py. Both
are commands of the loop's own, stamped and journaled as any other, and come before the first client
command of their time or a later one. Among equals (RULES §13): orders that expire, sessions, the
turn of a calendar, crosses of batch modes, indicative prices.

A turn ends its batch, and while one is due that has to wait for a long work, so does every command:
what comes behind it may not be run in the phase before it. So a state whose time is that of a turn,
or later, has taken it: engine/phase_clock.py goes by that at a start.
"""

import numpy as np

from engine.activations import activation_first
from engine.book_state import ACTIVATIONS, NEXT_DEADLINE, SYMBOLS_USED, WORK_KIND, sessions, symbols
from engine.command_ring import command_ready, command_slot
from engine.deadline import deadline_find
from engine.jit import helper
from engine.loop_words import (
    CLOCK_OFFSET,
    J_PAUSE,
    PRODUCERS,
    RING_CAPACITY,
    SHARD_INDEX,
    TURN_AT,
    TURN_INDEX,
    TURN_NAME,
    TURN_PHASE,
    TURN_SYMBOLS,
    TURN_TAKEN,
    TURN_UNTIL,
    steady_ns,
    wall_ns,
)
from engine.matching import WORK_NONE
from engine.records import CommandKind, Phase
from engine.ring_words import position_add

FLOOD_NS = 1_000_000_000


@helper
def slot_ahead(p, producer, distance):
    """Slot of the command `distance` behind the next one of a ring, -1 when it is not there yet."""
    position = position_add(p.positions[producer], distance)
    ring = p.loop[SHARD_INDEX] * p.loop[PRODUCERS] + producer
    slot = command_slot(ring, position, p.loop[RING_CAPACITY])
    return slot if command_ready(p.command_words, slot, position) else np.int64(-1)


@helper
def own_command(p, kind, session, order_id, amount):
    """Write down a command of the loop's own."""
    c = p.own[0]
    c["kind"], c["session"], c["order_id"], c["amount"] = kind, session, order_id, amount
    c["order_type"], c["expire_ts"] = 0, 0
    c["symbol"] = np.uint64(0)


@helper
def wall_guess(p):
    """Wall time as the next batch will have it, without moving its clock."""
    if p.loop[CLOCK_OFFSET] == 0:
        p.loop[CLOCK_OFFSET] = wall_ns(p.loop) - steady_ns(p.loop)
    return steady_ns(p.loop) + p.loop[CLOCK_OFFSET]


@helper
def turn_due(p, wall):
    """Whether the turn that is planned should be taken."""
    return p.loop[TURN_AT] > 0 and p.loop[TURN_AT] <= wall


@helper
def turns_stale(s, p):
    """Whether the next turn has to be planned before anything else runs: one was taken, or another
    instrument listed.
    """
    if p.loop[TURN_AT] == 0 or s[WORK_KIND] != WORK_NONE:
        return False
    return p.loop[TURN_AT] == TURN_TAKEN or p.loop[TURN_SYMBOLS] != s[SYMBOLS_USED]


@helper
def turn_holds(s, p, wall):
    """Whether commands wait because a turn, or the plan of the next, waits for a long work."""
    if p.loop[TURN_AT] == 0 or s[WORK_KIND] == WORK_NONE:
        return False
    return p.loop[TURN_AT] == TURN_TAKEN or turn_due(p, wall)


@helper
def turn_take(s, p, wall):
    """Write down the SET_PHASE of the turn that is due; returns whether there is one. An operator's
    halt is not ended by a calendar.
    """
    if not turn_due(p, wall):
        return False
    p.loop[TURN_AT] = TURN_TAKEN
    phase = symbols(s)[p.loop[TURN_INDEX]]["phase"]
    if phase == Phase.HALTED or phase == Phase.CANCEL_ONLY:
        return False
    own_command(p, CommandKind.SET_PHASE, np.int64(0), np.int64(0), np.int64(0))
    c = p.own[0]
    c["symbol"] = np.uint64(p.loop[TURN_NAME])
    c["order_type"] = p.loop[TURN_PHASE]
    c["expire_ts"] = p.loop[TURN_UNTIL]
    return True


@helper
def own_waits(s, p):
    """Whether a leg goes live, or a TIME or a turn may be due now; cheap, and wrong only for one
    that is not.
    """
    if s[WORK_KIND] != WORK_NONE:
        return False
    if s[ACTIVATIONS] != 0:
        return True
    if p.loop[TURN_AT] != 0 and turn_due(p, wall_guess(p)):
        return True
    if s[NEXT_DEADLINE] == 0:
        return False
    return p.journal[J_PAUSE] != 0 or s[NEXT_DEADLINE] <= wall_guess(p)


@helper
def deadline_turn(s, p, wall):
    """Write down the TIME that is due at `wall`; returns whether one is.

    A session's deadline fires when its ring was read empty, so that a command under way still
    counts; under a flood it waits a second. An order expires at once.
    """
    if p.journal[J_PAUSE] != 0:
        own_command(p, CommandKind.TIME, np.int64(0), np.int64(0), p.journal[J_PAUSE])
        p.journal[J_PAUSE] = 0
        return True
    until = p.loop[TURN_AT] if turn_due(p, wall) else wall
    session, order_id, symbol = np.int64(0), np.int64(0), np.int64(0)
    if s[NEXT_DEADLINE] <= until:
        session, order_id, symbol = deadline_find(s, until)
    if session == 0 and order_id == 0 and symbol == 0:
        return False
    if symbol != 0 and turn_due(p, wall) and s[NEXT_DEADLINE] == until:
        return False  # behind the turn
    producer = np.int64(sessions(s)[session]["producer"])
    flood = session == 0 or wall - s[NEXT_DEADLINE] > FLOOD_NS
    if not flood and producer < p.loop[PRODUCERS] and slot_ahead(p, producer, 0) >= 0:
        return False
    own_command(p, CommandKind.TIME, session, order_id, np.int64(0))
    return True


@helper
def time_turn(s, p, wall):
    """Write down what is due at `wall`, a TIME or a turn; returns whether something is."""
    if s[WORK_KIND] != WORK_NONE:
        return False
    if s[NEXT_DEADLINE] != 0 and deadline_turn(s, p, wall):
        return True
    return turn_take(s, p, wall)


@helper
def own_turn(s, p, wall):
    """Write down what the loop does next by itself: ACTIVATE of a leg that is called, else what is
    due; returns whether there is anything.
    """
    if s[ACTIVATIONS] != 0 and s[WORK_KIND] == WORK_NONE:
        none = np.int64(0)
        own_command(p, CommandKind.ACTIVATE, none, activation_first(s), none)
        return True
    return time_turn(s, p, wall)
