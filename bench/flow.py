"""Seeded order flow with a reference price-time book, compiled: the heart of bench/workload.py.

Cold, but compiled: a million operations in well under a second, so that nothing has to be kept on
disk. The flow must know the book it drives: a cancel names an order that really rests, a sweep
reaches exactly into level n of the far side, and a controller holds the number of resting orders
near its target. So the generator runs the plainest book that is right (prices as array indices,
one first-in-first-out list per price, the next level found by walking) and, on the way, writes
down the outcome any exchange must reach: trades, volume, and a checksum over every trade in
order.

All random numbers are drawn beforehand by NumPy in a fixed order (bench/workload.py); these
kernels are a deterministic function of them. Prices inside are offsets into a window of `width`
ticks.

Layout: side arrays are indexed [symbol][side]; level arrays [symbol][side][price].

Invariant: level['volume'] is the sum of `rem` over its list; best is the extreme price with volume,
-1 (bids) or width (asks) when there is none; live[symbol] lists exactly its resting orders.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.jit import helper, kernel, register_warmup, subroutine

# One operation, 16 bytes: the format of the workload files.
RECORD = np.dtype(
    [
        ("type", "u1"),  # NEW, CANCEL, IOC
        ("side", "u1"),  # 0 buy, 1 sell
        ("sym", "<u2"),
        ("qty", "<u4"),
        ("price", "<u4"),  # ticks
        ("id", "<u4"),  # dense, ascending, 1-based over new orders; a cancel names a resting one
    ]
)
NEW, CANCEL, IOC = 0, 1, 2

# All randomness of one operation. The first `prefill` rows use side, distance and qty only.
DRAW = np.dtype(
    [
        ("kind", "<f8"),  # below `sweep_share`: an IOC sweep
        ("choice", "<f8"),  # add or cancel
        ("pick", "<f8"),  # which live order is cancelled
        ("depth", "<f8"),  # pick ** 3: how much of the last level a sweep takes
        ("move", "<f8"),  # the mid price moves up or down, 1 % each
        ("sym", "<i4"),
        ("levels", "<i4"),  # a sweep reaches into this level, 1-based
        ("side", "<i4"),
        ("distance", "<i4"),
        ("qty", "<i4"),
        ("_pad", "<i4"),
    ]
)

ORDER = np.dtype(
    [
        ("rem", "<i4"),
        ("px", "<i4"),
        ("sym", "<i4"),
        ("side", "<i4"),
        ("next", "<i4"),
        ("prev", "<i4"),
        ("place", "<i4"),  # in live[sym]
        ("_pad", "<i4"),
    ]
)
LEVEL = np.dtype([("volume", "<i8"), ("head", "<i4"), ("tail", "<i4")])

# Words of Flow.totals.
RECORDS, LAST_ID, TRADES, VOLUME, AGGRESSIVE = range(5)
LIVE_SUM, SWEEPS, SWEEP_FILLS, SWEEP_LEVELS, OUTSIDE = range(5, 10)
TOTALS = 10

CHECKSUM_FACTOR = np.uint64(6364136223846793005)
_ADD_SHARE = 0.525 / 0.95  # adds among the operations that are no sweep, at the target size
_STEER = 0.2  # a book this share of the target too big or small shifts the add share by one
_LIVE_SAMPLE = 1000


class Flow(NamedTuple):
    """Books, orders and output of one generation."""

    records: npt.NDArray[np.void]
    orders: npt.NDArray[np.void]
    levels: npt.NDArray[np.void]
    best: npt.NDArray[np.int64]
    mid: npt.NDArray[np.int64]
    live: npt.NDArray[np.int32]
    live_count: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]
    checksum: npt.NDArray[np.uint64]
    width: int
    base: int  # price of offset 0
    live_room: int  # places per symbol in `live`


class Steer(NamedTuple):
    """What a mix prescribes."""

    prefill: int
    symbols: int
    target: int  # resting orders per symbol
    sweep_share: float
    cancels: bool  # False: the flow only adds
    deep_sweeps: bool  # sweeps take whole levels (bigger books trade more), else one order's size


@helper
def checksum_trade(state, maker, taker, qty, px):
    """Fold one trade into state[0]; the order of trades matters."""
    pair = np.uint64(maker) | (np.uint64(taker) << np.uint64(32))
    size = np.uint64(qty) | (np.uint64(px) << np.uint64(32))
    state[0] = (state[0] * CHECKSUM_FACTOR + pair) ^ size


@helper
def flow_live_add(flow, order_id, sym):
    """Append an order to its symbol's live list."""
    count = flow.live_count[sym]
    flow.orders[order_id]["place"] = count
    flow.live[sym * flow.live_room + count] = order_id
    flow.live_count[sym] = count + 1


@helper
def flow_live_remove(flow, order_id):
    """Take an order out of its live list; the last one fills the gap."""
    order = flow.orders[order_id]
    sym = np.int64(order["sym"])
    base = sym * flow.live_room
    flow.live_count[sym] -= 1
    last = np.int64(flow.live[base + flow.live_count[sym]])
    place = np.int64(order["place"])
    if last != order_id:
        flow.live[base + place] = last
        flow.orders[last]["place"] = place


@helper
def flow_best_move(flow, book, side):
    """Walk from an emptied best level to the next one with volume."""
    px = flow.best[book]
    base = book * flow.width
    if side == 0:
        while px >= 0 and flow.levels[base + px]["volume"] == 0:
            px -= 1
    else:
        while px < flow.width and flow.levels[base + px]["volume"] == 0:
            px += 1
    flow.best[book] = px


@helper
def flow_unlink(flow, order_id, level):
    """Take an order out of its level's list."""
    order = flow.orders[order_id]
    after, before = np.int64(order["next"]), np.int64(order["prev"])
    if before:
        flow.orders[before]["next"] = after
    else:
        level["head"] = after
    if after:
        flow.orders[after]["prev"] = before
    else:
        level["tail"] = before


@subroutine
def flow_match(flow, order_id, side, px, qty):
    """Trade against the far side up to px; return the quantity left. O(orders, levels touched)."""
    sym = np.int64(flow.orders[order_id]["sym"])
    far = 2 * sym + 1 - side
    before = flow.totals[TRADES]
    while qty > 0:
        best = flow.best[far]
        if best < 0 or best >= flow.width or (best > px if side == 0 else best < px):
            break
        level = flow.levels[far * flow.width + best]
        while qty > 0 and level["head"] != 0:
            maker = np.int64(level["head"])
            rest = np.int64(flow.orders[maker]["rem"])
            fill = min(rest, qty)
            qty -= fill
            flow.orders[maker]["rem"] = rest - fill
            level["volume"] -= fill
            flow.totals[TRADES] += 1
            flow.totals[VOLUME] += fill
            checksum_trade(flow.checksum, maker, order_id, fill, best + flow.base)
            if fill == rest:
                flow_unlink(flow, maker, level)
                flow_live_remove(flow, maker)
        if level["head"] == 0:
            flow_best_move(flow, far, 1 - side)
    if flow.totals[TRADES] > before:
        flow.totals[AGGRESSIVE] += 1
    return qty


@helper
def flow_record(flow, kind, order_id, qty):
    """Write one operation; side, symbol and price are the order's own."""
    order = flow.orders[order_id]
    record = flow.records[flow.totals[RECORDS]]
    record["type"] = kind
    record["side"] = order["side"]
    record["sym"] = order["sym"]
    record["qty"] = qty
    record["price"] = np.int64(order["px"]) + flow.base
    record["id"] = order_id
    flow.totals[RECORDS] += 1


@subroutine
def flow_order(flow, sym, px, qty, kind_side):
    """Enter an order (kind_side = 2 * kind + side): match it, rest what is left of a NEW one."""
    kind, side = kind_side >> 1, kind_side & 1
    order_id = flow.totals[LAST_ID] + 1
    flow.totals[LAST_ID] = order_id
    order = flow.orders[order_id]
    order["px"] = px
    order["sym"] = sym
    order["side"] = side
    flow_record(flow, kind, order_id, qty)
    left = flow_match(flow, order_id, side, px, qty)
    if left == 0 or kind == IOC:
        return
    book = 2 * sym + side
    level = flow.levels[book * flow.width + px]
    order["rem"] = left
    order["prev"] = level["tail"]
    order["next"] = 0
    if level["tail"] != 0:
        flow.orders[level["tail"]]["next"] = order_id
    else:
        level["head"] = order_id
    level["tail"] = order_id
    level["volume"] += left
    if (px > flow.best[book]) if side == 0 else (px < flow.best[book]):
        flow.best[book] = px
    flow_live_add(flow, order_id, sym)


@subroutine
def flow_cancel(flow, order_id):
    """Cancel a resting order."""
    order = flow.orders[order_id]
    side, px = np.int64(order["side"]), np.int64(order["px"])
    book = 2 * np.int64(order["sym"]) + side
    level = flow.levels[book * flow.width + px]
    level["volume"] -= order["rem"]
    order["rem"] = 0
    flow_unlink(flow, order_id, level)
    if level["head"] == 0 and flow.best[book] == px:
        flow_best_move(flow, book, side)
    flow_live_remove(flow, order_id)
    flow_record(flow, CANCEL, order_id, 0)


@subroutine
def flow_sweep(flow, draw, deep):
    """Send an IOC into the draw's level of the far side; False when the book is not that deep."""
    sym, side, reach = np.int64(draw["sym"]), np.int64(draw["side"]), np.int64(draw["levels"])
    far = 2 * sym + 1 - side
    px = flow.best[far]
    step = 1 if side == 0 else -1
    qty = 0
    found = 0
    while 0 <= px < flow.width:
        volume = flow.levels[far * flow.width + px]["volume"]
        if volume > 0:
            found += 1
            if found == reach:
                qty += 1 + np.int64(draw["depth"] * volume * 0.999999)
                if not deep:
                    qty = min(qty, np.int64(draw["qty"]))
                trades = flow.totals[TRADES]
                flow_order(flow, sym, px, qty, 2 * IOC + side)
                flow.totals[SWEEPS] += 1
                flow.totals[SWEEP_FILLS] += flow.totals[TRADES] - trades
                flow.totals[SWEEP_LEVELS] += reach
                return True
            qty += volume
        px += step
    return False


@helper
def flow_add(flow, sym, draw):
    """Place a limit order at its drawn distance from the mid; False when that leaves the window."""
    side = np.int64(draw["side"])
    distance = np.int64(draw["distance"])
    px = flow.mid[sym] - distance if side == 0 else flow.mid[sym] + distance
    if px < 1 or px >= flow.width - 1:
        flow.totals[OUTSIDE] += 1
        return False
    flow_order(flow, sym, px, np.int64(draw["qty"]), 2 * NEW + side)
    return True


@kernel
def flow_run(flow, draws, steer):
    """Generate every operation of a workload into flow.records. O(operations x levels walked)."""
    for k in range(steer.prefill):
        if not flow_add(flow, k % steer.symbols, draws[k]):
            return
    for k in range(steer.prefill, draws.size):
        draw = draws[k]
        sym = np.int64(draw["sym"])
        if draw["move"] < 0.01:
            flow.mid[sym] += 1
        elif draw["move"] < 0.02:
            flow.mid[sym] -= 1
        if draw["kind"] < steer.sweep_share and flow_sweep(flow, draw, steer.deep_sweeps):
            continue
        count = flow.live_count[sym]
        add = _ADD_SHARE + (steer.target - count) / (_STEER * steer.target)
        if draw["choice"] < add or count == 0 or not steer.cancels:
            if not flow_add(flow, sym, draw):
                return
        else:
            place = np.int64(draw["pick"] * count)
            flow_cancel(flow, np.int64(flow.live[sym * flow.live_room + place]))
        if (k - steer.prefill) % _LIVE_SAMPLE == 0:
            for other in range(steer.symbols):
                flow.totals[LIVE_SUM] += flow.live_count[other]


def new_flow(operations: int, symbols: int, width: int, base: int, live_room: int) -> Flow:
    """Empty books for `operations` operations around the middle of the window."""
    best = np.empty(2 * symbols, np.int64)
    best[0::2], best[1::2] = -1, width
    return Flow(
        records=np.zeros(operations, RECORD),
        orders=np.zeros(operations + 1, ORDER),
        levels=np.zeros(2 * symbols * width, LEVEL),
        best=best,
        mid=np.full(symbols, width // 2, np.int64),
        live=np.zeros(symbols * live_room, np.int32),
        live_count=np.zeros(symbols, np.int64),
        totals=np.zeros(TOTALS, np.int64),
        checksum=np.zeros(1, np.uint64),
        width=width,
        base=base,
        live_room=live_room,
    )


def _warm() -> None:
    flow = new_flow(4, 1, 64, 0, 8)
    flow_run(flow, np.zeros(0, DRAW), Steer(0, 1, 1, 0.05, True, True))


register_warmup("bench.flow", _warm)
