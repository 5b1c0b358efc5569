"""The supervisor's commands as records. Cold."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.config import Config, Instrument
from engine.records import COMMAND, AccountLimit, CommandKind, KillAction, pack_name
from engine.sharding import shard_of_symbol

PRODUCER_LOOP, PRODUCER_SUPERVISOR = 0, 1


def admin_record(kind: CommandKind, **fields: Any) -> np.ndarray:
    """One COMMAND of the supervisor, shape (1,)."""
    record = np.zeros(1, COMMAND)
    record["kind"], record["producer"] = kind, PRODUCER_SUPERVISOR
    for name, value in fields.items():
        record[name] = value
    return record


def open_account(account: int) -> np.ndarray:
    """OPEN_ACCOUNT."""
    return admin_record(CommandKind.OPEN_ACCOUNT, account=account)


def open_session(account: int, name: str, logon: int) -> np.ndarray:
    """SESSION_OPEN owned by the supervisor's own producer."""
    record = admin_record(CommandKind.SESSION_OPEN, account=account, logon=logon)
    record["text"][0, : len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
    return record


def list_instrument(instrument: Instrument) -> np.ndarray:
    """LIST_INSTRUMENT."""
    return admin_record(
        CommandKind.LIST_INSTRUMENT,
        symbol=pack_name(instrument.symbol),
        amount=instrument.tick_units,
        expire_ts=instrument.lot_units,
        px2=instrument.px_max,
        order_type=instrument.rule_set,
        stp=instrument.self_trade,
        peak=instrument.iceberg_parts,
        qty2=instrument.protection,
        px=instrument.reference_px,
    )


def list_rules(instrument: Instrument) -> list[np.ndarray]:
    """SET_RULE for each rule that the instrument states."""
    return [
        admin_record(
            CommandKind.SET_RULE, symbol=pack_name(instrument.symbol), order_type=rule, amount=value
        )
        for rule, value in instrument.rule_values
    ]


def kill_switch(account: int, action: KillAction, session: str = "") -> np.ndarray:
    """KILL_SWITCH of an account, or of one of its sessions."""
    record = admin_record(CommandKind.KILL_SWITCH, account=account, order_type=action)
    record["text"][0, : len(session)] = np.frombuffer(session.encode("ascii"), np.uint8)
    return record


def account_limit(account: int, symbol: str, limit: AccountLimit, value: int) -> np.ndarray:
    """SET_LIMITS: one limit of an account on an instrument; 0 takes it away."""
    return admin_record(
        CommandKind.SET_LIMITS,
        account=account,
        symbol=pack_name(symbol),
        order_type=limit,
        amount=value,
    )


def set_limits(
    account: int, symbol: str, lots: int, window_ns: int, *, start: bool = False
) -> np.ndarray:
    """SET_LIMITS: lots that may be filled on the account's quotes within the window, 0 for no
    protection; arms it again. `start`: what is so already stays as it is.
    """
    return admin_record(
        CommandKind.SET_LIMITS,
        account=account,
        symbol=pack_name(symbol),
        qty=lots,
        amount=window_ns if lots else 0,
        order_type=int(start),
    )


def list_protections(config: Config, symbols: set[str]) -> list[np.ndarray]:
    """SET_LIMITS for each protection that the configuration states for these instruments."""
    numbers = {account.name: account.account for account in config.accounts}
    return [
        set_limits(numbers[p.account], p.symbol, p.lots, p.window_ms * 10**6, start=True)
        for p in config.protections
        if p.symbol in symbols
    ]


def incarnation(number: int, *, orders_lost: bool) -> np.ndarray:
    """INCARNATION: the number resuming clients must know (0 keeps it); `orders_lost`: order ids
    that were given out may be unknown, none of them is given out again.
    """
    return admin_record(CommandKind.INCARNATION, amount=number, expire_ts=int(orders_lost))


def feed_state(letter: str, date: int, epoch: int) -> np.ndarray:
    """FEED_STATE: one ITCH system event; "O" begins a feed session with the image of the books."""
    return admin_record(
        CommandKind.FEED_STATE, order_type=ord(letter), amount=date, expire_ts=epoch
    )


def producer_reset(producer: int, grace_ns: int, end: int = 0, logon: int = 0) -> np.ndarray:
    """PRODUCER_RESET: sessions of a dead producer, opened by `logon` at the latest (0: all), close
    after the grace time. Taken when the shard has run the producer's ring up to `end`.
    """
    return admin_record(
        CommandKind.PRODUCER_RESET,
        client_order_id=producer,
        amount=grace_ns,
        order_id=end,
        logon=logon,
    )


@dataclass(frozen=True)
class Renewal:
    """What a start has to tell every shard about the last run."""

    incarnation: int  # of the clients' sequence numbers
    advance: bool  # acknowledgements may be lost: order ids jump ahead of any that was given


def today() -> int:
    """Return the date as ITCH and the feed session's name have it, yyyymmdd, UTC."""
    return int(f"{datetime.datetime.now(datetime.UTC):%Y%m%d}")


def start_commands(
    config: Config, shard: int, epoch: int, renewal: Renewal | None, gateways: Sequence[int] = ()
) -> np.ndarray:
    """Return what a shard is told at every start, before any client: a feed session, accounts, its
    instruments (those it knows already cost nothing). `gateways`: producers of the last run.
    """
    rows = []
    if renewal is not None:
        rows.append(incarnation(renewal.incarnation, orders_lost=renewal.advance))
    grace_ns = int(config.gateway.session_grace_s * 1e9)
    rows += [producer_reset(producer, grace_ns) for producer in gateways]
    rows.append(feed_state("O", today(), epoch))
    rows += [open_account(account.account) for account in config.accounts]
    mine = [i for i in config.instruments if shard_of_symbol(i.symbol, config.shards) == shard]
    rows += [list_instrument(instrument) for instrument in mine]
    rows += [row for instrument in mine for row in list_rules(instrument)]
    rows += list_protections(config, {instrument.symbol for instrument in mine})
    rows += [feed_state(letter, today(), epoch) for letter in "SQ"]
    return np.concatenate(rows)


def day_commands(epoch: int) -> np.ndarray:
    """Return the roll to a new day: the old feed session ends, the next one begins with an image of
    all books.
    """
    opening = [feed_state(letter, today(), epoch) for letter in "OSQ"]
    return np.concatenate([end_commands(epoch), *opening])


def end_commands(epoch: int) -> np.ndarray:
    """Return the end of a feed session."""
    return np.concatenate([feed_state(letter, today(), epoch) for letter in "MEC"])
