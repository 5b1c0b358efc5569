"""The loop's part in the published tops of books: which, and what stands in them.

Hot, once per batch and changed book. engine/book_top.py has the record and its sequence lock.
"""

import numpy as np

from engine.book_numba import level_displayed, level_next
from engine.book_state import DIRTY_COUNT, IN_TS, OUT_POSITION, dark, dirty, levels, sides, symbols
from engine.book_top import top_write_begin, top_write_end
from engine.crash_points import dies
from engine.jit import helper
from engine.loop_words import LAST_WORK_NS, SHARD_INDEX, SYMBOLS_MAX, TOPS_NS
from engine.records import TOP_LEVELS, TOP_WORDS


@helper
def top_side(s, side_index, top_words, at):
    """Write the best TOP_LEVELS levels of one side at word `at`; the rest is zero."""
    level = level_displayed(s, np.int64(sides(s)[side_index]["best"]))
    for row in range(TOP_LEVELS):
        px, qty, count = np.int64(0), np.int64(0), np.int64(0)
        if level >= 0:
            px, qty, count = (
                np.int64(levels(s)[level]["px"]),
                np.int64(levels(s)[level]["qty"]),
                np.int64(levels(s)[level]["count"]) - np.int64(dark(s)[level]["count"]),
            )
            level = level_displayed(s, level_next(s, level))
        top_words[at + row * 3] = px
        top_words[at + row * 3 + 1] = qty
        top_words[at + row * 3 + 2] = count


@helper
def top_write(s, p, symbol):
    """Rewrite the published top of one book under its sequence lock."""
    place = p.loop[SHARD_INDEX] * p.loop[SYMBOLS_MAX] + symbol
    row = symbols(s)[symbol]
    top_write_begin(p.top_words, place)
    if dies(p):
        return
    top = p.tops[place]
    top["symbol"] = row["name"]
    top["symbol_id"] = row["symbol_id"]
    top["out_seq"] = s[OUT_POSITION]
    top["in_ts"] = s[IN_TS]
    top["tick"] = row["tick"]
    top["lot"] = row["lot"]
    top["px_max"] = row["px_max"]
    top["phase"] = row["phase"]
    top["last_px"] = row["last_px"]
    top["last_qty"] = row["last_qty"]
    top["trade_count"] = row["trade_id"]
    top["volume"] = row["volume"]
    top_side(s, symbol * 2, p.top_words, place * TOP_WORDS + 16)
    top_side(s, symbol * 2 + 1, p.top_words, place * TOP_WORDS + 16 + TOP_LEVELS * 3)
    top_write_end(p.top_words, place)


@helper
def tops_flush(s, p):
    """Rewrite the tops of all changed books."""
    for i in range(s[DIRTY_COUNT]):
        symbol = np.int64(dirty(s)[i])
        symbols(s)[symbol]["dirty"] = 0
        top_write(s, p, symbol)
    s[DIRTY_COUNT] = 0
    p.loop[TOPS_NS] = p.loop[LAST_WORK_NS]
