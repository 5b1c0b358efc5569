"""Matching: CPU time per operation of the compiled step, against the bare ladder, in one process.

     COMMAND[n] ──step_batch──▶ EVENT ring          thing: all rules, ids, sessions, events written
     RECORD[n]  ──ladder_run──▶ trades, checksum    floor: bench/floors/ladder.py

One thread, its CPU time, pieces of about 2,000 commands; between pieces, outside the clock, the
FILLs written are folded into trades, volume and checksum, so that the very run that was timed is
checked. A wrong answer voids the figure. The floor runs the same operations. A regression here
means that the step does more work per order: look at the events written and the lines touched.

Growth compares the same work per operation on a small and on a large book (or on one symbol and a
thousand): both slow down when memory no longer fits the caches, and what counts is how much more
the exchange does than the ladder.
"""

import statistics
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from bench.floors.ladder import run_ladder
from bench.measure import (
    PAIRS,
    QUICK_PAIRS,
    Pairs,
    Row,
    interleave,
    ratio_at_most,
    thread_cpu_ns,
)
from bench.workload import Outcome, TradeTally, Workload, named, symbol_name, to_commands
from engine.admin import PRODUCER_SUPERVISOR
from engine.book_state import FATAL, OUT_POSITION
from engine.config import Instrument, ShardLimits
from engine.local import LocalExchange
from engine.step import step_batch, work_batch

PIECE_EVENTS = 4_096  # about 2,000 commands; the ring holds far more
QUICK_OPERATIONS = 200_000
# Ratio to the bare ladder of the fastest full engine of PERFORMANCE §3 on the same operations.
PEERS = {"W1": ("geseq/cpp-orderbook", 58 / 14), "W2": ("geseq/cpp-orderbook", 154 / 19)}
TARGET_RATIO = 4.0
TARGET_GROWTH = 1.5
TARGET_RULES = 1.3


def limits_for(workload: Workload) -> ShardLimits:
    """Arrays large enough for a workload's book."""
    orders = 1 << max(18, int(2 * workload.statistics["live_end"] + 1000).bit_length())
    symbols = max(64, workload.mix.symbols + 1)
    levels = 1 << max(15, (400 * workload.mix.symbols).bit_length())
    return ShardLimits(orders_max=orders, levels_max=levels, symbols_max=symbols, text_ids_max=64)


def new_exchange(workload: Workload, rules: str = "plain") -> LocalExchange:
    """Return an exchange that lists the workload's symbols, with account 1."""
    names = (symbol_name(i) for i in range(workload.mix.symbols))
    instruments = tuple(Instrument(name, rules=rules) for name in names)
    return LocalExchange(instruments, accounts=1, limits=limits_for(workload))


@lru_cache(maxsize=2)
def _commands(name: str) -> npt.NDArray[np.void]:
    # The commands of a named workload, complete: session slot 1 is account 1's own.
    workload = named(name)
    exchange = new_exchange(workload)
    ids = [exchange.symbol_id(symbol_name(i)) for i in range(workload.mix.symbols)]
    commands = to_commands(workload.records, np.array(ids, np.int32))
    commands["session"], commands["logon"], commands["producer"] = 1, 1, PRODUCER_SUPERVISOR
    return commands


def _apply(exchange: LocalExchange, commands: npt.NDArray[np.void], tally: TradeTally) -> int:
    # Run the commands; returns the thread's CPU time spent in the step alone.
    state = exchange.state
    total_ns = index = 0
    while index < commands.size:
        first = int(state.hdr[OUT_POSITION])
        cpu_ns, index = thread_cpu_ns(
            partial(step_batch, state.table, commands, index, PIECE_EVENTS)
        )
        total_ns += cpu_ns
        tally.add_ring(state.events, first, int(state.hdr[OUT_POSITION]))
        if state.hdr[FATAL]:
            raise RuntimeError(f"the step stopped: invariant {int(state.hdr[FATAL])}")
    first = int(state.hdr[OUT_POSITION])
    work_batch(state.table, PIECE_EVENTS)
    tally.add_ring(state.events, first, int(state.hdr[OUT_POSITION]))
    return total_ns


def run_engine(
    name: str, operations: int | None = None, rules: str = "plain"
) -> tuple[float, Outcome]:
    """Fill the book, then time the operations: thread-CPU ns per operation, and the outcome."""
    workload, commands = named(name), _commands(name)
    prefill = workload.prefill
    end = commands.size if operations is None else min(commands.size, prefill + operations)
    exchange, tally = new_exchange(workload, rules), TradeTally()
    _apply(exchange, commands[:prefill], tally)
    cpu_ns = _apply(exchange, commands[prefill:end], tally)
    return cpu_ns / (end - prefill), tally.outcome


def matching_pairs(name: str, pairs: int, operations: int | None) -> tuple[Pairs, str]:
    """Engine and ladder in turn on one workload; the text says why the figures are void, if so."""
    workload = named(name)
    run_ladder(workload, 1000)  # both compiled and loaded before the first pair
    run_engine(name, 1000)
    results = interleave(
        pairs, lambda: run_engine(name, operations), lambda: run_ladder(workload, operations)
    )
    expected = workload.outcome if operations is None else results[0][1][1]
    wrong = [r for pair in results for _, r in pair if r != expected]
    void = f"wrong answer: {wrong[0]}, expected {expected}" if wrong else ""
    return Pairs([e[0] for e, _ in results], [f[0] for _, f in results]), void


def bench_book(quick: bool = False) -> list[Row]:
    """Return the rows of `run.py bench book`."""
    pairs, operations = (QUICK_PAIRS, QUICK_OPERATIONS) if quick else (PAIRS, None)
    rows = []
    for name, (peer, peer_ratio) in PEERS.items():
        measured, void = matching_pairs(name, pairs, operations)
        row = measured.row(
            f"matching {name}",
            "ns/op",
            baseline=statistics.median(measured.floor) * peer_ratio,
            targets=(ratio_at_most(min(TARGET_RATIO, peer_ratio)),),
            void=void,
            note=f"floor: bare ladder; baseline: {peer}, {peer_ratio:.1f}× the ladder",
        )
        rows.append(row)
    measured, void = matching_pairs("growth", pairs, operations)
    rows.append(
        measured.row("matching growth", "ns/op", void=void, note="adds only, 10 % trade on entry")
    )
    rows += [_rules_row(name, pairs, operations) for name in PEERS]
    rows.append(_growth_row("growth of the book 10³ → 10⁶", "resting_1e3", "resting_1e6", quick))
    rows.append(_growth_row("growth 1 → 1,000 symbols", "symbols_1", "symbols_1000", quick))
    return rows


def _rules_row(name: str, pairs: int, operations: int | None) -> Row:
    # The same plain orders on instruments that would also take any other.
    run_engine(name, 1000, "full")
    results = interleave(
        pairs,
        lambda: run_engine(name, operations, "full"),
        lambda: run_engine(name, operations),
    )
    wrong = [full for (_, full), (_, plain) in results if full != plain]
    return Pairs([a[0] for a, _ in results], [b[0] for _, b in results]).row(
        f"matching {name}, instrument with the full rules",
        "ns/op",
        targets=(ratio_at_most(TARGET_RULES),),
        void=f"wrong answer: {wrong[0]}" if wrong else "",
        note="floor: the same orders on a plain instrument",
    )


def _growth_row(title: str, small: str, large: str, quick: bool) -> Row:
    # value: how much slower the engine gets; floor: how much slower the ladder gets.
    pairs, operations = (QUICK_PAIRS, QUICK_OPERATIONS) if quick else (PAIRS, None)
    (few, void_few), (many, void_many) = (
        matching_pairs(name, pairs, operations) for name in (small, large)
    )
    engine = [b / a for a, b in zip(few.thing, many.thing, strict=True)]
    ladder = [b / a for a, b in zip(few.floor, many.floor, strict=True)]
    figures = {
        "engine_small": few.thing,
        "engine_large": many.thing,
        "ladder_small": few.floor,
        "ladder_large": many.floor,
    }
    return Pairs(engine, ladder).row(
        title,
        "× slower",
        targets=(ratio_at_most(TARGET_GROWTH),),
        void=void_few or void_many,
        note=f"{small} → {large}; floor: the ladder's own growth",
        details={f"{k}_ns_per_op": round(statistics.median(v), 2) for k, v in figures.items()},
    )
