"""Old commands run again in another shard state, journaled as they are run (engine/fork.py).

Hot in `fork_run`. Commands name orders and instruments by numbers that the exchange gave out. In
another state other numbers come out, so each is looked up: what the old run called X is what this
run calls the outcome of the same command; what this run never accepted is called by a number nobody
has. Slices of long works (CONTINUE) are kept where they fit, dropped where nothing is left to do,
and added where the next command has to wait for them. Legs go live (ACTIVATE) when this run calls
them, whatever the old one did.
"""

from typing import NamedTuple

import numpy as np

from engine.activations import activation_first
from engine.book_state import (
    ACTIVATIONS,
    EVENT_MASK,
    FATAL,
    IN_SEQ,
    IN_TS,
    OUT_POSITION,
    SHARD,
    SYMBOLS_USED,
    WORK_KIND,
    allocate_state,
    events,
    names,
    orders,
    owner,
    small_limits,
)
from engine.id_table import ids_settle
from engine.jit import helper, kernel, register_warmup, subroutine
from engine.loop_words import J_DURABLE, J_EPOCH, J_WORDS
from engine.matching import WORK_NONE
from engine.records import COMMAND, SLOT_BITS, SYMBOL_INDEX_BITS, CommandKind, EventKind
from engine.shard_loop import work_concerns
from engine.stage import record_stage
from engine.staging import StagingRings
from engine.step import step_continue, step_one
from engine.validate import name_find

NOBODYS_ORDER = ((1 << (63 - SLOT_BITS)) - 1) << SLOT_BITS  # a counter that is never reached

# Words of `ctl`.
CTL_EVENTS, CTL_ROOM, CTL_ORDER, CTL_COUNTER, CTL_FINISH = range(5)
CTL_WORDS = 8


class ForkPorts(NamedTuple):
    """What the kernel works with beside the state."""

    records: np.ndarray  # COMMAND, the old ones; translated in place
    words: np.ndarray
    staging_words: np.ndarray
    own: np.ndarray  # COMMAND[1], a CONTINUE
    own_words: np.ndarray
    order_seqs: np.ndarray  # in_seq of each command that made an order in the old run
    old_ids: np.ndarray  # its order_id there, ascending in their counters
    new_ids: np.ndarray  # and here; 0: not accepted
    old_names: np.ndarray  # of the old run's instruments, by index
    ctl: np.ndarray


@helper
def order_place(f, order_id):
    """Index in old_ids, -1 when the old run gave out no such id."""
    low, high = np.int64(0), np.int64(len(f.old_ids))
    while low < high:
        middle = (low + high) >> 1
        if f.old_ids[middle] >> SLOT_BITS < order_id >> SLOT_BITS:
            low = middle + 1
        else:
            high = middle
    if low < len(f.old_ids) and f.old_ids[low] == order_id:
        return low
    return np.int64(-1)


@helper
def order_now(s, f, order_id, in_seq):
    """What this run calls an order that command `in_seq` of the old one named."""
    if order_id <= 0 or order_id >> SLOT_BITS <= f.ctl[CTL_COUNTER]:
        return order_id  # given out before the fork
    place = order_place(f, order_id)
    if place >= 0 and f.order_seqs[place] < in_seq:
        found = f.new_ids[place]
        return found if found != 0 else np.int64(NOBODYS_ORDER)
    slot = order_id & ((1 << SLOT_BITS) - 1)
    if slot < len(orders(s)) and owner(s)[slot] != 0 and orders(s)[slot]["order_id"] == order_id:
        return np.int64(NOBODYS_ORDER)  # nobody's in the old run, somebody's here
    return order_id


@helper
def symbol_translate(s, f, c):
    """Have the command name its instrument by what it is called here."""
    base = np.int64(s[SHARD]) << SYMBOL_INDEX_BITS
    index = np.int64(c["symbol_id"]) - base
    if c["symbol_id"] == 0 or index < 1 or index >= len(f.old_names):
        return
    name = f.old_names[index]
    if index <= s[SYMBOLS_USED] and names(s)[index] == name:
        return
    found = name_find(s, name)
    c["symbol"] = name
    c["symbol_id"] = base + found if found > 0 else 0


@helper
def order_note(s, f, in_seq, first):
    """Remember which ids the orders of an old command got here."""
    at = f.ctl[CTL_ORDER]
    while at < len(f.order_seqs) and f.order_seqs[at] < in_seq:
        at += 1
    for position in range(first, np.int64(s[OUT_POSITION])):
        if at >= len(f.order_seqs) or f.order_seqs[at] != in_seq:
            break
        e = events(s)[position & np.int64(s[EVENT_MASK])]
        if e["kind"] == EventKind.ACCEPTED:  # several, where the command ends a list
            f.new_ids[at] = e["order_id"]
            at += 1
    f.ctl[CTL_ORDER] = at


@subroutine
def slice_stage(s, j, f):
    """One slice of the open work, a CONTINUE of this run's own."""
    step_continue(s)
    j[J_DURABLE] = 0
    record_stage(s, j, f.staging_words, f.own_words, np.int64(0))


@subroutine
def activation_stage(s, j, f):
    """ACTIVATE of this run's own."""
    f.own[0]["kind"] = CommandKind.ACTIVATE
    f.own[0]["order_id"] = activation_first(s)
    step_one(s, f.own[0], np.int64(s[IN_TS]))
    j[J_DURABLE] = 0
    record_stage(s, j, f.staging_words, f.own_words, np.int64(0))
    f.own[0]["kind"] = CommandKind.CONTINUE
    f.own[0]["order_id"] = 0


@helper
def loops_own(c, kind):
    """Whether the loop of the old run gave this command by itself."""
    return c["producer"] == 0 and c["kind"] == kind


@helper
def command_again(s, j, f, index):
    """Run an old command here and journal it."""
    c = f.records[index]
    in_seq, first = np.int64(c["in_seq"]), np.int64(s[OUT_POSITION])
    if c["kind"] >= CommandKind.NEW and c["kind"] <= CommandKind.QUERY_OPEN_ORDERS:
        c["order_id"] = order_now(s, f, np.int64(c["order_id"]), in_seq)
        symbol_translate(s, f, c)
    step_one(s, c, np.int64(c["in_ts"]))
    order_note(s, f, in_seq, first)
    j[J_EPOCH] = np.int64(c["epoch"])
    # It was on disk with the same lag; the whole fork is synced before it counts as made.
    j[J_DURABLE] = np.int64(s[IN_SEQ]) - np.int64(c["durable_lag"])
    record_stage(s, j, f.staging_words, f.words, index)


@kernel
def fork_run(s, j, f, start):
    """Run the records from `start` on, as long as events and staging have room; returns the next
    index. O(records).
    """
    index, first, room = np.int64(start), np.int64(s[OUT_POSITION]), f.ctl[CTL_ROOM]
    while room > 0 and s[OUT_POSITION] - first <= f.ctl[CTL_EVENTS] and s[FATAL] == 0:
        working, called = s[WORK_KIND] != WORK_NONE, s[ACTIVATIONS] != 0
        if index >= len(f.records) and not ((working or called) and f.ctl[CTL_FINISH] != 0):
            break
        if called and not working:
            activation_stage(s, j, f)
        elif index >= len(f.records):
            slice_stage(s, j, f)
        else:
            c = f.records[index]
            slice_old = loops_own(c, CommandKind.CONTINUE)
            # One that names no leg is none of the loop's: it is refused again.
            called_old = loops_own(c, CommandKind.ACTIVATE) and c["order_id"] != 0
            if (slice_old and not working) or called_old:
                index += 1
                continue
            if slice_old or not working or not work_concerns(s, c):
                command_again(s, j, f, index)
                index += 1
            else:
                slice_stage(s, j, f)
        room -= 1
    ids_settle(s)
    f.ctl[CTL_ROOM] = room
    return index


def silence(records: np.ndarray, account: int) -> None:
    """Have an account say nothing but that it is alive."""
    kind = records["kind"]
    orders_of = (kind >= CommandKind.NEW) & (kind <= CommandKind.QUERY_OPEN_ORDERS)
    silent = orders_of & (records["account"] == account)
    kept = np.zeros(int(silent.sum()), COMMAND)
    for name in (
        "producer_seq receipt_ts session logon account producer in_seq in_ts layout_version epoch"
        " durable_lag"
    ).split():
        kept[name] = records[name][silent]
    kept["kind"] = CommandKind.SESSION_KEEP
    records[silent] = kept


def fork_ports(
    records: np.ndarray,
    staging: StagingRings,
    seqs: np.ndarray,
    ids: np.ndarray,
    new_ids: np.ndarray,
    old_names: np.ndarray,
    ctl: np.ndarray,
) -> ForkPorts:
    """The kernel's ports over one chunk of records."""
    own = np.zeros(1, COMMAND)
    own["kind"] = CommandKind.CONTINUE
    return ForkPorts(
        records,
        records.view(np.int64),
        staging.slot_words,
        own,
        own.view(np.int64),
        seqs,
        ids,
        new_ids,
        old_names,
        ctl,
    )


def _warm_up() -> None:
    limits = small_limits()
    nothing = np.zeros(0, np.int64)
    rings = StagingRings.private(1, 2)
    ports = fork_ports(
        np.zeros(0, COMMAND), rings, nothing, nothing, nothing, np.zeros(1, np.uint64),
        np.zeros(CTL_WORDS, np.int64),
    )  # fmt: skip
    fork_run(allocate_state(limits).table, np.zeros(J_WORDS, np.int64), ports, 0)


register_warmup("engine.fork_step", _warm_up)
