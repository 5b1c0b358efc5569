"""The full trading rules as one library (engine/jit_library.py): all that a step asks of them.

Hot for instruments with RuleSet.FULL. `what` is one of engine/full_numbers.py.
"""

import importlib

import numpy as np

from engine.book_state import TABLE_WORDS, orders
from engine.full_bands import reference_roll
from engine.full_links import leg_waits
from engine.full_lists import legs_activate, list_new
from engine.full_numbers import (
    FULL_ACTIVATE,
    FULL_CANCEL,
    FULL_EXPIRE,
    FULL_LIMITS,
    FULL_NEW,
    FULL_PHASE,
    FULL_QUOTE,
    FULL_REPLACE,
    FULL_RULE,
    FULL_SETTLE,
    FULL_TIMED,
    FULL_WITHOUT,
    FULL_WORK,
)
from engine.full_orders import full_cancel, full_new, order_expire
from engine.full_pegged import is_peg
from engine.full_pegs import peg_new, peg_replace
from engine.full_pending import is_stop, stop_waits
from engine.full_phases import phase_set
from engine.full_protect import limits_set
from engine.full_quotes import full_quote
from engine.full_replace import full_replace
from engine.full_settle import full_settle, full_work
from engine.full_stop_replace import stop_replace
from engine.full_stops import stop_new
from engine.full_switch import rule_change, timed_run
from engine.jit import helper, load_libraries, register_warmup
from engine.jit_library import library, record_at, words_at
from engine.records import COMMAND

state_at, command_at = words_at(TABLE_WORDS), record_at(COMMAND)


@helper
def full_command(s, c, what, a, b):
    """Run a command; returns the reject code."""
    code = np.int64(0)
    reference_roll(s, np.int64(orders(s)[a]["symbol"]) if what == FULL_REPLACE else a)
    if what == FULL_NEW:
        if c["decision_code"] != 0:
            code = list_new(s, c, a)
        elif is_stop(np.int64(c["order_type"])):
            code = stop_new(s, c, a, b)
        elif is_peg(np.int64(c["order_type"])):
            code = peg_new(s, c, a, b)
        else:
            code = full_new(s, c, a, b)
    elif what == FULL_REPLACE:
        if stop_waits(s, a) or leg_waits(s, a):
            code = stop_replace(s, c, a)
        elif is_peg(np.int64(orders(s)[a]["order_type"])):
            code = peg_replace(s, c, a)
        else:
            code = full_replace(s, c, a)
    elif what == FULL_RULE:
        code = rule_change(s, c, a)
    elif what == FULL_PHASE:
        code = phase_set(s, c, a)
    elif what == FULL_QUOTE:
        code = full_quote(s, c, a)
    elif what == FULL_LIMITS:
        code = limits_set(s, c, a)
    return code


@helper
def full_go(s, what, a, b):
    """Do what comes without a command of its own."""
    if what == FULL_CANCEL or what == FULL_EXPIRE:
        reference_roll(s, np.int64(orders(s)[a]["symbol"]))
    if what == FULL_WORK:
        full_work(s)
    elif what == FULL_CANCEL:
        full_cancel(s, a, b)
    elif what == FULL_EXPIRE:
        order_expire(s, a)
    elif what == FULL_SETTLE:
        full_settle(s)
    elif what == FULL_TIMED:
        reference_roll(s, a)
        timed_run(s, a)
    elif what == FULL_ACTIVATE:
        legs_activate(s)
    return np.int64(0)


@library
def full_rules(table, command, what, a, b):
    """Addresses instead of arrays."""
    s = state_at(table)
    if what >= FULL_WITHOUT:
        return full_go(s, what, a, b)
    return full_command(s, command_at(command), what, a, b)


def _warm() -> None:
    importlib.import_module("engine.full_entry")  # which knows this library as one to load
    load_libraries()


register_warmup(__name__, _warm)
