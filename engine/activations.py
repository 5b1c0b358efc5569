"""Legs that go live next: a ring of order ids, filled when a first order was filled whole.

Rare. hdr[ACTIVATIONS] ids from hdr[ACTIVATE_FIRST] on, in the order in which their first orders
ended (engine/full_links.py). Once the command that filled them is complete, and before anything
else of this shard, each goes live by an ACTIVATE of its own: a record of the loop's (producer 0)
like TIME and CONTINUE. It names the leg; it takes the ring's first entry, and does nothing when
that is another one. So a leg goes live once: in a replay by the record of the journal, and what is
left in the ring behind the last record by the loop that goes on.

No list is accepted while the ring holds anything, and each entry comes from an order that lived
before: it never holds more than there are order slots.
"""

import numpy as np

from engine.book_state import ACTIVATE_FIRST, ACTIVATIONS, activations
from engine.jit import helper


@helper
def activation_push(s, order_id):
    """The leg and its sibling go live behind this command."""
    place = np.int64(s[ACTIVATE_FIRST] + s[ACTIVATIONS])
    activations(s)[place % len(activations(s))] = order_id
    s[ACTIVATIONS] += 1


@helper
def activation_first(s):
    """Number of the leg that goes live next; 0: none does."""
    if s[ACTIVATIONS] == 0:
        return np.int64(0)
    return np.int64(activations(s)[s[ACTIVATE_FIRST]])


@helper
def activation_take(s):
    """Its turn has come. An empty ring begins at its beginning."""
    s[ACTIVATIONS] -= 1
    s[ACTIVATE_FIRST] = (s[ACTIVATE_FIRST] + 1) % len(activations(s))
    if s[ACTIVATIONS] == 0:
        s[ACTIVATE_FIRST] = 0
