"""The tables of docs/protocol.md, made from the code, and what a gateway answers to its examples.

`python -m tests.gateway.protocol_page` writes both into the page.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import orjson

from engine.config import (
    DEMO_ACCOUNTS,
    DEMO_INSTRUMENTS,
    DEMO_THROTTLES,
    Config,
    GatewayLimits,
    Instrument,
    Protection,
)
from engine.records import EVENT_FIELD_USE, EventKind, RejectCode
from gateway.codec_report import (
    ORDER_KINDS,
    PEAK_KINDS,
    REASON_KINDS,
    SHOWN_KINDS,
    TERMS_KINDS,
    UNSIZED_KINDS,
)
from gateway.codec_tables import KEYS
from gateway.errors import SENTENCES, reason_of
from gateway.queries import limits_table
from tests.gateway.support import Bench, make_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
STEP_1 = (
    EventKind.ACCEPTED,
    EventKind.REJECTED,
    EventKind.REPLACED,
    EventKind.CANCELED,
    EventKind.EXPIRED,
    EventKind.BOOKED,
    EventKind.FILL,
    EventKind.REFRESHED,
    EventKind.PREVENTED,
    EventKind.TRIGGERED,
    EventKind.PARKED,
    EventKind.ACTIVATED,
    EventKind.REPRICED,
    EventKind.MMP_FIRED,
    EventKind.STATUS,
    EventKind.SUMMARY,
    EventKind.ACCOUNT,
)
PARTICULARS = {
    EventKind.REJECTED: "code reason text",
    EventKind.FILL: "trade_id role ref",
    EventKind.REFRESHED: "ref old_ref",
    EventKind.PREVENTED: "stp other_order_id ref",
    EventKind.STATUS: "prevented state ref",
    EventKind.SUMMARY: "count next reason",
    EventKind.ACCOUNT: "logon last_id action limit value window_ns reason",
    EventKind.BOOKED: "ref old_ref",
    EventKind.CANCELED: "reason more ref",
    EventKind.EXPIRED: "reason code text ref",
    EventKind.TRIGGERED: "",
    EventKind.PARKED: "ref",
    EventKind.REPRICED: "ref old_ref",
    EventKind.ACTIVATED: "",
    EventKind.REPLACED: "kept more ref old_ref",
    EventKind.ACCEPTED: "more",
    EventKind.MMP_FIRED: "qty limit window_ns",
}
HAPPENED = {
    EventKind.ACCEPTED: "a new order was taken",
    EventKind.REJECTED: "a request was refused",
    EventKind.REPLACED: "a replace was done",
    EventKind.CANCELED: "an order left on request",
    EventKind.EXPIRED: "an order left by its own terms",
    EventKind.BOOKED: "an order, or its rest, entered the book",
    EventKind.FILL: "a trade; `role` says maker or taker",
    EventKind.REFRESHED: "an iceberg shows its next slice, `qty`, at the back of its level",
    EventKind.PREVENTED: "an order met one of its own account; `qty` is what both lost by that",
    EventKind.PARKED: "an order waits, unseen: for its auction, or a peg for a price to follow",
    EventKind.REPRICED: "a peg stands at a new price, or again at one",
    EventKind.ACTIVATED: "the auction that an order waited for begins: it takes part now",
    EventKind.TRIGGERED: "the price came that an order waited for; it runs now, with limit `price`",
    EventKind.STATUS: "where an order stands",
    EventKind.SUMMARY: "end of cancels, or of a page; `reason` says which",
    EventKind.MMP_FIRED: "more than `limit` was filled on the account's quotes within `window_ns`",
    EventKind.ACCOUNT: "a session of the account opened or closed, it was blocked or let go, a"
    " limit was set; its quotes are protected anew",
}
VOLATILE = ("ts", "receipt", "in_ts", "incarnation")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def keys() -> str:
    """Keys that have more than one name."""
    rows = [
        (f"`{key}`", ", ".join(f"`{s}`" for s in names[1:]))
        for key, names in KEYS.items()
        if len(names) > 1
    ]
    return _table(("key", "also"), rows)


def reports() -> str:
    """Which fields a report has."""
    rows = []
    for kind in STEP_1:
        fields = ["side"] if ORDER_KINDS >> kind & 1 else []
        fields += ["order_type", "tif"] if TERMS_KINDS >> kind & 1 else []
        fields += ["price"] if ORDER_KINDS >> kind & 1 and kind is not EventKind.PREVENTED else []
        own = ["trigger"] if kind is EventKind.TRIGGERED else []
        own += ["qty"] if not UNSIZED_KINDS >> kind & 1 else []
        sized = [*own, "leaves", "filled"]
        fields += sized if ORDER_KINDS >> kind & 1 else []
        fields += ["shown"] if SHOWN_KINDS >> kind & 1 else []
        fields += ["peak"] if PEAK_KINDS >> kind & 1 else []
        fields += PARTICULARS[kind].split()
        assert ("reason" in fields) == bool(REASON_KINDS >> kind & 1) or kind is EventKind.REJECTED
        rows.append(
            (f"`{kind.name.lower()}`", HAPPENED[kind], " ".join(f"`{field}`" for field in fields))
        )
    return _table(
        (
            "type",
            "when",
            "fields beside `type` `seq` `shard` `session` `symbol` `order_id` `id` `last` `ts`",
        ),
        rows,
    )


def events() -> str:
    """Every kind of event; EVENT_FIELD_USE of those that are sent."""
    rows = []
    for kind in EventKind:
        use = EVENT_FIELD_USE.get(kind.name, {})
        fields = "; ".join(f"`{name}` {meaning}" for name, meaning in use.items())
        rows.append((f"`{kind.name}`", fields or "not sent by this version of the rules"))
    return _table(("event", "fields"), rows)


def codes() -> str:
    """All reject codes."""
    rows = [(str(int(c)), f"`{reason_of(c)}`", SENTENCES[c]) for c in RejectCode if c]
    return _table(("code", "reason", "text of a shard's refusal"), rows)


def limits() -> str:
    """The answer to `limits`, by default."""
    return _table(
        ("limit", "default"),
        [
            (f"`{k}`", f"{v:g}" if isinstance(v, float) else str(v))
            for k, v in limits_table(GatewayLimits()).items()
        ],
    )


def _fields_of(kind: Any, prefix: str) -> list[tuple[str, ...]]:
    rows = []
    for field in dataclasses.fields(kind):
        default = field.default if field.default is not dataclasses.MISSING else None
        if default is None and field.default_factory is not dataclasses.MISSING:
            made = field.default_factory()
            rows += (
                _fields_of(type(made), f"{prefix}{field.name}.")
                if dataclasses.is_dataclass(made)
                else []
            )
        elif isinstance(default, tuple) and field.type == "tuple[str, ...]":
            rows.append((f"`{prefix}{field.name}`", "[]"))
        elif isinstance(default, tuple):
            made = type(default[0]) if default else Protection
            rows += _fields_of(made, f"{prefix}{field.name}[].")
        else:
            shown = "required" if default is None else orjson.dumps(default).decode()
            rows.append((f"`{prefix}{field.name}`", shown))
    return rows


def configuration() -> str:
    """Every key of the configuration."""
    return _table(("key", "default"), _fields_of(Config, ""))


TABLES = {
    "keys": keys,
    "reports": reports,
    "events": events,
    "codes": codes,
    "limits": limits,
    "configuration": configuration,
}


def with_tables(page: str) -> str:
    """The page with its tables made anew."""
    for name, make in TABLES.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        assert re.search(pattern, page, flags=re.S), name
        page = re.sub(
            pattern, lambda match, make=make: match[1] + make() + "\n" + match[2], page, flags=re.S
        )  # type: ignore[misc]
    return page


def conversation(page: str) -> list[tuple[list[str], list[str]]]:
    """(request lines, answer lines) of the examples, in order."""
    found = re.findall(r"```json request\n(.*?)```\n```json answer\n(.*?)```", page, flags=re.S)
    return [(request.splitlines(), answer.splitlines()) for request, answer in found]


def instruments(page: str) -> list[Instrument]:
    """The instruments that the page adds to the demo's."""
    return [
        Instrument(**row)
        for block in re.findall(r"```toml\n(.*?)```", page, flags=re.S)
        for row in tomllib.loads(block)["instruments"]
    ]


def held(page: str) -> list[list[dict[str, Any]]]:
    """What a gateway really answers to the examples."""
    config = make_config(
        instruments=(*DEMO_INSTRUMENTS, *instruments(page)),
        accounts=DEMO_ACCOUNTS,
        throttles=DEMO_THROTTLES,
        gateway=GatewayLimits(),
    )
    bench = Bench(config)
    client = bench.connect()
    answers = []
    for request, _ in conversation(page):
        answers.append(bench.say(client, *(line.encode() for line in request)))
        bench.exchange.top(0, "AAPL")
    bench.close()
    return answers


def settled(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what differs from run to run."""
    if line["type"] == "limits":  # the bucket is refilled while the examples run
        left = {"orders_left": 1500, "cancels_left": 3000}
        line = line | {"throttle": line["throttle"] | left}
    return {key: 0 if key in VOLATILE else value for key, value in line.items()}


def with_answers(page: str) -> str:
    """The page with the answers a gateway gives."""
    answers = iter(held(page))

    def replace(match: re.Match[str]) -> str:
        lines = "".join(orjson.dumps(settled(line)).decode() + "\n" for line in next(answers))
        return f"{match[1]}```json answer\n{lines}```"

    return re.sub(r"(```json request\n.*?```\n)```json answer\n.*?```", replace, page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(with_answers(with_tables(PAGE.read_text())))
