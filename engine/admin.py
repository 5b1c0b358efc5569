"""The supervisor's commands as records. Cold."""

from typing import Any

import numpy as np

from engine.config import Instrument
from engine.records import COMMAND, CommandKind, pack_name

PRODUCER_SUPERVISOR = 1


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
    )


def feed_state(letter: str, date: int, epoch: int) -> np.ndarray:
    """FEED_STATE: one ITCH system event."""
    return admin_record(
        CommandKind.FEED_STATE, order_type=ord(letter), amount=date, expire_ts=epoch
    )
