"""Named order flows with their known outcome: the input of every benchmark, and golden tests of
the engine.

Cold. A workload is an array of 16-byte records (the file format of the peers' benchmarks,
bench/flow.py), the number of records that only fill the book beforehand, and the outcome of all
of them: trades, volume, and a checksum h over the trades in order, from h = 0:

    h = ((h * 6364136223846793005 + (maker | taker << 32)) ^ (qty | price << 32)) mod 2**64

W1 and W2 are shared with engines in other languages; GOLDEN holds the SHA-256 of their bytes and
the outcome nine of those agree on. Generating takes a fraction of a second, so nothing is kept on
disk.

Shares: a mix that steers holds its book near `resting` orders per symbol: about 52 % adds
(distance from the mid price geometric, at most 100 ticks), 43 % cancels of a random live order, 5
% IOC sweeps into level 1 to 3. `growth` only adds, one in ten crossing the mid price. Symbols are
drawn by Zipf weights rank**-zipf.

The same records become COMMANDs (for LocalExchange and the rings) or JSON lines (for the wire).
There, too, ids are the client's own ids, so `TradeTally` folds FILL events to the same checksum.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.flow import (
    AGGRESSIVE,
    CANCEL,
    DRAW,
    IOC,
    LAST_ID,
    LIVE_SUM,
    NEW,
    OUTSIDE,
    SWEEP_FILLS,
    SWEEP_LEVELS,
    SWEEPS,
    TRADES,
    VOLUME,
    Flow,
    Steer,
    checksum_trade,
    flow_run,
    new_flow,
)
from engine.jit import helper, kernel, register_warmup
from engine.records import (
    COMMAND,
    EVENT,
    EVENT_SLOT,
    CommandKind,
    EventKind,
    OrderType,
    Role,
    TimeInForce,
)

MID_TICKS = 10_000
WINDOW_TICKS = 2_048  # the mid price of these mixes wanders 6 standard deviations less than this
_LEVEL_SHARES = (0.75, 0.2, 0.05)


@dataclass(frozen=True)
class Mix:
    """A reproducible order flow."""

    name: str
    symbols: int = 1
    resting: int = 10_000  # per symbol
    operations: int = 1_000_000  # after the book was filled
    seed: int = 20240601
    zipf: float = 0.0
    sweep_share: float = 0.05
    cancels: bool = True
    still: bool = False  # mid price fixed, sweeps of one order's size: the same work at any size
    crossing_share: float = 0.0  # adds that cross the mid price

    @property
    def prefill(self) -> int:
        return self.resting * self.symbols


@dataclass(frozen=True)
class Outcome:
    """What every correct engine answers."""

    trades: int
    volume: int
    checksum: str


@dataclass(frozen=True)
class Workload:
    """Records of a mix, and what comes of them."""

    mix: Mix
    records: npt.NDArray[np.void]
    outcome: Outcome
    statistics: dict[str, int | float]

    @property
    def prefill(self) -> int:
        return self.mix.prefill

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.records.tobytes()).hexdigest()


W1 = Mix("W1", symbols=1, resting=10_000, seed=20240601, zipf=0.0)
W2 = Mix("W2", symbols=64, resting=1_000, seed=20240602, zipf=1.0)
GROWTH = Mix(
    "growth",
    resting=1_000,
    seed=20240603,
    sweep_share=0,
    cancels=False,
    crossing_share=0.1,
    still=True,
)
GOLDEN = {
    "W1": (
        "a3bbce4f7b5df1a6fdde85b1e8f70fad735c6ebb67ae4ad202ed031396d3a213",
        Outcome(212_685, 8_207_828, "3ad1612e29898dd0"),
    ),
    "W2": (
        "a38bcc70e43173e45d0a3bcbc55c77d34eb70f0c4f592423e62b7493aacda7fa",
        Outcome(115_321, 3_376_387, "3aae334b0f177251"),
    ),
}
MIXES = {
    mix.name: mix
    for mix in (
        W1,
        W2,
        GROWTH,
        # The book of one symbol grows, or the number of symbols at the same number of orders:
        # a wandering price or whole-level sweeps would make bigger books trade more.
        Mix("resting_1e3", resting=1_000, seed=20240611, still=True),
        Mix("resting_1e4", resting=10_000, seed=20240612, still=True),
        Mix("resting_1e5", resting=100_000, seed=20240613, still=True),
        Mix("resting_1e6", resting=1_000_000, seed=20240614, still=True),
        Mix("symbols_1", symbols=1, resting=100_000, seed=20240621, still=True),
        Mix("symbols_30", symbols=30, resting=3_333, seed=20240622, zipf=1.0, still=True),
        Mix("symbols_1000", symbols=1_000, resting=100, seed=20240623, zipf=1.0, still=True),
        Mix("tiny", symbols=3, resting=50, operations=2_000, seed=20240631, zipf=1.0),
    )
}


def _draw(mix: Mix) -> npt.NDArray[np.void]:
    # The order of these draws is part of the format of W1 and W2.
    rng = np.random.default_rng(mix.seed)
    total, later = mix.prefill + mix.operations, slice(mix.prefill, None)
    draws = np.zeros(total, DRAW)
    draws["distance"] = 1 + (rng.geometric(0.02, total) - 1) % 100
    draws["side"] = rng.integers(0, 2, total)
    draws["qty"] = rng.integers(1, 101, total)
    if mix.symbols > 1:
        weights = 1 / np.arange(1, mix.symbols + 1) ** mix.zipf
        draws["sym"][later] = rng.choice(mix.symbols, mix.operations, p=weights / weights.sum())
    for name in ("kind", "choice", "pick", "move"):
        draws[name][later] = rng.random(mix.operations)
    draws["levels"][later] = rng.choice([1, 2, 3], mix.operations, p=list(_LEVEL_SHARES))
    if mix.still:
        draws["move"] = 1.0
    # The C library's pow, one by one: NumPy's vector pow may differ in the last bit.
    draws["depth"][later] = [pick**3 for pick in draws["pick"][later].tolist()]
    if mix.crossing_share:
        crossing = rng.random(total) < mix.crossing_share
        crossing[: mix.prefill] = False
        draws["distance"][crossing] = -1
    return draws


def generate(mix: Mix) -> Workload:
    """Make the workload of a mix, the same bytes every time."""
    draws = _draw(mix)
    room = 2 * mix.resting + 64 if mix.cancels else draws.size
    flow = new_flow(draws.size, mix.symbols, WINDOW_TICKS, MID_TICKS - WINDOW_TICKS // 2, room)
    steer = Steer(
        mix.prefill, mix.symbols, mix.resting, float(mix.sweep_share), mix.cancels, not mix.still
    )
    with np.errstate(over="ignore"):  # the checksum wraps on purpose; without the JIT NumPy warns
        flow_run(flow, draws, steer)
    if flow.totals[OUTSIDE]:
        raise ValueError(f"mix {mix.name}: the mid price left its window of {WINDOW_TICKS} ticks")
    outcome = Outcome(
        int(flow.totals[TRADES]), int(flow.totals[VOLUME]), f"{int(flow.checksum[0]):016x}"
    )
    return Workload(mix, flow.records, outcome, _statistics(mix, flow))


@lru_cache(maxsize=4)
def named(name: str) -> Workload:
    """Return the workload of a named mix; W1 and W2 are compared with their golden bytes first."""
    workload = generate(MIXES[name])
    if name in GOLDEN and GOLDEN[name] != (workload.sha256, workload.outcome):
        raise ValueError(f"{name} is not the golden workload: NumPy's random stream changed?")
    return workload


def _statistics(mix: Mix, flow: Flow) -> dict[str, int | float]:
    kinds, prices = flow.records["type"][mix.prefill :], flow.records["price"]
    sweeps = int(flow.totals[SWEEPS])
    return {
        "adds": int((kinds == NEW).sum()),
        "cancels": int((kinds == CANCEL).sum()),
        "iocs": int((kinds == IOC).sum()),
        "aggressive_orders_that_traded": int(flow.totals[AGGRESSIVE]),
        "max_id": int(flow.totals[LAST_ID]),
        "live_end": int(flow.live_count.sum()),
        "pmin": int(prices.min()),
        "pmax": int(prices.max()),
        "mean_live": int(flow.totals[LIVE_SUM]) / (mix.operations / 1000),
        "fills_per_ioc": int(flow.totals[SWEEP_FILLS]) / max(1, sweeps),
        "ioc_levels": int(flow.totals[SWEEP_LEVELS]) / max(1, sweeps),
    }


# ----------------------------------------------------------------------------------- conversions
_CANCEL_LINE = b'{"type":"cancel","symbol":"%s","target_id":%d}\n'
_ORDER_LINE = b'{"type":"new","id":%d,"symbol":"%s","side":"%s","price":%d.%02d,"qty":%d%s}\n'


def symbol_name(index: int, prefix: str = "S") -> str:
    """Name of a workload's symbol number `index` on the exchange: S000, S001, ..."""
    return f"{prefix}{index:03d}"


def to_commands(
    records: npt.NDArray[np.void], symbol_ids: npt.NDArray[np.int32], *, account: int = 1
) -> npt.NDArray[np.void]:
    """Turn records into COMMANDs; symbol_ids[sym] is the exchange's id of that symbol.

    session, logon and producer stay zero: LocalExchange fills them, a ring client sets its own.
    """
    commands = np.zeros(records.size, COMMAND)
    cancel = records["type"] == CANCEL
    commands["kind"] = np.where(cancel, int(CommandKind.CANCEL), int(CommandKind.NEW))
    commands["account"] = account
    commands["symbol_id"] = symbol_ids[records["sym"]]
    commands["client_order_id"] = np.where(cancel, 0, records["id"])
    commands["target_client_order_id"] = np.where(cancel, records["id"], 0)
    commands["side"] = np.where(cancel, 0, records["side"])
    commands["px"] = np.where(cancel, 0, records["price"])
    commands["qty"] = np.where(cancel, 0, records["qty"])
    commands["order_type"] = np.where(cancel, 0, int(OrderType.LIMIT))
    commands["tif"] = np.where(records["type"] == IOC, int(TimeInForce.IOC), int(TimeInForce.GTC))
    return commands


def to_json_lines(records: npt.NDArray[np.void], prefix: str = "S") -> list[bytes]:
    """Turn records into order-entry lines; prices are ticks of 0.01."""
    names = [symbol_name(i, prefix).encode() for i in range(int(records["sym"].max()) + 1)]
    lines = []
    for kind, side, sym, qty, px, order_id in records.tolist():
        if kind == CANCEL:
            lines.append(_CANCEL_LINE % (names[sym], order_id))
        else:
            lines.append(
                _ORDER_LINE
                % (
                    order_id,
                    names[sym],
                    b"sell" if side else b"buy",
                    px // 100,
                    px % 100,
                    qty,
                    b',"tif":"ioc"' if kind == IOC else b"",
                )
            )
    return lines


# -------------------------------------------------------------------------------------- checking
class Fold(NamedTuple):
    """What the fold of a stream of FILLs carries on."""

    checksum: npt.NDArray[np.uint64]  # [checksum]
    counts: npt.NDArray[np.int64]  # [trades, volume, maker]


@helper
def fill_fold(fold, role, client_order_id, qty, px):
    """Fold one FILL; they come maker, then taker."""
    if role == Role.MAKER:
        fold.counts[2] = client_order_id
    else:
        fold.counts[0] += 1
        fold.counts[1] += qty
        checksum_trade(fold.checksum, fold.counts[2], client_order_id, qty, px)


@kernel
def trades_fold(events, fold):
    """Fold an array of EVENTs."""
    for k in range(events.size):
        event = events[k]
        if event["kind"] == EventKind.FILL:
            own = event["client_order_id"]
            fill_fold(fold, event["role"], own, event["qty"], event["px"])


@kernel
def trades_fold_ring(slots, first, end, fold):
    """Fold the events at positions first .. end - 1 of an event ring (EVENT_SLOTs)."""
    for position in range(first, end):
        event = slots[position & (slots.size - 1)]
        if event["kind"] == EventKind.FILL:
            own = event["client_order_id"]
            fill_fold(fold, event["role"], own, event["qty"], event["px"])


class TradeTally:
    """Trades, volume and checksum of a stream of EVENTs, taken in pieces of any size."""

    def __init__(self) -> None:
        self._fold = Fold(np.zeros(1, np.uint64), np.zeros(3, np.int64))

    def add(self, events: npt.NDArray[np.void]) -> None:
        """Fold the next events; a trade's two FILLs may stand in two pieces."""
        with np.errstate(over="ignore"):  # the checksum wraps on purpose; NumPy warns without JIT
            trades_fold(events, self._fold)

    def add_ring(self, slots: npt.NDArray[np.void], first: int, end: int) -> None:
        """Fold events that still lie in their ring."""
        with np.errstate(over="ignore"):
            trades_fold_ring(slots, first, end, self._fold)

    @property
    def outcome(self) -> Outcome:
        counts, checksum = self._fold.counts, int(self._fold.checksum[0])
        return Outcome(int(counts[0]), int(counts[1]), f"{checksum:016x}")


def _warm() -> None:
    tally = TradeTally()
    tally.add(np.zeros(0, EVENT))
    tally.add_ring(np.zeros(2, EVENT_SLOT), 0, 1)


register_warmup("bench.workload", _warm)
