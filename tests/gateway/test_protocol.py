"""docs/protocol.md says what the code does: tables made from it, examples answered by it."""

from __future__ import annotations

import re

import orjson
import pytest

from engine.records import EventKind, RejectCode
from gateway.codec_fields import NumberText, pairs_of
from gateway.codec_slow import BELONGS
from gateway.codec_tables import (
    FAST_KEYS,
    FAST_VALUES,
    KEY_FIELD,
    KEY_HIGH,
    KEY_LOW,
    KEYS,
    TYPES,
    VALUE_RESULT,
    VALUE_WORD,
    pack_word,
)
from gateway.errors import SENTENCES, reason_of
from tests.gateway.protocol_page import PAGE, STEP_1, conversation, held, settled, with_tables

REMAKE = "run `python -m tests.gateway.protocol_page`"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text()


def test_tables_are_those_of_the_code(page: str) -> None:
    assert page == with_tables(page), REMAKE


def test_examples_are_answered_as_the_page_says(page: str) -> None:
    written = [[orjson.loads(line) for line in answer] for _, answer in conversation(page)]
    assert len(written) > 12
    assert [[settled(line) for line in lines] for lines in held(page)] == written, REMAKE


def test_every_request_and_every_report_is_on_the_page(page: str) -> None:
    for name in TYPES:
        assert re.search(rf"[`\"]{name}[`\"]", page), name
    for kind in STEP_1:
        assert f"`{kind.name.lower()}`" in page
    for key in KEYS:
        assert re.search(rf"[`\"]{key}[`\"]", page), key


def test_nc_example_of_the_page_is_two_good_lines(page: str) -> None:
    shell = re.search(r"```sh\n(.*?)```", page, flags=re.S)
    assert shell is not None
    lines = re.findall(r"'(\{.*?\})'", shell[1])
    assert [dict(pairs_of(line.encode())).get("type") for line in lines] == ["logon", None]


def test_every_code_has_a_sentence_and_a_name() -> None:
    assert set(SENTENCES) == set(RejectCode)
    assert reason_of(RejectCode.WOULD_TRADE) == "would_trade"
    assert reason_of(999) == "code_999"


def test_every_key_belongs_somewhere_and_has_one_meaning() -> None:
    assert set().union(*BELONGS.values()) == set(KEYS)
    spellings = [spelling for names in KEYS.values() for spelling in names]
    assert len(spellings) == len(set(spellings))
    assert all(spelling == spelling.lower() for spelling in spellings)
    assert set(BELONGS) == set(TYPES.values())


def test_hash_tables_hold_exactly_the_words_of_the_fast_path() -> None:
    keys = {pack_word(name): FAST_KEYS[key] for key in FAST_KEYS for name in KEYS[key]}
    table = {
        (int(low), int(high)): int(f)
        for low, high, f in zip(KEY_LOW, KEY_HIGH, KEY_FIELD, strict=True)
        if f
    }
    assert table == keys
    values = {
        (pack_word(word)[0] | field << 56): v
        for field, known in FAST_VALUES.items()
        for word, v in known.items()
    }
    found = {int(word): int(v) for word, v in zip(VALUE_WORD, VALUE_RESULT, strict=True) if v >= 0}
    assert found == values


def test_numbers_of_a_line_keep_their_text() -> None:
    pairs = pairs_of(b'{"a":1.10,"b":12345678901234567890123,"c":"1"}')
    assert pairs == [("a", "1.10"), ("b", "12345678901234567890123"), ("c", "1")]
    assert [isinstance(value, NumberText) for _, value in pairs] == [True, True, False]


def test_kinds_the_page_leaves_out_do_not_happen_in_this_version() -> None:
    private_later = {
        EventKind.PARKED,
        EventKind.BALANCE,
    }
    assert not private_later & set(STEP_1)
