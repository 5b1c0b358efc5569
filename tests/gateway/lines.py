"""Lines for the tests of order entry: plain ones, odd ones, and broken ones, from a seeded
generator.
"""

from __future__ import annotations

import random

SYMBOLS = (
    "AAPL",
    "BTCUSDT",
    "TICK5",
    "BIG",
    "NOSUCH",
    "NEW0",
    "aapl",
    "TOOLONGNAME",
    "",
    'Q\\"\\\\',
    "Ä",
    "A B",
)
_QTY = ("qty", "shares", "quantity", "Qty", "QUANTITY")
_PRICE = ("price", "px", "Price", "PX")
_SYMBOL = ("symbol", "ticker", "market", "Symbol", "TICKER")
_SIDE = ("side", "action", "kind", "SIDE")
_ID = ("id", "client_order_id", "client_id", "Id")
_TARGET = ("target_id", "orig_id", "Target_ID")
_TIF = ("tif", "time_in_force")
ODD_VALUES = (
    "true", "false", "null", '""', "-1", "0", "1.5", "1e3", "-0", "01", "1.", ".5", "+1", "NaN",
    "Infinity", "[]", "{}", '"x"',
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "2147483647",
    "2147483648", "4294967295",
    "4294967296", "999999999999999999", "1000000000000000000", "1e400", "1E-400", '"1e2"', '"01"',
    '" 1"', '"1 "', '"-5"',
    '"\\u0041"', '"a\\nb"', '"1.000000000000000000000000"', "0.000000001", "0.0000000001",
    '"' + "9" * 40 + '"', '"buy"',
    '"limit"', '"gtc"', "tru", "truex", '"100.05', "100.0500", "1" * 400, '"' + "x" * 60 + '"',
    "12345678901234567.8",
)  # fmt: skip


def _number(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.75:
        text = f"{rng.randint(90, 110)}.{rng.randint(0, 99):02d}"
    elif kind < 0.9:
        text = str(rng.randint(1, 5000))
    else:
        text = rng.choice(
            (
                "0.05",
                "100.055",
                "100.0500",
                "0.00001",
                "1000",
                "2000",
                "100.1",
                "429496.72",
                "429496.73",
                "0.003",
            )
        )
    return f'"{text}"' if rng.random() < 0.3 else text


def _case(rng: random.Random, word: str) -> str:
    return word if rng.random() < 0.8 else "".join(rng.choice((c, c.upper())) for c in word)


def _options(rng: random.Random, replace: bool) -> list[tuple[str, str]]:
    """One or two options of the full rules."""
    known = [
        ("peak", str(rng.randint(1, 90))),
        ("min_qty", str(rng.randint(1, 90))),
        ("expire_time", rng.choice(("1", str(2**62), str(2**63), "0", "1.5"))),
    ]
    if not replace or rng.random() < 0.1:
        truth = rng.choice(("true", "false"))
        known += [(key, truth) for key in ("hidden", "slide", "protected")]
        stp = rng.choice(("none", "expire_taker", "Expire_Maker", "decrement", "default"))
        known.append(("stp", f'"{stp}"'))
        known.append(("budget", rng.choice(("12", '"100.55"', "0", '"1e-10"', "5e9"))))
    return rng.sample(known, rng.choice((1, 1, 2)))


def fields(rng: random.Random, number: int, text_ids: bool = False) -> list[tuple[str, str]]:
    """Key and raw value pairs of a mostly good request."""
    quote = "text-" if text_ids else ""

    def an_id(value: int) -> str:
        return f'"{quote}{value}"' if text_ids else str(value)

    kind = rng.choices(
        (
            *("new", "limit", "market", "market_to_limit", "cancel", "replace"),
            *("mass_cancel", "order", "quote", "budget"),
        ),
        (30, 6, 5, 1, 12, 8, 1, 1, 2, 1),
    )[0]
    pairs = [("type", f'"{_case(rng, kind)}"')] if kind != "new" or rng.random() < 0.5 else []
    symbol = SYMBOLS[min(int(rng.expovariate(1.0)), len(SYMBOLS) - 1)]
    pairs.append((rng.choice(_SYMBOL), f'"{symbol}"'))
    if kind in ("new", "limit", "market", "market_to_limit", "replace"):
        if kind != "replace" or rng.random() < 0.3:
            pairs.append(
                (
                    rng.choice(_SIDE),
                    f'"{_case(rng, rng.choice(("buy", "sell", "b", "s", "bid", "ask")))}"',
                )
            )
        pairs.append(
            (rng.choice(_QTY), str(rng.randint(1, 900)) if rng.random() < 0.8 else _number(rng))
        )
        if kind != "market" and (kind != "new" or rng.random() < 0.9):
            pairs.append((rng.choice(_PRICE), _number(rng)))
        if rng.random() < 0.4:
            pairs.append(
                (
                    rng.choice(_TIF),
                    f'"{_case(rng, rng.choice(("gtc", "gtc", "ioc", "fok", "day", "gtd")))}"',
                )
            )
        if kind != "replace" and rng.random() < 0.2:
            pairs.append(("post_only", rng.choice(("true", "false"))))
        if kind != "replace" and rng.random() < 0.2:
            pairs.append(("tag", str(rng.randint(0, 2**32))))
        if rng.random() < 0.12:
            pairs += _options(rng, kind == "replace")
        if rng.random() < 0.1:
            pairs.append(
                ("order_type", rng.choice(('"limit"', '"Market"', '"stop"', '"market_to_limit"')))
            )
    if kind == "budget":
        pairs += [("side", '"buy"'), ("Budget", _number(rng))]
        if rng.random() < 0.3:
            pairs += [("tif", '"fok"'), (rng.choice(_QTY), str(rng.randint(1, 900)))]
    if kind == "quote":
        sides = [(key, _number(rng)) for key in ("bid", "bid_qty", "ask", "ask_qty")]
        pairs += rng.sample(sides, rng.choice((0, 2, 3, 4, 4)))
    if kind in ("cancel", "replace", "order"):
        if rng.random() < 0.6:
            pairs.append((rng.choice(_TARGET), an_id(rng.randint(1, 500))))
        else:
            pairs.append(("order_id", str(rng.randint(1, 2**40))))
    if rng.random() < 0.9 and kind != "order":
        pairs.append(
            (rng.choice(_ID), an_id(number if rng.random() < 0.95 else rng.randint(0, number)))
        )
    return pairs


def join(rng: random.Random, pairs: list[tuple[str, str]]) -> bytes:
    """The object as text, with blanks here and there."""
    blank = (lambda: rng.choice(("", "", " ", "\t", "  "))) if rng.random() < 0.3 else (lambda: "")
    inner = ",".join(f'{blank()}"{key}"{blank()}:{blank()}{value}{blank()}' for key, value in pairs)
    return (blank() + "{" + inner + "}" + blank() + rng.choice(("", "", "", "\r"))).encode()


def _mutated(rng: random.Random, line: bytes) -> bytes:
    data = bytearray(line)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(data) + 1)
        kind = rng.random()
        if kind < 0.3 and place < len(data):
            data[place] = rng.randrange(256)
        elif kind < 0.55 and place < len(data):
            del data[place : place + rng.randint(1, 4)]
        elif kind < 0.8:
            data[place:place] = rng.choice(
                (b'"', b"{", b"}", b",", b":", b"\\", b"\0", b"\xff", b" ", b"0", b"-", b".", b"e")
            )
        else:
            del data[place:]
    return bytes(data).replace(b"\n", b" ")


def line(rng: random.Random, number: int, text_ids: bool = False) -> bytes:
    """One line without its LF."""
    pairs = fields(rng, number, text_ids)
    kind = rng.random()
    if kind < 0.12:
        key, _ = pairs[place := rng.randrange(len(pairs))]
        pairs[place] = (key, rng.choice(ODD_VALUES))
    elif kind < 0.16:
        pairs.append(rng.choice(pairs))
    elif kind < 0.20:
        pairs.append(
            (
                rng.choice(
                    ("foo", "shard", "account", "session", "price2", "", "\u212a", "token", "limit")
                ),
                '"1"',
            )
        )
    elif kind < 0.24:
        del pairs[rng.randrange(len(pairs))]
    elif kind < 0.27:
        rng.shuffle(pairs)
    made = join(rng, pairs)
    if kind > 0.88:
        made = _mutated(rng, made)
    elif kind > 0.86:
        made += b" " * rng.randint(1900, 2100)
    return made


def stream(seed: int, count: int, text_ids: bool = False) -> list[bytes]:
    """`count` lines with mostly rising ids."""
    rng = random.Random(seed)
    number, lines = 0, []
    for _ in range(count):
        number += rng.choice((1, 1, 1, 2))
        lines.append(line(rng, number, text_ids))
    return lines
