"""What a shard holds of one account: whether it is blocked, and its limits.

Cold, read by others than the shard while it works: single words are right, two of them may be of
different moments. For whoever asks where he stands; nothing is decided by it.
"""

from dataclasses import dataclass

import numpy as np

from engine.book_rows import ACCOUNT_KILLED, SESSION_KILLED
from engine.book_state import ShardState
from engine.records import AccountLimit, unpack_name

LIMIT_NAMES = {
    int(what): what.name.lower() for what in AccountLimit if what >= AccountLimit.MAX_QTY
}


@dataclass(frozen=True)
class AccountView:
    """One account on one shard."""

    blocked: bool
    sessions: list[str]  # that are blocked
    limits: list[dict[str, str | int]]  # by instrument; lots, a notional in ticks times lots


def account_view(state: ShardState, account: int) -> AccountView:
    """Look at an account."""
    sessions = state.sessions
    own = (sessions["account"] == account) & (sessions["flags"] & SESSION_KILLED != 0)
    names = [unpack_name(int(name)) for name in sessions["name"][own]]
    places = np.flatnonzero(state.limit_rows["account"] == account).tolist()
    blocked = bool(state.accounts["open"][account] & ACCOUNT_KILLED)
    return AccountView(blocked, names, [_limits(state, place) for place in places])


def _limits(state: ShardState, place: int) -> dict[str, str | int]:
    row = state.limit_rows[place]
    found: dict[str, str | int] = {
        "symbol": unpack_name(int(state.names[int(row["symbol"])])),
        **{name: int(row["limit"][what]) for what, name in LIMIT_NAMES.items()},
    }
    buys, sells = row["open_qty"].tolist()
    counted = {"position": int(row["position"]), "open_orders": int(row["open_orders"])}
    return found | counted | {"open_buys": int(buys), "open_sells": int(sells)}
