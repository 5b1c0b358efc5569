"""Records as lines for people and as JSON for machines, driven by the tables of engine/records.py.
Cold.

A new field of COMMAND or EVENT is shown without a change here: every field that is not zero is, by
its own name. What the tables below add is names for codes, and decimals for ticks and lots where
the instrument is known.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from cli.common import whole_time
from engine.records import (
    COMMAND,
    EVENT,
    UNSTATED,
    Algorithm,
    CommandFlag,
    CommandKind,
    EventFlag,
    EventKind,
    InstrumentRule,
    OrderState,
    OrderType,
    Phase,
    Reason,
    RejectCode,
    Role,
    RuleSet,
    SelfTrade,
    Side,
    TimeInForce,
    unpack_name,
)
from engine.time_machine import Terms

Instruments = Mapping[int, Terms]  # by symbol_id

COMMON: dict[str, type[IntEnum]] = {
    "side": Side,
    "order_type": OrderType,
    "tif": TimeInForce,
    "stp": SelfTrade,
}
CODES: dict[str, dict[str, type[IntEnum]]] = {
    "COMMAND": {"kind": CommandKind, "decision_code": RejectCode, **COMMON},
    "EVENT": {"kind": EventKind, "role": Role, "reason": Reason, "code": RejectCode, **COMMON},
}
FLAGS: dict[str, type[IntEnum]] = {"COMMAND": CommandFlag, "EVENT": EventFlag}
# Where a kind uses a field for something else.
SPECIAL: dict[tuple[str, int, str], type[IntEnum]] = {
    ("EVENT", EventKind.PHASE, "code"): Phase,
    ("EVENT", EventKind.PHASE, "amount"): Phase,
    ("EVENT", EventKind.PHASE, "order_type"): Algorithm,
    ("EVENT", EventKind.STATUS, "role"): OrderState,
    ("COMMAND", CommandKind.LIST_INSTRUMENT, "order_type"): RuleSet,
    ("COMMAND", CommandKind.SET_PHASE, "order_type"): Phase,
    ("COMMAND", CommandKind.SET_RULE, "order_type"): InstrumentRule,
}
LETTERS = {
    ("COMMAND", int(CommandKind.FEED_STATE), "order_type"),
    ("EVENT", int(EventKind.SESSION), "code"),
}
NANO_UNITS = {
    ("COMMAND", int(CommandKind.LIST_INSTRUMENT), "amount"),
    ("COMMAND", int(CommandKind.LIST_INSTRUMENT), "expire_ts"),
    ("EVENT", int(EventKind.LISTED), "amount"),
    ("EVENT", int(EventKind.LISTED), "amount2"),
}
PRICES = frozenset({"px", "px2"})
LOTS = frozenset("qty qty2 peak min_qty leaves cum shown shown_before".split())
PLACE = frozenset({"in_seq", "out_seq", "in_ts", "kind"})  # stand first in the line
KEEPER = frozenset({"crc", "epoch", "durable_lag", "layout_version", "receipt_ts"})  # --json only
# A side is worth its word where an order is spoken of: 0 is BUY.
SIDED = frozenset({"px", "qty", "leaves"})


def layout_name(record: np.void) -> str:
    """COMMAND or EVENT."""
    return "COMMAND" if "decision_code" in (record.dtype.names or ()) else "EVENT"


def code_name(code: type[IntEnum], value: int) -> str:
    """The lower-case name of a code, or its number when it has none."""
    return code(value).name.lower() if value in code._value2member_map_ else str(value)


def flag_names(flags: type[IntEnum], value: int) -> str:
    """Names of the bits that are set; what has no name is left as a number."""
    names = [flag.name.lower() for flag in flags if value & flag]
    rest = value & ~sum(int(flag) for flag in flags)
    return "|".join([*names, *([str(rest)] if rest else [])])


def text_of(field: np.ndarray) -> str:
    """The characters of a text field; what is not printable ASCII is escaped."""
    raw = field.tobytes().rstrip(b"\0")
    return "".join(chr(c) if 33 <= c <= 126 and c != 92 else f"\\x{c:02x}" for c in raw)


def name_of(packed: int) -> str:
    """A packed symbol; an unprintable one as its number."""
    try:
        name = unpack_name(packed)
    except (UnicodeDecodeError, OverflowError):
        return str(packed)
    return name if name.isprintable() and name else str(packed)


def terms_of_record(record: np.void, known: Instruments) -> Terms | None:
    """The instrument a record is about, when it is known."""
    found = known.get(int(record["symbol_id"]))
    if found is None and layout_name(record) == "COMMAND":
        name = name_of(int(record["symbol"]))
        found = next((terms for terms in known.values() if terms.symbol == name), None)
    return found


def field_text(record: np.void, name: str, known: Instruments) -> str:
    """One field for people."""
    layout, kind, value = layout_name(record), int(record["kind"]), record[name]
    if name == "text":
        return text_of(value)
    value = int(value)
    if name == "symbol":
        return name_of(value)
    if (layout, kind, name) in LETTERS:
        return chr(value) if 33 <= value <= 126 else str(value)
    if (layout, kind, name) in NANO_UNITS:
        return Terms("", 1, 1).price(value)
    if (layout, kind, name) in SPECIAL:
        return code_name(SPECIAL[layout, kind, name], value)
    if name == "flags":
        return flag_names(FLAGS[layout], value)
    codes = CODES[layout].get(name)
    if codes is not None:
        if name == "order_type" and value == 0:
            return "0"
        label = code_name(codes, value)
        return f"{label}({value})" if codes is RejectCode else label
    terms = terms_of_record(record, known)
    if terms is not None and name == "symbol_id":
        return f"{value}({terms.symbol})"
    if terms is not None and name in PRICES:
        return f"{value}({terms.price(value)})"
    if terms is not None and name in LOTS:
        return f"{value}({terms.quantity(value)})"
    return str(value)


def shown_fields(record: np.void) -> list[str]:
    """Which fields a line has beside those of PLACE."""
    names, names_of = [], record.dtype.names or ()
    for name in names_of:
        if name in PLACE or name in KEEPER or name.startswith(("reserved", "receipt")):
            continue
        value = record[name]
        is_side = name == "side" and any(int(record[n]) for n in SIDED if n in names_of)
        present = value.any() if isinstance(value, np.ndarray) else int(value) != 0
        unstated = name in ("side", "tif") and int(record[name]) == UNSTATED
        if (present or is_side) and not unstated:
            names.append(name)
    return names


def record_line(record: np.void, known: Instruments) -> str:
    """One COMMAND or EVENT for people."""
    layout = layout_name(record)
    words = [f"{int(record['out_seq'])}"] if layout == "EVENT" else []
    kind = code_name(CODES[layout]["kind"], int(record["kind"])).upper()
    caused = "command " if layout == "EVENT" else ""
    words += [f"{caused}{int(record['in_seq'])}", whole_time(int(record["in_ts"])), kind]
    words += [f"{name}={field_text(record, name, known)}" for name in shown_fields(record)]
    place = 4 if layout == "EVENT" else 3
    return "  ".join([*words[:place], " ".join(words[place:])]).rstrip()


def record_json(record: np.void) -> dict[str, Any]:
    """One COMMAND or EVENT for machines: every field that is not zero, numbers as stored."""
    layout = layout_name(record)
    values: dict[str, Any] = {
        "kind_name": code_name(CODES[layout]["kind"], int(record["kind"])).upper()
    }
    for name in record.dtype.names or ():
        value = record[name]
        if name == "text":
            if value.any():
                values[name] = text_of(value)
        elif name == "symbol":
            if int(value):
                values[name] = name_of(int(value))
        elif isinstance(value, np.ndarray):
            continue
        elif int(value):
            values[name] = int(value)
    return values


assert set(COMMAND.names or ()) | set(EVENT.names or ()) >= PRICES | LOTS | PLACE
