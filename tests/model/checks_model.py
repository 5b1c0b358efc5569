"""What can be refused from a command's fields alone, in the order of the codes (EVENTS §2).

Cold; used by tests only. A check that fails raises Refused with its code, so reading a function
from top to bottom gives the order of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.records import (
    COMMAND,
    UNSTATED,
    CommandFlag,
    CommandKind,
    OrderType,
    RejectCode,
    SelfTrade,
    TimeInForce,
)

Command = Mapping[str, Any]
BLANK_COMMAND: dict = {name: b"" if name == "text" else 0 for name in COMMAND.names or ()}

KINDS = {int(kind) for kind in CommandKind}
ORDER_TYPES = {int(kind) for kind in OrderType}
TIMES_IN_FORCE = {int(tif) for tif in TimeInForce}
SELF_TRADE_MODES = {int(mode) for mode in SelfTrade}
SIDES = {0, 1}
FIRST_ADMINISTRATIVE_KIND = 16
PAGE_ROWS_MAX = 500
TRADED_TYPES = {int(OrderType.LIMIT), int(OrderType.MARKET)}
TRADED_TIFS = {int(TimeInForce.GTC), int(TimeInForce.IOC), int(TimeInForce.FOK)}
LATER_OPTIONS = ("peak", "min_qty", "px2", "qty2", "amount", "expire_ts")
LATER_FLAGS = (
    CommandFlag.SLIDE
    | CommandFlag.HIDDEN
    | CommandFlag.REDUCE_ONLY
    | CommandFlag.TRIGGER_BEST
    | CommandFlag.DISTANCE_BPS
    | CommandFlag.PROTECTED
    | CommandFlag.LIST
)
TARGETED = {int(CommandKind.CANCEL), int(CommandKind.REPLACE), int(CommandKind.QUERY_ORDER)}


class Refused(Exception):
    """A command that is answered with one REJECTED and changes nothing."""

    def __init__(self, code: RejectCode) -> None:
        super().__init__(code.name)
        self.code = code


def refuse_if(condition: bool, code: RejectCode) -> None:
    if condition:
        raise Refused(code)


def target_text(c: Command) -> bytes:
    """Give the text id a command carries: of the new order, or of the order it means."""
    return bytes(c["text"]) if c["flags"] & CommandFlag.TEXT_ID else b""


def is_name(raw: bytes) -> bool:
    """One to eight printable ASCII characters, for symbols and sessions."""
    return 1 <= len(raw) <= 8 and all(33 <= byte <= 126 for byte in raw)


def check_fields(c: Command, own: Callable[[Command], None] | None) -> None:
    """102 to 105 of a client's command. `own`: 103 and 104 of this one, where they are long."""
    kind = c["kind"]
    refuse_if(_has_bad_field(c, kind), RejectCode.BAD_FIELD)
    if own is not None:
        own(c)
    else:
        refuse_if(_out_of_range(c, kind), RejectCode.OUT_OF_RANGE)
    bad_id = c["client_order_id"] < 0 or c["target_client_order_id"] < 0
    refuse_if(bad_id, RejectCode.BAD_CLIENT_ID)


def _has_bad_field(c: Command, kind: int) -> bool:
    if kind == CommandKind.NEW:
        return (
            c["side"] not in SIDES
            or c["order_type"] not in ORDER_TYPES
            or c["tif"] not in TIMES_IN_FORCE
            or c["stp"] not in SELF_TRADE_MODES
            or not (c["symbol_id"] or c["symbol"])
        )
    if kind == CommandKind.REPLACE:
        bad_side = c["side"] not in SIDES | {UNSTATED}
        if bad_side or c["tif"] not in TIMES_IN_FORCE | {UNSTATED}:
            return True
    if kind in TARGETED:
        return not (c["order_id"] or c["target_client_order_id"] or target_text(c))
    if kind == CommandKind.QUOTE:
        return not (c["symbol_id"] or c["symbol"])
    if kind == CommandKind.MASS_CANCEL:
        return bool(c["flags"] & CommandFlag.BY_SIDE) and c["side"] not in SIDES
    return kind not in KINDS


def _out_of_range(c: Command, kind: int) -> bool:
    if kind == CommandKind.REPLACE:
        return any(c[name] < 0 for name in ("px", "qty", *LATER_OPTIONS))
    return kind == CommandKind.QUERY_OPEN_ORDERS and not 0 <= c["qty"] <= PAGE_ROWS_MAX


def check_supported_new(c: Command) -> None:
    """304 of a new order: what rules version 1 does not trade yet."""
    refuse_if(c["order_type"] not in TRADED_TYPES, RejectCode.NOT_SUPPORTED_HERE)
    refuse_if(c["tif"] not in TRADED_TIFS, RejectCode.NOT_SUPPORTED_HERE)
    check_later_options(c)


def check_later_options(c: Command) -> None:
    """304 of new and replace: options that rules version 1 does not know yet."""
    options = c["flags"] & LATER_FLAGS or c["stp"] or any(c[name] for name in LATER_OPTIONS)
    refuse_if(bool(options), RejectCode.NOT_SUPPORTED_HERE)
