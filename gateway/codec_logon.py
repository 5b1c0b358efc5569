"""What a logon asks for: its keys, their defaults, and every no. Cold, slow path.

session, ids, cancel_on_disconnect, receipts, heartbeat     how the session is run
dead_man                  seconds without a sign of life after which the shards cancel its orders
resume, incarnation       "0:17,1:4": the last report seen of each shard; what is missing is sent
"""

import re
from typing import Any

from engine.config import GatewayLimits
from engine.records import CommandFlag, RejectCode, pack_name
from gateway.codec_fields import (
    INT64_MAX,
    NumberText,
    Request,
    integer_of,
    listed_of,
    text_of,
    truth_of,
)
from gateway.codec_slow import integer_key

DEFAULT_SESSION = "main"
DISCONNECT_FLAGS = (0, int(CommandFlag.CANCEL_DAY_ON_CLOSE), int(CommandFlag.CANCEL_ALL_ON_CLOSE))
DEAD_MAN_MAX_S = 3600
SHARDS_NAMED_MAX = 64  # more pairs than any instance has shards
NS = 1_000_000_000
_PAIR = re.compile(r"(0|[1-9][0-9]{0,3}):(0|[1-9][0-9]{0,18})")


def resume_of(request: Request) -> dict[int, int] | None:
    """Last report seen, by shard; None when nothing is to be resumed."""
    text = text_of(request, "resume")
    if text is None:
        return None
    found: dict[int, int] = {}
    for pair in text.split(",", SHARDS_NAMED_MAX):
        match = _PAIR.fullmatch(pair)
        if match is None or int(match[1]) in found or int(match[2]) > INT64_MAX:
            request.refuse(
                RejectCode.BAD_FIELD,
                'resume must be "shard:seq,shard:seq", the last report seen of each shard',
            )
            return None
        found[int(match[1])] = int(match[2])
    return found


def dead_man_of(request: Request, least_s: float) -> int:
    """Dead-man time in ns; 0: none."""
    value = request.keys.get("dead_man")
    if value is None:
        return 0
    if not isinstance(value, NumberText):
        request.refuse(RejectCode.BAD_FIELD, "dead_man must be a number of seconds")
        return 0
    seconds = float(value)  # a time, not a price: the nearest double will do
    if not least_s <= seconds <= DEAD_MAN_MAX_S:
        request.refuse(
            RejectCode.OUT_OF_RANGE, f"dead_man must be {least_s:g} to {DEAD_MAN_MAX_S} seconds"
        )
        return 0
    return round(seconds * NS)


def logon_options(request: Request, limits: GatewayLimits) -> dict[str, Any]:
    """What a logon asks for, defaults filled in; Refusal for what it must not ask."""
    account, token = text_of(request, "account"), text_of(request, "token")
    for key, value in (("account", account), ("token", token)):
        if key not in request.keys:
            request.refuse(RejectCode.BAD_FIELD, f"{key} is missing")
        elif value == "":
            request.refuse(RejectCode.BAD_FIELD, f"{key} must not be empty")
    name = text_of(request, "session") or DEFAULT_SESSION
    try:
        pack_name(name)
    except ValueError:
        request.refuse(
            RejectCode.BAD_FIELD, "session must be 1 to 8 printable ASCII characters without blanks"
        )
    options = {
        "account": account, "token": token, "session": name,
        "text_ids": bool(listed_of(request, "ids", {"integer": 0, "text": 1})),
        "close_flags": DISCONNECT_FLAGS[listed_of(request, "cancel_on_disconnect", {"none": 0,
        "day": 1, "all": 2}) or 0],
        "receipts": truth_of(request, "receipts"),
        "heartbeat_s": integer_key(request, "heartbeat", 1, 60, 0) or limits.heartbeat_s,
        "dead_man_ns": dead_man_of(request, limits.dead_man_min_s),
        "resume": resume_of(request),
        "incarnation": integer_of(request, "incarnation", 0, INT64_MAX, RejectCode.OUT_OF_RANGE),
    }  # fmt: skip
    request.raise_lowest()
    return options
