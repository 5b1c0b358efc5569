"""One line of JSON as keys and values: what the slow path reads, with everything wrong noted.

Cold. orjson judges whether the line is JSON at all; the standard parser then gives the pairs (so
that a key given twice is seen) and the text of the numbers (so that they stay exact). Only flat
objects of at most line_bytes_max reach the second parser: no depth, no size to fear. Keys and
listed values are matched in any letter case, ASCII only: no other letter becomes one of ours by
lowering it.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from engine.config import Config
from engine.records import (
    CLIENT_TEXT_BYTES,
    RejectCode,
)  # fmt: skip
from gateway.codec_tables import (
    CANCEL,
    CANONICAL,
    MASS_CANCEL,
    QUOTE,
)  # fmt: skip
from gateway.directory import Directory
from gateway.errors import Refusal
from gateway.state import C_QTY, C_QTY2

INT64_MAX = 2**63 - 1
LEG_KEYS = ("leg1_", "leg2_", "leg3_")  # before the keys of one leg of a list


class NumberText(str):
    """A JSON number as it was written."""

    __slots__ = ()


@dataclass
class Request:
    """One line, understood as far as it can be."""

    type: int = 0
    keys: dict[str, Any] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    words: dict[int, int] = field(default_factory=dict)  # C_* words of the command
    text: bytes = b""  # text client id (its own, or of the order meant)
    shards: list[int] = field(default_factory=list)  # where the command goes
    client_id: int | str | None = None  # what a reject repeats as `id`
    legs: list["Request"] = field(default_factory=list)  # of a list, in their order

    def refuse(self, code: RejectCode, text: str) -> None:
        """Note what is wrong."""
        self.refusals.append(Refusal(code, text))

    def raise_lowest(self) -> None:
        """Raise the refusal with the lowest code, if there is any."""
        if self.refusals:
            raise min(self.refusals, key=lambda refusal: refusal.code)

    @property
    def is_cancel(self) -> bool:
        """Whether the request takes from the bucket of cancels."""
        empty = self.type == QUOTE and not (self.words.get(C_QTY) or self.words.get(C_QTY2))
        return self.type in (CANCEL, MASS_CANCEL) or empty


@dataclass(frozen=True)
class Context:
    """What a line is understood against; `text_ids`: the session's kind of client ids."""

    config: Config
    directory: Directory
    shards: int
    text_ids: bool = False


def shown(value: Any) -> str:
    text = str(value)
    text = text if len(text) <= 40 else text[:40] + "..."
    return "".join(c if c.isprintable() else "?" for c in text)


def _bad_constant(text: str) -> Any:
    raise ValueError(text)


def pairs_of(line: bytes) -> list[tuple[str, Any]]:
    """Pairs of a flat object, numbers as NumberText; Refusal 101 for anything else."""
    try:
        value = orjson.loads(line)
        if not isinstance(value, dict):
            raise Refusal(RejectCode.MALFORMED, "a line must hold one JSON object")
        if any(isinstance(v, dict | list) for v in value.values()):
            raise Refusal(RejectCode.MALFORMED, "nested values are not allowed: one flat object")
        text = line.decode("utf-8")
        pairs = json.loads(
            text,
            object_pairs_hook=list,
            parse_int=NumberText,
            parse_float=NumberText,
            parse_constant=_bad_constant,
        )
    except (ValueError, RecursionError) as error:
        raise Refusal(RejectCode.MALFORMED, f"not JSON: {shown(error)}") from error
    if any(isinstance(v, dict | list) for _, v in pairs):
        # A key given twice hid the nested value from the first look.
        raise Refusal(RejectCode.MALFORMED, "nested values are not allowed: one flat object")
    return pairs  # type: ignore[no-any-return]


def _canonical(spelling: str) -> str | None:
    # The key behind a spelling; of a leg's with its prefix.
    word = spelling.lower() if spelling.isascii() else ""
    if word.startswith(LEG_KEYS):
        known = CANONICAL.get(word[5:])
        return None if known is None else word[:5] + known
    return CANONICAL.get(word)


def keys_of(pairs: list[tuple[str, Any]], request: Request) -> None:
    """Canonical keys into the request. A key given twice, under any name, is MALFORMED; null means
    not given.
    """
    seen = set()
    for spelling, value in pairs:
        key = _canonical(spelling)
        if key is None:
            request.refuse(RejectCode.BAD_FIELD, f"unknown key {shown(spelling)!r}")
            key = spelling
        if key in seen:
            raise Refusal(RejectCode.MALFORMED, f"key {shown(key)!r} is given twice")
        seen.add(key)
        if value is not None:
            request.keys[key] = value


# ------------------------------------------------------------------------------- one field
def integer_of(request: Request, key: str, low: int, high: int, code: RejectCode) -> int | None:
    # The whole number under `key`; None when absent or wrong (then noted).
    value = request.keys.get(key)
    if value is None:
        return None
    if not isinstance(value, NumberText) or not value.lstrip("-").isdigit():
        request.refuse(RejectCode.BAD_FIELD, f"{key} must be a whole number")
        return None
    number = int(value) if len(value) <= 20 else (-1 if value[0] == "-" else INT64_MAX + 1)
    if not low <= number <= high:
        request.refuse(code, f"{key} must be {low} to {high}")
        return None
    return number


def listed_of(request: Request, key: str, values: dict[str, int]) -> int | None:
    # The number of a listed value under `key`, in any letter case.
    value = request.keys.get(key)
    if value is None:
        return None
    number = None
    if isinstance(value, str) and not isinstance(value, NumberText) and value.isascii():
        number = values.get(value.lower())
    if number is None:
        request.refuse(RejectCode.BAD_FIELD, f"{key} must be one of {', '.join(values)}")
    return number


def truth_of(request: Request, key: str) -> bool:
    value = request.keys.get(key, False)
    if not isinstance(value, bool):
        request.refuse(RejectCode.BAD_FIELD, f"{key} must be true or false")
        return False
    return value


def text_of(request: Request, key: str) -> str | None:
    # A JSON string under `key`.
    value = request.keys.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or isinstance(value, NumberText):
        request.refuse(RejectCode.BAD_FIELD, f"{key} must be text in quotes")
        return None
    return value


def client_id_of(request: Request, context: Context, key: str) -> tuple[int, bytes]:
    # (integer, text) client id under `key`; one of them empty.
    value = request.keys.get(key)
    if value is None:
        return 0, b""
    if isinstance(value, bool) or (
        isinstance(value, NumberText) and not value.lstrip("-").isdigit()
    ):
        request.refuse(
            RejectCode.BAD_FIELD, f"{key} must be a whole number or text, not {shown(value)}"
        )
    elif isinstance(value, NumberText) == context.text_ids:
        kind = "text" if context.text_ids else "integers"
        request.refuse(
            RejectCode.BAD_CLIENT_ID, f"{key}: the client ids of this session are {kind}"
        )
    elif context.text_ids:
        if 1 <= len(value) <= CLIENT_TEXT_BYTES and all(" " <= c <= "~" for c in value):
            return 0, value.encode("ascii")
        request.refuse(
            RejectCode.BAD_CLIENT_ID,
            f"{key} must be 1 to {CLIENT_TEXT_BYTES} printable ASCII characters",
        )
    else:
        return integer_of(request, key, 1, INT64_MAX, RejectCode.BAD_CLIENT_ID) or 0, b""
    return 0, b""
