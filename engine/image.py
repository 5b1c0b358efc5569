"""The beginning of a feed session: the public is told everything that is there (RULES §11).

Hot, but rare. A listener that joins a new session knows nothing, so behind SESSION "O" come LISTED
and PHASE of every instrument, then every resting order as BOOKED in priority order: symbols as they
were listed, buys before sells, best level first, time within the level. This is a work in slices
(engine/matching.py); it is about every symbol, so nothing else runs before it is done and the
books stand still. hdr[WORK_CURSOR] counts instruments told, then sides done; hdr[WORK_ORDER] is the
slot of the next order of the side, NONE before its first.
"""

import numpy as np

from engine.book_numba import level_displayed, level_next
from engine.book_state import (
    FATAL,
    FATAL_SECOND_WORK,
    NONE,
    SYMBOLS_USED,
    WORK_COUNT,
    WORK_CURSOR,
    WORK_KIND,
    WORK_ORDER,
    WORK_SYMBOL,
    dark,
    levels,
    orders,
    sides,
)
from engine.emit import emit_continued, emit_image, emit_listed
from engine.jit import helper, subroutine
from engine.matching import WORK_IMAGE, WORK_NONE, slice_full


@helper
def image_left(s):
    """Whether anything is left to tell; goes past sides that are empty."""
    symbols_used = np.int64(s[SYMBOLS_USED])
    while s[WORK_CURSOR] >= symbols_used and s[WORK_ORDER] == NONE:
        side_index = s[WORK_CURSOR] - symbols_used + 2  # the first symbol has index 1
        if side_index >= 2 * symbols_used + 2:
            return False
        best = level_displayed(s, np.int64(sides(s)[side_index]["best"]))
        if best >= 0:
            s[WORK_ORDER] = levels(s)[best]["head"]
        else:
            s[WORK_CURSOR] += 1
    return True


@helper
def image_order(s, slot):
    """Tell of one order and find the next of its side."""
    emit_image(s, slot)
    level = np.int64(orders(s)[slot]["level"])
    following = np.int64(orders(s)[slot]["next"])
    if following < 0 or following == dark(s)[level]["head"]:
        following = np.int64(NONE)
        level = level_displayed(s, level_next(s, level))
        if level >= 0:
            following = np.int64(levels(s)[level]["head"])
    s[WORK_ORDER] = following
    if following < 0:
        s[WORK_ORDER] = NONE
        s[WORK_CURSOR] += 1


@subroutine
def image_run(s):
    """Tell on until all is told or the slice ends."""
    while image_left(s) and not slice_full(s):
        if s[WORK_CURSOR] < s[SYMBOLS_USED]:
            s[WORK_CURSOR] += 1
            emit_listed(s, np.int64(s[WORK_CURSOR]))
        else:
            image_order(s, np.int64(s[WORK_ORDER]))
        s[WORK_COUNT] += 1
    if image_left(s):
        emit_continued(s, np.int64(s[WORK_COUNT]))
    else:
        s[WORK_KIND] = WORK_NONE
    s[WORK_COUNT] = 0


@helper
def image_open(s):
    """Make the image the open work and begin it."""
    if s[WORK_KIND] != WORK_NONE:
        s[FATAL] = FATAL_SECOND_WORK
    s[WORK_KIND] = WORK_IMAGE
    s[WORK_SYMBOL] = 0
    s[WORK_CURSOR] = 0
    s[WORK_ORDER] = NONE
    s[WORK_COUNT] = 0
    image_run(s)
