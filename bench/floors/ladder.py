"""Floor of matching: a bare price ladder without reports, ids, accounts or checks. Compiled, used
by bench/matching.py.

The plainest design that is right for dense ids and a narrow price window: one 16-byte order per
id, a head and a tail per price, a bitmap of occupied prices, the best price of each side. It
answers nothing but trades, volume and checksum. The same design in C runs at the same speed (14
to 18 ns per operation where this one was first measured), so the ratio to it says what reports,
arbitrary ids, sessions and the rules cost. It is no exchange: it trusts its input completely.

Level arrays are indexed [symbol][side][price - base]; 0 means "no order".
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.flow import CANCEL, IOC, RECORD, checksum_trade
from bench.measure import thread_cpu_ns
from bench.workload import Outcome, Workload
from engine.atomics import ALL_BITS, leading_zeros, trailing_zeros
from engine.jit import helper, kernel, register_warmup

ORDER = np.dtype([("qty", "<i4"), ("px", "<i4"), ("next", "<i4"), ("prev", "<i4")])
_ONE, _ZERO = np.uint64(1), np.uint64(0)


class Ladder(NamedTuple):
    """State of all books."""

    orders: npt.NDArray[np.void]
    head: npt.NDArray[np.int32]
    tail: npt.NDArray[np.int32]
    bitmap: npt.NDArray[np.uint64]
    best: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]  # trades, volume
    checksum: npt.NDArray[np.uint64]
    width: int  # prices per side, a multiple of 64
    words: int
    base: int


@helper
def ladder_next_ask(book, side, px):
    """Lowest occupied price >= px of an ask side, or width."""
    base, word = side * book.words, px >> 6
    bits = book.bitmap[base + word] & (ALL_BITS << np.uint64(px & 63))
    while bits == _ZERO:
        word += 1
        if word >= book.words:
            return book.width
        bits = book.bitmap[base + word]
    return (word << 6) + trailing_zeros(bits)


@helper
def ladder_next_bid(book, side, px):
    """Highest occupied price <= px of a bid side, or -1."""
    base, word = side * book.words, px >> 6
    bits = book.bitmap[base + word] & (ALL_BITS >> np.uint64(63 - (px & 63)))
    while bits == _ZERO:
        word -= 1
        if word < 0:
            return -1
        bits = book.bitmap[base + word]
    return (word << 6) + 63 - leading_zeros(bits)


@helper
def ladder_level_gone(book, side, px):
    """Clear an emptied price; return the next best price of that side at or behind it."""
    book.bitmap[side * book.words + (px >> 6)] &= ~(_ONE << np.uint64(px & 63))
    if side & 1:
        return ladder_next_ask(book, side, px)
    return ladder_next_bid(book, side, px)


@helper
def ladder_cancel(book, order_id, side):
    """Take a resting order out; an order that is gone is left alone."""
    order = book.orders[order_id]
    if order["qty"] == 0:
        return
    px, after, before = np.int64(order["px"]), order["next"], order["prev"]
    level = side * book.width + px
    if before:
        book.orders[before]["next"] = after
    else:
        book.head[level] = after
    if after:
        book.orders[after]["prev"] = before
    else:
        book.tail[level] = before
    order["qty"] = 0
    if book.head[level] == 0:
        best = book.best[side]
        if best == px:
            book.best[side] = ladder_level_gone(book, side, px)
        else:
            book.bitmap[side * book.words + (px >> 6)] &= ~(_ONE << np.uint64(px & 63))


@helper
def ladder_take(book, level, px, taker, qty):
    """Fill a taker from the head of one level; return the quantity left."""
    maker = np.int64(book.head[level])
    while True:
        order = book.orders[maker]
        rest = np.int64(order["qty"])
        fill = qty if rest > qty else rest
        book.totals[0] += 1
        book.totals[1] += fill
        checksum_trade(book.checksum, maker, taker, fill, px + book.base)
        order["qty"] = rest - fill
        qty -= fill
        if rest > fill:
            break
        maker = np.int64(order["next"])
        if maker == 0 or qty == 0:
            break
    book.head[level] = maker
    if maker == 0:
        book.tail[level] = 0
    else:
        book.orders[maker]["prev"] = 0
    return qty


@helper
def ladder_match(book, sym, side, px, taker, qty):
    """Trade against the far side up to px; return the quantity left."""
    far = 2 * sym + 1 - side
    best = book.best[far]
    while qty > 0 and (best <= px if side == 0 else best >= px):
        level = far * book.width + best
        qty = ladder_take(book, level, best, taker, qty)
        if book.head[level] != 0:
            break
        best = ladder_level_gone(book, far, best)
        book.best[far] = best
        if best < 0:
            break
    return qty


@helper
def ladder_rest(book, side, px, order_id, qty):
    """Append an order to its price."""
    level = side * book.width + px
    last = book.tail[level]
    order = book.orders[order_id]
    order["qty"] = qty
    order["px"] = px
    order["next"] = 0
    order["prev"] = last
    if last:
        book.orders[last]["next"] = order_id
    else:
        book.head[level] = order_id
        book.bitmap[side * book.words + (px >> 6)] |= _ONE << np.uint64(px & 63)
        if (px < book.best[side]) if side & 1 else (px > book.best[side]):
            book.best[side] = px
    book.tail[level] = order_id


@kernel
def ladder_run(book, records, begin, end):
    """Run records[begin:end]."""
    for k in range(begin, end):
        record = records[k]
        sym, side, order_id = (
            np.int64(record["sym"]),
            np.int64(record["side"]),
            np.int64(record["id"]),
        )
        if record["type"] == CANCEL:
            ladder_cancel(book, order_id, 2 * sym + side)
            continue
        px = np.int64(record["price"]) - book.base
        left = ladder_match(book, sym, side, px, order_id, np.int64(record["qty"]))
        if left > 0 and record["type"] != IOC:
            ladder_rest(book, 2 * sym + side, px, order_id, left)


def new_ladder(records: npt.NDArray[np.void], symbols: int) -> Ladder:
    """Empty books wide enough for these records."""
    base = int(records["price"].min()) // 64 * 64
    width = (int(records["price"].max()) - base + 64) // 64 * 64
    best = np.empty(2 * symbols, np.int64)
    best[0::2], best[1::2] = -1, width
    return Ladder(
        orders=np.zeros(int(records["id"].max()) + 1, ORDER),
        head=np.zeros(2 * symbols * width, np.int32),
        tail=np.zeros(2 * symbols * width, np.int32),
        bitmap=np.zeros(2 * symbols * width // 64, np.uint64),
        best=best,
        totals=np.zeros(2, np.int64),
        checksum=np.zeros(1, np.uint64),
        width=width,
        words=width // 64,
        base=base,
    )


def run_ladder(workload: Workload, operations: int | None = None) -> tuple[float, Outcome]:
    """Fill the book, then time the operations: thread-CPU ns per operation; and the outcome."""
    records, prefill = workload.records, workload.prefill
    end = records.size if operations is None else min(records.size, prefill + operations)
    book = new_ladder(records, workload.mix.symbols)
    with np.errstate(over="ignore"):
        ladder_run(book, records, 0, prefill)
        cpu_ns, _ = thread_cpu_ns(lambda: ladder_run(book, records, prefill, end))
    outcome = Outcome(int(book.totals[0]), int(book.totals[1]), f"{int(book.checksum[0]):016x}")
    return cpu_ns / (end - prefill), outcome


def _warm() -> None:
    records = np.zeros(2, RECORD)
    records["id"], records["qty"], records["price"] = 1, 1, 100
    ladder_run(new_ladder(records, 1), records, 0, 1)


register_warmup("bench.floors.ladder", _warm)
